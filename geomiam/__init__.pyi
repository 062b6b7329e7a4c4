"""The public names of geomiam: literal for type checkers, imported on first use at run time."""

from . import (
    baselines,
    demo,
    errors,
    evaluation,
    explain,
    masking,
    metrics,
    plot,
    ranges,
    reports,
    sklearn,
    sources,
    splits,
)
from .data.cleaning.clean import clean_records
from .data.cleaning.rules import CleaningRules
from .data.cleaning.thin import thin_records
from .data.community import add_community
from .data.correlations import correlations
from .data.coverage import coverage
from .data.grid.align import align
from .data.grid.chips import chips
from .data.grid.location import add_location
from .data.infer import infer_schema
from .data.records.read import read_records
from .data.sites.background import add_background
from .data.sites.background_area import BackgroundArea
from .data.sites.sites import sample
from .data.sites.store import open_sites, write_sites
from .data.store.store import write_cube
from .evaluation.classify import classify
from .evaluation.cross_validate import cross_validate
from .evaluation.evaluate import evaluate
from .evaluation.project import project
from .evaluation.projection import Projection
from .evaluation.tune import tune
from .explain.shapley_values import shapley
from .inference.options import MapOptions, PredictOptions
from .inference.predict import predict
from .maps.cost import MapCost
from .maps.export import export
from .maps.plan import MapPlan, plan_map
from .maps.write import write_map
from .model.model import Model
from .model.saved_model import load_model
from .networks.backbones import Backbone
from .networks.config import NetworkConfig
from .reports.report import report
from .schema.catalogs import catalogs
from .schema.schema import Schema
from .schema.variable import Group, Modality, Variable
from .sources.build import build_cube, plan_cube
from .sources.open_cube import open_cube
from .sources.scenes.sentinel2 import plan_sentinel2, sentinel2
from .sources.stac.stac_source import StacSource
from .training.config import TrainingConfig
from .training.finetune import finetune
from .training.fit import fit
from .training.pretrain import pretrain
from .uncertainty.calibrate import calibrate
from .uncertainty.novelty import novelty
from .uncertainty.options import NoveltyOptions, ValueOptions
from .uncertainty.value_of_information import value_of_information
from .versions import show_versions

__version__: str

__all__ = [
    "Backbone",
    "BackgroundArea",
    "CleaningRules",
    "Group",
    "MapCost",
    "MapOptions",
    "MapPlan",
    "Modality",
    "Model",
    "NetworkConfig",
    "NoveltyOptions",
    "PredictOptions",
    "Projection",
    "Schema",
    "StacSource",
    "TrainingConfig",
    "ValueOptions",
    "Variable",
    "__version__",
    "add_background",
    "add_community",
    "add_location",
    "align",
    "baselines",
    "build_cube",
    "calibrate",
    "catalogs",
    "chips",
    "classify",
    "clean_records",
    "correlations",
    "coverage",
    "cross_validate",
    "demo",
    "errors",
    "evaluate",
    "evaluation",
    "explain",
    "export",
    "finetune",
    "fit",
    "infer_schema",
    "load_model",
    "masking",
    "metrics",
    "novelty",
    "open_cube",
    "open_sites",
    "plan_cube",
    "plan_map",
    "plan_sentinel2",
    "plot",
    "predict",
    "pretrain",
    "project",
    "ranges",
    "read_records",
    "report",
    "reports",
    "sample",
    "sentinel2",
    "shapley",
    "show_versions",
    "sklearn",
    "sources",
    "splits",
    "thin_records",
    "tune",
    "value_of_information",
    "write_cube",
    "write_map",
    "write_sites",
]
