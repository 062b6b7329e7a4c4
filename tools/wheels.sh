#!/usr/bin/env bash
# Build the wheels of both packages, install them in a new environment, and use them outside the repository.
#
#   tools/wheels.sh DIST
set -euo pipefail
mkdir -p "${1:?usage: tools/wheels.sh DIST}"
dist=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
rm -f "$dist"/geomiam-* "$dist"/geomiam_bench-*  # the globs below must match one version
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python="${PYTHON:-python3}"

"$python" -m venv "$folder/venv"
pip() { "$folder/venv/bin/python" -m pip "$@" --quiet --disable-pip-version-check; }
pip install build
"$folder/venv/bin/python" -m build --outdir "$dist" .
"$folder/venv/bin/python" -m build --outdir "$dist" packages/geomiam-bench

for archive in "$dist"/geomiam*.tar.gz; do
  if tar -tzf "$archive" | grep -E '^[^/]+/(packages|notebooks|results|out)/'; then
    echo "$archive has files that belong to the repository only" >&2
    exit 1
  fi
done

pip install --constraint constraints.txt torch
pip install --constraint constraints.txt "$dist"/geomiam-*.whl "$dist"/geomiam_bench-*.whl
cd "$folder"
venv/bin/geomiam --version
venv/bin/geomiam-bench --help > /dev/null
venv/bin/python - <<'PYTHON'
import geomiam as gm

cube = gm.demo.load_cube()
records = gm.demo.load_records().sample(300, random_state=0)
sites = gm.demo.sample_records(cube, records)
model = gm.fit(sites, network={"fusion": "sum"}, training={"steps": 20}, rng=0)
window = cube.isel(y=slice(0, 20), x=slice(0, 20))
maps = gm.predict(window, model, using=["topography", "climate"])
assert maps["suitability"].notnull().any()
print("the installed wheel trained a model and predicted", dict(maps.sizes))
PYTHON
