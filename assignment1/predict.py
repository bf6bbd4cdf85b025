"""Probabilities of the seven expressions for the user's own faces, by the models of a finished run.

    python assignment1/predict.py --data me.jpg
    python assignment1/predict.py --data folder/ --out table.csv

Any image size and colour mode: faces are centre-cropped to a square and reduced to 48 x 48 grey.
Writes a csv (one row per face and model) and a figure beside it. A label of an expression is not a
feeling: see the report's section on responsible use.
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
from assignment1.readers import CLASSES
from assignment1.views import code_views
from common.cli import InputError
from common.files import atomic_path
from common.machine import choose_device
from common.run import SavedRun

HERE = Path(__file__).resolve().parent


def main(config: PredictConfig) -> pd.DataFrame:
    assert config.data is not None  # PredictConfig.check has refused that
    saved = SavedRun.open(config.run, HERE / "results")
    models = load_models(saved.folder, choose_device(config.device).name)
    faces = load_images(config.data, labelled=False)
    names = faces.provenance.get("files")
    if names is None:
        names = [f"{config.data.name}[{row}]" for row in range(len(faces))]
    table = probabilities(models, faces, names, saved.folder)

    out = config.out or saved.folder / "predictions.csv"
    with atomic_path(out) as temporary:
        table.to_csv(temporary, index=False, float_format="%.4f")
    picture = out.with_name(f"{out.stem}-probabilities.png")  # never the name of a given face
    draw_probabilities(picture, saved.folder, faces.given[: config.shown], names, table)
    print(table.to_string(index=False, float_format="{:.2f}".format, max_rows=40))
    print(f"\nwritten: {out} and {picture}")
    return table


def probabilities(
    models: SavedModels, faces: Faces, names: list[str], folder: Path
) -> pd.DataFrame:
    """One row per face and model: face, model, predicted, and p_<class> for each class."""
    if models.vqvae is None:
        raise InputError(
            f"{folder} was trained on code maps and holds no VQ-VAE for pictures; "
            "give another --run"
        )
    X = code_views(models.vqvae.encode(faces.given), models.vqvae).matrix
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
