"""Saved models: equal when read back, refused when damaged, and never a pickle."""

from __future__ import annotations

import ast
import json
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from helpers_small import TINY_NETWORK, every_kind, quick, random_arrays, tiny_sites, untrained
from safetensors.torch import load_file, save_file

import geomiam as gm
from geomiam.errors import ArtifactError, OutputExists
from geomiam.model import saved_model
from geomiam.tokens.encode import encode

PACKAGE = Path(gm.__file__).parent


@pytest.fixture(scope="module")
def sites():
    return tiny_sites(60, species=3)


@pytest.fixture(scope="module")
def model(sites):
    """A model trained for two epochs, so that its history and scores are there."""
    return gm.fit(sites, network=TINY_NETWORK, training=quick(epochs=2), rng=0)


@pytest.fixture
def model_path(model, tmp_path) -> Path:
    return model.save(tmp_path / "model")


def change_config(path: Path, **changes) -> None:
    """Replace keys of config.json; dots go deeper."""
    file = path / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    for key, value in changes.items():
        place = config
        *way, last = key.split("__")
        for step in way:
            place = place[step]
        if value is DELETE:
            del place[last]
        else:
            place[last] = value
    file.write_text(json.dumps(config), encoding="utf-8")


DELETE = object()


def test_a_model_read_back_predicts_bit_for_bit_the_same(model, model_path, sites):
    back = gm.load_model(model_path)
    for using in (None, ["climate"], ["soil"]):
        a, b = (gm.predict(sites, m, using=using, scale="logit") for m in (model, back))
        np.testing.assert_array_equal(a["suitability"], b["suitability"])
        np.testing.assert_array_equal(a["observed"], b["observed"])


@pytest.mark.parametrize("fusion", ["group", "token", "cross", "late"])
def test_every_kind_of_predictor_survives_with_every_fusion(tmp_path, fusion):
    model = untrained(every_kind(), fusion=fusion, inner=1)
    back = gm.load_model(model.save(tmp_path / "model"))
    assert back.id == model.id
    assert back.layout.names == model.layout.names
    arrays = random_arrays(every_kind(), 9)
    outs = []
    for m in (model, back):
        block = encode(arrays, layout=m.layout, scaler=m.scaler)
        values = [torch.as_tensor(v) for v in block.values]
        with torch.no_grad():
            outs.append(m.network(values, torch.as_tensor(block.observed)))
    assert torch.equal(*outs)


def test_id_facts_and_history_survive(model, model_path):
    back = gm.load_model(model_path)
    assert back.id == model.id
    assert back.specification() == model.specification()
    assert back.about == model.about
    assert back.history.equals(model.history)
    assert not back.network.training
    again = gm.load_model(back.save(model_path.with_name("again")))
    assert again.id == model.id
    assert (model_path / "model.safetensors").read_bytes() == (
        model_path.with_name("again") / "model.safetensors"
    ).read_bytes()


def test_the_id_distinguishes_weights_and_facts(model, model_path):
    weights = load_file(model_path / "model.safetensors")
    weights["head.bias"] = weights["head.bias"] + 1e-3
    save_file(weights, model_path / "model.safetensors")  # without the id that was saved
    assert gm.load_model(model_path).id != model.id
    change_config(model_path, species=["a", "b", "c"])
    assert gm.load_model(model_path).species == ("a", "b", "c")


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_model_that_was_changed_after_it_was_saved_is_refused(model_path, file):
    if file == "config.json":
        change_config(model_path, scaler__mean__bio1=0.125)
    else:
        data = bytearray((model_path / file).read_bytes())
        data[-40] ^= 0x40  # one bit of one weight
        (model_path / file).write_bytes(data)
    with pytest.raises(ArtifactError, match=r"was changed after it was saved, or is damaged"):
        gm.load_model(model_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(({"scaler__std__bio1": v}, "'bio1'") for v in (0, -1, float("nan"), float("inf"), None)),
        *(({"scaler__mean__bio1": v}, "'bio1'") for v in (float("nan"), float("inf"), None)),
        ({"scaler__mean": []}, "does not describe a model"),
        ({"scaler__std": None}, "does not describe a model"),
        ({"scaler__classes": "x"}, "does not describe a model"),
        ({"species": ["a", "a", "b"]}, "species 'a' occurs twice"),
        ({"species": [None, "a", "b"]}, "species None"),
        ({"species": ["", "a", "b"]}, "species ''"),
        ({"species": [{}, "a", "b"]}, r"species \{\}"),
        ({"species": ["\x1b[2J", "a", "b"]}, r"species .*x1b"),
        ({"schema__modalities__climate__variables__bio1": None}, "bio1 is null"),
        ({"schema__modalities": None}, "does not describe a model"),
        ({"network": []}, "does not describe a model"),
        ({"network__members": 64, "network__depth": 64}, r"at least [\d,]+ tensors, .* has \d+"),
        ({"network__inner": 64}, r"at least [\d,]+ tensors, .* has \d+"),
    ],
)
def test_values_that_would_change_predictions_silently_are_refused(model_path, changes, message):
    weights = load_file(model_path / "model.safetensors")
    save_file(weights, model_path / "model.safetensors")  # nothing but the values can give it away
    change_config(model_path, **changes)
    with pytest.raises(ArtifactError, match=message):
        gm.load_model(model_path)


