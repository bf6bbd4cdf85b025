"""Answers for the user's own rows, no column y needed: a table, a csv and a figure."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd

from common.cli import InputError, PathOrNone, entry, parse
from common.figures import PALETTE, figure
from common.run import write_text
from template.data import read
from template.evaluate import open_run, same_features


@dataclasses.dataclass(frozen=True)
class Config:
    """Answers for rows without y."""

    run: PathOrNone = None
    """run folder (default: the newest finished one)"""
    data: PathOrNone = None
    """a csv of numbers with the run's features"""
    out: PathOrNone = None
    """csv file (default: predictions.csv in the run folder)"""


def main(config: Config) -> pd.DataFrame:
    folder, model = open_run(config.run)
    if config.data is None:
        raise InputError("--data is needed: a csv of numbers with the run's features")
    answers = model.predict(
        same_features(read(config.data, labelled=False), model, config.data).features
    )  # (S, N)
    table = pd.DataFrame(
        {
            "row": np.arange(1, answers.shape[1] + 1),
            "y": answers.mean(0),
            "std_over_seeds": answers.std(0),
        }
    )
    out = config.out or folder / "predictions.csv"
    write_text(out, table.to_csv(index=False, float_format="%.6g"))
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    with figure(out.with_suffix(".png"), record, (5, 3)) as (_, axes):
        axes.errorbar(table.row, table.y, table.std_over_seeds, fmt=".", color=PALETTE[0])
        axes.set(xlabel="row", ylabel="y, mean and std of the seeds")
    print(table.head(20).to_string(index=False), f"all {len(table)} rows are in {out}", sep="\n")
    return table


if __name__ == "__main__":
    entry(lambda: main(parse(Config)))
