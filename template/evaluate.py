"""Scores a finished run's model: on its own test part, or on rows it has not seen with --data; draws everything again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from common.cli import InputError, PathOrNone, entry, parse
from common.report import compile_report
from common.run import newest_run, write_json
from template.data import Table, load, read, split
from template.figures import draw_figures
from template.model import METRICS_INFO, Ridge, print_table, score_rows

HERE = Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Config:
    """Scores a saved model and draws its run's figures again."""

    run: PathOrNone = None
    """run folder (default: the newest finished one)"""
    data: PathOrNone = None
    """a csv of numbers with y and the run's features (default: the run's own test part)"""
    out: PathOrNone = None
    """json file (default: evaluation-<data>.json in the run folder)"""


def open_run(folder: Path | None) -> tuple[Path, Ridge]:
    """The folder of a finished run, the newest by default, and its model. Raises InputError where there is none."""
    folder = folder or newest_run(HERE / "results")
    return folder, Ridge.load(folder / "model.ridge.npz")


def same_features(table: Table, model: Ridge, path: Path) -> Table:
    """The table with the model's features in the model's order. Raises InputError when it lacks some or has others."""
    if set(table.names) != set(model.names):
        raise InputError(
            f"{path} has the features {', '.join(table.names)}; exactly {', '.join(model.names)} are needed"
        )
    order = [table.names.index(name) for name in model.names]
    return dataclasses.replace(table, features=table.features[:, order], names=model.names)


def main(config: Config) -> dict[str, Any]:
    folder, model = open_run(config.run)
    if config.data is None:
        kept = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        settings = kept["config"]
        table = load(
            kept["source"],
            settings["data"] and Path(settings["data"]),
            settings["rows"],
            settings["seed"],
        )
        rows = split(len(table.features), settings["seed"]).test
        table = dataclasses.replace(table, features=table.features[rows], target=table.target[rows])
    else:
        table = same_features(read(config.data, labelled=True), model, config.data)
    found = score_rows(model, model.predict(table.features), table.target, "test")
    result = {
        "run": {"folder": folder.name, "data": table.provenance, "rows": len(table.target)},
        "metrics_info": METRICS_INFO,
        "rows": found,
    }
    out = config.out or folder / f"evaluation-{config.data.stem if config.data else 'test'}.json"
    write_json(out, result)
    draw_figures(folder)
    compile_report(folder, HERE / "report.typ", folder / "report.pdf")
    print_table(result, out)
    return result


if __name__ == "__main__":
    entry(lambda: main(parse(Config)))
