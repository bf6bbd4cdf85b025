"""What selection on the test part buys, on the exchange-rate benchmark.

Published scores of this benchmark are often the best of several look-backs on the test part. Here
DLinear and NLinear (Zeng et al. 2023), five seeds each, and NLinear in closed form are trained at
every look-back; the table sets the test error of the look-back that validation chose beside that of
the one that the test part itself would have chosen, which is no forecast. No batch is dropped.
`python assignment3/lookback.py --preset full` takes about 15 minutes on one core.

Shape letters: T days, B batch, N windows, C context (the look-back), H horizon, S series.
"""

from __future__ import annotations

from assignment3.config import LookbackConfig
from common.cli import entry, read_options

if __name__ == "__main__":  # before the heavy imports: --help and a refusal answer at once
    OPTIONS = read_options(LookbackConfig)

import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from assignment3.exchange import (
    METRICS_INFO,
    Benchmark,
    exchange_file,
    load,
    split_by_share,
    z_scored,
)
from common.files import sha256
from common.forecasting.baselines import RidgeWindow, no_change
from common.results import Results, Row, mean_and_std, print_table
from common.run import Run

HERE = Path(__file__).resolve().parent
AVERAGED = 25  # days of DLinear's moving average
CHOSEN = "look-back chosen on validation"
PICKED = "look-back chosen on the test part"


# ------------------------------------------------------------------------------------- models


class NLinear(nn.Module):
    """One affine map of the context less its last value, which is added again (section 4)."""

    def __init__(self, context: int, horizon: int):
        super().__init__()
        self.map = nn.Linear(context, horizon)

    def forward(self, known: Tensor) -> Tensor:
        """The next values (B, H) of one series' context (B, C)."""
        last = known[:, -1:]
        return self.map(known - last) + last


class DLinear(nn.Module):
    """One affine map of the moving average, and one of what is left (section 4)."""

    def __init__(self, context: int, horizon: int):
        super().__init__()
        self.trend = nn.Linear(context, horizon)
        self.rest = nn.Linear(context, horizon)

    def forward(self, known: Tensor) -> Tensor:
        """The next values (B, H) of one series' context (B, C)."""
        half = AVERAGED // 2
        padded = nn.functional.pad(known[:, None], (half, half), mode="replicate")
        average = nn.functional.avg_pool1d(padded, AVERAGED, 1)[:, 0]  # (B, C)
        return self.trend(average) + self.rest(known - average)


MODELS = {"NLinear": NLinear, "DLinear": DLinear}


# ----------------------------------------------------------------------------------- training


@dataclasses.dataclass(frozen=True)
class Errors:
    """Mean squared errors of z-scored rates, one per seed."""

    validation: list[float]
    test: list[float]
    params: int


