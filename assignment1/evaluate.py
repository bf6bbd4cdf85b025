"""Scores the saved models of a finished run, on faces it has not seen with --data, and draws its figures and report again.

python assignment1/evaluate.py                       the newest finished run, on its own test part
python assignment1/evaluate.py --data fer2013.csv    a csv, npz or <test>/<class>/ folder of labelled faces
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np

from assignment1 import data
from assignment1.figures import draw_figures
from assignment1.protocols import METRICS_INFO, load_models, rows
from assignment1.vqvae import code_views
from common.cli import InputError, PathOrNone, entry, parse
from common.report import compile_report
from common.run import choose_device, newest_run, plain, write_json

HERE = Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Config:
    """Re-scores a finished run of assignment 1."""

    run: PathOrNone = None
    """run folder (default: the newest finished one)"""
    data: PathOrNone = None
    """labelled faces that the run has not seen: FER csv, npz or folder; rows marked Training are left out when there are others"""
    out: PathOrNone = None
    """json file for the scores (default: evaluation-<data>.json in the run folder)"""
    device: Literal["auto", "cpu", "cuda"] = "auto"


def main(config: Config) -> dict[str, Any]:
    folder = config.run or newest_run(HERE / "results")
    if not (folder / "metrics.json").exists():
        raise InputError(f"--run {folder} is not a finished run (no metrics.json)")
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    vqvae, models = load_models(folder, choose_device(config.device)[0])

    if config.data is None:
        settings = record["config"]
        faces = data.load_again(record)
        groups, unfit, _ = data.audit(faces)
        chosen = data.held_out_split(
            faces, groups, unfit, settings["seed"], settings["validation"]
        ).test
    else:
        faces = (
            data.load_codemaps(config.data)
            if vqvae is None
            else data.load_images(config.data, labelled=True)
        )
        fresh = faces.part != "train"
        chosen = np.flatnonzero(fresh) if fresh.any() else np.arange(len(faces))
    seen = np.zeros(len(chosen), bool)
    if config.data is not None and (folder / "training_faces.npz").exists():
        with np.load(folder / "training_faces.npz", allow_pickle=False) as held:
            seen = np.isin(data.fingerprints(faces.given[chosen]), held["fingerprints"])
    codemaps = faces.given[chosen] if vqvae is None else vqvae.encode(faces.given[chosen])
    X, labels = code_views(codemaps, vqvae), faces.truth[chosen]
    unseen = ~seen if (~seen).any() else np.ones(len(seen), bool)

    table = []
    print(
        f"{len(labels)} faces of {config.data or record['source']}; {seen.sum()} stand in the training part too and are left out of 'unseen'"
    )
    for name, model in models.items():
        prediction = model.predict(X)
        for variant, part in (("all faces", np.ones(len(seen), bool)), ("unseen faces", unseen)):
            table += rows(
                "held-out", "test", name, variant, labels[part], prediction[part], None, 0.0
            )
        value = {
            row["metric"]: row["value"]
            for row in table
            if row["model"] == name and row["variant"] == "unseen faces"
        }
        print(
            f"{name:11s} accuracy {value['accuracy']:.3f} [{value['accuracy_low']:.3f}, {value['accuracy_high']:.3f}]"
            f"  balanced {value['balanced_accuracy']:.3f}  macro F1 {value['macro_f1']:.3f}  (unseen faces)"
        )
    result = {
        "run": {
            "folder": folder.name,
            "data": plain(faces.provenance),
            "faces": len(labels),
            "seen_in_training": int(seen.sum()),
        },
        "metrics_info": METRICS_INFO,
        "rows": table,
    }
    write_json(
        config.out or folder / f"evaluation-{config.data.stem if config.data else 'test'}.json",
        result,
    )
    draw_figures(folder)
    compile_report(folder, HERE / "report.typ", folder / "report.pdf")
    return result


if __name__ == "__main__":
    entry(lambda: main(parse(Config, sys.argv[1:])))
