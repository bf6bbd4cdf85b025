"""Speed and memory of one ELM fit and of a path of penalties, beside hpelm, the pseudo-inverse and the two matrix products alone.

    python benchmarks/elm.py            writes benchmarks/results/elm.json

All in one run on one machine: 28,709 rows (FER-2013's training part) of 144 standardised integers, 7 classes, 2,000 tanh units.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from assignment1.elm import ELMClassifier, random_layer
from common.run import git_state, write_json

ROWS, INPUTS, CLASSES, UNITS = 28_709, 144, 7, 2_000


def sample(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.integers(256, size=(n, INPUTS)).astype(np.float32)
    return (X - X.mean(0)) / X.std(0), rng.integers(CLASSES, size=n)


def seconds(*works: Callable[[], object], repeats: int) -> list[float]:
    """Median seconds of each work, the works taking turns so that a drifting machine is fair to all."""
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(repeats):
        for kept, work in zip(taken, works, strict=True):
            start = time.perf_counter()
            work()
            kept.append(time.perf_counter() - start)
    return [statistics.median(kept) for kept in taken]


def ours(X: np.ndarray, y: np.ndarray, units: int = UNITS) -> ELMClassifier:
    return ELMClassifier(units, penalty="ridge", alpha=1.0, weight_scale=1.0, random_state=0).fit(
        X, y
    )


def two_products(X: np.ndarray) -> np.ndarray:
    """X W and H'H of float32, with nothing between or after: what no fit by normal equations can go without."""
    hidden = X @ random_layer("gaussian", INPUTS, UNITS, 0)[0]
    return hidden.T @ hidden


def pseudo_inverse(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The course's route: the whole hidden matrix and numpy's pinv."""
    weight, bias = random_layer("gaussian", INPUTS, UNITS, 0)
    return np.linalg.pinv(np.tanh(X @ weight + bias)) @ np.eye(CLASSES, dtype=np.float32)[y]


def hpelm(X: np.ndarray, y: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from hpelm import ELM

        model = ELM(INPUTS, CLASSES, classification="c", norm=1.0)
        model.add_neurons(UNITS, "tanh")
        model.train(X, np.eye(CLASSES)[y])


def paths(X: np.ndarray, y: np.ndarray) -> None:
    """30 alphas of ridge, lasso and elastic net, with the fit of the moments."""
    moments = ELMClassifier(UNITS, penalty="ridge", weight_scale=1.0, random_state=0).accumulate(
        X, y
    )
    eigen, top = moments.eigen(), moments.largest_alpha()
    moments.path("ridge", np.logspace(5, -2, 30), eigen=eigen)
    moments.path("lasso", top * np.logspace(0, -2.5, 30), eigen=eigen)
    moments.path("elasticnet", 2 * top * np.logspace(0, -2.5, 30), 0.5, eigen=eigen)


def one_at_a_time(X: np.ndarray, y: np.ndarray) -> None:
    """A lasso of scikit-learn on the precomputed Gram matrix, one alpha, one output: 1/420 of what `paths` solves beside ridge."""
    from sklearn.linear_model import Lasso

    weight, bias = random_layer("gaussian", INPUTS, UNITS, 0)
    hidden = np.tanh(X @ weight + bias)
    hidden -= hidden.mean(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Lasso(1e-3, fit_intercept=False, precompute=hidden.T @ hidden).fit(
            hidden, (y == 0).astype(np.float32)
        )


def memory(rows: int, units: int) -> float:
    """MiB that a fit takes above the data and the imported libraries, in a process of its own."""
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from common.run import peak_mb
from elm import ours, sample
X, y = sample({rows}); ours(X[:3000], y[:3000], 50); before = peak_mb(); ours(X, y, {units}); print(peak_mb() - before)
"""
    return float(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    X, y = sample(ROWS)
    ours(X, y)  # the first call pays for threads and pages
    fit, floor = seconds(lambda: ours(X, y), lambda: two_products(X), repeats=repeats)
    (peer,) = seconds(lambda: hpelm(X, y), repeats=max(1, repeats // 2))
    (pinv,) = seconds(lambda: pseudo_inverse(X, y), repeats=1)
    (path,) = seconds(lambda: paths(X, y), repeats=max(1, repeats // 2))
    (lasso,) = seconds(lambda: one_at_a_time(X, y), repeats=1)
    rows = [
        {
            "case": "one ridge fit, 2,000 units, 28,709 x 144",
            "ours_seconds": fit,
            "other": name,
            "other_seconds": other,
            "ratio": fit / other,
            "peak_mb": None,
        }
        for name, other in (
            ("hpelm 1.0.10", peer),
            ("pseudo-inverse (numpy)", pinv),
            ("the two matrix products alone", floor),
        )
    ]
    rows.append(
        {
            "case": "30 alphas x ridge, lasso, elastic net, 7 outputs, 2,000 units",
            "ours_seconds": path,
            "other": "scikit-learn Lasso, one alpha, one output",
            "other_seconds": lasso,
            "ratio": path / lasso,
            "peak_mb": None,
        }
    )
    for count in (20_000, 80_000):
        rows.append(
            {
                "case": f"memory of one fit above the data, 8,000 units, {count:,} rows",
                "ours_seconds": None,
                "other": None,
                "other_seconds": None,
                "ratio": None,
                "peak_mb": round(memory(count, 8_000), 1),
            }
        )
    machine = (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, numpy {np.__version__}"
    )
    write_json(
        Path(__file__).parent / "results" / "elm.json",
        {"machine": machine, "commit": git_state()["commit"], "rows": rows},
    )
    for row in rows:
        other = (
            f"{row['other']}: {row['other_seconds']:.2f} s, ratio {row['ratio']:.3f}"
            if row["other"]
            else f"{row['peak_mb']:.0f} MiB"
        )
        print(
            f"{row['case']:66s} {'' if row['ours_seconds'] is None else format(row['ours_seconds'], '.2f') + ' s':8s} {other}"
        )


if __name__ == "__main__":
    main()
