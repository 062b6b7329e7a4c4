"""GBIF occurrence cubes: codes of cells, and the target group from the totals of classes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers_records import pack, records_cube

import geomiam as gm
from geomiam.errors import OccurrenceError


@pytest.mark.parametrize(
    ("code", "lat", "lon"),
    [
        # technical documentation of GBIF, "API SQL Downloads - Functions": cells of 52 N, 10 E
        *(
            (c, 52.0, 10.0)
            for c in ("100kmE43N32", "50kmE430N320", "10kmE432N321", "1kmE4321N3210")
        ),
        *(
            (c, 52.0, 10.0)
            for c in ("250mE432100N321000", "100mE43210N32100", "25mE4321000N3210000")
        ),
        *(
            (c, 52.0, 10.0)
            for c in ("32UNC", "32UNC66", "32UNC6861", "32UNC686615", "32UNC68646151")
        ),
        # tests of GBIF's functions
        ("29FMC3135038489", -52.0, -10.0),
        *(
            (c, 47.168611, 9.508333)
            for c in ("50kmE425N265", "250mE428350N267275", "1303mE4282961N2672453")
        ),
        *(
            (c, 52.3, 10.3)
            for c in ("E010N52", "E010N52C", "E010N52CB", "E010N52CBC", "E010N52CBCCBB")
        ),
        *((c, -52.3, 10.3) for c in ("E010S52", "E010S52A", "E010S52AD", "E010S52ADA")),
        *((c, 52.3, -10.3) for c in ("W010N52", "W010N52D", "W010N52DA", "W010N52DAD")),
        *((c, -52.3, -10.3) for c in ("W010S52", "W010S52B", "W010S52BC", "W010S52BCB")),
        *((c, -0.1, -0.1) for c in ("W000S00", "W000S00B")),
    ],
)
def test_codes_of_cells_are_read_as_gbif_writes_them(code, lat, lon):
    from pyproj import Geod

    table = pd.DataFrame({"species": "a", "year": [2001], "cellCode": code, "occurrences": 1})
    records = gm.read_records(table)
    radius = records["coordinateUncertaintyInMeters"].iloc[0]
    away = Geod(ellps="WGS84").inv(lon, lat, records["lon"].iloc[0], records["lat"].iloc[0])[2]
    assert away <= radius * 1.001 + 1.5  # the example lies in the cell, to the metre of the code
    sizes = {"32UNC": 1e5, "32UNC66": 1e4, "1kmE4321N3210": 1e3, "25mE4321000N3210000": 25}
    if code in sizes:
        assert radius == pytest.approx(sizes[code] / 2**0.5)


@pytest.mark.parametrize(
    "code", ["nonsense", "33UNC66", "E200N10", "1kmE99999999N1", "8928308280fffff"]
)
def test_codes_of_other_grids_are_refused(code):
    table = pd.DataFrame({"species": ["a", "a"], "eeacellcode": ["1kmE4321N3210", code]})
    with pytest.raises(
        OccurrenceError, match=r"1 codes of cells that are not read.*add columns lon"
    ):
        gm.read_records(table)


def cube_of_records():
    """Birds and a mammal in cells of 10 km, one row of a bird without species, with totals of classes."""
    codes = ["10kmE444N315", "10kmE444N315", "10kmE445N315", "10kmE446N315", "10kmE447N315"]
    return pd.DataFrame(
        {
            "class": ["Aves", "Aves", "Aves", "Mammalia", "Aves"],
            "species": ["tit", "gull", "tit", "fox", None],
            "yearmonth": ["2001-02", "2001-02", "2002-11", "2001-02", "2003-01"],
            "eeacellcode": codes,
            "classcount": [9, 9, 4, 2, 7],
            "occurrences": [6, 3, 4, 2, 7],
            "mincoordinateuncertaintyinmeters": 1000.0,
        }
    )


@pytest.mark.parametrize("totals", ["stated", "summed"])
def test_an_occurrence_cube_gives_its_target_group(tmp_path, totals):
    table = cube_of_records().drop(columns=[] if totals == "stated" else ["classcount"])
    path = tmp_path / "0001234-260626123456789.zip"
    pack(path, {"0001234-260626123456789.csv": table.to_csv(sep="\t", index=False)})
    records = gm.read_records(path)
    assert records.attrs["origin"]["format"] == "occurrence cube"
    assert records["year"].tolist() == [2001, 2001, 2002, 2001, 2003]
    assert records["target_group_records"].tolist() == [9, 9, 4, 2, 7]
    sites = gm.sample(records_cube(), records)
    assert sites["target_group_records"].sel(target_group="Aves").values.tolist() == [9, 4, 0, 7]
    assert sites["species_group"].to_series().to_dict() == {
        "fox": "Mammalia",
        "gull": "Aves",
        "tit": "Aves",
    }
    nan = np.nan
    expected = [[nan, 1, 1], [nan, nan, 1], [1, nan, nan], [nan, nan, nan]]
    np.testing.assert_array_equal(sites["presence"], expected)
    grid = records_cube()
    background = gm.add_background(sites, grid, kind="target-group", n=None, rng=0)
    expected = [[nan, 1, 1], [nan, 0, 1], [1, nan, nan], [nan, 0, 0]]
    np.testing.assert_array_equal(background["presence"], expected)
    assert background["background"].values.tolist() == [False, True, False, True]
    with_random = gm.add_background(background, grid, n=5, rng=0)
    assert (with_random["presence"].values[-5:] == 0).all()
    path = gm.write_sites(background, tmp_path / "sites.zarr")
    np.testing.assert_array_equal(gm.open_sites(path)["presence"], expected)


def test_totals_of_times_add_up_at_a_site():
    table = cube_of_records()
    again = table.assign(yearmonth="2009-01", classcount=1, occurrences=1)
    records = gm.read_records(pd.concat([table, again], ignore_index=True))
    with pytest.warns(gm.errors.RecordsMerged):
        sites = gm.sample(records_cube(), records)
    assert sites["target_group_records"].sel(target_group="Aves").values.tolist() == [10, 5, 0, 8]