@pytest.mark.parametrize("place", ["key", "value"])
def test_lone_surrogates_anywhere_in_the_config_are_refused(model_path, place):
    text = (model_path / "config.json").read_text()
    about = json.loads(text)["about"] | ({"\ud800": 1} if place == "key" else {"x": ["\ud800"]})
    change_config(model_path, about=about)
    with pytest.raises(ArtifactError, match=r"config\.json is not valid JSON .*surrogates"):
        gm.load_model(model_path)


def test_weights_that_are_no_numbers_are_refused_when_loaded(model_path):
    weights = load_file(model_path / "model.safetensors")
    weights["head.bias"][0] = torch.nan
    save_file(weights, model_path / "model.safetensors")
    with pytest.raises(ArtifactError, match=r"'head\.bias' has weights that are NaN or infinite"):
        gm.load_model(model_path)


def test_classes_in_another_order_are_refused(tmp_path):
    path = untrained(every_kind()).save(tmp_path / "model")
    save_file(load_file(path / "model.safetensors"), path / "model.safetensors")
    for classes in ([3, 2, 1], [1, 1, 2], [10**30, 1, 2], float("inf")):
        change_config(path, scaler__classes__landcover=classes)
        with pytest.raises(ArtifactError, match="does not describe a model"):
            gm.load_model(path)


def test_an_image_of_too_many_patches_is_refused_before_it_is_laid_out(tmp_path):
    path = untrained(every_kind()).save(tmp_path / "model")
    labels = {"band": ["red", "nir"], "v": list(range(20_000)), "u": list(range(20_000))}
    change_config(
        path,
        schema__modalities__sentinel2__variables__chip__labels=labels,
        schema__modalities__sentinel2__variables__chip__patch=1,
    )
    tracemalloc.start()
    with pytest.raises(ArtifactError, match=r"800,\d+,\d+ tokens, more than 100,000; 'chip'"):
        gm.load_model(path)
    assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    tracemalloc.stop()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_pipes_and_devices_in_place_of_files_are_refused_without_waiting(model_path, name):
    for make in (os.mkfifo, lambda p: p.symlink_to("/dev/zero")):
        (model_path / name).unlink()
        make(model_path / name)
        with pytest.raises(ArtifactError, match="device or pipe"):
            gm.load_model(model_path)
    with pytest.raises(ArtifactError, match="cannot be opened"):
        gm.load_model("a" * 5000)


def test_a_model_of_another_version_names_both_versions(model_path):
    change_config(model_path, geomiam="0.0.7")
    assert gm.load_model(model_path).species  # what fits is read
    message = rf"saved by geomiam 0\.0\.7, this is geomiam {gm.__version__}: .*train it again"
    rewrite(model_path, lambda h: h.update({"head.bais": h.pop("head.bias")}))
    with pytest.raises(ArtifactError, match=rf"tensor names differ.*{message}"):
        gm.load_model(model_path)
    change_config(model_path, format=3)
    with pytest.raises(ArtifactError, match=rf"has format 3; .*{message}"):
        gm.load_model(model_path)
    change_config(model_path, uncertainty={})
    with pytest.raises(ArtifactError, match=rf"unknown keys \['uncertainty'\].*{message}"):
        gm.load_model(model_path)


