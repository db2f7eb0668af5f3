#!/usr/bin/env bash
# All that is measured on a GPU, in one command, on any x86-64 Linux host with an NVIDIA driver and
# nothing but Python 3.11 to 3.13: installs stackseg with its CUDA libraries; labels against fp32 on
# the CPU, the paper's second, the engine against the bare runtime, stages; writes one JSON with the
# card's name. Without a GPU it does the same on the CPU, and says so.
#
#     benchmarks/gpu.sh [FILE.json] [--short]
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
file=benchmarks/results/runs/gpu-$(date +%F).json
case "${1:-}" in *.json) file=$1; shift ;; esac
extras=train device=cpu
if nvidia-smi -L 2>/dev/null; then
    extras=train,cuda device=cuda:0
else
    echo "gpu.sh: no GPU answers here; this is the CPU path, and its figures are the CPU's" >&2
fi
if [ -z "${VENV:-}" ]; then  # VENV=DIR takes an environment that is there
    VENV=.venv
    "$python" -m venv "$VENV"
    "$VENV/bin/python" -m pip install --quiet --upgrade pip
    "$VENV/bin/python" -m pip install --quiet --editable ".[$extras]"
fi
if [ "$device" != cpu ]; then  # what the plan's constants of the device's memory should be
    "$VENV/bin/python" -m benchmarks.arena --device "$device"
fi
"$VENV/bin/python" -m benchmarks --device "$device" --json "$file" "$@"
