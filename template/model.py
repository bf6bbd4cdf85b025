"""Linear models on standardised features, one a seed, and their scores.

Shape letters: N rows, D features, S seeds.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from common.cli import InputError
from common.run import write_arrays

METRICS_INFO = {
    "rmse": {
        "unit": "that of y",
        "better": "lower",
        "reference": "0: every row right; 0.5 is the noise of the simulated rows",
    },
    "r2": {
        "unit": "1",
        "better": "higher",
        "reference": "1.0: every row right; 0: no better than the training part's mean",
    },
}


@dataclasses.dataclass(frozen=True)
class Ridge:
    """y = mean + z w + b of z = (x - shift) / scale: `shift`, `scale` (D,), `weight` (S, D), `bias` (S,), `mean` of the training part."""

    names: tuple[str, ...]
    shift: np.ndarray
    scale: np.ndarray
    mean: float
    weight: np.ndarray
    bias: np.ndarray

    @classmethod
    def untrained(cls, names: tuple[str, ...], features: np.ndarray, target: np.ndarray) -> Ridge:
        """The model that answers the mean of `target` (N,); scales are those of `features` (N, D), the training part's."""
        scale = np.where(features.std(0) > 0, features.std(0), 1)  # a constant feature stays zero
        return cls(
            names,
            features.mean(0),
            scale,
            float(target.mean()),
            np.zeros((1, features.shape[1])),
            np.zeros(1),
        )

    @classmethod
    def of_seeds(
        cls,
        names: tuple[str, ...],
        features: np.ndarray,
        target: np.ndarray,
        done: list[dict[str, Any]],
    ) -> Ridge:
        """What training ended with: a `weight` (D,) and a `bias` a seed; the rest as `untrained`."""
        weight, bias = (
            np.stack([each["weight"] for each in done]),
            np.array([each["bias"] for each in done]),
        )
        return dataclasses.replace(cls.untrained(names, features, target), weight=weight, bias=bias)

    def standardise(self, features: np.ndarray) -> np.ndarray:
        """z (N, D) of features (N, D)."""
        return (features - self.shift) / self.scale

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Answers float64 (S, N) to features (N, D)."""
        return self.mean + self.weight @ self.standardise(features).T + self.bias[:, None]

    def save(self, path: Path) -> None:
        """Writes an .npz atomically."""
        write_arrays(path, **dataclasses.asdict(self))

    @classmethod
    def load(cls, path: Path) -> Ridge:
        """Reads what `save` wrote. Raises InputError where there is none."""
        try:
            with np.load(path, allow_pickle=False) as held:
                kept = {name: held[name] for name in held.files}
            return cls(
                **kept | {"names": tuple(map(str, kept["names"])), "mean": float(kept["mean"])}
            )
        except Exception as error:  # a damaged archive has many ways to fail
            raise InputError(
                f"{path} holds no model ({' '.join(str(error).split())[:200]}); give a finished run with --run"
            ) from None


def scores(answers: np.ndarray, target: np.ndarray, mean: float) -> dict[str, np.ndarray]:
    """RMSE and R^2 against the training part's mean, each (S,), of answers (S, N) to target (N,)."""
    error = ((answers - target) ** 2).mean(1)  # (S,)
    return {"rmse": np.sqrt(error), "r2": 1 - error / ((mean - target) ** 2).mean()}


def score_rows(
    model: Ridge,
    answers: np.ndarray,
    target: np.ndarray,
    part: str,
    done: list[dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """The rows of metrics.json for one part: answers (S, N) of the seeds to target (N,), beside the mean; `done` knows the seconds."""
    seconds = float(np.mean([each["seconds"] for each in done])) if done else None
    rows: list[dict[str, Any]] = []
    for name, told in (("ridge", answers), ("mean", np.full((1, len(target)), model.mean))):
        about = {"protocol": "held-out", "split": part, "model": name, "n_seeds": len(told)}
        about |= (
            {
                "variant": "best epoch on validation",
                "params": len(model.names) + 1,
                "seconds": seconds,
            }
            if name == "ridge"
            else {"variant": "of the training part", "params": 1}
        )
        for metric, values in scores(told, target, model.mean).items():
            spread = float(values.std(ddof=1)) if len(values) > 1 else None
            rows.append(about | {"metric": metric, "value": float(values.mean()), "std": spread})
    return rows


def print_table(results: dict[str, Any], place: Path) -> None:
    """The test part's rows, and where they were written."""
    for row in results["rows"]:
        if row["split"] == "test":
            print(
                f"{row['model']:8s}{row['metric']:6s}{row['value']:8.4f}"
                + ("" if row["std"] is None else f" ± {row['std']:.4f}")
            )
    print(f"everything is in {place}")