def test_the_directory_holds_weights_config_and_card(model, model_path):
    assert sorted(p.name for p in model_path.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "reference.safetensors",
        "stac-item.json",
    ]
    config = json.loads((model_path / "config.json").read_text(encoding="utf-8"))
    assert config["format"] == 2 and config["geomiam"] == gm.__version__
    assert config["species"] == list(model.species)
    card = (model_path / "README.md").read_text(encoding="utf-8")
    for word in ("climate", "soil", "bio1", "ndvi", model.id[:12], "Probability that a survey"):
        assert word in card


def test_a_model_that_exists_is_replaced_only_if_requested(model, model_path):
    config = (model_path / "config.json").read_bytes()
    renamed_model = gm.Model(
        model.schema, model.scaler, ("x", "y", "z"), model.config, model.network, model.link
    )
    with pytest.raises(OutputExists, match=r"exists; pass overwrite=True to replace it"):
        renamed_model.save(model_path)
    assert (model_path / "config.json").read_bytes() == config
    renamed_model.save(model_path, overwrite=True)
    assert gm.load_model(model_path).species == ("x", "y", "z")
    assert [p.name for p in model_path.parent.iterdir()] == ["model"]


def test_overwriting_never_deletes_what_is_no_model(model, tmp_path):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.txt").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for path in (folder, tmp_path / "file"):
        with pytest.raises(
            OutputExists, match=r"is (no|not a) model directory; overwrite=True will not delete"
        ):
            model.save(path, overwrite=True)
    assert (folder / "chapter.txt").read_text() == (tmp_path / "file").read_text() == "precious"
    (tmp_path / "empty").mkdir()
    assert gm.load_model(model.save(tmp_path / "empty", overwrite=True)).id == model.id


@pytest.mark.parametrize("failing", ["save_file", "card"])
@pytest.mark.parametrize("exists", [False, True])
def test_a_save_that_fails_leaves_everything_as_it_was(
    model, tmp_path, monkeypatch, failing, exists
):
    path = tmp_path / "model"
    if exists:
        model.save(path)
    before = {p: p.read_bytes() for p in path.rglob("*")} if exists else {}

    def fail(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(saved_model, failing, fail)
    with pytest.raises(OSError, match="no space"):
        model.save(path, overwrite=True)
    assert {p: p.read_bytes() for p in path.rglob("*")} == before
    assert [p.name for p in tmp_path.iterdir()] == (["model"] if exists else [])


@pytest.mark.parametrize("keep", [0, 3, 8, 9, 40, 0.1, 0.5, 0.9, -1])
def test_weights_cut_off_anywhere_are_refused(model_path, keep):
    file = model_path / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * keep)] if isinstance(keep, float) else data[:keep])
    with pytest.raises(ArtifactError, match=r"model\.safetensors .*truncated"):
        gm.load_model(model_path)


def test_weights_with_something_after_them_are_refused(model_path):
    file = model_path / "model.safetensors"
    file.write_bytes(file.read_bytes() + b"more")
    with pytest.raises(ArtifactError, match="bytes of weights, expected"):
        gm.load_model(model_path)


@pytest.mark.parametrize("keep", [0, 1, 0.3, 0.99])
def test_a_config_cut_off_anywhere_is_refused(model_path, keep):
    file = model_path / "config.json"
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * keep)] if isinstance(keep, float) else data[:keep])
    with pytest.raises(ArtifactError, match=r"config\.json is not valid JSON.*may be truncated"):
        gm.load_model(model_path)


@pytest.mark.parametrize("text", ["{nonsense", "\xff\xfe", "[" * 100_000])
def test_a_config_that_is_no_json_is_refused(model_path, text):
    (model_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ArtifactError, match=r"config\.json is not valid JSON"):
        gm.load_model(model_path)