class Rates:
    """The benchmark's rates as tensors, and windows of single series."""

    def __init__(self, benchmark: Benchmark):
        self.values = torch.from_numpy(benchmark.values.astype(np.float32))  # (T, S)
        self.context = benchmark.context
        self.horizon = benchmark.horizon

    def windows(self, origins: np.ndarray) -> tuple[Tensor, Tensor]:
        """Contexts (N S, C) and targets (N S, H) of every series."""
        origin = torch.from_numpy(origins)[:, None]
        known = self.values[origin + torch.arange(1 - self.context, 1)]  # (N, C, S)
        coming = self.values[origin + torch.arange(1, self.horizon + 1)]
        return known.transpose(1, 2).flatten(0, 1), coming.transpose(1, 2).flatten(0, 1)

    @torch.no_grad()
    def error(self, model: nn.Module, origins: np.ndarray) -> float:
        """Mean squared error over all windows of the origins."""
        total = 0.0
        for block in np.array_split(origins, -(-len(origins) // 512)):
            known, coming = self.windows(block)
            total += float((model(known) - coming).square().mean()) * len(block)
        return total / len(origins)


def train_seed(
    config: LookbackConfig, name: str, benchmark: Benchmark, seed: int
) -> tuple[float, float, int]:
    """Validation and test error and the weights of a network, stopped on validation."""
    torch.manual_seed(seed)
    rates = Rates(benchmark)
    parts = benchmark.parts
    model = MODELS[name](benchmark.context, benchmark.horizon)
    optimiser = torch.optim.Adam(model.parameters(), config.lr)
    halved = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.5)  # after every epoch
    best = np.inf
    at_best = np.inf
    waited = 0
    for epoch in range(config.epochs):
        order = np.random.default_rng((seed, epoch)).permutation(parts.train)
        for start in range(0, len(order), config.batch):
            known, coming = rates.windows(order[start : start + config.batch])
            loss = (model(known) - coming).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        halved.step()

        # the test error is noted beside it, and never chosen by:
        error = rates.error(model, parts.validation)
        waited += 1
        if error < best:
            best = error
            at_best = rates.error(model, parts.test)
            waited = 0
        if waited == config.patience:
            break
    return best, at_best, sum(weight.numel() for weight in model.parameters())


def train(config: LookbackConfig, name: str, benchmark: Benchmark) -> Errors:
    """Every seed of one model at one look-back and horizon."""
    found = [train_seed(config, name, benchmark, seed) for seed in range(config.seeds)]
    return Errors([one for one, _, _ in found], [two for _, two, _ in found], found[0][2])


def fit_ridge(benchmark: Benchmark) -> Errors:
    """NLinear in closed form, its strength chosen on validation."""
    parts = benchmark.parts
    ridge = RidgeWindow(log=False).fit(
        benchmark.past(parts.train),
        benchmark.future(parts.train),
        benchmark.past(parts.validation),
        benchmark.future(parts.validation),
    )
    errors = [
        float(((ridge.predict(benchmark.past(part)) - benchmark.future(part)) ** 2).mean())
        for part in (parts.validation, parts.test)
    ]
    weights = sum(matrix.size for matrix in ridge.weights)
    return Errors([errors[0]], [errors[1]], weights)


# --------------------------------------------------------------------------------- evaluation


def row(model: str, variant: str, errors: Errors, horizon: int, split: str) -> Row:
    """The mean error of one part over the seeds."""
    values = errors.validation if split == "validation" else errors.test
    value, std = mean_and_std(values)
    return Row(
        protocol="held-out",
        split=split,
        model=model,
        variant=variant,
        metric="mse",
        value=value,
        std=std,
        n_seeds=len(values),
        horizon=horizon,
        params=errors.params,
    )


def rows_of(model: str, horizon: int, by_context: dict[int, Errors]) -> list[Row]:
    """Every look-back, the one that validation chooses and the one that the test part would."""
    rows = []
    for context, errors in by_context.items():
        for split in ("validation", "test"):
            rows.append(row(model, f"look-back {context}", errors, horizon, split))
    chosen = min(by_context.values(), key=lambda errors: np.mean(errors.validation))
    picked = min(by_context.values(), key=lambda errors: np.mean(errors.test))
    rows.append(row(model, CHOSEN, chosen, horizon, "test"))
    rows.append(row(model, PICKED, picked, horizon, "test"))
    return rows


def main(config: LookbackConfig) -> Results:
    # Data: checked before anything is written
    path = exchange_file(config.data)
    rates = load(path)
    values = z_scored(rates)
    benchmarks = {
        (horizon, context): Benchmark(
            values, split_by_share(len(rates), context, horizon), context, horizon
        )
        for horizon in config.horizons
        for context in config.contexts
    }

    folder = config.out or HERE / "results" / "exchange" / f"lookback-{config.preset}"
    provenance = {"path": path.name, "sha256": sha256(path), "rows": len(rates)}
    with Run(config, folder, __file__, "exchange", provenance) as run:
        rows = []
        for horizon in config.horizons:
            # No change, which has no look-back:
            first = benchmarks[horizon, config.contexts[0]]
            test = first.parts.test
            unchanged = no_change(first.past(test), horizon) - first.future(test)
            still = Errors([], [float((unchanged**2).mean())], 0)
            rows.append(row("no change", "last rate", still, horizon, "test"))

            # Every model at every look-back:
            for model in MODELS:
                errors = {}
                for context in config.contexts:
                    name = f"{model}-{horizon}-{context}"
                    benchmark = benchmarks[horizon, context]
                    errors[context] = run.memo(name, train, config, model, benchmark)
                rows += rows_of(model, horizon, errors)
            ridges = {
                context: run.memo(f"ridge-{horizon}-{context}", fit_ridge, benchmark)
                for (own, context), benchmark in benchmarks.items()
                if own == horizon
            }
            rows += rows_of("NLinear, ridge", horizon, ridges)
        results = run.finish(rows, METRICS_INFO)
    shown = [each for each in results["rows"] if each["split"] == "test"]
    print_table(shown, {"mse": "test MSE"}, index=("horizon", "model", "variant"))
    return results


if __name__ == "__main__":
    entry(main, OPTIONS)
