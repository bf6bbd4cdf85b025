"""Template: ridge regression by gradient steps (Hoerl & Kennard 1970) against the mean.

    python template/train.py

Under ten seconds; on the built-in rows expect an RMSE of about 0.5, which is their noise. The
mean of the training part has 1.9.
"""

from __future__ import annotations

from common.cli import entry, read_options
from template.config import Config

if __name__ == "__main__":  # before the heavy imports: --help and a refusal answer at once
    OPTIONS = read_options(Config)

import dataclasses
import time
from pathlib import Path

import numpy as np

from common.files import write_arrays
from common.results import Results
from common.run import Run, progress
from template.data import Split, Table, digests, load, split
from template.figures import draw_figures
from template.model import METRICS_INFO, Ridge, Trained, print_scores, score_rows, scores

HERE = Path(__file__).resolve().parent


def train(config: Config, run: Run, table: Table, parts: Split, seed: int) -> Trained:
    """The weights with the best validation RMSE.

    Every draw is a function of (seed, epoch), so a resumed run is the same run.
    """
    name = f"ridge-{seed}"
    start = time.perf_counter()

    # Data: standardised features and centred target of the training part:
    model = Ridge.untrained(table.names, table.features[parts.train], table.target[parts.train])
    z = model.standardise(table.features[parts.train])  # (N, D)
    y = table.target[parts.train] - model.mean  # (N,)

    # State, from the last checkpoint where there is one:
    weight, bias = model.weight[0], 0.0  # (D,)
    best = {"rmse": float("inf"), "weight": weight, "bias": bias}
    first_epoch = 0
    checkpoint = run.load(name)
    if checkpoint:
        weight, bias, best = checkpoint["weight"], checkpoint["bias"], checkpoint["best"]
        first_epoch = checkpoint["epoch"]

    with run.stoppable(lambda: None) as check:
        for epoch in progress(range(first_epoch, config.epochs), f"ridge, seed {seed}"):
            # Steps down the gradient of |z w + b - y|^2 / 2B + alpha |w|^2 / 2:
            order = np.random.default_rng((seed, epoch)).permutation(len(z))
            lr = config.lr * (1 - epoch / config.epochs)
            for rows in np.split(order, range(config.batch, len(z), config.batch)):
                error = z[rows] @ weight + bias - y[rows]  # (B,)
                weight = weight - lr * (z[rows].T @ error / len(rows) + config.alpha * weight)
                bias -= lr * float(error.mean())

            # The validation part chooses the epoch:
            current = dataclasses.replace(model, weight=weight[None], bias=np.array([bias]))
            prediction = current.predict(table.features[parts.validation])  # (1, N)
            rmse = float(scores(prediction, table.target[parts.validation], model.mean)["rmse"][0])
            check(epoch, rmse)
            run.log(epoch + 1, epoch + 1, "validation", **{f"rmse_seed{seed}": rmse})
            if rmse < best["rmse"]:
                best = {"rmse": rmse, "weight": weight, "bias": bias}
            state = {"epoch": epoch + 1, "weight": weight, "bias": bias, "best": best}
            run.save(name, state)
    return Trained(best["weight"], best["bias"], time.perf_counter() - start)


def main(config: Config) -> Results:
    """Trains, evaluates and records; returns what metrics.json holds."""
    # Data: checked before anything is written:
    table = load(config.source, config.data, config.rows, config.seed)
    parts = split(len(table.features), config.seed)
    folder = config.out or HERE / "results" / f"{table.source}-{config.preset}"

    with Run(config, folder, __file__, table.source, table.provenance) as run:
        sizes = {name: len(rows) for name, rows in vars(parts).items()}
        run.note(parts=sizes, device="cpu")
        print(", ".join(f"{count:,} rows for {name}" for name, count in sizes.items()))

        # Models, one per seed:
        trained = [
            run.memo(f"ridge-{seed}", train, config, run, table, parts, seed)
            for seed in range(config.seeds)
        ]
        model = Ridge.of_seeds(table, parts.train, trained)
        model.save(folder / "model.ridge.npz")
        seen = digests(table)[np.concatenate([parts.train, parts.validation])]
        write_arrays(folder / "seen.npz", rows=seen)  # evaluate.py leaves these rows out

        # Evaluation, on the test part once:
        rows = []
        for name in ("validation", "test"):
            indices = getattr(parts, name)
            prediction = model.predict(table.features[indices])  # (S, N)
            rows += score_rows(model, prediction, table.target[indices], name, trained)

        # Record: what the figures are made from, the scores, the figures and the report:
        write_arrays(folder / "predictions.npz", target=table.target[parts.test], ridge=prediction)
        results = run.finish(rows, METRICS_INFO, draw_figures, HERE / "report.typ")
    print_scores(results, folder)
    return results


if __name__ == "__main__":
    entry(main, OPTIONS)
