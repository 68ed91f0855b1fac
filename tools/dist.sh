#!/usr/bin/env bash
# Build the sdist and the wheel, check both, and run the quickstart from the wheel in an
# environment that has nothing else: bash tools/dist.sh [PYTHON]
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
python="${1:-python3}"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

"$python" -m venv "$work/build"
"$work/build/bin/python" -m pip install --quiet build twine
rm -rf dist
"$work/build/bin/python" -m build --outdir dist .
"$work/build/bin/python" -m twine check --strict dist/*

"$python" -m venv "$work/clean"
wheel="$(ls dist/*.whl)"
"$work/clean/bin/python" -m pip install --quiet "$wheel[cli]"
cp examples/quickstart.py "$work"
cd "$work" # so that the wheel is imported, not the clone
MPLBACKEND=Agg "$work/clean/bin/python" quickstart.py --scenes 12 --output "$work/outputs"
"$work/clean/bin/python" -c "import mtsk; assert 'site-packages' in mtsk.__file__"
echo "built, checked and run: $wheel"
