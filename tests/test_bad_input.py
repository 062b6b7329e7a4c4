"""Bad input: each kind gets an error, or a counted warning, with the remedy."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from conftest import make_cube, make_sites, train_small

import geomiam as gm
from geomiam.data.predictors import bind
from geomiam.errors import (
    ArtifactError,
    BlockError,
    GridError,
    LabelError,
    MissingModality,
    MissingVariable,
    OccurrenceError,
    OccurrencesLeftOut,
    OutputExists,
    SchemaError,
    SelectionError,
    VariableMismatch,
)
from geomiam.inference.predict import bits_dtype

CATALOG = """\
name: test
modalities:
  climate:
    variables:
      bio1: {kind: scalar, units: degC}
      bio12: {kind: scalar}
"""


@pytest.fixture(scope="module")
def tiny():
    """A group-fusion model on the small cube, its sites and the cube."""
    import odc.geo.xr  # noqa: F401

    cube = make_cube()
    sites = make_sites(cube)
    return train_small(sites, "group"), sites, cube


def test_a_missing_variable_is_named_with_the_rename(tiny):
    model, _, cube = tiny
    with pytest.raises(MissingVariable, match=r"variables \['bio12'\] are not in the data.*using="):
        gm.predict(cube.drop_vars("bio12"), model)
    with pytest.raises(MissingVariable, match=r"ds\.rename\(\{'embeding': 'embedding'\}\)"):
        gm.predict(cube.rename(embedding="embeding"), model)
    with pytest.raises(MissingVariable, match="none of the predictors"):
        gm.predict(cube[["bio1"]].rename(bio1="something"), model)


def test_a_missing_modality_is_a_counted_warning(tiny):
    model, _, cube = tiny
    with pytest.warns(MissingModality, match=r"1 of 6 modalities are not in the data: 'embedding'"):
        gm.predict(cube.drop_vars("embedding"), model)


def test_wrong_units_are_refused_with_the_fix(tiny):
    model, _, cube = tiny
    kelvin = cube.assign(bio1=(cube["bio1"] + 273.15).assign_attrs(units="K"))
    with pytest.raises(
        VariableMismatch, match=r"'bio1' has units 'K', expected 'degC': convert it"
    ):
        gm.predict(kelvin, model)


def test_other_dims_and_labels_are_refused_with_the_fix(tiny):
    model, _, cube = tiny
    with pytest.raises(
        VariableMismatch, match=r"'chip' has dims .* expected \('v', 'u'\).*ds\.rename"
    ):
        gm.predict(cube.rename(v="row"), model)
    later = cube.assign_coords(time=cube["time"] + np.timedelta64(3650, "D"))
    with pytest.raises(VariableMismatch, match=r"none of the labels of 'time'.*assign_coords"):
        gm.predict(later, model)


def test_a_cube_without_crs_is_refused_with_the_call_that_sets_one(tiny, tmp_path):
    bare = tiny[2].drop_vars("spatial_ref")
    for v in bare.variables.values():
        v.encoding.pop("grid_mapping", None)
    with pytest.raises(GridError, match=r"no CRS.*assign_crs\(\"EPSG:4326\"\)"):
        gm.write_cube(bare, tmp_path / "cube.zarr")


def test_a_group_that_is_nan_at_every_site_cannot_be_trained_on(tiny):
    _, sites, _ = tiny
    without_chip = sites.assign(chip=xr.full_like(sites["chip"], np.nan))
    with pytest.raises(
        MissingVariable, match=r"modality 'sentinel2' is NaN at every site.*schema\.subset"
    ):
        gm.fit(without_chip)


def test_records_in_place_of_sites_are_refused_with_the_call_that_makes_sites():
    records = pd.DataFrame({"species": ["a"], "lon": [1.0], "lat": [2.0], "presence": [1.0]})
    for call in (gm.fit, gm.cross_validate, lambda sites: gm.add_background(sites, None)):
        with pytest.raises(
            LabelError, match=r"found DataFrame; .*sites = gm.sample\(cube, records\)"
        ):
            call(records)


def test_a_cube_in_place_of_sites_is_refused_with_the_call_that_makes_sites():
    import odc.geo.xr  # noqa: F401  (registers .odc)

    with pytest.raises(LabelError, match=r"no 'presence' .*cube\.miam\.sample"):
        gm.fit(make_cube())


def test_one_class_labels_are_an_error_and_one_species_of_one_class_a_warning(tiny):
    _, sites, _ = tiny
    ones = sites.assign(presence=xr.ones_like(sites["presence"]))
    with pytest.raises(LabelError, match=r"only presences, for all 3 species.*add_background"):
        gm.fit(ones)
    mixed = sites.copy()
    mixed["presence"] = sites["presence"].where(sites["species"] != "species 1", 1.0)
    with pytest.warns(
        UserWarning, match=r"1 of 3 species have presences or absences only \(species 1\)"
    ):
        train_small(mixed, "group")


def test_labels_that_are_no_labels_are_refused(tiny):
    _, sites, _ = tiny
    with pytest.raises(LabelError, match=r"no 'presence'.*cube\.miam\.sample"):
        gm.fit(sites.drop_vars("presence"))
    with pytest.raises(LabelError, match=r"must be 0, 1 or NaN, found 2\.0: use \(counts > 0\)"):
        gm.fit(sites.assign(presence=sites["presence"] * 2))
    with pytest.raises(LabelError, match="exactly one present species per site"):
        gm.fit(sites, training=gm.TrainingConfig(loss="cross-entropy"))


def test_sites_at_one_place_cannot_be_held_out(tiny):
    _, sites, _ = tiny
    one_place = sites.assign_coords(x=0 * sites["x"], y=0 * sites["y"])
    with pytest.raises(BlockError, match=r"all \d+ sites lie at 1 place.*validation="):
        gm.fit(one_place, training=gm.TrainingConfig())


def test_sites_with_nan_as_coordinates_are_counted(tiny):
    _, sites, _ = tiny
    without_x = sites.assign_coords(x=sites["x"].where(np.arange(sites.sizes["site"]) > 2))
    with pytest.raises(GridError, match=r"3 of 168 sites have NaN as 'x' or 'y': leave them out"):
        gm.fit(without_x)


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.99])
def test_a_truncated_model_file_is_refused(tiny, tmp_path, keep):
    path = tiny[0].save(tmp_path / "model")
    weights = path / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with pytest.raises(ArtifactError, match="truncated"):
        gm.load_model(path)


def test_a_model_that_claims_absurd_sizes_is_refused_before_allocation(tiny, tmp_path):
    path = tiny[0].save(tmp_path / "model")
    config = json.loads((path / "config.json").read_text())
    for change, message in [
        ({"network": {**config["network"], "width": 10**9}}, "does not describe a model"),
        (
            {"network": {**config["network"], "width": 4096, "heads": 8, "depth": 64, "inner": 64}},
            r"at least \d+ tensors, but the file of weights has",
        ),
        (
            {"species": [*config["species"], *(f"{s} again" for s in config["species"])]},
            r"'head\.weight' is F32 \[3, 16\], expected F32 \[6, 16\]",
        ),
        ({"surprise": 1}, r"unknown keys \['surprise'\]"),
        ({"format": 99}, "has format 99; this version reads formats 1 to 2"),
        ({"link": "pickle"}, "is not one of"),
    ]:
        (path / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(ArtifactError, match=message):
            gm.load_model(path)
    (path / "config.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"not valid JSON.*truncated"):
        gm.load_model(path)
    (path / "config.json").unlink()
    with pytest.raises(ArtifactError, match=r"config\.json is missing"):
        gm.load_model(path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            CATALOG.replace("units:", "unit:"),
            r"line 5: modalities → climate → variables → bio1 → unit: .*did you mean 'units'",
        ),
        (
            CATALOG.replace("kind: scalar}", "kind: scaler}"),
            r"line 6: .* 'scaler' is not a kind; use one of scalar, categ",
        ),
        (
            CATALOG.replace("modalities", "modality"),
            r"line 2: modality: unknown key 'modality'; did you mean 'modalities'",
        ),
        (
            CATALOG.replace("scalar, units: degC", "scalar, window: 3"),
            r"'window' belongs to kind: series, found kind: scalar",
        ),
        (
            CATALOG + "  soil:\n    variables:\n      bio1: {}\n",
            r"variable 'bio1' is in modalities 'climate' and 'soil'",
        ),
        ("- a\n- b\n", r"holds list; a catalog is a mapping with 'modalities:'"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_a_catalog_error_names_line_key_and_fix(tmp_path, wrong, message):
    path = tmp_path / "catalog.yaml"
    path.write_text(wrong)
    with pytest.raises(SchemaError, match=message):
        gm.Schema.from_yaml(path)


def test_a_catalog_that_does_not_fit_the_data_states_how_to_go_on(tiny, tmp_path):
    path = tmp_path / "catalog.yaml"
    path.write_text(CATALOG + "  soil:\n    variables:\n      clay: {}\n")
    with pytest.raises(MissingVariable, match=r"\['clay'\].*schema\.subset\(\['climate'\]\)"):
        bind(gm.Schema.from_yaml(path), tiny[2])


def test_an_output_that_exists_is_never_overwritten_unasked(tiny, tmp_path):
    model, _, cube = tiny
    model.save(tmp_path / "model")
    with pytest.raises(OutputExists, match="pass overwrite=True"):
        model.save(tmp_path / "model")
    gm.write_map(cube, model, tmp_path / "map.zarr")
    with pytest.raises(OutputExists, match="pass overwrite=True"):
        gm.write_map(cube, model, tmp_path / "map.zarr")
    gm.write_map(cube, model, tmp_path / "map.zarr", overwrite=True, shapley=True)
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "mine.txt").write_text("precious")
    with pytest.raises(OutputExists, match="exists; pass overwrite=True"):
        gm.demo.run(tmp_path / "demo")


def test_records_elsewhere_are_counted_or_explained(tiny):
    import pandas as pd

    _, _, cube = tiny
    inside = pd.DataFrame({"species": "a", "lon": [5.3, 6.1, 7.2], "lat": [49.1, 48.3, 49.4]})
    stray = pd.DataFrame({"species": "a", "lon": [100.0], "lat": [0.0]})
    with pytest.warns(OccurrencesLeftOut, match=r"1 outside|outside.*1"):
        sites = gm.sample(cube, pd.concat([inside, stray]))
    assert json.loads(sites.attrs["left_out"])["outside_grid"] == 1
    with pytest.raises(
        OccurrenceError,
        match=r"With x and y swapped they lie inside: .* as x= .*'lat', and as y= .*'lon'.*EPSG:4326\)$",
    ):
        gm.sample(cube, inside.rename(columns={"lon": "lat", "lat": "lon"}))


def sites_of(variables: int, n: int = 40) -> xr.Dataset:
    rng = np.random.default_rng(0)
    # letters, as numbered layers are one modality
    names = [f"layer{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(variables)]
    layers = {name: ("site", rng.normal(size=n)) for name in names}
    labels = (("site", "species"), rng.integers(0, 2, (n, 1)).astype("f4"))
    place = {"x": ("site", rng.uniform(0, 9, n)), "y": ("site", rng.uniform(40, 49, n))}
    return xr.Dataset({**layers, "presence": labels}, coords={**place, "species": ["a"]})


def test_more_groups_than_a_map_has_flags_are_refused_before_training():
    network = gm.NetworkConfig(width=4, heads=1, depth=1, inner=0, frequencies=2)
    short = gm.TrainingConfig(epoch_steps=1, epochs=1, batch=64)
    with pytest.raises(SchemaError, match=r"has 65 groups, and a map has flags for 64; join them"):
        gm.fit(sites_of(65), network=network, training=short)
    sites = sites_of(65)
    schema = gm.infer_schema(sites, modalities={"layers": ["layer*"]})
    model = gm.fit(sites, schema, network=network, training=short)
    assert gm.predict(sites, model)["suitability"].notnull().all()
    with pytest.raises(SelectionError, match="65 groups do not fit into 64 bits"):
        bits_dtype(65)


@pytest.mark.parametrize("schema", [["bio1"], {"climate": ["bio1"]}])
def test_a_schema_of_another_type_is_refused(schema):
    sites = sites_of(1)
    with pytest.raises(SchemaError, match=r"found (list|dict); create one with gm\.infer_schema"):
        gm.fit(sites, schema)
