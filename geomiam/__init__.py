"""geomiam: map species from whatever data each place has, and see which data the map rests on.

>>> import geomiam as gm
>>> maps = cube.miam.predict(model)  # doctest: +SKIP

Importing the package registers ``.miam`` on Datasets and DataTrees and loads neither torch nor dask;
the public names below are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from geomiam import accessor as _accessor
from geomiam._version import __version__

_HOMES = {
    "geomiam.cube.background": ["add_background"],
    "geomiam.cube.chips": ["chips"],
    "geomiam.cube.coverage": ["coverage"],
    "geomiam.cube.grid": ["align"],
    "geomiam.cube.location": ["add_location"],
    "geomiam.cube.infer": ["infer_schema"],
    "geomiam.cube.sites": ["open_sites", "sample", "write_sites"],
    "geomiam.cube.store": ["open_cube", "write_cube"],
    "geomiam.evaluation.crossval": ["cross_evaluate"],
    "geomiam.evaluation.expert_load": ["expert_load"],
    "geomiam.evaluation.explainer": ["fit_explainer"],
    "geomiam.evaluation.fusion_diagnostic": ["fusion_diagnostic"],
    "geomiam.evaluation.importance": ["importance"],
    "geomiam.evaluation.imputation": ["Imputed", "fit_imputed"],
    "geomiam.evaluation.missingness": ["missingness_sweep"],
    "geomiam.evaluation.oracle": ["Oracle", "fit_oracle", "gap"],
    "geomiam.evaluation.rivals": ["fit_rival"],
    "geomiam.evaluation.subsets": ["evaluate"],
    "geomiam.evaluation.systems": ["system"],
    "geomiam.inference.maps": ["write_map"],
    "geomiam.inference.plan": ["MapPlan", "plan_map"],
    "geomiam.inference.predict": ["predict"],
    "geomiam.inference.saturation": ["saturation"],
    "geomiam.inference.shapley": ["shapley"],
    "geomiam.networks.artifact": ["load_model"],
    "geomiam.networks.model": ["Model"],
    "geomiam.networks.config": ["NetworkConfig"],
    "geomiam.networks.encoders": ["Encoder"],
    "geomiam.schema": ["Group", "Modality", "Schema", "Variable"],
    "geomiam.shelf": ["catalogs"],
    "geomiam.sources.build": ["build_cube", "plan_cube"],
    "geomiam.sources.catalogue": ["StacSource"],
    "geomiam.sources.sentinel2": ["plan_sentinel2", "sentinel2"],
    "geomiam.sources.told": ["CubePlan"],
    "geomiam.training.config": ["TrainingConfig"],
    "geomiam.training.finetune": ["finetune"],
    "geomiam.training.fit": ["fit"],
    "geomiam.training.pretrain": ["pretrain"],
    "geomiam.training.probe": ["probe"],
}
_NAMES = {name: home for home, names in _HOMES.items() for name in names}
_MODULES = {
    **{
        name: f"geomiam.{name}" for name in ("cube", "demo", "errors", "masking", "metrics", "plot")
    },
    "readers": "geomiam.evaluation.readers",
    "splits": "geomiam.training.splits",
}

__all__ = ["__version__", *_MODULES, *_NAMES]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    raise AttributeError(f"module 'geomiam' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:  # what the lazy names are, for editors and type checkers
    from geomiam import cube, demo, errors, masking, metrics, plot
    from geomiam.cube.background import add_background
    from geomiam.cube.chips import chips
    from geomiam.cube.coverage import coverage
    from geomiam.cube.grid import align
    from geomiam.cube.infer import infer_schema
    from geomiam.cube.location import add_location
    from geomiam.cube.sites import open_sites, sample, write_sites
    from geomiam.cube.store import open_cube, write_cube
    from geomiam.evaluation import readers
    from geomiam.evaluation.crossval import cross_evaluate
    from geomiam.evaluation.expert_load import expert_load
    from geomiam.evaluation.explainer import fit_explainer
    from geomiam.evaluation.fusion_diagnostic import fusion_diagnostic
    from geomiam.evaluation.importance import importance
    from geomiam.evaluation.imputation import Imputed, fit_imputed
    from geomiam.evaluation.missingness import missingness_sweep
    from geomiam.evaluation.oracle import Oracle, fit_oracle, gap
    from geomiam.evaluation.rivals import fit_rival
    from geomiam.evaluation.subsets import evaluate
    from geomiam.evaluation.systems import system
    from geomiam.inference.maps import write_map
    from geomiam.inference.plan import MapPlan, plan_map
    from geomiam.inference.predict import predict
    from geomiam.inference.saturation import saturation
    from geomiam.inference.shapley import shapley
    from geomiam.networks.artifact import load_model
    from geomiam.networks.config import NetworkConfig
    from geomiam.networks.encoders import Encoder
    from geomiam.networks.model import Model
    from geomiam.schema import Group, Modality, Schema, Variable
    from geomiam.shelf import catalogs
    from geomiam.sources.build import build_cube, plan_cube
    from geomiam.sources.catalogue import StacSource
    from geomiam.sources.sentinel2 import plan_sentinel2, sentinel2
    from geomiam.sources.told import CubePlan
    from geomiam.training import splits
    from geomiam.training.config import TrainingConfig
    from geomiam.training.finetune import finetune
    from geomiam.training.fit import fit
    from geomiam.training.pretrain import pretrain
    from geomiam.training.probe import probe
