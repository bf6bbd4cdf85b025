"""Probabilities of the seven expressions for the user's own faces, by the saved models of a finished run.

    python assignment1/predict.py --data me.jpg
    python assignment1/predict.py --data folder/ --out table.csv

Any image size and colour mode: faces are centre-cropped to a square and reduced to 48 x 48 grey. Writes a csv (a row a face and
model) and a figure beside it. A label of an expression is not a feeling: see the report's section on responsible use.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from assignment1 import data
from assignment1.protocols import load_models
from assignment1.vqvae import code_views
from common.cli import InputError, PathOrNone, entry, parse
from common.figures import colours, figure, read_run
from common.run import atomic_path, choose_device, newest_run

HERE = Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Config:
    """Probabilities for face images without labels."""

    data: PathOrNone = None
    """an image, a folder of images, an npz (images) or a FER csv"""
    run: PathOrNone = None
    """run folder (default: the newest finished one)"""
    out: PathOrNone = None
    """csv file; the figure stands beside it (default: predictions.csv in the run folder)"""
    shown: int = 8
    """faces in the figure"""
    device: Literal["auto", "cpu", "cuda"] = "auto"


def main(config: Config) -> pd.DataFrame:
    if config.data is None or not config.data.exists():
        raise InputError(
            f"--data {config.data}: an image, a folder, an npz or a csv of faces is needed"
        )
    folder = config.run or newest_run(HERE / "results")
    vqvae, models = load_models(folder, choose_device(config.device)[0])
    if vqvae is None:
        raise InputError(
            f"{folder} was trained on code maps and holds no VQ-VAE for pictures; give another --run"
        )
    faces = data.load_images(config.data, labelled=False)
    X = code_views(vqvae.encode(faces.given), vqvae)
    names = faces.provenance.get("files") or [
        f"{config.data.name}[{row}]" for row in range(len(faces))
    ]
    table = []
    for model, classifier in models.items():
        probability = classifier.predict_proba(X)
        for name, row in zip(names, probability, strict=True):
            labels = [data.CLASSES[c] for c in classifier.classes_]
            table.append(
                {
                    "face": name,
                    "model": model,
                    "predicted": labels[int(row.argmax())],
                    **{f"p_{k}": float(p) for k, p in zip(labels, row, strict=True)},
                }
            )
    table = pd.DataFrame(table)
    out = config.out or folder / "predictions.csv"
    with atomic_path(out) as temporary:
        table.to_csv(temporary, index=False, float_format="%.4f")
    picture = out.with_name(
        f"{out.stem}-probabilities.png"
    )  # never the name of a face that was given
    draw(picture, folder, faces.given, names, table, config.shown)
    print(table.to_string(index=False, float_format="{:.2f}".format, max_rows=40))
    print(f"\nwritten: {out} and {picture}")
    return table


def draw(
    path: Path, folder: Path, images: np.ndarray, names: list[str], table: pd.DataFrame, shown: int
) -> None:
    """Faces beside bars of their probabilities, one colour a model."""
    record, shown = read_run(folder)[0], min(shown, len(images))
    columns, colour = (
        [name for name in table if name.startswith("p_")],
        colours(table.model.unique()),
    )
    with figure(
        path, record, (6.5, 1.5 * shown + 0.6), shown, 2, squeeze=False, width_ratios=(1, 3.2)
    ) as (_, axes):
        for row in range(shown):
            left, right = axes[row]
            left.imshow(images[row], cmap="gray", vmin=0, vmax=255)
            left.set(xticks=[], yticks=[])
            left.set_title(names[row][-28:], fontsize=7)
            for number, (model, part) in enumerate(
                table[table.face == names[row]].groupby("model", sort=False)
            ):
                right.bar(
                    np.arange(len(columns)) + 0.27 * (number - 1),
                    part[columns].to_numpy()[0],
                    0.25,
                    color=colour[model],
                    label=model,
                )
            right.set_xticks(range(len(columns)), [name[2:] for name in columns])
            right.set(ylim=(0, 1), ylabel="probability")
        axes[0, 1].legend(ncol=3)


if __name__ == "__main__":
    entry(lambda: main(parse(Config, sys.argv[1:])))
