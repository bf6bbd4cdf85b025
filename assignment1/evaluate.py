"""Scores the saved models of a finished run, and draws its figures and report again.

python assignment1/evaluate.py                       the newest run, on its own test part
python assignment1/evaluate.py --data fer2013.csv    other labelled faces: csv, npz or a
                                                     <test>/<class>/ folder
"""

from __future__ import annotations

from assignment1.config import EvaluateConfig
from common.cli import entry, read_options

if __name__ == "__main__":  # before the heavy imports: --help and a refusal answer at once
    OPTIONS = read_options(EvaluateConfig)

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from assignment1.artifacts import FINGERPRINTS_FILE, load_models
from assignment1.audit import audit, fingerprints, held_out_split
from assignment1.data import Faces, load_again, load_codemaps, load_images
from assignment1.evaluation import METRICS_INFO, SHOWN, Scored, score_rows
from assignment1.figures import draw_figures
from assignment1.views import code_views
from common.machine import choose_device
from common.report import compile_report
from common.results import Results, Row, print_table, write_evaluation
from common.run import SavedRun, as_json

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Sample:
    """The faces that are scored: rows int64 (n,) of `faces`, and which of them were trained on."""

    faces: Faces
    rows: np.ndarray
    seen: np.ndarray  # bool (n,)

    @property
    def unseen(self) -> np.ndarray:
        """bool (n,): the faces that were not trained on, or all where there are no others."""
        return np.ones(len(self.seen), bool) if self.seen.all() else ~self.seen


def own_test_part(saved: SavedRun) -> Sample:
    """The run's own test part, found again as train.py found it."""
    faces = load_again(saved.record)
    audited = audit(faces)
    split = held_out_split(faces, audited, saved.config["seed"], saved.config["validation"])
    return Sample(faces, split.test, np.zeros(len(split.test), bool))


def new_faces(saved: SavedRun, path: Path, as_codemaps: bool) -> Sample:
    """The user's faces, without those marked Training when there are others."""
    faces = load_codemaps(path) if as_codemaps else load_images(path, labelled=True)
    rows = np.flatnonzero(faces.part != "train")
    if not len(rows):
        rows = np.arange(len(faces))
    seen = np.zeros(len(rows), bool)
    known_path = saved.folder / FINGERPRINTS_FILE
    if known_path.exists():
        with np.load(known_path, allow_pickle=False) as archive:
            seen = np.isin(fingerprints(faces.given[rows]), archive["fingerprints"])
    return Sample(faces, rows, seen)


def main(config: EvaluateConfig) -> Results:
    saved = SavedRun.open(config.run, HERE / "results")
    models = load_models(saved.folder, choose_device(config.device).name)

    # the faces, and what the models see of them
    if config.data is None:
        sample = own_test_part(saved)
    else:
        sample = new_faces(saved, config.data, as_codemaps=models.vqvae is None)
    given = sample.faces.given[sample.rows]
    codemaps = given if models.vqvae is None else models.vqvae.encode(given)
    X = code_views(codemaps, models.vqvae).matrix
    labels = sample.faces.truth[sample.rows]
    seen = int(sample.seen.sum())
    source = config.data or saved.record["source"]
    print(
        f"{len(labels)} faces of {source}; {seen} of them are in the training part too and are "
        "left out of 'unseen faces'"
    )

    # scores
    rows: list[Row] = []
    everything = np.ones(len(labels), bool)
    for name, model in models.classifiers.items():
        prediction = model.predict(X)
        for variant, part in (("all faces", everything), ("unseen faces", sample.unseen)):
            scored = Scored("held-out", "test", name, variant)
            rows += score_rows(scored, labels[part], prediction[part])

    # record
    about = {
        "folder": saved.folder.name,
        "data": as_json(sample.faces.provenance),
        "faces": len(labels),
        "seen_in_training": seen,
    }
    name = config.data.stem if config.data else "test"
    out = config.out or saved.folder / f"evaluation-{name}.json"
    results = write_evaluation(out, about, METRICS_INFO, rows)
    columns = {**SHOWN, "accuracy_low": "from", "accuracy_high": "to"}
    unseen = [row for row in results["rows"] if row["variant"] == "unseen faces"]
    print_table(unseen, columns, digits=3, title="Saved models, with the 95 % interval of accuracy")
    draw_figures(saved.folder)
    compile_report(saved.folder, HERE / "report.typ", saved.folder / "report.pdf")
    return results


if __name__ == "__main__":
    entry(main, OPTIONS)
