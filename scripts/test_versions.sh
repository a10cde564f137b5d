#!/bin/sh
# The tests on other versions: one virtual environment for each PYTHON=TORCH named, in .venv-versions.
#
#     scripts/test_versions.sh python3.9=2.1.0 python3.13=2.13.0 [-- PYTEST ARGUMENTS]
#
# constraints.txt is not used; NumPy stays below 2 for torch below 2.3. What other libraries deprecate is
# no error here, what this one does is. Prints one line for each pair.
set -u
cd "$(dirname "$0")/.."
pairs=""
while [ $# -gt 0 ]; do
    if [ "$1" = "--" ]; then shift; break; fi
    pairs="$pairs $1"; shift
done
[ -n "$pairs" ] || { echo "name at least one pair such as python3.9=2.1.0" >&2; exit 2; }
failed=0
warnings="-W default::DeprecationWarning -W default::FutureWarning"
warnings="$warnings -W error::DeprecationWarning:coronet_plugin -W error::FutureWarning:coronet_plugin"
for pair in $pairs; do
    python=${pair%%=*}; torch=${pair#*=}
    folder=.venv-versions/$(basename "$python")-$torch
    case $torch in 2.1.*|2.2.*) numpy="numpy<2" ;; *) numpy="numpy" ;; esac
    [ -x "$folder/bin/python" ] || "$python" -m venv "$folder" || { failed=1; continue; }
    if "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "torch==$torch" "$numpy" -e ".[test]" \
        && "$folder/bin/python" -m pytest -n auto --dist worksteal $warnings "$@"; then
        echo "$pair: passed"
    else
        echo "$pair: FAILED"; failed=1
    fi
done
exit $failed
