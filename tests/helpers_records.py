"""Files of downloads of GBIF and other Darwin Core archives, and a cube on which their records lie."""

from __future__ import annotations

import zipfile

import numpy as np
import odc.geo.xr  # noqa: F401  (registers .odc)
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

BOX = GeoBox.from_bbox((10, 50, 14, 53), "EPSG:4326", resolution=0.1)
DWC = "http://rs.tdwg.org/dwc/terms/"
SIMPLE = (
    "gbifID\tspecies\tscientificName\tcountryCode\tlocality\toccurrenceStatus\tindividualCount\t"
    "decimalLatitude\tdecimalLongitude\tcoordinateUncertaintyInMeters\teventDate\tbasisOfRecord\n"
)
ROWS = [
    '1\tQuercus ilex\tQuercus ilex L.\tNA\tthe "old\tPRESENT\t\t51.05\t12.05\t10\t2001-05-01\tHUMAN_OBSERVATION',
    '2\tQuercus ilex\tQuercus ilex L.\tDE\t5" pipe\tABSENT\t\t51.15\t12.15\t\t2001\tHUMAN_OBSERVATION',
    "3\tQuercus ilex\tQuercus ilex L.\tDE\tmill\tPRESENT\t0\t51.25\t12.25\t\t\tPRESERVED_SPECIMEN",
    "4\t\tQuercus L.\tDE\tx\tPRESENT\t\t51.35\t12.35\t\t\tHUMAN_OBSERVATION",
    "5\tAcer campestre\tAcer campestre L.\tDE\tMühle\tPRESENT\t3\t\t\t\t\tHUMAN_OBSERVATION",
    "6\tAcer campestre\tAcer campestre L.\tDE\t\tPRESENT\t3\t51.45\t12.45\t\t\tHUMAN_OBSERVATION",
]
METADATA = """<?xml version="1.0" encoding="utf-8"?>
<eml:eml xmlns:eml="eml://ecoinformatics.org/eml-2.1.1" packageId="10.15468/dl.abcdef" system="https://gbif.org">
<dataset><alternateIdentifier>10.15468/dl.abcdef</alternateIdentifier>
<title>GBIF Occurrence Download 10.15468/dl.abcdef</title><pubDate>2026-11-01</pubDate>
<abstract><para>A dataset containing 6 species occurrences available in GBIF matching the query:
{ "TaxonKey" : [ "is Quercus &amp; Acer" ] }
The dataset includes 6 records from 2 constituent datasets: 5 records from A.</para></abstract>
<intellectualRights><para>This work is licensed under
<ulink url="http://creativecommons.org/licenses/by-nc/4.0/"><citetitle>CC BY-NC 4.0</citetitle></ulink></para></intellectualRights>
</dataset></eml:eml>"""


def simple_text():
    return SIMPLE + "\n".join(ROWS) + "\n"


def meta(
    fields, *, row_type=f"{DWC}Occurrence", core=True, file="occurrence.txt", quote="", extra=""
):
    """Return meta.xml with one table, or one table of an archive."""
    tag = "core" if core else "extension"
    terms = "".join(
        f'<field index="{i}" term="{t if ":" in t else DWC + t}"/>' for i, t in enumerate(fields)
    )
    key = "id" if core else "coreid"
    return (
        f'<{tag} encoding="UTF-8" fieldsTerminatedBy="\\t" linesTerminatedBy="\\n" fieldsEnclosedBy="{quote}" '
        f'ignoreHeaderLines="1" rowType="{row_type}"><files><location>{file}</location></files>'
        f'<{key} index="0"/>{terms}{extra}</{tag}>'
    )


def archive_xml(*tables):
    return (
        '<?xml version="1.0"?><archive xmlns="http://rs.tdwg.org/dwc/text/" metadata="metadata.xml">'
        + "".join(tables)
        + "</archive>"
    )


def gbif_archive():
    """The files of a Darwin Core archive of GBIF."""
    return {
        "meta.xml": archive_xml(meta(SIMPLE.strip().split("\t"))),
        "metadata.xml": METADATA,
        "occurrence.txt": simple_text(),
        "verbatim.txt": "gbifID\n1\n",
        "citations.txt": "When using this dataset please use the following citation:\nA. doi:10.1/x\nB. doi:10.2/y\n",
        "rights.txt": "Dataset: A\nRights as supplied: CC0\n",
        "dataset/a.xml": "<eml/>",
    }


def pack(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in files.items():
            file.writestr(name, text)
    return path


def unpack(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


def records_cube() -> xr.Dataset:
    """A cube of numbered cells over 10 to 14 E and 50 to 53 N."""
    rows, cols = np.indices(BOX.shape).astype("float32")
    attrs = {"modality": "climate"}
    return xr.Dataset(
        {"bio1": (("lat", "lon"), 1000 * rows + cols, attrs)},
        coords=xr_coords(BOX, dims=("lat", "lon")),
    )


def check_simple(records):
    """The records of :data:`ROWS`."""
    assert records.columns[:4].tolist() == ["species", "lon", "lat", "presence"]
    oak, maple = "Quercus ilex", "Acer campestre"
    assert records["species"].fillna("").tolist() == [oak, oak, oak, "", maple, maple]
    assert records["presence"].tolist() == [1, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(records["lon"], [12.05, 12.15, 12.25, 12.35, np.nan, 12.45])
    np.testing.assert_array_equal(records["lat"], [51.05, 51.15, 51.25, 51.35, np.nan, 51.45])
    assert records["countryCode"].tolist() == ["NA", *["DE"] * 5]  # Namibia
    assert records["locality"].iloc[:2].tolist() == ['the "old', '5" pipe']
    assert records["locality"].iloc[4] == "Mühle"
