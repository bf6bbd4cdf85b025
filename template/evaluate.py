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

import numpy as np

from common.cli import InputError
from common.report import compile_report
from common.results import Results, write_results
from common.run import SavedRun, announce
from template.data import Table, digests, load, read, split
from template.figures import draw_figures
from template.model import METRICS_INFO, Ridge, print_scores, score_rows

HERE = Path(__file__).resolve().parent
NEEDED = ("metrics.json", "model.ridge.npz", "seen.npz")


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


def unseen(table: Table, folder: Path, path: Path) -> Table:
    """The rows that the run was neither trained nor chosen on; says how many are left out.

    Raises InputError where none is left.
    """
    with np.load(folder / "seen.npz", allow_pickle=False) as file:
        new = ~np.isin(digests(table), file["rows"])  # (N,)
    if not new.any():
        raise InputError(f"{path}: the run was trained on every row of it; give others")
    if not new.all():
        print(f"{(~new).sum():,} of {len(new):,} rows were trained or chosen on: left out")
    return dataclasses.replace(table, features=table.features[new], target=table.target[new])


def own_test_part(run: SavedRun) -> Table:
    """The rows that the run's training and choices never saw."""
    path = run.config["data"] and Path(run.config["data"])
    table = load(run.record["source"], path, run.config["rows"], run.config["seed"])
    rows = split(len(table.features), run.config["seed"]).test
    return dataclasses.replace(table, features=table.features[rows], target=table.target[rows])


def main(config: EvaluateConfig) -> Results:
    """Writes evaluation-<data>.json; scores of the run's own test part draw its figures again."""
    run = SavedRun.open(config.run, HERE / "results", NEEDED)
    model = Ridge.load(run.folder / "model.ridge.npz")
    if config.data is None:
        table, part = own_test_part(run), "test"
        announce(table.provenance)
    else:
        table, part = same_features(read(config.data, labelled=True), model, config.data), "given"
        announce(table.provenance)
        table = unseen(table, run.folder, config.data)

    rows = score_rows(model, model.predict(table.features), table.target, part)
    about = {"folder": run.folder.name, "data": table.provenance, "rows": len(table.target)}
    name = config.data.stem if config.data else "test"
    out = config.out or run.folder / f"evaluation-{name}.json"
    results = write_results(out, about, METRICS_INFO, rows)
    if config.data is None:
        draw_figures(run.folder)
        compile_report(run.folder, HERE / "report.typ", run.folder / "report.pdf")
    print_scores(results, out, part)
    return results


if __name__ == "__main__":
    entry(main, OPTIONS)
