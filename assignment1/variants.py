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
LINEAR = "linear"
LARGEST_CLASS = "largest class"

# in the order of the tables and figures
INTEGERS = "integers"
ONE_HOT = "one-hot"
LOOK_UP = "look-up"
RECEPTIVE_FIELDS = "receptive fields"
DECODED_FIELDS = "decoded fields"
WIDE_FIELDS = "wide fields"
REPRESENTATIONS = (INTEGERS, ONE_HOT, LOOK_UP, RECEPTIVE_FIELDS, DECODED_FIELDS, WIDE_FIELDS)

PENALTIES: tuple[Penalty, ...] = (None, "ridge", "lasso", "elasticnet")
PENALTY_LABELS: dict[Penalty, str] = {
    None: "no penalty",
    "ridge": "ridge",
    "lasso": "lasso",
    "elasticnet": "elastic net",
}


@dataclass(frozen=True)
class Variant:
    """What a model sees of a face, and the penalty on its output weights."""

    representation: str
    penalty: Penalty

    @property
    def label(self) -> str:
        """As rows and figures name it."""
        return f"{self.representation}, {PENALTY_LABELS[self.penalty]}"


def path_key(family: str, variant: Variant, quantity: str) -> str:
    """The name of one array of a penalty path in paths.npz."""
    penalty = PENALTY_LABELS[variant.penalty]
    return f"{family}, {variant.representation} | {penalty} | {quantity}"


def prediction_key(model: str, label: str) -> str:
    """The name of a model's test predictions in predictions.npz."""
    return f"{model} | {label}"
