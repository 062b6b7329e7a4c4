"""Masking strategies for training, and the balance of modalities they follow."""

from geomiam.masking.miam import MIAM, BetaCube
from geomiam.masking.registry import STRATEGIES, named, to_dict
from geomiam.masking.scores import Balance, balance
from geomiam.masking.simple import Constant, Dirichlet, Ramp, Uniform, UniformCube
from geomiam.masking.strategy import Strategy, hide
from geomiam.masking.whole_modalities import OPM, ModalityDropout, RandomSubset

__all__ = [
    "MIAM",
    "OPM",
    "STRATEGIES",
    "Balance",
    "BetaCube",
    "Constant",
    "Dirichlet",
    "ModalityDropout",
    "Ramp",
    "RandomSubset",
    "Strategy",
    "Uniform",
    "UniformCube",
    "balance",
    "hide",
    "named",
    "to_dict",
]