@pytest.mark.parametrize("text", ["[]", "3", "null", "{}"])
def test_a_config_that_is_something_else_is_refused(model_path, text):
    (model_path / "config.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"missing keys \['about', 'format'"):
        gm.load_model(model_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(model_path, name):
    (model_path / name).unlink()
    with pytest.raises(ArtifactError, match=rf"is no model directory: {name} is missing"):
        gm.load_model(model_path)


def test_a_path_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"is no model directory: config\.json is missing"):
        gm.load_model(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extra": 1}, r"missing keys \[\], unknown keys \['extra'\]"),
        ({"scaler": DELETE}, r"missing keys \['scaler'\], unknown keys \[\]"),
        ({"format": 3}, "has format 3; this version reads formats 1 to 2"),
        ({"link": "probit"}, r"link 'probit' is not one of \['logit', 'cloglog', 'softmax'\]"),
        ({"link": ["logit"]}, "is not one of"),
        ({"network__depht": 3}, r"does not describe a model(.|\n)*depht"),
        ({"network__width": "wide"}, r"does not describe a model(.|\n)*width"),
        (
            {"network__width": 7},
            r"does not describe a model(.|\n)*width 7 is not a multiple of heads 2",
        ),
        ({"network__fusion": "cold"}, r"does not describe a model(.|\n)*fusion"),
        (
            {"schema__modalities__soil__variables__clay__knd": "x"},
            "does not describe a model.*unknown key 'knd'",
        ),
        ({"schema__modalities": {}}, "does not describe a model"),
        (
            {"schema__modalities__soil__variables__ndvi__labels": {}},
            "does not describe a model.*'ndvi'",
        ),
        ({"scaler__mean__bio1": DELETE}, "does not describe a model.*'bio1'"),
        ({"scaler__std": DELETE}, "does not describe a model.*'std'"),
        ({"scaler__mean__bio1": [1, 2]}, "does not describe a model.*'bio1'"),
        ({"scaler__mean__bio1": "high"}, "does not describe a model"),
        ({"species": 7}, "does not describe a model"),
        ({"species": []}, "'head.*' is F32 .*, expected F32"),  # an encoder has no head
        ({"about": []}, "does not describe a model"),
    ],
    ids=lambda x: "-".join(x) if isinstance(x, dict) else "",
)
def test_a_config_that_describes_no_model_is_refused_with_the_reason(model_path, changes, message):
    change_config(model_path, **changes)
    with pytest.raises(ArtifactError, match=message):
        gm.load_model(model_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network__width": 4096 * 2}, "less than or equal to 4096"),
        (
            {"network__width": 4096, "network__depth": 64},
            r"a network of at least 2\d\d tensors",
        ),
        ({"network__frequencies": 10**9}, "less than or equal to 1024"),
        ({"network__inner": 65}, "less than or equal to 64"),
        (
            {"network__width": 4096, "species": [str(i) for i in range(600_000)]},
            r"implies [\d,]+ weights, over 2,000,000,000",
        ),
    ],
)
def test_absurd_sizes_are_refused_before_anything_is_allocated(model_path, changes, message):
    change_config(model_path, **changes)
    tracemalloc.start()
    try:
        with pytest.raises(ArtifactError, match=message):
            gm.load_model(model_path)
        assert tracemalloc.get_traced_memory()[1] < 200 * 2**20
    finally:
        tracemalloc.stop()


def test_a_config_of_absurd_size_is_not_read(model_path, monkeypatch):
    monkeypatch.setattr(saved_model, "MOST_CONFIG_BYTES", 100)
    with pytest.raises(
        ArtifactError, match=r"config\.json has [\d,]+ bytes, more than the limit of 100"
    ):
        gm.load_model(model_path)


def test_a_header_of_absurd_length_is_not_read(model_path):
    file = model_path / "model.safetensors"
    file.write_bytes(struct.pack("<Q", 2**60) + file.read_bytes()[8:])
    with pytest.raises(ArtifactError, match="no valid header"):
        gm.load_model(model_path)


@pytest.mark.parametrize("header", [b"[1]", b'{"head.bias": 3}', b'{"a": {"dtype": "F32"}}', b"7"])
def test_a_header_that_describes_no_tensors_is_refused(model_path, header):
    file = model_path / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(ArtifactError, match=r"no valid header|tensor names differ"):
        gm.load_model(model_path)


def rewrite(path: Path, change) -> None:
    """Apply a change to the header of the weights, values untouched."""
    file = path / "model.safetensors"
    data = file.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def test_a_tensor_renamed_is_refused_naming_it(model_path):
    rewrite(model_path, lambda h: h.update({"head.bais": h.pop("head.bias")}))
    with pytest.raises(ArtifactError, match=r"tensor names differ.*'head\.bais', 'head\.bias'"):
        gm.load_model(model_path)


