"""The names of what is compared: families of models, representations, and their variants.

Rows, figures and files take their labels from here; no label is taken apart again.
"""

from __future__ import annotations

from dataclasses import dataclass

from assignment1.elm import Penalty

GAUSSIAN_ELM = "ELM"
BINARY_ELM = "binary ELM"
MLP = "MLP"
FAMILIES = (GAUSSIAN_ELM, BINARY_ELM, MLP)  # the models that the course assigned
CNN = "CNN"
PICTURE_CNN = "CNN on decoded pictures"
LINEAR = "linear"
LARGEST_CLASS = "largest class"

DECODED_PICTURES = "decoded pictures"  # what PICTURE_CNN sees

# in the order of the tables and figures
INTEGERS = "integers"
ONE_HOT = "one-hot"
LOOK_UP = "look-up"
RECEPTIVE_FIELDS = "receptive fields"
DECODED_FIELDS = "decoded fields"
PATCHES = "whitened patches"
REPRESENTATIONS = (INTEGERS, ONE_HOT, LOOK_UP, RECEPTIVE_FIELDS, DECODED_FIELDS, PATCHES)

DISTILLED = (LOOK_UP, PATCHES)  # on which an MLP also learns from PICTURE_CNN

# what a VQ-VAE's reconstruction is measured by, in the order of codes.py
PIXELS = "pixels"
CONTRAST = "contrast"
GRADIENTS = "gradients"
FEATURES = "features"
LABEL_AWARE = "labels"
OBJECTIVES = {
    PIXELS: "pixels",
    CONTRAST: "contrast",
    GRADIENTS: "gradients",
    FEATURES: "ImageNet features",
    LABEL_AWARE: "label-aware codes (upper bound: sees labels)",
}
NO_CODES = "faces themselves (no codes)"

# what is read from those codes
RIDGE_ON_PATCHES = "ridge on whitened patches"
LINEAR_ON_ONE_HOT = "linear on one-hot codes"
READOUTS = (RIDGE_ON_PATCHES, LINEAR_ON_ONE_HOT)

PENALTIES: tuple[Penalty, ...] = (None, "ridge", "lasso", "elasticnet")
PENALTY_LABELS: dict[Penalty, str] = {
    None: "no penalty",
    "ridge": "ridge",
    "lasso": "lasso",
    "elasticnet": "elastic net",
}


@dataclass(frozen=True)
class Variant:
    """What a model sees of a face, the penalty on its output weights, and if it has a teacher."""

    representation: str
    penalty: Penalty
    distilled: bool = False

    @property
    def label(self) -> str:
        """As rows and figures name it."""
        teacher = ", distilled" if self.distilled else ""
        return f"{self.representation}, {PENALTY_LABELS[self.penalty]}{teacher}"


def path_key(family: str, variant: Variant, quantity: str) -> str:
    """The name of one array of a penalty path in paths.npz."""
    penalty = PENALTY_LABELS[variant.penalty]
    return f"{family}, {variant.representation} | {penalty} | {quantity}"


def prediction_key(model: str, label: str) -> str:
    """The name of a model's test predictions in predictions.npz."""
    return f"{model} | {label}"
