"""Assignment 2 from Python: `from assignment2.frames import fit, predict`.

Nothing heavy is imported before one of them is called.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def fit(frame: pd.DataFrame, folder: str | Path, **options: object) -> Path:
    """Trains on a data frame as train.py does on a file; returns the run folder.

    `frame` is wide (times as the index or in a column, and one column per series) or long
    (unique_id, ds, y); `options` are those of train.py, as preset="smoke", horizon=3. Raises
    InputError for a frame or an option that train.py would refuse.
    """
    from assignment2.config import Config
    from assignment2.train import main
    from common.forecasting.frames import fit_frame

    return fit_frame(frame, folder, Config, main, options)


def predict(frame: pd.DataFrame, run: str | Path | None = None, **options: object) -> pd.DataFrame:
    """Forecasts the steps after a data frame's last row: the table of predict.py.

    `run` is what `fit` returned (default: the newest finished run); `options` are those of
    predict.py, as at="2024-01-31", quantiles=True. Raises InputError for a frame that the run's
    models cannot forecast.
    """
    from assignment2.evaluate import RESULTS, load
    from common.forecasting.config import PredictConfig
    from common.forecasting.frames import predict_frame, predict_options
    from common.forecasting.prices import COINS

    config = predict_options(PredictConfig, run, options)
    return predict_frame(frame, config, RESULTS, COINS, lambda folder: load(folder, config.device))
