"""The STAC item of a model, with the Machine Learning Model extension (MLM)."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from geomiam.model import calibration, reference

if TYPE_CHECKING:
    from geomiam.model.model import Model

BASE = "https://stac-extensions.github.io"
EXTENSIONS = [
    f"{BASE}/mlm/v1.5.2/schema.json",
    f"{BASE}/datacube/v2.2.0/schema.json",
    f"{BASE}/classification/v1.1.0/schema.json",
]
GLOBE = (-180.0, -90.0, 180.0, 90.0)


def stac_item(model: Model) -> dict[str, Any]:
    """Return the item as plain JSON types; links to files are relative to the model directory."""
    model.species_index(None)
    box = _degrees(model.about)
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": EXTENSIONS,
        "id": f"geomiam-{model.id[:16]}",
        "geometry": None if box is None else _polygon(box),
        **({} if box is None else {"bbox": list(box)}),
        "properties": {
            **_times(model.about),
            "title": model.schema.title or model.schema.name,
            "description": model.summary(),
            **_properties(model),
            **_cube(model, box or GLOBE),
        },
        "links": [],
        "assets": _assets(model),
    }


def _properties(model: Model) -> dict[str, Any]:
    weights = list(model.network.parameters())
    start = model.about.get("warm_start")
    source = start.get("model_id") if isinstance(start, Mapping) else None
    return {
        "mlm:name": model.schema.title or model.schema.name,
        "mlm:architecture": f"geomiam, fusion {model.config.fusion}",
        "mlm:tasks": ["regression"],
        "mlm:framework": "PyTorch",
        "mlm:framework_version": str(torch.__version__),
        "mlm:total_parameters": sum(p.numel() for p in weights),
        "mlm:memory_size": sum(p.numel() * p.element_size() for p in weights),
        "mlm:pretrained": True,
        "mlm:pretrained_source": source,
        "mlm:hyperparameters": _hyperparameters(model),
        "mlm:input": _inputs(model),
        "mlm:output": [_output(model)],
    }


def _hyperparameters(model: Model) -> dict[str, Any]:
    training = model.about.get("training")
    settings = training if isinstance(training, Mapping) else {}
    return {
        **{f"network.{k}": v for k, v in model.config.model_dump(mode="json").items()},
        **{f"training.{k}": v for k, v in settings.items() if re.fullmatch(r"[\w.-]+", str(k))},
    }


def _inputs(model: Model) -> list[dict[str, Any]]:
    """Return one input per modality and shape of its variables."""
    inputs = []
    for modality in model.schema.modalities.values():
        shapes: dict[tuple[Any, ...], list[Any]] = {}
        for variable in modality.variables.values():
            shapes.setdefault((variable.dims, variable.sizes), []).append(variable)
        for (dims, sizes), variables in shapes.items():
            scaling = [_scaling(model, v.name) for v in variables]
            inputs.append(
                {
                    "name": modality.name if len(shapes) == 1 else f"{modality.name}: {dims}",
                    "description": f"{modality.title or modality.name}; NaN = missing, and any input may be missing",
                    "variables": [v.name for v in variables],
                    "input": {
                        "shape": [-1, len(variables), *sizes],
                        "dim_order": ["batch", "variables", *(_dim_names(dims))],
                        "data_type": "float32",
                    },
                    **({"value_scaling": scaling} if all(scaling) else {}),
                }
            )
    return inputs


def _dim_names(dims: tuple[str, ...]) -> list[str]:
    """Return names of dims with the characters that MLM allows, each once."""
    names = [re.sub(r"[^a-z_-]", "_", d.lower()) for d in dims]
    return (
        names
        if len({*names, "batch", "variables"}) == len(names) + 2
        else list("abcdefgh"[: len(dims)])
    )


def _scaling(model: Model, name: str) -> dict[str, Any] | None:
    """Return mean and deviation of a variable with one of each; None for others."""
    mean, std = model.scaler.mean.get(name), model.scaler.std.get(name)
    if mean is None or std is None or mean.size != 1 or std.size != 1:
        return None
    return {"type": "z-score", "mean": float(mean.ravel()[0]), "stddev": float(std.ravel()[0])}


def _output(model: Model) -> dict[str, Any]:
    quantity = model.quantity
    classes = [
        {"value": i, "name": f"species-{i}", "description": s} for i, s in enumerate(model.species)
    ]
    return {
        "name": quantity.name if quantity else "suitability",
        "description": quantity.meaning if quantity else "relative suitability, 0 to 1",
        "tasks": ["regression"],
        "result": {
            "shape": [-1, len(model.species)],
            "dim_order": ["batch", "class"],
            "data_type": "float32",
        },
        "classification:classes": classes,
    }


def _cube(model: Model, box: tuple[float, ...]) -> dict[str, Any]:
    """Return the fields of the datacube extension, which define the input variables."""
    variables = model.schema.variables.values()
    labels = {d: list(v.labels[d]) for v in variables for d in v.dims}
    axes: dict[str, Any] = {
        axis: {"type": "spatial", "axis": axis, "extent": [box[i], box[i + 2]]}
        for i, axis in enumerate("xy")
    }
    label_dims = {d: {"type": "labels", "values": v} for d, v in labels.items() if d not in axes}
    return {
        "cube:dimensions": {**axes, **label_dims},
        "cube:variables": {
            v.name: {
                "type": "data",
                "dimensions": [*v.dims, "y", "x"],
                **({"unit": v.units} if v.units else {}),
                **({"description": v.long_name} if v.long_name else {}),
            }
            for v in variables
        },
    }


def _assets(model: Model) -> dict[str, Any]:
    """Return the files of a model directory; those of sites where the model stores them."""
    assets = {
        "model": {
            "href": "./model.safetensors",
            "title": "weights",
            "type": "application/octet-stream; application=safetensors",
            "roles": ["mlm:model", "mlm:weights"],
            "mlm:artifact_type": "safetensors.torch.save_file",
        },
        "config": {
            "href": "./config.json",
            "title": "schema, scaler, species, network and provenance",
            "type": "application/json",
            "roles": ["metadata"],
        },
        "card": {
            "href": "./README.md",
            "title": "model card",
            "type": "text/markdown",
            "roles": ["metadata"],
        },
    }
    if model.reference:
        title = "predictors of training sites, for maps of novelty"
        assets["reference"] = _sites_asset(reference.FILE, title)
    if model.calibration is not None:
        title = "predictors and labels of calibration sites, for prediction sets"
        assets["calibration"] = _sites_asset(calibration.FILE, title)
    return assets


def _sites_asset(file: str, title: str) -> dict[str, Any]:
    return {
        "href": f"./{file}",
        "title": title,
        "type": "application/octet-stream; application=safetensors",
        "roles": ["data"],
    }


def _degrees(about: Mapping[str, Any]) -> tuple[float, float, float, float] | None:
    """Return west, south, east and north of the training sites; None if they or their CRS are not recorded."""
    from pyproj import Transformer
    from pyproj.exceptions import ProjError

    box, crs = about.get("extent"), about.get("crs")
    if not isinstance(crs, str) or not isinstance(box, list) or len(box) != 4:
        return None
    try:
        to_degrees = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
        left, bottom, right, top = (float(v) for v in box)
        west, south, east, north = to_degrees.transform_bounds(left, bottom, right, top)
    except (ProjError, TypeError, ValueError):
        return None
    inside = -180 <= west <= east <= 180 and -90 <= south <= north <= 90
    return (west, south, east, north) if inside else None


def _polygon(box: tuple[float, float, float, float]) -> dict[str, Any]:
    west, south, east, north = box
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


def _times(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the period of the training sites, or the present time if it is not recorded."""
    dates = about.get("dates")
    if isinstance(dates, list) and len(dates) == 2:
        try:
            first, last = (datetime.date.fromisoformat(str(d)).isoformat() for d in dates)
        except ValueError:
            pass
        else:
            period = {
                "start_datetime": f"{first}T00:00:00Z",
                "end_datetime": f"{last}T23:59:59Z",
            }
            return {"datetime": None, **period}
    creation_time = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    return {"datetime": creation_time.isoformat().replace("+00:00", "Z")}
