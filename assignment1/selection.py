"""What validation chooses from, and what it chose: variants of a model and strengths of a penalty.

Shape letters: S seeds, n faces, A alphas, L hidden units.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np

from assignment1.elm import Penalty, Weights
from assignment1.variants import BINARY_ELM, GAUSSIAN_ELM, PENALTY_LABELS, Variant, path_key
from common.files import JsonObject

ELM_FAMILIES: dict[str, Weights] = {GAUSSIAN_ELM: "gaussian", BINARY_ELM: "binary"}


@dataclass(frozen=True)
class Selection:
    """A variant of a family and the strength of its penalty that validation chose."""

    family: str
    variant: Variant
    alpha: float


class PenaltyPath(TypedDict):
    """Validation accuracy (A,) and share of units in use (A,) along the alphas (A,)."""

    alphas: np.ndarray
    accuracy: np.ndarray
    share_used: np.ndarray


@dataclass
class ElmFit:
    """One random hidden layer: entry q of each list is for penalty q of the representation.

    alphas that were chosen, the paths to them, predictions int64 (n,) under them, numbers of output
    weights; `seconds` until the moments and activations.
    """

    seconds: float
    alphas: list[float] = field(default_factory=list)
    paths: list[PenaltyPath] = field(default_factory=list)
    validation: list[np.ndarray] = field(default_factory=list)
    test: list[np.ndarray] = field(default_factory=list)
    params: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class ModelFit:
    """Predictions int64 (n,) of one trained network or baseline."""

    validation: np.ndarray
    test: np.ndarray
    params: int | None
    seconds: float


@dataclass(frozen=True)
class TeacherFit:
    """The fit of a network, and its probabilities float32 (n, k) of the faces it was trained on."""

    validation: np.ndarray
    test: np.ndarray
    params: int
    seconds: float
    soft: np.ndarray

    @property
    def fit(self) -> ModelFit:
        """The fit without the probabilities."""
        return ModelFit(self.validation, self.test, self.params, self.seconds)


@dataclass(frozen=True)
class Candidate:
    """A trained model with its predictions int64 (S, n), one row per seed.

    A baseline has a label and no selection; `seconds` are those of one training.
    """

    model: str
    label: str
    selection: Selection | None
    validation: np.ndarray
    test: np.ndarray
    params: int | None
    seconds: float

    @classmethod
    def single(
        cls, model: str, label: str, fit: ModelFit, selection: Selection | None = None
    ) -> Candidate:
        """The fit of one seed."""
        validation = fit.validation[None]
        test = fit.test[None]
        return cls(model, label, selection, validation, test, fit.params, fit.seconds)

    def accuracy(self, labels: np.ndarray) -> float:
        """Share of right predictions on validation over all seeds, for labels (n,)."""
        return float((self.validation == labels).mean())


def elm_candidates(
    family: str, representation: str, penalties: Sequence[Penalty], fits: Sequence[ElmFit]
) -> list[Candidate]:
    """The fits of every seed as one candidate per penalty, with the first seed's alphas."""
    candidates = []
    for number, penalty in enumerate(penalties):
        variant = Variant(representation, penalty)
        candidates.append(
            Candidate(
                model=family,
                label=variant.label,
                selection=Selection(family, variant, fits[0].alphas[number]),
                validation=np.stack([fit.validation[number] for fit in fits]),
                test=np.stack([fit.test[number] for fit in fits]),
                params=fits[0].params[number],
                seconds=float(np.mean([fit.seconds for fit in fits])),
            )
        )
    return candidates


# ------------------------------------------------------------------------------------ choices


def best_on_validation(candidates: Iterable[Candidate], labels: np.ndarray) -> list[Candidate]:
    """For each model, the candidate of the highest validation accuracy, the first of equal ones.

    `labels` (n,) are those of the validation part.
    """
    best: dict[str, Candidate] = {}
    for candidate in candidates:
        leader = best.get(candidate.model)
        if leader is None or candidate.accuracy(labels) > leader.accuracy(labels):
            best[candidate.model] = candidate
    return list(best.values())


def selections_of(chosen: Iterable[Candidate]) -> dict[str, Selection]:
    """The selections among the chosen candidates, by family."""
    selections = (candidate.selection for candidate in chosen)
    return {selection.family: selection for selection in selections if selection is not None}


# ------------------------------------------------------------------------------ for the reader


def chosen_note(chosen: Iterable[Candidate], labels: np.ndarray) -> dict[str, JsonObject]:
    """What validation chose for each model, for run.json; `labels` as in best_on_validation."""
    return {
        candidate.model: {"variant": candidate.label, "accuracy": candidate.accuracy(labels)}
        for candidate in chosen
    }


def alphas_note(penalties: Sequence[Penalty], fit: ElmFit) -> dict[str, float]:
    """The chosen alpha of each penalty, for run.json."""
    labels = [PENALTY_LABELS[penalty] for penalty in penalties]
    return dict(zip(labels, fit.alphas, strict=True))


def path_arrays(
    family: str, representation: str, penalties: Sequence[Penalty], fit: ElmFit
) -> dict[str, np.ndarray]:
    """The penalty paths of one fit under their names in paths.npz."""
    arrays = {}
    for penalty, path in zip(penalties, fit.paths, strict=True):
        variant = Variant(representation, penalty)
        arrays[path_key(family, variant, "alphas")] = path["alphas"]
        arrays[path_key(family, variant, "accuracy")] = path["accuracy"]
        arrays[path_key(family, variant, "share_used")] = path["share_used"]
    return arrays