def test_a_tensor_reshaped_or_of_another_type_is_refused_with_both_shapes(model_path):
    rewrite(model_path, lambda h: h["head.weight"].update(shape=[8, 3]))
    with pytest.raises(
        ArtifactError, match=r"'head\.weight' is F32 \[8, 3\], expected F32 \[3, 8\]"
    ):
        gm.load_model(model_path)
    rewrite(model_path, lambda h: h["head.weight"].update(shape=[3, 8], dtype="I32"))
    with pytest.raises(ArtifactError, match=r"'head\.weight' is I32 \[3, 8\], expected F32"):
        gm.load_model(model_path)


@pytest.mark.parametrize("offsets", [[0, 4], [-8, 88], ["a", "b"], 3])
def test_a_tensor_that_lies_elsewhere_is_refused(model_path, offsets):
    rewrite(model_path, lambda h: h["head.weight"].update(data_offsets=offsets))
    with pytest.raises(ArtifactError, match=r"model\.safetensors"):
        gm.load_model(model_path)


def test_more_species_than_weights_are_refused(model_path):
    change_config(model_path, species=["a", "b"])
    with pytest.raises(ArtifactError, match=r"'head\.\w+' is F32 \[3.*\], expected F32 \[2"):
        gm.load_model(model_path)


# No pickle --------------------------------------------------------------------------------------

FORBIDDEN = {"pickle", "joblib", "dill", "cloudpickle", "marshal", "shelve"}


def offences(source: str) -> list[str]:
    """Return the calls of a module that could run code from a file; its strings are not checked."""
    calls = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                calls += [a.name for a in names if a.name.split(".")[0] in FORBIDDEN]
            case ast.ImportFrom(module=str(module), names=names):
                calls += [module] if module.split(".")[0] in FORBIDDEN else []
                calls += [
                    f"torch.{a.name}" for a in names if module == "torch" and a.name == "load"
                ]
            case ast.Attribute(value=ast.Name(id="torch"), attr="load" | "save"):
                calls.append(f"torch.{node.attr}")
            case ast.Attribute(attr="to_pickle" | "read_pickle"):
                calls.append(node.attr)
            case ast.Call(func=ast.Name(id="eval" | "exec" | "compile" | "__import__" as name)):
                calls.append(name)
            case ast.keyword(arg="allow_pickle", value=ast.Constant(value=True)):
                calls.append("allow_pickle")
            case ast.Attribute(
                value=ast.Name(id="yaml"), attr="load" | "unsafe_load" | "full_load"
            ):
                calls.append(f"yaml.{node.attr}")
    return calls


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "import torch\ntorch.load('x')",
        "from torch import load",
        "eval('1')",
        "exec('1')",
        "np.load('x', allow_pickle=True)",
        "yaml.load(text)",
    ],
)
def test_the_search_for_pickles_finds_them(source):
    assert offences(source)


def test_the_search_for_pickles_reads_code_and_not_words():
    assert not offences('"""No pickle, no torch.load."""\nmodel.eval()\nre.compile("eval(")\n')


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_no_module_reads_or_writes_pickles_or_runs_text(path):
    assert offences(path.read_text(encoding="utf-8")) == []


def test_a_model_of_format_1_loads_and_predicts_what_it_predicted_when_it_was_saved():
    """The files were written by version 0.1.0; releases read the formats of all releases before."""
    folder = Path(__file__).parents[1] / "files" / "model-format-1"
    model = gm.load_model(folder / "model")
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    site = {k: np.array(v) for k, v in expected["site"].items()}
    ndvi = xr.DataArray(site.pop("ndvi"), dims=("site", "month"), coords={"month": [1, 4, 7, 10]})
    sites = xr.Dataset({k: ("site", v) for k, v in site.items()}).assign(ndvi=ndvi)
    maps = gm.predict(sites.set_coords(["x", "y"]), model)
    suitability = maps["suitability"].transpose("site", "species").values
    np.testing.assert_allclose(suitability, expected["suitability"], atol=2e-6)
    assert model.species == ("Quercus ilex", "Abies alba")
    stored_format = json.loads((folder / "model" / "config.json").read_text())["format"]
    assert stored_format == 1 and stored_format in saved_model.READABLE
