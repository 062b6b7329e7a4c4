"""Parameters of a catalog: fields in its texts that a build fills with one of the listed values."""

import numpy as np
import pytest
from helpers_build import UTM, catalog, field, tif
from typer.testing import CliRunner

import geomiam as gm
from geomiam.cli.app import app
from geomiam.errors import SchemaError, SettingError, SourceError

PARAMETERS = {"model": ["UK-ESM", "GFDL"], "year": [2050, 2070]}
VALUES = {"model": "UK-ESM", "year": "2070"}


def futures(folder, path="{year}/{model}/{model:lower}_{variable}.tif", **options):
    source = {"path": path, "title": "climate of {year}"}
    variables = {"bio1": {}, "bio12": {"from": {"source": "s", "variable": "bio_12"}}}
    modalities = {"climate": {"from": "s", "variables": variables}}
    return catalog(folder, {"s": source}, modalities, parameters=PARAMETERS, **options)


@pytest.mark.parametrize("year", [2070, "2070"])
def test_a_build_reads_the_files_of_its_parameters(tmp_path, year):
    for i, name in enumerate(("bio1", "bio_12")):
        tif(tmp_path / f"2070/UK-ESM/uk-esm_{name}.tif", field(UTM, seed=i), UTM)
    cube = gm.build_cube(futures(tmp_path), UTM, parameters={**VALUES, "year": year})
    np.testing.assert_allclose(cube["bio12"], field(UTM, seed=1)[0])
    assert cube["bio1"].source == "climate of 2070"
    with pytest.raises(SourceError, match=r"2050.*uk-esm_bio1\.tif is not there"):
        gm.build_cube(futures(tmp_path), UTM, parameters={**VALUES, "year": 2050})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            None,
            "needs a value of 'model'; parameters= takes one value of each: model: UK-ESM, GFDL; year: 2050, 2070",
        ),
        ({"model": "GFDL"}, "needs a value of 'year'"),
        ({**VALUES, "year": 2060}, "has no year '2060'; .* year: 2050, 2070"),
        ({**VALUES, "ssp": "ssp585"}, "has no parameter 'ssp'"),
    ],
)
def test_other_values_are_refused_with_the_allowed_ones(tmp_path, values, message):
    with pytest.raises(SettingError, match=message):
        gm.plan_cube(futures(tmp_path), UTM, parameters=values)


def test_a_catalog_without_parameters_takes_none():
    with pytest.raises(
        SettingError, match="'worldclim' has no parameter 'ssp'; parameters= must be"
    ):
        gm.plan_cube("worldclim", UTM, parameters={"ssp": "ssp585"})


@pytest.mark.parametrize(
    ("path", "parameters", "message"),
    [
        ("{year}/{variable}.tif", PARAMETERS, "parameter 'model' is in no text"),
        ("{variable}.tif", {"variable": ["a"]}, "'variable' has the name of another field"),
        ("{model}.tif", {"model": []}, "line .*parameters → model"),
    ],
)
def test_wrong_parameters_in_a_catalog_are_refused(tmp_path, path, parameters, message):
    modalities = {"climate": {"from": "s", "variables": {"bio1": {}}}}
    text = catalog(tmp_path, {"s": {"path": path}}, modalities, parameters=parameters)
    with pytest.raises(SchemaError, match=message):
        gm.Schema.from_yaml(text)


def test_a_model_carries_no_parameters(tmp_path):
    schema = gm.Schema.from_yaml(futures(tmp_path))
    assert "parameter year: 2050, 2070" in str(schema)
    assert not schema.without_origins().parameters


def test_the_command_line_sets_parameters(tmp_path):
    for name in ("bio1", "bio_12"):
        tif(tmp_path / f"2070/UK-ESM/uk-esm_{name}.tif", field(UTM), UTM)
    grid = tif(tmp_path / "grid.tif", field(UTM), UTM)
    arguments = [
        "build",
        str(futures(tmp_path)),
        "--like",
        str(grid),
        "--plan",
        "--set",
        "year=2070",
    ]
    result = CliRunner().invoke(app, [*arguments, "--set", "model=UK-ESM"])
    assert result.exit_code == 0 and "2 files" in result.output
    bad_pair = CliRunner().invoke(app, [*arguments, "--set", "model"])
    assert "--set model: expected NAME=VALUE" in str(bad_pair.exception)
