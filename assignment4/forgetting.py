"""How much of the coins an adapted network forgets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from assignment3.model import Forecaster
from assignment4.adaptation import Adapted
from assignment4.config import FORGETTING_WINDOWS
from assignment4.jobs import Job
from assignment4.pretrained import Base
from common.cli import InputError
from common.forecasting.prices import COINS, load_prices
from common.forecasting.scripts import prices_of
from common.forecasting.windows import Windows, split
from common.results import Metric, Row, mean_and_std
from common.run import SavedRun

FORGETTING = {
    "coin_crps": Metric(
        "ratio",
        "lower",
        "CRPS on the coins' validation part after the adaptation over that before it; "
        "1.0: nothing forgotten",
    )
}


@dataclasses.dataclass(frozen=True)
class Coins:
    """The windows that a base was trained on, and a word on where they come from."""

    windows: Windows
    origin: str

    @classmethod
    def of(cls, folder: Path) -> Coins:
        """The coins of an assignment 3 run; simulated ones where its own are not here."""
        run = SavedRun.open(folder, folder.parent, needs=())
        origin = "the base's own"
        try:
            prices = prices_of(run, COINS)
        except InputError:
            prices = load_prices("simulated", None, COINS)
            origin = "simulated, because the base's own are not here"
        config = run.config
        context = config["context"]
        horizon = config["horizon"]
        parts = split(
            prices.contiguous(),
            context,
            horizon,
            config["test_steps"],
            config["validation_steps"],
        )
        return cls(Windows(prices, parts, context, horizon), origin)


def forgetting_rows(
    coins: Windows, base: Base, adapted: Mapping[Job, Sequence[Adapted]]
) -> list[Row]:
    """The error on the coins after each job, of every seed, over that of its own base before.

    The coins' own scales are put back into the adapted networks.
    """
    validation = coins.parts.validation
    origins = validation[:: max(len(validation) // FORGETTING_WINDOWS, 1)]
    usual_change = coins.changes(coins.parts.train).std(0)  # (H, S)
    seeds = len(next(iter(adapted.values())))
    ratios = {job: np.zeros(seeds) for job in adapted}
    for seed in range(seeds):
        network = Forecaster(base.load(seed))
        scales = network.fitted.get_weights()
        before = coins.crps(network, usual_change, origins)
        for job, networks in adapted.items():
            network.model.set_weights(networks[seed].weights)
            network.fitted.set_weights(scales)
            ratios[job][seed] = coins.crps(network, usual_change, origins) / before

    rows = []
    for job, networks in adapted.items():
        value, std = mean_and_std(ratios[job])
        row = Row(
            protocol="held-out",
            split="validation",
            model=job.strategy.label,
            variant=job.variant,
            metric="coin_crps",
            value=value,
            std=std,
            n_seeds=seeds,
            params=networks[0].params,
        )
        rows.append(row)
    return rows
