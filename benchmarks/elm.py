"""Speed and memory of the ELM: one fit, whole paths of penalties, leave-one-out, files of rows.

    python benchmarks/elm.py            writes benchmarks/results/elm.json

Every row is measured in a process of its own, in which ours and its peer take turns on one thread
(where it says so, on all) with the same data and dtype.
28,709 rows (FER-2013's training part) of 144 standardised integers, 7 classes that depend on them,
tanh units.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.linear_model import enet_path
from sklearn.model_selection import StratifiedKFold, cross_val_score

from assignment1.elm import ELMClassifier, Moments, random_layer
from benchmarks.measure import RESULTS, Comparison, seconds_in_turns, write

ROWS, INPUTS, CLASSES, UNITS = 28_709, 144, 7, 2_000
CASE = f"one ridge fit, {UNITS:,} units, {ROWS:,} x {INPUTS}"
ALPHAS = 30
FALLING = np.logspace(0, -2.5, ALPHAS)  # alphas of lasso and elastic net, over the largest
LOO_UNITS, FOLDS = 1_000, 10
TOLERANCES = (1e-3, 5e-4, 2e-4, 1e-4, 1e-5)  # of enet_path, from loose to tight
L1_RATIOS = (1.0, 0.5)
FILE_UNITS, MEMORY_UNITS = 500, 4_000


def sample(rows: int, dtype: type = np.float32) -> tuple[np.ndarray, np.ndarray]:
    """Standardised integers (N, 144) and labels (N,) that a random network gives them, noisily."""
    rng = np.random.default_rng(0)
    X = rng.integers(256, size=(rows, INPUTS)).astype(np.float32)
    X = (X - X.mean(0)) / X.std(0)
    hidden = np.tanh(X @ rng.standard_normal((INPUTS, 20), np.float32) / INPUTS**0.5)
    scores = hidden @ rng.standard_normal((20, CLASSES))  # (N, k)
    noise = rng.gumbel(size=scores.shape) * scores.std()
    return X.astype(dtype), (scores + noise).argmax(1)


def one_hot(y: np.ndarray, dtype: type) -> np.ndarray:
    return np.eye(CLASSES, dtype=dtype)[y]


# -------------------------------------------------------------------------------- one fit


def fit_ours(X: np.ndarray, y: np.ndarray, units: int = UNITS) -> ELMClassifier:
    """One ridge fit."""
    return ELMClassifier(units, penalty="ridge", alpha=1.0, random_state=0).fit(X, y)


def fit_hpelm(X: np.ndarray, y: np.ndarray) -> None:
    """One fit of hpelm with as many units, in the precision of X."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from hpelm import ELM

        precision = "single" if X.dtype == np.float32 else "double"
        model = ELM(INPUTS, CLASSES, classification="c", norm=1.0, precision=precision)
        model.add_neurons(UNITS, "tanh")
        model.train(X, one_hot(y, X.dtype.type))


def two_products(X: np.ndarray) -> np.ndarray:
    """X W and H'H in float32 with nothing between: no fit by normal equations can be faster."""
    hidden = X @ random_layer("gaussian", INPUTS, UNITS, 0)[0]  # (N, U)
    return hidden.T @ hidden


