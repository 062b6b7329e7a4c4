"""The page on clusters: its code runs, its files fit the tools that read them, its numbers follow."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import odc.geo.xr  # noqa: F401
import pytest
import yaml
from conftest import make_cube, make_sites
from helpers_cluster import forked
from helpers_examples import ROOT, example
from helpers_small import TINY_NETWORK, untrained

import geomiam as gm
from geomiam.data.predictors import bind

PAGE = "docs/howto/clusters.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
VARIABLES = ["bio1", "bio12", "slope"]


def shown(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


@pytest.fixture
def names(tmp_path, monkeypatch) -> dict[str, Any]:
    """The names that the sections of the page use."""
    monkeypatch.chdir(tmp_path)
    sites = make_sites(make_cube())[[*VARIABLES, "presence"]]
    gm.write_sites(
        sites.assign_coords(species=["a", "Ophrys ficta", "Ophrys altera"]), "sites.zarr"
    )
    model = untrained(bind(gm.infer_schema(sites[VARIABLES]), sites[VARIABLES]))
    gm.write_cube(make_cube()[VARIABLES], "cube.zarr", chunks={"y": 6, "x": 7}, progress=False)
    settings = {"network": TINY_NETWORK, "training": {"steps": 5}}
    paths = {"sites_path": str(tmp_path / "sites.zarr"), "folder": str(tmp_path)}
    return {
        "gm": gm,
        "cube": gm.open_cube("cube.zarr"),
        "model": model,
        "settings": settings,
    } | paths


@pytest.mark.slow
def test_the_sections_on_autoscaling_and_trainings_run(names, monkeypatch):
    with forked():
        exec(example("Autoscaling", page=PAGE), names)
        exec(example("Trainings", page=PAGE), names)
    assert Path("map.zarr").is_dir()
    species = [list(gm.load_model(p).species) for p in names["saved"]]
    assert species == [["Ophrys ficta"], ["Ophrys altera"]]


def test_code_for_other_machines_is_python():
    for code in shown("py"):
        compile(code, PAGE, "exec")


@pytest.mark.slow
def test_the_script_of_the_job_is_that_of_dask_jobqueue():
    pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed")
    names: dict[str, Any] = {"print": lambda script: names.update(script=script)}
    exec(shown("py")[0], names)
    names["cluster"].close()
    address, python = r"tcp://[^ ]+", r"^\S*python\S* -m"
    scripts = [shown("text")[0], names["script"]]
    plain = [re.sub(address, "tcp://", re.sub(python, "python -m", t, flags=re.M)) for t in scripts]
    assert plain[0].split() == plain[1].split()


def test_the_parts_of_the_kubernetes_file_fit_each_other():
    cluster, autoscaler, job = yaml.safe_load_all(shown("yaml")[0])
    assert autoscaler["spec"]["cluster"] == cluster["metadata"]["name"]
    (worker,) = cluster["spec"]["worker"]["spec"]["containers"]
    (scheduler,) = cluster["spec"]["scheduler"]["spec"]["containers"]
    (writer,) = job["spec"]["template"]["spec"]["containers"]
    assert len({c["image"] for c in (worker, scheduler, writer)}) == 1
    assert worker["args"][-1] == "3GiB" and worker["resources"]["limits"]["memory"] == "3Gi"
    service = cluster["spec"]["scheduler"]["service"]
    assert {p["targetPort"] for p in service["ports"]} == {p["name"] for p in scheduler["ports"]}
    assert f"tcp://{cluster['metadata']['name']}-scheduler:8786" in writer["args"]


def test_the_kubernetes_file_fits_the_definitions_of_dask_kubernetes():
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    if not (package := find_spec("dask_kubernetes")) or not package.origin:
        pytest.skip("dask-kubernetes is not installed")
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the definitions are a megabyte
    charts = Path(package.origin).parent.glob("operator/deployment/helm/*/crds/*.yaml")
    kinds = {}
    for definition in (yaml.load(p.read_text("utf-8"), loader) for p in charts):
        (version,) = definition["spec"]["versions"]
        kinds[definition["spec"]["names"]["kind"]] = version["schema"]["openAPIV3Schema"]
    resources = [r for r in yaml.safe_load_all(shown("yaml")[0]) if r["kind"] in kinds]
    assert len(resources) == 2
    for resource in resources:
        jsonschema.validate(resource, strict(kinds[resource["kind"]]))


def strict(schema: Any) -> Any:
    """Refuse fields that a definition does not name, as Kubernetes drops them."""
    if isinstance(schema, list):
        return [strict(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    strict_schema = {k: strict(v) for k, v in schema.items()}
    is_open = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and not is_open:
        top = {n: {} for n in ("apiVersion", "kind", "metadata")}
        strict_schema["properties"] = top | strict_schema["properties"]
        strict_schema["additionalProperties"] = False
    return strict_schema


def sheet() -> dict[str, list[float]]:
    """Return the numbers of the cost sheet by line: for a prediction, and for an explanation."""
    rows = re.findall(r"^\| ([A-K]) \|.*\| ([\d.,]+) \| ([\d.,]+) \|$", TEXT, re.MULTILINE)
    return {line: [float(n.replace(",", "")) for n in numbers] for line, *numbers in rows}


@pytest.mark.parametrize("column", [0, 1])
def test_the_numbers_of_the_cost_sheet_follow_from_its_first_lines(column):
    lines = {k: v[column] for k, v in sheet().items()}
    assert "".join(lines) == "ABCDEFGHIJK"
    layers = 20 * (1 + 6 * column)  # suitability, and contributions of six groups
    sizes = {"bytes_of_cube": 4 * 64, "bytes_of_map": 4 * layers + 5, "bytes_per_task": 0}
    plan = gm.MapPlan(
        {"y": 1, "x": 1}, {}, 1, 1, 1, bytes_of_network=0, base=0, share=1, rate=lines["B"], **sizes
    )
    options = {"cells": lines["A"], "hours": lines["D"], "price_per_gb_month": lines["E"]}
    cost = plan.cost(lines["C"], **options)
    assert cost.core_hours == pytest.approx(lines["F"], abs=0.05)
    assert cost.price == pytest.approx(lines["G"], abs=0.005)
    assert cost.workers == lines["H"]
    assert [cost.bytes_of_cube / 1e9, cost.bytes_of_map / 1e9] == [lines["I"], lines["J"]]
    assert cost.price_of_storage == pytest.approx(lines["K"], abs=0.005)


def test_the_rates_of_the_cost_sheet_are_those_of_the_performance_page():
    page = (ROOT / "docs" / "explanation" / "performance.md").read_text(encoding="utf-8")
    names = ("group fusion, prediction alone", "group fusion, exact")
    for rate, name in zip(sheet()["B"], names, strict=True):
        (milliseconds,) = re.findall(rf"^\| {name} \| [\d,]+ \| ([\d.]+) ", page, re.MULTILINE)
        assert rate == pytest.approx(1000 / float(milliseconds), rel=0.005)
