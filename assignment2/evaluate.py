"""Backtests a finished run's forecasters: on its own test part, or on prices they have not seen with --data."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np

from assignment2.figures import draw_figures
from assignment2.model import load_forecasters
from assignment2.scoring import INFO, Windows, held_out_rows, print_table
from common.cli import InputError, PathOrNone, entry, parse
from common.prices import COINS, check_positive, load_prices, select
from common.run import choose_device, newest_run, write_json
from common.windows import origins, split

HERE = Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Config:
    """Backtest of saved forecasters, beside every baseline."""

    run: PathOrNone = None
    """run folder (default: the newest finished run in results/)"""
    data: PathOrNone = None
    """prices to score on (csv, csv.gz, parquet; wide or long); every origin in the file that has a whole context is scored"""
    out: PathOrNone = None
    """where the scores go (default: evaluation.json in the run folder)"""
    device: Literal["auto", "cpu", "cuda"] = "auto"


def main(config: Config) -> dict[str, Any]:
    folder = config.run or newest_run(HERE / "results")
    models, series = load_forecasters(folder / "model.seq2seq.safetensors", choose_device(config.device)[0])
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    made = record["config"]
    context, horizon = models[0].settings["context"], models[0].settings["horizon"]
    if config.data is None:
        where = Path(made["data"]) if made["data"] else None
        source = "cache" if record["source"] == "yahoo" else record["source"] if where or record["source"] == "simulated" else "auto"
        prices = select(load_prices(source, where, COINS, made["period"], made["seed"], made["steps"]), series)
        parts = split(prices.contiguous(), context, horizon, made["test_steps"], made["validation_steps"])
        if prices.provenance.get("sha256") != record["data"].get("sha256"):
            raise InputError(f"the prices that {folder} was trained on are not here (another sha256); name the file with --data")
    else:
        prices, parts = select(load_prices("csv", config.data, COINS), series), None
    check_positive(prices, "Seq2Seq forecasts log returns")
    at = origins(prices.contiguous(), context, horizon) if parts is None else parts.test
    if len(at) < 10:
        raise InputError(
            f"{config.data}: {len(prices.times)} rows hold {len(at)} windows of {context} + {horizon} rows without a gap; at least 10 are needed"
        )
    windows = Windows(prices, parts, context, horizon)
    ridge = None if parts is None else windows.ridge()  # new prices have no training part to fit it on
    table, _ = held_out_rows(windows, models, at, "test", ridge, None)
    results = {"run": {"folder": str(folder), "data": prices.provenance, "origins": len(at), "first": prices.moment(int(at[0])), "last": prices.moment(int(at[-1]))},
               "metrics_info": INFO, "rows": table}  # fmt: skip
    out = config.out or folder / "evaluation.json"
    write_json(out, results)
    if config.data is None and config.out is None:
        draw_figures(folder)
    print(f"{len(at):,} origins, {results['run']['first']} to {results['run']['last']}")
    constant = [name for name, values in zip(series, prices.values.T, strict=True) if np.ptp(values) == 0]
    if constant:
        print(f"{', '.join(constant)}: the price never moves, so RMSSE is not defined and has no row")
    print_table(results, out)
    return results


if __name__ == "__main__":
    entry(lambda: main(parse(Config)))
