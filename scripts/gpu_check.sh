#!/bin/sh
# Prove and measure everything on one NVIDIA GPU, within 8 minutes and without a network: scripts/gpu_check.py,
# to which arguments go. PYTHON chooses the interpreter (default: that of .venv, if there is one, or python3).
set -eu
cd "$(dirname "$0")/.."

[ ! -x .venv/bin/python ] || PYTHON="${PYTHON:-.venv/bin/python}"
exec "${PYTHON:-python3}" scripts/gpu_check.py "$@"
