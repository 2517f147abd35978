"""python -m projgan.pretrain: trains the lab networks and writes their weights and card."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from projgan.errors import ConfigError, DataError, UserError, unknown


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for a user's error."""
    from projgan.backbones.registry import BACKBONES, WEIGHTS
    from projgan.pretrain.card import EXTRACTOR, TEACHER, teacher_of
    from projgan.pretrain.loop import Budget

    known = [name for name, entry in BACKBONES.items() if entry.lab] + [EXTRACTOR]
    parser = argparse.ArgumentParser(prog="python -m projgan.pretrain", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(known)} (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=Budget.steps)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument(
        "--threads", type=int, default=1, help="of torch; small networks gain little"
    )
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    args = parser.parse_args(argv)
    try:
        # Whatever is wrong shows before anything is rendered or trained.
        for name in args.names:
            if name not in known:
                raise ConfigError(unknown("lab network", name, known))
        for option, least in (("steps", 1), ("threads", 1), ("seeds", 0)):
            given = getattr(args, option)
            if min(given if isinstance(given, list) else [given]) < least:
                raise ConfigError(f"--{option}: give {least} or more")
        if args.out == WEIGHTS and args.steps != Budget.steps:
            raise ConfigError(
                f"--steps {args.steps}: would replace the weights that ship, which have "
                f"{Budget.steps}; give --out a folder"
            )
        names = sorted(args.names or known, key=lambda n: n == "deit")  # after its teacher
        if "deit" in names and TEACHER not in names:
            for seed in args.seeds:
                teacher_of(args.out, seed)
        _check_folder("--out", args.out)
        _check_folder("--data-dir", args.data_dir)
        import torch

        from projgan.pretrain.make import make

        torch.set_num_threads(args.threads)
        budget = Budget(steps=args.steps)
        for seed in args.seeds:
            for name in names:
                if name != EXTRACTOR or seed == args.seeds[0]:
                    make(name, seed, budget, args.out, args.data_dir, args.bf16)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:  # a disk that is full
        place = f"{error.filename}: " if error.filename else ""
        print(f"{place}{error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def _check_folder(option: str, folder: Path) -> None:
    """Refuses a folder that cannot be made or written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{option} {folder}: cannot be written ({reason}); give another") from None


if __name__ == "__main__":
    raise SystemExit(main())
