"""The benchmark's one command: `python run_bench.py grid=backbones`."""

from bench.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
