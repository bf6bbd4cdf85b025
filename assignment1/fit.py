"""Fits one ELM to a matrix on disk that need not fit into memory, in one process or in several.

    python assignment1/fit.py --data X.npy --labels y.npy
    python -m torch.distributed.run --nproc_per_node 2 assignment1/fit.py \\
        --data X.npy --labels y.npy

X.npy holds numbers (n, p), one row a sample, best standardised column by column; y.npy holds labels
(n,). The files are mapped, and rows are read in blocks. Of several processes each sums up its own
share of the rows; the moments add up, so the model is that of one process. Writes a model that
`ELMClassifier.load` reads.
"""

from __future__ import annotations

from assignment1.config import FitConfig
from common.cli import entry, read_options

if __name__ == "__main__":  # before the heavy imports: --help and a refusal answer at once
    OPTIONS = read_options(FitConfig)

import time
from pathlib import Path

import numpy as np
import torch

from assignment1.elm import ELMClassifier
from common.cli import InputError
from common.files import atomic_path
from common.world import World


def mapped(option: str, path: Path, axes: int) -> np.ndarray:
    """The array of a .npy file, mapped into memory. Raises InputError."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{option} {path}: no readable .npy file ({error})") from None
    if not isinstance(array, np.ndarray) or array.ndim != axes or not len(array):
        raise InputError(f"{option} {path}: a .npy file of {axes} axes with rows is needed")
    return array


def check_rows(X: np.ndarray, y: np.ndarray, world: World) -> None:
    """Raises InputError for rows that cannot be fitted, before anything is done."""
    if X.dtype.kind not in "iubf":
        raise InputError(f"--data holds {X.dtype}; numbers are needed")
    if len(X) != len(y):
        raise InputError(f"--data has {len(X):,} rows and --labels has {len(y):,}; as many needed")
    if len(X) < world.size:
        raise InputError(f"--data has {len(X):,} rows for {world.size} processes; give more rows")


def total(values: np.ndarray) -> np.ndarray:
    """The sum of an array over all processes."""
    if not torch.distributed.is_initialized():
        return values
    summed = torch.from_numpy(np.ascontiguousarray(values).copy())
    torch.distributed.all_reduce(summed)
    return summed.numpy()


def new_elm(config: FitConfig) -> ELMClassifier:
    """The untrained ELM of the options."""
    return ELMClassifier(
        config.units,
        config.weights,
        config.activation[0] if len(config.activation) == 1 else config.activation,
        config.penalty,
        config.alpha,
        config.l1_ratio,
        # each process would decide by its own rows whether float32 is enough
        precision="auto" if config.penalty else "float64",
        random_state=config.seed,
    )


def fit(config: FitConfig, world: World) -> ELMClassifier:
    """The ELM of all rows, of which this process reads its share. Raises InputError."""
    assert config.data is not None  # FitConfig.check has refused that
    assert config.labels is not None
    X = mapped("--data", config.data, 2)
    y = mapped("--labels", config.labels, 1)
    check_rows(X, y, world)
    share = slice(len(X) * world.rank // world.size, len(X) * (world.rank + 1) // world.size)
    model = new_elm(config)
    try:
        moments = model.accumulate(X[share], y[share], classes=np.unique(y)).over(total)
        if config.alpha == "loo":
            right = model.leave_one_out(moments).right(model.blocks(X[share], y[share]))
            return model.take_alpha(moments, total(right) / moments.n)
        return model.solve(moments)
    except ValueError as error:
        problem = str(error).splitlines()[0]  # scikit-learn's advice follows in further lines
        raise InputError(f"--data {config.data}: {problem}") from None


def summary(model: ELMClassifier, world: World) -> str:
    """What was fitted, for the terminal."""
    words = [
        f"{model.n_hidden} units",
        f"{len(model.classes_)} classes",
        f"{world.size} process{'es' if world.size > 1 else ''}",
    ]
    if model.alpha == "loo":
        words.append(f"alpha {model.alpha_:.3g}")
        words.append(f"leave-one-out accuracy {model.loo_accuracy_.max():.3f}")
    return ", ".join(words)


def main(config: FitConfig) -> ELMClassifier:
    """Fits and writes the model, and returns it."""
    start = time.perf_counter()
    world = World.join("cpu")
    model = fit(config, world)
    if world.rank == 0:
        with atomic_path(config.out) as temporary:
            model.save(temporary)
        print(
            f"written: {config.out} ({summary(model, world)}, {time.perf_counter() - start:.0f} s)"
        )
    world.leave()
    return model


if __name__ == "__main__":
    entry(main, OPTIONS)
