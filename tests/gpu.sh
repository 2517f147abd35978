#!/usr/bin/env bash
# All checks that need a GPU, within eight minutes on one data-centre card and without network; the most
# valuable come first, and each leaves its output in the folder before the next begins.
#   tests/gpu.sh [FOLDER]     (default: $OUT, or results/gpu)
# The exit status is that of the tests and of the resume; the timings only report.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-${OUT:-results/gpu}}
mkdir -p "$out"
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
failed=0

part() { # NAME SECONDS COMMAND…
    local name=$1 seconds=$2 start=$SECONDS
    shift 2
    echo "== $name"
    timeout "$seconds" "$@" 2>&1 | tee "$out/$name.txt"
    local status=${PIPESTATUS[0]}
    echo "== $name: exit status $status after $((SECONDS - start)) s" | tee -a "$out/summary.txt"
    return "$status"
}

: > "$out/summary.txt"
part card 20 python3 -c 'import torch; print(torch.__version__, torch.cuda.get_device_name())' || exit 1
part tests 90 python3 -m pytest -q -p no:cacheprovider -o addopts= -m gpu tests || failed=1
part resume 90 python3 run_bench.py do=prove-resume only=ResNet18 data.images=64 kills=3 steps=6 \
    runs_dir="$out/runs" data_dir="$out/data" || failed=1
part steps 260 python3 tests/benchmarks/gpu.py --seconds 200 --out "$out/steps.json"
part features 60 python3 -m pytest -q -p no:cacheprovider -o addopts= tests/benchmarks/test_measuring.py \
    -k feature --benchmark-json="$out/features.json"
rm -rf "$out/runs" "$out/data"
exit "$failed"
