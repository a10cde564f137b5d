#!/bin/sh
# The tests in a fresh environment: makes .venv-test, installs the package, runs ruff, mypy and pytest.
# Arguments go to pytest. PYTHON chooses the interpreter (default: python3).
set -eu
cd "$(dirname "$0")/.."

if [ ! -x .venv-test/bin/python ]; then
    echo "making the virtual environment .venv-test"
    "${PYTHON:-python3}" -m venv .venv-test
fi
echo "installing coronet-plugin and what its tests need"
.venv-test/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
.venv-test/bin/python -m ruff check .
.venv-test/bin/python -m mypy
exec .venv-test/bin/python -m pytest -n auto --dist worksteal "$@"
