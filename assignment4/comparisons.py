"""Which forecasts are compared with each other at the same origins."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from assignment4.jobs import CONVERGENCE
from assignment4.strategies import (
    FROM_SCRATCH,
    FULL,
    NO_ADAPTATION,
    Strategy,
    lora,
    main_strategies,
)
from common.forecasting.ensemble import ModelGroup, Pair
from common.forecasting.metrics import holm
from common.results import Metric, Row

HOLM = "p_crps_against_holm"
HOLM_INFO = {
    HOLM: Metric(
        "probability",
        "lower",
        "p_crps_against, pooled, after Holm's correction for all pairs of the run; "
        "below 0.05: different",
    )
}


def pairs(whole: Sequence[ModelGroup], less: Sequence[ModelGroup], rank: int) -> list[Pair]:
    """The pairs of ensembles: `whole` was trained to convergence, `less` on shares of the data.

    Every strategy against full fine-tuning, full fine-tuning against no adaptation; on every share
    the pretrained networks against those from scratch, and where an unadapted network knows of the
    share, too, that one against scratch and LoRA against it.
    """
    ensembles = {group.key: group.ensemble_key for group in (*less, *whole)}

    def ensemble(strategy: Strategy, variant: str = CONVERGENCE) -> tuple[str, str]:
        return ensembles[strategy.label, variant]

    compared = [
        Pair(group.ensemble_key, ensemble(FULL))
        for group in whole
        if group.model not in (FULL.label, NO_ADAPTATION.label)
    ]
    compared.append(Pair(ensemble(FULL), ensemble(NO_ADAPTATION)))
    for variant in dict.fromkeys(group.variant for group in (*less, *whole)):
        for strategy in main_strategies(rank)[1:]:
            scratch = ensemble(FROM_SCRATCH, variant)
            compared.append(Pair(ensemble(strategy, variant), scratch))
    for group in less:
        if group.model == NO_ADAPTATION.label:
            scratch = ensemble(FROM_SCRATCH, group.variant)
            compared.append(Pair(group.ensemble_key, scratch))
            compared.append(Pair(ensemble(lora(rank), group.variant), group.ensemble_key))
    return compared


def holm_rows(rows: Sequence[Row]) -> list[Row]:
    """The pooled p values of all pairs of the test part, corrected by Holm (1979) as one family."""
    family = [
        row
        for row in rows
        if row.metric == "p_crps_against"
        and row.split == "test"
        and row.series is row.horizon is None
    ]
    if not family:
        return []
    adjusted = holm(np.array([row.value for row in family]))
    return [
        dataclasses.replace(row, metric=HOLM, value=float(p))
        for row, p in zip(family, adjusted, strict=True)
    ]
