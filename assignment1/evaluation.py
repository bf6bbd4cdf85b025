"""Scores of predictions, as rows of metrics.json and as a table.

Shape letters: S seeds, n faces.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.metrics import balanced_accuracy_score, f1_score

from assignment1.config import INTERVAL, RESAMPLES
from assignment1.data import Faces, Split
from assignment1.selection import Candidate
from assignment1.views import Dataset
from assignment1.vqvae import VQVAE, psnr
from common.machine import peak_mb
from common.results import Metric, Results, Row, mean_and_std, print_table

METRICS_INFO = {
    "accuracy": Metric(
        "share",
        "higher",
        "1.0: every face right; guessing the largest class gets its share, about 0.25 on FER-2013",
    ),
    "accuracy_low": Metric(
        "share", "higher", "2.5 % point of the accuracy under resampling of the test faces"
    ),
    "accuracy_high": Metric(
        "share", "higher", "97.5 % point of the accuracy under resampling of the test faces"
    ),
    "balanced_accuracy": Metric(
        "share", "higher", "mean recall of the classes; 1/7 = 0.143 for any constant answer"
    ),
    "macro_f1": Metric("share", "higher", "mean F1 of the classes; 1.0: every face right"),
    "psnr": Metric(
        "dB",
        "higher",
        "mean over faces of 10 log10(1 / MSE) for pixels in 0..1; every 3 dB halve the squared "
        "error",
    ),
    "codes_used": Metric("codes", "higher", "codes of the codebook that occur in the split"),
}
SHOWN = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1"}


@dataclass(frozen=True)
class Scored:
    """What the rows of one model share."""

    protocol: str
    split: str
    model: str
    variant: str
    params: int | None = None
    seconds: float = 0.0


def scores(labels: np.ndarray, predictions: np.ndarray, intervals: bool) -> dict[str, np.ndarray]:
    """Metrics (S,) of every seed's predictions (S, n) against labels (n,), by name.

    With `intervals` also the 95 % interval of the mean accuracy, (1,) each, from resamples of the
    faces (bootstrap).
    """
    with (
        warnings.catch_warnings()
    ):  # of predicted classes that these labels lack, which is no fault
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true")
        balanced = [balanced_accuracy_score(labels, row) for row in predictions]
    f1 = [f1_score(labels, row, average="macro", zero_division=0) for row in predictions]
    values = {
        "accuracy": (predictions == labels).mean(1),
        "balanced_accuracy": np.array(balanced),
        "macro_f1": np.array(f1),
    }
    if intervals:
        right = (predictions == labels).mean(0)  # (n,)
        drawn = np.random.default_rng(0).integers(len(right), size=(RESAMPLES, len(right)))
        low, high = np.percentile(right[drawn].mean(1), INTERVAL)
        values["accuracy_low"] = np.array([low])
        values["accuracy_high"] = np.array([high])
    return values


def score_rows(
    scored: Scored, labels: np.ndarray, predictions: np.ndarray, intervals: bool | None = None
) -> list[Row]:
    """Rows of metrics.json for predictions (S, n), or (n,) of a single seed.

    With `intervals` also that of the accuracy; None: everywhere but on validation.
    """
    predictions = np.atleast_2d(predictions)
    if intervals is None:
        intervals = scored.split != "validation"
    rows = []
    for metric, values in scores(labels, predictions, intervals).items():
        value, std = mean_and_std(values)
        rows.append(
            Row(
                protocol=scored.protocol,
                split=scored.split,
                model=scored.model,
                variant=scored.variant,
                metric=metric,
                value=value,
                std=std,
                n_seeds=len(predictions),
                params=scored.params,
                seconds=round(float(scored.seconds), 2),
                peak_mb=peak_mb(),
            )
        )
    return rows


def held_out_rows(candidates: Iterable[Candidate], data: Dataset) -> list[Row]:
    """Rows of every candidate on validation and test."""
    rows = []
    for item in candidates:
        for split, part, predictions in (
            ("validation", data.split.validation, item.validation),
            ("test", data.split.test, item.test),
        ):
            scored = Scored("held-out", split, item.model, item.label, item.params, item.seconds)
            rows += score_rows(scored, data.labels[part], predictions)
    return rows


def vqvae_rows(vqvae: VQVAE, faces: Faces, split: Split, codemaps: np.ndarray) -> list[Row]:
    """PSNR and codes in use on validation and test."""
    rows = []
    for name, part in (("validation", split.validation), ("test", split.test)):
        quality = psnr(faces.given[part], vqvae.decode(codemaps[part]))
        used = len(np.unique(codemaps[part]))
        for metric, value in (("psnr", quality.mean()), ("codes_used", used)):
            rows.append(
                Row(
                    protocol="held-out",
                    split=name,
                    model="VQ-VAE",
                    variant="12 x 12 indices",
                    metric=metric,
                    value=float(value),
                    n_seeds=1,
                    params=vqvae.parameters_and_codes,
                )
            )
    return rows


def print_chosen(results: Results, chosen: Iterable[Candidate], folder: Path) -> None:
    """The test scores of what validation chose, on the terminal."""
    names = {(item.model, item.label) for item in chosen}
    rows = [
        row
        for row in results["rows"]
        if row["protocol"] == "held-out"
        and row["split"] == "test"
        and (row["model"], row["variant"]) in names
    ]
    title = (
        "Held out, test part: of each family the variant that validation chose, "
        "beside the linear baseline, the largest class and the CNN (mean ± std over seeds)"
    )
    print_table(rows, SHOWN, digits=3, title=title)
    print(f"\nall variants, figures, metrics.json and report.pdf are in {folder}")
