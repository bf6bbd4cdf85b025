"""Speed and memory of one ELM fit and of paths of penalties.

    python benchmarks/elm.py            writes benchmarks/results/elm.json

Compared with hpelm in double precision (its default) and in single precision (ours), with the
pseudo-inverse, and with the two matrix products alone. 28,709 rows (FER-2013's training part) of
144 standardised integers, 7 classes, 2,000 tanh units.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import warnings

import numpy as np

from assignment1.elm import ELMClassifier, random_layer
from benchmarks.measure import RESULTS, Comparison, seconds_in_turns, write

ROWS, INPUTS, CLASSES, UNITS = 28_709, 144, 7, 2_000
ALPHAS = 30


def sample(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Standardised integers float32 (N, 144) and labels (N,)."""
    rng = np.random.default_rng(0)
    X = rng.integers(256, size=(rows, INPUTS)).astype(np.float32)
    return (X - X.mean(0)) / X.std(0), rng.integers(CLASSES, size=rows)


def one_hot(y: np.ndarray, dtype: type) -> np.ndarray:
    return np.eye(CLASSES, dtype=dtype)[y]


def fit_ours(X: np.ndarray, y: np.ndarray, units: int = UNITS) -> ELMClassifier:
    """One ridge fit."""
    model = ELMClassifier(units, penalty="ridge", alpha=1.0, weight_scale=1.0, random_state=0)
    return model.fit(X, y)


def two_products(X: np.ndarray) -> np.ndarray:
    """X W and H'H in float32 with nothing between: no fit by normal equations can be faster."""
    hidden = X @ random_layer("gaussian", INPUTS, UNITS, 0)[0]  # (N, U)
    return hidden.T @ hidden


def pseudo_inverse(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The course's solution: the whole hidden matrix and numpy's pinv."""
    weight, bias = random_layer("gaussian", INPUTS, UNITS, 0)
    hidden = np.tanh(X @ weight + bias)  # (N, U)
    return np.linalg.pinv(hidden) @ one_hot(y, np.float32)


def fit_hpelm(X: np.ndarray, y: np.ndarray, precision: str) -> None:
    """One fit of hpelm with as many units."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from hpelm import ELM

        model = ELM(INPUTS, CLASSES, classification="c", norm=1.0, precision=precision)
        model.add_neurons(UNITS, "tanh")
        model.train(X, one_hot(y, np.float32 if precision == "single" else np.float64))


def paths(X: np.ndarray, y: np.ndarray) -> None:
    """30 alphas of ridge, lasso and elastic net for all classes, with the fit of the moments."""
    model = ELMClassifier(UNITS, penalty="ridge", weight_scale=1.0, random_state=0)
    moments = model.accumulate(X, y)
    eigen = moments.eigen()
    largest = moments.largest_alpha()
    falling = np.logspace(0, -2.5, ALPHAS)
    moments.path("ridge", np.logspace(5, -2, ALPHAS), eigen=eigen)
    moments.path("lasso", largest * falling, eigen=eigen)
    moments.path("elasticnet", 2 * largest * falling, 0.5, eigen=eigen)


def memory(rows: int, units: int) -> float:
    """MiB that a fit takes beyond the data and the imported libraries, in a process of its own."""
    code = f"""
import sys
from benchmarks.elm import fit_ours, sample
from common.machine import peak_mb
X, y = sample({rows})
fit_ours(X[:3000], y[:3000], 50)
before = peak_mb()
fit_ours(X, y, {units})
print(peak_mb() - before)
"""
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return round(float(result.stdout), 1)


def main() -> None:
    """Measures and writes results/elm.json."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="timings of each fit")
    repeats = parser.parse_args().repeats
    X, y = sample(ROWS)

    # one fit, all in turns after a warm-up
    names = ("hpelm 1.0.10, double", "hpelm 1.0.10, single", "the two matrix products alone")
    ours, double, single, products = seconds_in_turns(
        lambda: fit_ours(X, y),
        lambda: fit_hpelm(X, y, "double"),
        lambda: fit_hpelm(X, y, "single"),
        lambda: two_products(X),
        rounds=repeats,
        warm_up=1,
    )
    case = f"one ridge fit, {UNITS:,} units, {ROWS:,} x {INPUTS}"
    others = zip(names, (double, single, products), strict=True)
    rows = [Comparison.of(case, ours, name, other) for name, other in others]
    (pinv,) = seconds_in_turns(lambda: pseudo_inverse(X, y), rounds=1)
    rows.append(Comparison.of(case, ours, "pseudo-inverse (numpy)", pinv))

    # whole paths, compared with a single fit
    (path,) = seconds_in_turns(lambda: paths(X, y), rounds=max(1, repeats // 2), warm_up=1)
    case = f"{ALPHAS} alphas x ridge, lasso, elastic net, {CLASSES} outputs, {UNITS:,} units"
    rows.append(Comparison.of(case, path, "our single ridge fit", ours))

    for count in (20_000, 80_000):
        case = f"memory of one fit beyond the data, 8,000 units, {count:,} rows"
        rows.append(Comparison(case, peak_mb=memory(count, 8_000)))
    write(RESULTS / "elm.json", rows)


if __name__ == "__main__":
    main()
