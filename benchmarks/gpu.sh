#!/usr/bin/env bash
# Everything that is measured on a GPU, in one command, on any x86-64 Linux host with an NVIDIA
# driver: installs stackseg with its CUDA libraries, checks CUDA against the CPU, measures, and
# writes benchmarks/results/throughput-cuda-DATE.md with the GPU's name, and arena-cuda-DATE.md:
# what the plan's constants for the device's memory should be.
set -euo pipefail
cd "$(dirname "$0")/.."
make .venv/.base
.venv/bin/python -m pip install --quiet --editable '.[cuda]'
.venv/bin/python -m benchmarks.arena --device cuda:0 | tee "benchmarks/results/arena-cuda-$(date +%F).md"
.venv/bin/python -m benchmarks.throughput --device cuda --frames "${FRAMES:-400}" --save
