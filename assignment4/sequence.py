"""Adapts networks to several targets one after another, each from where the last one left them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from assignment4.adaptation import Adaptation, Adapted
from assignment4.jobs import Job
from assignment4.pretrained import TunedBase
from assignment4.slots import filled
from common.forecasting.history import Prices


def series_groups(prices: Prices, groups: int) -> list[Prices]:
    """The prices in groups of neighbouring series, as many as asked for or as there are series."""
    columns = np.arange(len(prices.series))
    return [
        replace(
            prices,
            values=prices.values[:, own],
            series=tuple(prices.series[column] for column in own),
        )
        for own in np.array_split(columns, min(groups, len(columns)))
    ]


def adapt_in_sequence(adaptation: Adaptation, job: Job, prices: Prices) -> dict[Job, list[Adapted]]:
    """Every seed's network after one adaptation, two, and so on, each to a group of the series.

    A group fills every slot of the network, and an adapter is merged before the next one. Each
    adaptation is kept, whether validation on its group has improved or not: a network that stayed
    as it was forgets nothing.
    """
    config = adaptation.config
    base = adaptation.base
    found = {}
    for number, group in enumerate(series_groups(prices, config.sequence), start=1):
        windows = replace(adaptation.windows, prices=filled(group, base.slots))
        following = Adaptation(config, adaptation.run, windows, base, adaptation.strategy)
        stage = replace(job, epochs=config.sequence_epochs, stage=number)
        found[stage] = following.train_seeds(stage)
        weights = [adapted.weights for adapted in found[stage]]
        base = TunedBase(base.folder, base.files, base.network, weights)
    return found
