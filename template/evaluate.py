"""Scores a finished run's model on its own test part, or on new rows with --data.

python template/evaluate.py
python template/evaluate.py --data more.csv
"""

from __future__ import annotations

from common.cli import entry, read_options
from template.config import EvaluateConfig

if __name__ == "__main__":  # before the heavy imports: --help and a refusal answer at once
    OPTIONS = read_options(EvaluateConfig)

import dataclasses
from pathlib import Path

from common.cli import InputError
from common.report import compile_report
from common.results import Results, write_evaluation
from common.run import SavedRun
from template.data import Table, load, read, split
from template.figures import draw_figures
from template.model import METRICS_INFO, Ridge, print_scores, score_rows

HERE = Path(__file__).resolve().parent


def same_features(table: Table, model: Ridge, path: Path) -> Table:
    """The table with the model's features in the model's order.

    Raises InputError when it lacks some or has others.
    """
    if set(table.names) != set(model.names):
        raise InputError(
            f"{path} has the features {', '.join(table.names)}; "
            f"exactly {', '.join(model.names)} are needed"
        )
    order = [table.names.index(name) for name in model.names]
    return dataclasses.replace(table, features=table.features[:, order], names=model.names)


def own_test_part(run: SavedRun) -> Table:
    """The rows that the run's training and choices never saw."""
    path = run.config["data"] and Path(run.config["data"])
    table = load(run.record["source"], path, run.config["rows"], run.config["seed"])
    rows = split(len(table.features), run.config["seed"]).test
    return dataclasses.replace(table, features=table.features[rows], target=table.target[rows])


def main(config: EvaluateConfig) -> Results:
    """Writes evaluation-<data>.json, draws the run's figures again and compiles its report."""
    run = SavedRun.open(config.run, HERE / "results", ("metrics.json", "model.ridge.npz"))
    model = Ridge.load(run.folder / "model.ridge.npz")
    if config.data is None:
        table = own_test_part(run)
    else:
        table = same_features(read(config.data, labelled=True), model, config.data)

    rows = score_rows(model, model.predict(table.features), table.target, "test")
    about = {"folder": run.folder.name, "data": table.provenance, "rows": len(table.target)}
    name = config.data.stem if config.data else "test"
    out = config.out or run.folder / f"evaluation-{name}.json"
    results = write_evaluation(out, about, METRICS_INFO, rows)
    draw_figures(run.folder)
    compile_report(run.folder, HERE / "report.typ", run.folder / "report.pdf")
    print_scores(results, out)
    return results


if __name__ == "__main__":
    entry(main, OPTIONS)
