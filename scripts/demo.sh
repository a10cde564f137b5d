#!/bin/sh
# From a clone to the comparison page: makes .venv, installs the package into it, runs scripts/demo.py.
# Arguments go to scripts/demo.py. PYTHON chooses the interpreter (default: python3).
set -eu
cd "$(dirname "$0")/.."

if [ ! -x .venv/bin/python ]; then
    echo "making the virtual environment .venv"
    "${PYTHON:-python3}" -m venv .venv
fi
echo "installing coronet-plugin and what it needs (PyTorch is large; the first time takes minutes)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[host,report]"
exec .venv/bin/python scripts/demo.py "$@"
