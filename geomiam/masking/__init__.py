"""Masking strategies for training, and the balance of modalities they follow."""

from geomiam.masking.scores import Balance, balance
from geomiam.masking.strategies import (
    MIAM,
    OPM,
    BetaCube,
    Constant,
    Dirichlet,
    ModalityDropout,
    Strategy,
    Uniform,
    UniformCube,
    hide,
    named,
    to_dict,
)

__all__ = [
    "MIAM",
    "OPM",
    "Balance",
    "BetaCube",
    "Constant",
    "Dirichlet",
    "ModalityDropout",
    "Strategy",
    "Uniform",
    "UniformCube",
    "balance",
    "hide",
    "named",
    "to_dict",
]