def pseudo_inverse(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The course's solution: the whole hidden matrix and numpy's pinv."""
    weight, bias = random_layer("gaussian", INPUTS, UNITS, 0)
    hidden = np.tanh(X @ weight + bias)  # (N, U)
    return np.linalg.pinv(hidden) @ one_hot(y, np.float32)


def against_hpelm(repeats: int, dtype: type, name: str) -> Comparison:
    X, y = sample(ROWS, dtype)
    works = (lambda: fit_ours(X, y), lambda: fit_hpelm(X, y))
    ours, other = seconds_in_turns(*works, rounds=repeats, warm_up=1)
    threads = os.environ["OMP_NUM_THREADS"]
    where = f"{threads} threads" if threads != "1" else "one thread"
    return Comparison.of(f"{CASE}, {name}, {where}", ours, f"hpelm 1.0.10, {name}, {where}", other)


def hpelm_double(repeats: int) -> Comparison:
    return against_hpelm(repeats, np.float64, "double")


def hpelm_single(repeats: int) -> Comparison:
    return against_hpelm(repeats, np.float32, "single")


def hpelm_double_threads(repeats: int) -> Comparison:
    return hpelm_double(repeats)


def hpelm_single_threads(repeats: int) -> Comparison:
    return hpelm_single(repeats)


def pinv(repeats: int) -> Comparison:
    X, y = sample(ROWS)
    works = (lambda: fit_ours(X, y), lambda: pseudo_inverse(X, y))
    ours, other = seconds_in_turns(*works, rounds=max(1, repeats // 3))
    return Comparison.of(f"{CASE}, single precision", ours, "pseudo-inverse (numpy)", other)


def products(repeats: int) -> Comparison:
    X, y = sample(ROWS)
    works = (lambda: fit_ours(X, y), lambda: two_products(X))
    ours, other = seconds_in_turns(*works, rounds=repeats, warm_up=1)
    return Comparison.of(f"{CASE}, single precision", ours, "the two matrix products alone", other)


# ---------------------------------------------------------------------------------- paths


def our_paths(X: np.ndarray, y: np.ndarray) -> tuple[Moments, list[np.ndarray]]:
    """30 alphas of ridge, lasso and elastic net for all classes, with the fit of the moments.

    Returns the solutions (A, U, k) of lasso and elastic net.
    """
    model = ELMClassifier(UNITS, penalty="ridge", random_state=0)
    moments = model.accumulate(X, y)
    eigen = moments.eigen()
    moments.path("ridge", np.logspace(5, -2, ALPHAS), eigen=eigen)
    paths = [
        moments.elastic_net_path(moments.largest_alpha(l1_ratio) * FALLING, l1_ratio, eigen)
        for l1_ratio in L1_RATIOS
    ]
    return moments, paths


def their_paths(X: np.ndarray, y: np.ndarray, tolerance: float) -> list[np.ndarray]:
    """The paths of lasso and elastic net by scikit-learn, from one Gram matrix for all classes."""
    weight, bias = random_layer("gaussian", INPUTS, UNITS, 0)
    hidden = np.tanh(X @ (weight / np.float32(INPUTS**0.5)) + bias)  # (N, U)
    hidden -= hidden.mean(0)
    target = one_hot(y, np.float32)
    target -= target.mean(0)

    # coordinate descent in double, all else in single
    gram = np.ascontiguousarray(hidden.T @ hidden, np.float64)
    cross = np.ascontiguousarray(target.T @ hidden, np.float64)  # (k, U)
    hidden = np.asfortranarray(hidden, np.float64)
    target = np.ascontiguousarray(target.T, np.float64)  # (k, N)
    paths = []
    for l1_ratio in L1_RATIOS:
        options = {
            "l1_ratio": l1_ratio,
            "tol": tolerance,
            "max_iter": 100_000,
            "check_input": False,
        }
        options["alphas"] = np.abs(cross).max() / len(X) / l1_ratio * FALLING
        outputs = [
            enet_path(hidden, target[output], precompute=gram, Xy=cross[output], **options)[1].T
            for output in range(CLASSES)
        ]
        paths.append(np.stack(outputs, axis=2))  # (A, U, k)
    return paths


def objective(moments: Moments, paths: list[np.ndarray]) -> float:
    """Sum of what lasso and elastic net minimise, over all alphas and outputs."""
    gram = moments.gram.astype(np.float64) / moments.n
    cross = moments.cross.astype(np.float64) / moments.n
    total = 0.0
    for l1_ratio, path in zip(L1_RATIOS, paths, strict=True):
        alphas = moments.largest_alpha(l1_ratio) * FALLING
        for alpha, given in zip(alphas, path, strict=True):
            beta = given.astype(np.float64)  # (U, k)
            total += (beta * (gram @ beta / 2 - cross)).sum()
            total += alpha * l1_ratio * np.abs(beta).sum()
            total += alpha * (1 - l1_ratio) / 2 * np.square(beta).sum()
    return float(total)


def path(repeats: int) -> Comparison:
    """Ours against the loosest tolerance of scikit-learn's that comes down to our objective."""
    X, y = sample(ROWS)
    moments, paths = our_paths(X, y)
    goal = objective(moments, paths)
    (ours,) = seconds_in_turns(lambda: our_paths(X, y), rounds=max(1, repeats // 2))
    for tolerance in TOLERANCES:
        start = time.perf_counter()
        paths = their_paths(X, y, tolerance)
        other = time.perf_counter() - start
        if objective(moments, paths) <= goal:
            break
    case = f"{ALPHAS} alphas x ridge, lasso, elastic net, {CLASSES} outputs, {UNITS:,} units"
    name = f"scikit-learn's enet_path to the same objective (tol {tolerance:g}), without ridge"
    return Comparison.of(case, ours, name, other)


def loo(repeats: int) -> Comparison:
    X, y = sample(ROWS)
    model = ELMClassifier(LOO_UNITS, penalty="ridge", alpha="loo", random_state=0)
    (ours,) = seconds_in_turns(lambda: model.fit(X, y), rounds=max(1, repeats // 2), warm_up=1)

    # the same grid by refits
    start = time.perf_counter()
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    scores = [
        cross_val_score(
            ELMClassifier(LOO_UNITS, penalty="ridge", alpha=alpha, random_state=0), X, y, cv=folds
        ).mean()
        for alpha in model.alphas_
    ]
    other = time.perf_counter() - start
    best = model.alphas_[int(np.argmax(scores))]
    case = (
        f"leave-one-out choice among {ALPHAS} alphas (it takes {model.alpha_:.3g}, of accuracy "
        f"{model.loo_accuracy_.max():.4f}), {LOO_UNITS:,} units"
    )
    name = f"{FOLDS}-fold cross_val_score (takes {best:.3g}, of accuracy {max(scores):.4f})"
    return Comparison.of(case, ours, name, other)


# ---------------------------------------------------------------------------------- memory


def resident_mb() -> float:
    """Peak resident memory of this process in MiB, mapped files included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory(rows: int) -> Comparison:
    X, y = sample(rows)
    fit_ours(X[:3000], y[:3000], 50)
    before = resident_mb()
    fit_ours(X, y, MEMORY_UNITS)
    case = f"memory of one fit beyond the data, {MEMORY_UNITS:,} units, {rows:,} rows"
    return Comparison(case, peak_mb=round(resident_mb() - before, 1))


def memory_few(_: int) -> Comparison:
    return memory(20_000)


def memory_many(_: int) -> Comparison:
    return memory(80_000)


def write_rows(folder: Path, rows: int) -> tuple[Path, Path]:
    """X.npy float32 (N, 144) and y.npy, written block by block."""
    rng = np.random.default_rng(0)
    X = np.lib.format.open_memmap(folder / "X.npy", "w+", np.float32, (rows, INPUTS))
    for start in range(0, rows, 50_000):
        block = X[start : start + 50_000]
        block[:] = rng.standard_normal(block.shape, np.float32)
    np.save(folder / "y.npy", rng.integers(CLASSES, size=rows))
    return folder / "X.npy", folder / "y.npy"


def mapped(rows: int) -> Comparison:
    """One fit of a file, in a process that does nothing else."""
    code = (
        "import sys, time, numpy as np\n"
        "from benchmarks.elm import FILE_UNITS, fit_ours, resident_mb\n"
        "X = np.load(sys.argv[1], mmap_mode='r', allow_pickle=False)\n"
        "y = np.load(sys.argv[2], allow_pickle=False)\n"
        "start = time.perf_counter()\n"
        "fit_ours(X, y, FILE_UNITS)\n"
        "print(time.perf_counter() - start, resident_mb())\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        names = [str(file) for file in write_rows(Path(folder), rows)]
        command = [sys.executable, "-c", code, *names]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, peak = map(float, result.stdout.split())
    case = f"a mapped file of {rows:,} x {INPUTS} float32, {FILE_UNITS} units"
    return Comparison(case, round(seconds, 2), peak_mb=round(peak, 1))


def file_half(_: int) -> Comparison:
    return mapped(500_000)


def file_one(_: int) -> Comparison:
    return mapped(1_000_000)


def file_two(_: int) -> Comparison:
    return mapped(2_000_000)


# ------------------------------------------------------------------------------------ main

MEASURES: dict[str, Callable[[int], Comparison]] = {
    measure.__name__: measure
    for measure in (
        hpelm_double,
        hpelm_single,
        hpelm_double_threads,
        hpelm_single_threads,
        pinv,
        products,
        path,
        loo,
        file_half,
        file_one,
        file_two,
        memory_few,
        memory_many,
    )
}


def in_a_process(name: str, repeats: int) -> Comparison:
    """One row, measured by a process of its own."""
    command = [sys.executable, __file__, "--only", name, "--repeats", str(repeats)]
    threads = os.cpu_count() if name.endswith("threads") else 1
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    print(result.stdout.splitlines()[-1], flush=True)
    return Comparison(**json.loads(result.stdout.splitlines()[-1]))


def main() -> None:
    """Measures the rows and writes results/elm.json."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="timings of each fit")
    parser.add_argument("--only", choices=MEASURES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(dataclasses.asdict(MEASURES[options.only](options.repeats))))
        return

    write(RESULTS / "elm.json", [in_a_process(name, options.repeats) for name in MEASURES])


if __name__ == "__main__":
    main()
