"""How accuracy and seconds of an ELM grow with its hidden units, on validation.

Shape letters: U sizes of the hidden layer, S draws of it.
"""

from __future__ import annotations

import dataclasses
import time

import numpy as np

from assignment1.config import Config
from assignment1.representations import alpha_grid, new_elm, representations
from assignment1.selection import ELM_FAMILIES
from assignment1.variants import LOOK_UP, PATCHES
from assignment1.views import Dataset

SWEPT = (LOOK_UP, PATCHES)
QUANTITIES = ("units", "accuracy", "seconds")


def sweep_key(family: str, representation: str, quantity: str) -> str:
    """The name of one array of a sweep in units.npz."""
    return f"{family}, {representation} | {quantity}"


def swept_options(config: Config, name: str) -> list[Config]:
    """The options with every size of the hidden layer that a representation is tried with."""
    if name == LOOK_UP:
        return [dataclasses.replace(config, units=units) for units in config.sweep_units]
    return [dataclasses.replace(config, patches=patches) for patches in config.sweep_patches]


def sweep(config: Config, data: Dataset, family: str, name: str) -> dict[str, np.ndarray]:
    """ELMs of growing hidden layers under ridge, each with the alpha that validation chooses.

    units (U,), the validation accuracy (U, S) of every draw, and the seconds (U, S) of its fit from
    codes to output weights, for one alpha.
    """
    options = swept_options(config, name)
    draws = min(config.seeds, config.sweep_draws)
    units = np.zeros(len(options), np.int64)
    accuracy = np.zeros((len(options), draws))
    seconds = np.zeros((len(options), draws))
    for number, option in enumerate(options):
        for draw in range(draws):
            fit = fit_once(option, data, family, name, draw)
            units[number], accuracy[number, draw], seconds[number, draw] = fit
    return dict(zip(QUANTITIES, (units, accuracy, seconds), strict=True))


def fit_once(
    config: Config, data: Dataset, family: str, name: str, draw: int
) -> tuple[int, float, float]:
    """Hidden units, best validation accuracy, and seconds of one ELM under ridge."""
    weights = ELM_FAMILIES[family]
    table = representations(config, data.views.layout, data.codebook, weights, draw)
    representation = table[name]
    elm = new_elm(representation, family, draw).set_params(penalty="ridge")

    start = time.perf_counter()
    moments = elm.accumulate(*data.rows(data.split.train))
    alphas = alpha_grid(representation, "ridge", moments, config.alphas)
    moments.ridge(float(alphas[0]))
    seconds = time.perf_counter() - start

    X, y = data.rows(data.split.validation)
    hidden = elm.hidden(X)  # (n V, L)
    betas = [moments.ridge(float(alpha)) for alpha in alphas]  # (L, k) each
    scores = [(elm.set_output(moments, b).predict_hidden(hidden) == y).mean() for b in betas]
    return len(moments.gram), max(scores), seconds
