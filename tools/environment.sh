#!/usr/bin/env bash
# Make a virtual environment with the lowest or the newest versions that pyproject.toml allows.
#
#   tools/environment.sh lowest .venv-lowest
#   tools/environment.sh newest .venv-newest
#
# torch is the version in constraints.txt, since other versions can bring gigabytes of CUDA on Linux;
# TORCH="torch==2.6.0" tools/environment.sh lowest .venv-lowest takes another.
set -euo pipefail
kind=$1 venv=$2
torch=${TORCH:-$(grep '^torch==' constraints.txt)}
extras="devices,icechunk,netcdf,s3,stac,vector,demo-data"

test -x "$venv/bin/python" || "${PYTHON:-python3}" -m venv "$venv"
pip() { "$venv/bin/python" -m pip "$@" --quiet --disable-pip-version-check; }
pip install uv "$torch"
# torch is left out of the resolution: a marker that never holds removes a package.
echo "torch ; sys_platform == 'never'" > "$venv/without-torch.txt"
case $kind in
  lowest)
    "$venv/bin/uv" pip compile pyproject.toml --quiet --resolution lowest-direct \
      $(printf -- '--extra %s ' ${extras//,/ }) --override "$venv/without-torch.txt" \
      --python "$venv/bin/python" --output-file "$venv/lowest.txt"
    pip install --constraint "$venv/lowest.txt" --editable ".[$extras,test]" --editable packages/geomiam-bench
    ;;
  newest)
    # uv: pip tries so many combinations of the newest versions that it does not end in 25 minutes.
    "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --upgrade \
      --override "$venv/without-torch.txt" --editable ".[$extras,test]" --editable packages/geomiam-bench
    ;;
  *)
    echo "expected lowest or newest, found '$kind'" >&2
    exit 2
    ;;
esac
"$venv/bin/python" -m pip list --disable-pip-version-check 2> /dev/null \
  | grep -E '^(dask|geopandas|numpy|odc-geo|pandas|pydantic|rioxarray|scikit-learn|scipy|torch|typer|xarray|zarr) '
