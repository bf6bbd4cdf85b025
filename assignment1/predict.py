"""Probabilities of the seven expressions for the user's own faces, by the models of a finished run.

    python assignment1/predict.py --data me.jpg
    python assignment1/predict.py --data folder/ --out table.csv

Any image size and colour mode: faces are centre-cropped to a square and reduced to 48 x 48 grey.
Also a csv (pixels alone are enough), an npz, and a zip or tar of images. Writes a csv (one row per
face and model) and a figure beside it. A label of an expression is not a feeling: see the report's
section on responsible use.
"""

from __future__ import annotations

from assignment1.config import PredictConfig
from common.cli import entry, read_options

if __name__ == "__main__":  # before the heavy imports: --help and a refusal answer at once
    OPTIONS = read_options(PredictConfig)

from pathlib import Path

import numpy as np
import pandas as pd

from assignment1.artifacts import SavedModels, load_models
from assignment1.data import Faces, load_images
from assignment1.figures import draw_probabilities
from assignment1.images import IMAGE_ENDINGS
from assignment1.saved import check_can_write, damaged
from assignment1.views import code_views
from assignment1.vqvae import VQVAE
from assignment1.words import CLASSES
from common.cli import InputError
from common.files import atomic_path
from common.machine import choose_device
from common.run import SavedRun, announce

HERE = Path(__file__).resolve().parent


def main(config: PredictConfig) -> pd.DataFrame:
    """Writes a table of probabilities and a figure, and returns the table."""
    assert config.data is not None  # PredictConfig.check has refused that
    saved = SavedRun.open(config.run, HERE / "results")
    out = config.out or free_name(saved.folder, config.data)
    picture = out.with_name(f"{out.stem}-probabilities.png")  # never the name of a given face
    for file in (out, picture):
        check_no_input(file, config.data)
    models = load_models(saved.folder, choose_device(config.device).name)
    if models.vqvae is None:
        raise InputError(
            f"{saved.folder} was trained on code maps and holds no VQ-VAE for pictures; "
            "give another --run"
        )
    faces = load_images(config.data, labelled=False)
    announce(faces.provenance)
    names = list(faces.names or (f"{config.data.name}[{row}]" for row in range(len(faces))))
    with damaged(f"the models in {saved.folder}"):
        table = probabilities(models, models.vqvae, faces, names)

    with atomic_path(out) as temporary:
        table.to_csv(temporary, index=False, float_format="%.4f")
    with damaged(saved.folder / "run.json"):
        draw_probabilities(picture, saved.record, faces.given[: config.shown], names, table)
    print(table.to_string(index=False, float_format="{:.2f}".format, max_rows=40))
    print(f"\nwritten: {out} and {picture}")
    return table


def free_name(folder: Path, data: Path) -> Path:
    """A csv file in the run folder that overwrites nothing. Raises InputError."""
    check_can_write(folder)
    stem = data.resolve().name.split(".")[0] or "data"
    names = (f"predictions-{stem}{end}" for end in ("", *(f"-{n}" for n in range(2, 10**4))))
    return next(folder / f"{name}.csv" for name in names if not (folder / f"{name}.csv").exists())


def check_no_input(file: Path, data: Path) -> None:
    """Raises InputError where an output would overwrite one of the given faces."""
    if not file.exists():
        return
    below = data.is_dir() and file.resolve().is_relative_to(data.resolve())
    if file.samefile(data) or (below and file.suffix.lower() in IMAGE_ENDINGS):
        raise InputError(f"--out: {file} is among the faces of --data; give another name")


def probabilities(
    models: SavedModels, vqvae: VQVAE, faces: Faces, names: list[str]
) -> pd.DataFrame:
    """One row per face and model: face, model, predicted, and p_<class> for each class."""
    X = code_views(vqvae.encode(faces.given), vqvae).matrix
    rows = []
    for model, classifier in models.classifiers.items():
        labels = [CLASSES[label] for label in classifier.classes_]
        for name, row in zip(names, classifier.predict_proba(X), strict=True):
            values = {f"p_{label}": float(p) for label, p in zip(labels, row, strict=True)}
            predicted = labels[int(np.argmax(row))]
            rows.append({"face": name, "model": model, "predicted": predicted, **values})
    return pd.DataFrame(rows)


if __name__ == "__main__":
    entry(main, OPTIONS)
