"""Extreme learning machines as scikit-learn classifiers, solved from one Gram matrix."""

from .classifier import ELMClassifier
from .moments import Alphas, Moments, Penalty
from .press import LeaveOneOut
from .units import Weights, integer_seed, random_layer
from .weighting import ClassWeight, weighted_rows

__all__ = [
    "Alphas",
    "ClassWeight",
    "ELMClassifier",
    "LeaveOneOut",
    "Moments",
    "Penalty",
    "Weights",
    "integer_seed",
    "random_layer",
    "weighted_rows",
]
