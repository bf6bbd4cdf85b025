"""Scores the saved models of a finished run, on its own test part or on other labelled faces.

python assignment1/evaluate.py                       the newest run; draws its figures again
python assignment1/evaluate.py --data fer2013.csv    other faces, less those that the run was
                                                     trained or stopped on; draws nothing
"""

from __future__ import annotations

from assignment1.config import EvaluateConfig
from common.cli import entry, read_options

if __name__ == "__main__":  # before the heavy imports: --help and a refusal answer at once
    OPTIONS = read_options(EvaluateConfig)

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from assignment1.artifacts import SavedModels, load_models
from assignment1.audit import audit, fingerprints, held_out_split
from assignment1.data import PART_NAMES, Faces, load_codemaps, load_images
from assignment1.evaluation import METRICS_INFO, SHOWN, Scored, score_rows
from assignment1.saved import (
    check_can_write,
    check_drawable,
    damaged,
    draw_again,
    evaluation_file,
    known_faces,
    own_faces,
    own_options,
)
from assignment1.views import code_views
from common.cli import InputError
from common.files import JsonObject
from common.machine import choose_device
from common.results import Results, Row, print_table, write_results
from common.run import SavedRun, announce, as_json, progress

HERE = Path(__file__).resolve().parent
ROWS_AT_ONCE = 2048  # between two steps of the progress bar


@dataclass(frozen=True)
class Sample:
    """The faces that are scored: rows int64 (n,) of `faces`, and what the scores are called.

    `left_out` counts faces that are not scored, by the reason.
    """

    faces: Faces
    rows: np.ndarray
    split: str
    left_out: JsonObject = field(default_factory=dict)

    def variants(self) -> dict[str, np.ndarray]:
        """Rows of the sample by what they are called: all of them, and each part of several."""
        part = self.faces.part[self.rows]
        everything = np.ones(len(part), bool)
        if self.split == "test":
            return {"test part": everything}
        found = [name for name in PART_NAMES if (part == name).any()]
        parts = {f"part {name}": part == name for name in found} if len(found) > 1 else {}
        return {"given faces": everything} | parts


# --------------------------------------------------------------------------- what is scored


def own_test_part(saved: SavedRun) -> Sample:
    """The run's own test part, found again as train.py found it."""
    options = own_options(saved)
    faces = own_faces(saved)
    announce(faces.provenance)
    split = held_out_split(faces, audit(faces), options.seed, options.validation)
    return Sample(faces, split.test, "test")


def given_faces(config: EvaluateConfig, saved: SavedRun, path: Path, as_codemaps: bool) -> Sample:
    """The user's faces of the asked part, less those that the run was trained or stopped on.

    Raises InputError where none is left.
    """
    faces = load_codemaps(path) if as_codemaps else load_images(path, labelled=True)
    announce(faces.provenance)
    asked = np.flatnonzero(np.isin(faces.part, asked_parts(config, faces)))
    if not len(asked):
        raise InputError(f"--part {config.part}: {path} has no such part")

    # what the run has seen, told by the faces themselves
    known = known_faces(saved.folder)
    if known is None:
        print(f"{saved.folder} does not tell which faces it was trained on: none is left out")
        return Sample(faces, asked, "given", {"trained or stopped on": None})
    everywhere = np.isin(fingerprints(faces.given), known)
    seen = everywhere[asked]
    print(
        f"{everywhere.sum():,} of {len(faces):,} faces of {path.name} are faces that the run was "
        f"trained or stopped on; {seen.sum():,} of the {len(asked):,} asked for are such and are "
        "left out"
    )
    if seen.all():
        raise InputError(f"{path}: the run was trained or stopped on all of it; give other faces")
    left_out = {
        "trained or stopped on": int(seen.sum()),
        "of parts not asked for": len(faces) - len(asked),
    }
    return Sample(faces, asked[~seen], "given", left_out)


def asked_parts(config: EvaluateConfig, faces: Faces) -> list[str]:
    """The parts that --part asks for; auto: test and private, else validation, else all."""
    if config.part == "all":
        return list(PART_NAMES)
    if config.part != "auto":
        return [config.part]
    there = set(faces.part)
    for names in (["test", "private"], ["validation"]):
        if there & set(names):
            return names
    return list(PART_NAMES)


# ---------------------------------------------------------------------------------- scores


def predictions_of(models: SavedModels, X: np.ndarray) -> dict[str, np.ndarray]:
    """The predicted labels int64 (n,) of every saved model, under a progress bar."""
    blocks = [slice(start, start + ROWS_AT_ONCE) for start in range(0, len(X), ROWS_AT_ONCE)]
    steps = [(name, block) for name in models.classifiers for block in blocks]
    found: dict[str, list[np.ndarray]] = {name: [] for name in models.classifiers}
    for name, block in progress(steps, "scoring the saved models"):
        found[name].append(models.classifiers[name].predict(X[block]))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def scored_rows(sample: Sample, predictions: dict[str, np.ndarray]) -> list[Row]:
    """Rows of every model on the sample, and on each of its parts where there are several."""
    labels = sample.faces.truth[sample.rows]
    rows: list[Row] = []
    for name, prediction in predictions.items():
        for variant, part in sample.variants().items():
            scored = Scored("held-out", sample.split, name, variant)
            rows += score_rows(scored, labels[part], prediction[part])
    return rows


def main(config: EvaluateConfig) -> Results:
    """Writes the scores; those of the run's own test part draw its figures again."""
    saved = SavedRun.open(config.run, HERE / "results")
    redraws = config.data is None and config.out is None
    if redraws:
        check_drawable(saved.folder)
    if config.out is None:
        check_can_write(saved.folder)
    models = load_models(saved.folder, choose_device(config.device).name)

    # the faces, and what the models see of them
    if config.data is None:
        sample = own_test_part(saved)
    else:
        sample = given_faces(config, saved, config.data, as_codemaps=models.vqvae is None)
    given = sample.faces.given[sample.rows]
    print(f"{len(given):,} faces are scored ({sample.split})", flush=True)
    with damaged(f"the models in {saved.folder}"):
        codemaps = given if models.vqvae is None else models.vqvae.encode(given)
        predictions = predictions_of(models, code_views(codemaps, models.vqvae).matrix)

    # record
    about = {
        "folder": saved.folder.name,
        "data": as_json(sample.faces.provenance),
        "split": sample.split,
        "faces": len(given),
        "left_out": sample.left_out,
    }
    out = config.out or evaluation_file(saved.folder, config.data, sample.faces.provenance)
    results = write_results(out, about, METRICS_INFO, scored_rows(sample, predictions))
    columns = {**SHOWN, "accuracy_low": "from", "accuracy_high": "to"}
    title = "Saved models, with the 95 % interval of accuracy"
    print_table(results["rows"], columns, digits=3, title=title)
    if redraws:
        draw_again(saved.folder, HERE / "report.typ")
    print(f"\nwritten: {out}")
    return results


if __name__ == "__main__":
    entry(main, OPTIONS)
