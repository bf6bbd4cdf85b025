"""Predicts y for the user's own rows: a table, a csv and a figure; no column y is needed.

python template/predict.py --data rows.csv
"""

from __future__ import annotations

from common.cli import entry, read_options
from template.config import PredictConfig

if __name__ == "__main__":  # before the heavy imports: --help and a refusal answer at once
    OPTIONS = read_options(PredictConfig)

from pathlib import Path

import numpy as np
import pandas as pd

from common.cli import InputError
from common.figures import PALETTE, figure
from common.files import write_text
from common.run import SavedRun, announce
from template.data import read
from template.evaluate import same_features
from template.model import Ridge

HERE = Path(__file__).resolve().parent


def main(config: PredictConfig) -> pd.DataFrame:
    """Writes the predictions as a csv and a figure, and returns them."""
    if config.data is None:
        raise InputError("--data is needed: a csv of numbers with the run's features")
    run = SavedRun.open(config.run, HERE / "results", ("model.ridge.npz",))
    model = Ridge.load(run.folder / "model.ridge.npz")
    table = same_features(read(config.data, labelled=False), model, config.data)
    announce(table.provenance)
    predictions = model.predict(table.features)  # (S, N)
    result = pd.DataFrame(
        {
            "row": np.arange(1, predictions.shape[1] + 1),
            "y": predictions.mean(0),
            "std_over_seeds": predictions.std(0),
        }
    )

    out = config.out or run.folder / "predictions.csv"
    write_text(out, result.to_csv(index=False, float_format="%.6g"))
    with figure(out.with_suffix(".png"), run.record, (5, 3)) as (_, axes):
        axes.errorbar(result.row, result.y, result.std_over_seeds, fmt=".", color=PALETTE[0])
        axes.set(xlabel="row", ylabel="y, mean and deviation over seeds")
    print(result.head(20).to_string(index=False))
    print(f"all {len(result)} rows are in {out}")
    return result


if __name__ == "__main__":
    entry(main, OPTIONS)
