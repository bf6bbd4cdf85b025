"""Template: ridge regression by gradient steps (Hoerl & Kennard 1970) against the training part's mean.

`python template/train.py`: under ten seconds; on the built-in rows expect an RMSE of about 0.5 (their noise), the mean has 1.9.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np

from common.cli import BaseConfig, InputError, entry, parse
from common.report import compile_report
from common.run import Run, progress, write_arrays
from template.data import Split, Table, load, split
from template.figures import draw_figures
from template.model import METRICS_INFO, Ridge, print_table, score_rows, scores

HERE = Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Config(BaseConfig):
    """Template: ridge regression on a table of numbers."""

    source: Literal["auto", "csv", "simulated"] = "auto"
    seed: int = 0
    seeds: int = 5
    rows: int = 2000
    alpha: float = 1e-3
    """penalty on the squared weights"""
    epochs: int = 30
    batch: int = 32
    lr: float = 0.05

    @classmethod
    def presets(cls) -> dict[str, dict[str, Any]]:
        return {
            "smoke": {"rows": 400, "seeds": 2, "epochs": 25},
            "full": {"rows": 20_000, "epochs": 60},
        }


def train(config: Config, run: Run, table: Table, parts: Split, seed: int) -> dict[str, Any]:
    """The weights with the best validation RMSE; every draw is a function of (seed, epoch), so a resumed run is the same run."""
    start, model = (
        time.perf_counter(),
        Ridge.untrained(table.names, table.features[parts.train], table.target[parts.train]),
    )
    z, y = (
        model.standardise(table.features[parts.train]),
        table.target[parts.train] - model.mean,
    )  # (N, D), (N,)
    weight, bias, first, best = model.weight[0], 0.0, 0, {"rmse": float("inf")}
    if kept := run.load(f"ridge-{seed}"):
        weight, bias, first, best = kept["weight"], kept["bias"], kept["epoch"], kept["best"]
    with run.stoppable(lambda: None) as stop_here:
        for epoch in progress(range(first, config.epochs), f"ridge, seed {seed}"):
            order, rate = (
                np.random.default_rng((seed, epoch)).permutation(len(z)),
                config.lr * (1 - epoch / config.epochs),
            )
            for rows in np.split(order, range(config.batch, len(z), config.batch)):
                error = z[rows] @ weight + bias - y[rows]  # (B,)
                weight = weight - rate * (z[rows].T @ error / len(rows) + config.alpha * weight)
                bias -= rate * float(error.mean())
            told = dataclasses.replace(model, weight=weight[None], bias=np.array([bias])).predict(
                table.features[parts.validation]
            )
            rmse = float(scores(told, table.target[parts.validation], model.mean)["rmse"][0])
            stop_here(epoch, rmse)
            run.log(epoch + 1, epoch + 1, "validation", **{f"rmse_seed{seed}": rmse})
            best = {"rmse": rmse, "weight": weight, "bias": bias} if rmse < best["rmse"] else best
            run.save(
                f"ridge-{seed}", {"epoch": epoch + 1, "weight": weight, "bias": bias, "best": best}
            )
    return {**best, "seconds": time.perf_counter() - start}


def main(config: Config) -> dict[str, Any]:
    if min(config.seeds, config.epochs, config.batch) < 1:
        raise InputError("--seeds, --epochs, --batch: 1 is the least")
    table = load(
        config.source, config.data, config.rows, config.seed
    )  # checked before anything is written
    parts = split(len(table.features), config.seed)
    folder = config.out or HERE / "results" / f"{table.source}-{config.preset}"
    with Run(config, folder, __file__, table.source, table.provenance) as run:
        run.note(parts={name: len(rows) for name, rows in vars(parts).items()}, device="cpu")
        done = [
            run.memo(f"ridge-{seed}", lambda seed=seed: train(config, run, table, parts, seed))
            for seed in range(config.seeds)
        ]
        model = Ridge.of_seeds(
            table.names, table.features[parts.train], table.target[parts.train], done
        )
        model.save(folder / "model.ridge.npz")
        answers = {name: model.predict(table.features[rows]) for name, rows in vars(parts).items()}
        write_arrays(
            folder / "predictions.npz", target=table.target[parts.test], ridge=answers["test"]
        )
        rows = score_rows(
            model, answers["validation"], table.target[parts.validation], "validation", done
        )
        rows += score_rows(model, answers["test"], table.target[parts.test], "test", done)
        results = run.finish(rows, METRICS_INFO)
        draw_figures(folder)
        compile_report(folder, HERE / "report.typ", folder / "report.pdf")
    print_table(results, folder)
    return results


if __name__ == "__main__":
    entry(lambda: main(parse(Config)))
