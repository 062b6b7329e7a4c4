"""Tests of occurrence records: coordinates, places, dates, kinds of records, duplicates and outliers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from geomiam.data.cleaning import comparisons, record_tests
from geomiam.data.cleaning.frame import RecordColumns, standard_records
from geomiam.data.cleaning.inputs import (
    CELL_CENTRES,
    DESCRIPTIONS,
    LAST,
    REFERENCES,
    Inputs,
    Outcome,
    Skipped,
)
from geomiam.data.cleaning.rules import CleaningRules
from geomiam.data.dataset import as_dataset
from geomiam.errors import RecordsRemoved, SelectionError, warn

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

FLAG = "flag_"
"""Start of the names of columns with the result of a test."""
TESTS: dict[str, Callable[[Inputs], Outcome]] = {
    "coordinates": record_tests.coordinates_test,
    "species": record_tests.species_test,
    "zero": record_tests.zero_test,
    "equal": record_tests.equal_test,
    "swapped": record_tests.swapped_test,
    "headquarters": record_tests.headquarters_test,
    **{name: record_tests.reference_test(name) for name in REFERENCES},
    "habitat": record_tests.habitat_test,
    "country": record_tests.country_test,
    "uncertainty": record_tests.uncertainty_test,
    "no_date": record_tests.no_date_test,
    "early": record_tests.early_test,
    "future": record_tests.future_test,
    "basis": record_tests.basis_test,
    "cultivated": record_tests.cultivated_test,
    "duplicate": comparisons.duplicate_test,
    "outlier": comparisons.outlier_test,
    "environment": comparisons.environment_test,
}
"""Functions of the tests by name."""


def clean_records(
    records: pd.DataFrame | str | Path,
    *,
    tests: Sequence[str] | None = None,
    rules: CleaningRules | None = None,
    cube: xr.Dataset | xr.DataTree | None = None,
    land: xr.DataArray | GeoDataFrame | str | None = None,
    countries: GeoDataFrame | None = None,
    references: Mapping[str, pd.DataFrame] | None = None,
    remove: bool = True,
) -> pd.DataFrame:
    """Test occurrence records for usual errors, and remove or flag those that fail.

    The tests are those of CoordinateCleaner (Zizka et al. 2019, Methods in Ecology and Evolution 10, 744-751),
    implemented from their published definitions. A test whose input is absent is not run, and the
    summary states this.

    Parameters
    ----------
    records
        Records of :func:`geomiam.read_records`, or any table or path that it reads.
    tests
        Names of the tests to run; default: all that have their inputs.
    rules
        Limits of the tests; default: :class:`geomiam.CleaningRules`.
    cube
        Data on the study area: swapped coordinates are detected by its extent, and environmental outliers
        by its variables.
    land
        Land mask, for records in the sea: a layer that is positive on land, the name of such a variable of ``cube``,
        or polygons.
    countries
        Polygons with a column of codes such as ``ISO_A2``, compared with the ``countryCode`` of the records.
    references
        Tables of places with coordinates, by name: ``"centroids"`` of countries and provinces, ``"capitals"``
        and ``"institutions"`` that hold specimens.
    remove
        True: records that fail a test are removed. False: all records are returned with one column
        ``flag_<test>`` for each test, True where the record fails, and ``flagged``, True where any test fails.

    Returns
    -------
    pandas.DataFrame
        The records. ``attrs["cleaning"]`` has the numbers of ``rows``, ``flagged`` and ``removed`` records, the
        ``rules``, the tests that were ``not_run`` with the reason, and ``tests``: for each test the numbers of records that were
        ``tested``, that were ``flagged``, and that were flagged by this test ``only``.
        ``pandas.DataFrame(records.attrs["cleaning"]["tests"])`` is the table of counts.

    Raises
    ------
    SelectionError
        If a test, a reference or a variable does not exist, or a requested test has no input.
    OccurrenceError
        If the records cannot be read, or polygons have no CRS or no matching codes.

    Warns
    -----
    RecordsRemoved
        With the number of removed records by test.

    See Also
    --------
    geomiam.thin_records : Fewer records where they are dense.
    geomiam.plot.records : Map of flagged records.

    Notes
    -----
    ``coordinates``, ``species``: missing. ``zero``: a coordinate is exactly 0, or the place is near 0, 0. ``equal``: longitude
    and latitude have the same absolute value. ``swapped``: outside the cube, inside with swapped
    coordinates. ``headquarters``, ``centroid``, ``capital``, ``institution``: near such places. ``habitat``:
    in the sea. ``country``: outside the stated country. ``uncertainty``. ``no_date``, ``early``, ``future``: dates.
    ``basis``: fossils and living specimens. ``cultivated``: by ``establishmentMeans`` and
    ``degreeOfEstablishment``. ``duplicate``: species, coordinates and presence equal those of an earlier
    record. ``outlier``, ``environment``: see :class:`geomiam.CleaningRules`. The last three compare only
    records that pass all other tests, so that a good record is no duplicate of a bad one.

    Examples
    --------
    >>> import geomiam as gm, pandas as pd
    >>> table = pd.DataFrame(
    ...     {
    ...         "species": "Quercus ilex",
    ...         "lon": [3.9, 0.0, 3.9, 44.0],
    ...         "lat": [43.6, 0.0, 43.6, 44.0],
    ...     }
    ... )
    >>> records = gm.clean_records(table, remove=False)
    >>> records[["flag_zero", "flag_equal", "flag_duplicate", "flagged"]].values.tolist()
    [[False, False, False, False], [True, True, False, True], [False, False, True, True], [False, True, False, True]]
    >>> counts = pd.DataFrame(records.attrs["cleaning"]["tests"]).set_index("test")
    >>> counts.loc["equal", ["tested", "flagged", "only"]].tolist()
    [4, 2, 1]
    """
    table = standard_records(records)
    names = _chosen(tests)
    rules = rules or CleaningRules()
    inputs = Inputs(
        RecordColumns(table),
        rules,
        None if cube is None else as_dataset(cube),
        land,
        countries,
        _checked_references(references or {}),
        np.ones(len(table), bool),
    )
    flags, tested_counts, reasons = _run(names, inputs, must_run=tests is not None)
    return _result(table, flags, tested_counts, reasons=reasons, rules=rules, remove=remove)


def _chosen(tests: Sequence[str] | None) -> list[str]:
    names = (
        list(DESCRIPTIONS) if tests is None else [tests] if isinstance(tests, str) else list(tests)
    )
    if unknown := [n for n in names if n not in DESCRIPTIONS]:
        raise SelectionError(
            f"tests= names {unknown}, which do not exist; use {', '.join(DESCRIPTIONS)}"
        )
    return [n for n in DESCRIPTIONS if n in names]


def _checked_references(references: Mapping[str, pd.DataFrame]) -> Mapping[str, pd.DataFrame]:
    if unknown := sorted(set(references) - set(REFERENCES.values())):
        raise SelectionError(
            f"references= names {unknown}, which do not exist; use {', '.join(REFERENCES.values())}"
        )
    return references


def _run(
    names: list[str], inputs: Inputs, *, must_run: bool
) -> tuple[dict[str, np.ndarray], dict[str, int], dict[str, str]]:
    """Return flags, numbers of tested records and reasons of tests that were not run, each by test."""
    flags: dict[str, np.ndarray] = {}
    tested_counts: dict[str, int] = {}
    reasons: dict[str, str] = {}
    for name in names:
        if name in LAST:
            inputs = replace(inputs, passed=~_any(flags, len(inputs.columns)))
        if inputs.columns.is_cube and name in CELL_CENTRES:
            outcome: Outcome = Skipped("records are centres of cells of an occurrence cube")
        else:
            outcome = TESTS[name](inputs)
        if isinstance(outcome, Skipped):
            if must_run:
                raise SelectionError(f"the test '{name}' is not possible: {outcome.reason}")
            reasons[name] = outcome.reason
            continue
        is_tested, flag = outcome
        flags[name], tested_counts[name] = is_tested & flag, int(is_tested.sum())
    return flags, tested_counts, reasons


def _any(flags: Mapping[str, np.ndarray], n: int) -> np.ndarray:
    return np.logical_or.reduce(list(flags.values())) if flags else np.zeros(n, bool)


def _result(
    table: pd.DataFrame,
    flags: dict[str, np.ndarray],
    tested_counts: dict[str, int],
    *,
    reasons: dict[str, str],
    rules: CleaningRules,
    remove: bool,
) -> pd.DataFrame:
    fails = _any(flags, len(table))
    number = np.sum(list(flags.values()), axis=0) if flags else np.zeros(len(table), int)
    rows = [
        {
            "test": name,
            "tested": tested_counts[name],
            "flagged": int(flag.sum()),
            "only": int((flag & (number == 1)).sum()),
            "description": DESCRIPTIONS[name],
        }
        for name, flag in flags.items()
    ]
    summary = {
        "rows": len(table),
        "flagged": int(fails.sum()),
        "removed": int(fails.sum()) if remove else 0,
        "tests": rows,
        "not_run": reasons,
        "rules": rules.as_dict(),
    }
    plain = table[[c for c in table.columns if not str(c).startswith(FLAG) and c != "flagged"]]
    if remove:
        out = plain[~fails].reset_index(drop=True)
        _report(summary)
    else:
        columns = {FLAG + name: flag for name, flag in flags.items()} | {"flagged": fails}
        out = pd.concat([plain, pd.DataFrame(columns, index=plain.index)], axis=1)
    out.attrs = {**table.attrs, "cleaning": summary}
    return out


def _report(summary: dict[str, Any]) -> None:
    parts = [f"{r['flagged']:,} {r['description']}" for r in summary["tests"] if r["flagged"]]
    if parts:
        warn(
            f"{summary['removed']:,} of {summary['rows']:,} records are removed: {', '.join(parts)} (a record may "
            "fail several tests); remove=False keeps them with a column for each test",
            RecordsRemoved,
        )
