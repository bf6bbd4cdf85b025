"""Assignment 4 from Python: `from assignment4.frames import fit, predict`.

Nothing heavy is imported before one of them is called.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def fit(
    frame: pd.DataFrame, folder: str | Path, base: str | Path | None = None, **options: object
) -> Path:
    """Adapts pretrained networks to a data frame as train.py does; returns the run folder.

    `frame` is wide (times as the index or in a column, and one column per series) or long
    (unique_id, ds, y); `base` is a run folder of assignment 3 (default: its newest finished run),
    and `options` are those of train.py, as preset="smoke". Raises InputError for a frame or an
    option that train.py would refuse.
    """
    from assignment4.config import Config
    from assignment4.train import main
    from common.forecasting.frames import fit_frame

    if base is not None:
        options["base"] = Path(base)
    return fit_frame(frame, folder, Config, main, options)


def predict(
    frame: pd.DataFrame,
    run: str | Path | None = None,
    base: str | Path | None = None,
    **options: object,
) -> pd.DataFrame:
    """Forecasts the steps after a data frame's last row by an adapter: the table of predict.py.

    `run` is what `fit` returned (default: the newest finished run) and `base` the run of assignment
    3 that it was adapted from (default: found by its name); `options` are those of predict.py, as
    adapter=Path("x.safetensors"), quantiles=True. Raises InputError for a frame that the run's
    models cannot forecast.
    """
    from assignment4.config import PredictConfig
    from assignment4.evaluate import RESULTS, load_adapters, run_of
    from common.forecasting.frames import predict_frame, predict_options
    from common.forecasting.prices import CURRENCIES

    if base is not None:
        options["base"] = Path(base)
    config = predict_options(PredictConfig, run, options)
    config = dataclasses.replace(config, run=run_of(config))
    return predict_frame(
        frame,
        config,
        RESULTS,
        CURRENCIES,
        lambda folder: load_adapters(folder, config.adapter, config.base),
    )
