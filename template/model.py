"""Linear models on standardised features, one per seed, and their scores.

Shape letters: N rows, D features, S seeds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.cli import InputError
from common.files import write_arrays
from common.results import Metric, Results, Row, mean_and_std, print_table
from template.data import Table

METRICS_INFO = {
    "rmse": Metric(
        "that of y", "lower", "0: every row right; 0.5 is the noise of the simulated rows"
    ),
    "r2": Metric("1", "higher", "1.0: every row right; 0: no better than the training part's mean"),
}


@dataclasses.dataclass(frozen=True)
class Trained:
    """What one training gives: `weight` float64 (D,), `bias`, and its seconds."""

    weight: np.ndarray
    bias: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class Ridge:
    """y = mean + z w + b with z = (x - shift) / scale, one (w, b) per seed.

    `shift`, `scale` float64 (D,); `weight` (S, D); `bias` (S,); `mean` of the training part.
    """

    names: tuple[str, ...]
    shift: np.ndarray
    scale: np.ndarray
    mean: float
    weight: np.ndarray
    bias: np.ndarray

    @classmethod
    def untrained(cls, names: tuple[str, ...], features: np.ndarray, target: np.ndarray) -> Ridge:
        """Predicts the mean of `target` (N,); the scales are those of `features` (N, D)."""
        deviation = features.std(0)  # (D,)
        return cls(
            names=names,
            shift=features.mean(0),
            scale=np.where(deviation > 0, deviation, 1),  # a constant feature stays zero
            mean=float(target.mean()),
            weight=np.zeros((1, features.shape[1])),
            bias=np.zeros(1),
        )

    @classmethod
    def of_seeds(cls, table: Table, train: np.ndarray, trained: Sequence[Trained]) -> Ridge:
        """The models of several seeds, with the scales of the training rows `train`."""
        model = cls.untrained(table.names, table.features[train], table.target[train])
        return dataclasses.replace(
            model,
            weight=np.stack([one.weight for one in trained]),
            bias=np.array([one.bias for one in trained]),
        )

    def standardise(self, features: np.ndarray) -> np.ndarray:
        """z (N, D) of features (N, D)."""
        return (features - self.shift) / self.scale

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Predictions float64 (S, N) for features (N, D)."""
        return self.mean + self.weight @ self.standardise(features).T + self.bias[:, None]

    def save(self, path: Path) -> None:
        """Writes an .npz atomically."""
        write_arrays(path, **dataclasses.asdict(self))

    @classmethod
    def load(cls, path: Path) -> Ridge:
        """Reads what `save` wrote. Raises InputError where there is none."""
        try:
            with np.load(path, allow_pickle=False) as file:
                stored = {name: file[name] for name in file.files}
            stored["names"] = tuple(map(str, stored["names"]))
            stored["mean"] = float(stored["mean"])
            return cls(**stored)
        except Exception as error:  # a damaged archive has many ways to fail
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"{path} holds no model ({reason}); give a finished run with --run"
            ) from None


def scores(prediction: np.ndarray, target: np.ndarray, mean: float) -> dict[str, np.ndarray]:
    """RMSE and R^2 against the training part's mean, each (S,).

    The predictions are (S, N), the target is (N,).
    """
    error = ((prediction - target) ** 2).mean(1)  # (S,)
    return {"rmse": np.sqrt(error), "r2": 1 - error / ((mean - target) ** 2).mean()}


def score_rows(
    model: Ridge,
    prediction: np.ndarray,
    target: np.ndarray,
    split: str,
    trained: Sequence[Trained] = (),
) -> list[Row]:
    """Rows for one part: predictions (S, N) of the seeds for the target (N,), beside the mean."""
    seconds = float(np.mean([one.seconds for one in trained])) if trained else None
    baseline = np.full((1, len(target)), model.mean)
    rows = []
    for metric, values in scores(prediction, target, model.mean).items():
        value, std = mean_and_std(values)
        rows.append(
            Row(
                protocol="held-out",
                split=split,
                model="ridge",
                variant="best epoch on validation",
                metric=metric,
                value=value,
                std=std,
                n_seeds=len(values),
                params=len(model.names) + 1,
                seconds=seconds,
            )
        )
    for metric, values in scores(baseline, target, model.mean).items():
        rows.append(
            Row(
                protocol="held-out",
                split=split,
                model="mean",
                variant="of the training part",
                metric=metric,
                value=float(values[0]),
                n_seeds=1,
                params=1,
            )
        )
    return rows


def print_scores(results: Results, path: Path, part: str = "test") -> None:
    """Prints a part's scores and where they were written."""
    rows = [row for row in results["rows"] if row["split"] == part]
    title = f"{part} part, mean ± deviation over seeds" if part == "test" else "the given rows"
    print_table(rows, {"rmse": "RMSE", "r2": "R²"}, title=title)
    print(f"everything is in {path}")
