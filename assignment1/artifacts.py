"""What a run leaves beside its metrics: the chosen models, and the arrays that figures show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from assignment1.audit import fingerprints
from assignment1.config import EXAMPLES, EXAMPLES_SEED, Compute, Config
from assignment1.data import Faces
from assignment1.elm import ELMClassifier
from assignment1.features import features_from_file, features_to_file, principal_codes
from assignment1.mlp import MLPClassifier
from assignment1.representations import new_elm, new_mlp, representations
from assignment1.selection import ELM_FAMILIES, Candidate, Selection
from assignment1.synthetic import draw_faces
from assignment1.variants import MLP, prediction_key
from assignment1.views import Dataset
from assignment1.vqvae import VQVAE, load_vqvae
from assignment1.words import CLASSES
from common.cli import InputError
from common.files import atomic_path, write_arrays
from common.run import Run

VQVAE_FILE = "vqvae.safetensors"
MLP_FILE = "model.MLP.safetensors"
FINGERPRINTS_FILE = "training_faces.npz"
COLOUR_RANGE = 2.5  # deviations of a principal component from black to full colour


def elm_file(family: str) -> str:
    """The name of an ELM family's model file."""
    return f"model.{family.replace(' ', '-')}.npz"


# ------------------------------------------------------------------------------------- models


@dataclass(frozen=True)
class SavedModels:
    """The VQ-VAE (None where a run began with code maps) and the classifier of each family."""

    vqvae: VQVAE | None
    classifiers: dict[str, ELMClassifier | MLPClassifier]


def load_models(folder: Path, device: str = "cpu") -> SavedModels:
    """The saved models of a finished run. Raises InputError."""
    vqvae_path = folder / VQVAE_FILE
    vqvae = load_vqvae(vqvae_path, device) if vqvae_path.exists() else None
    classifiers: dict[str, ELMClassifier | MLPClassifier] = {
        family: load_elm(folder / elm_file(family)) for family in ELM_FAMILIES
    }
    classifiers[MLP] = MLPClassifier.load(folder / MLP_FILE, device)
    for name, classifier in classifiers.items():
        if not set(np.ravel(classifier.classes_)) <= set(range(len(CLASSES))):
            raise InputError(f"{folder}: the {name} was trained on other classes than the seven")
    return SavedModels(vqvae, classifiers)


def load_elm(path: Path) -> ELMClassifier:
    """A saved ELM with its features. Raises InputError."""
    try:
        return ELMClassifier.load(path, features_from_file)
    except ValueError as error:
        raise InputError(str(error)) from None


def save_models(
    config: Config,
    run: Run,
    data: Dataset,
    selections: dict[str, Selection],
    compute: Compute,
    soft: np.ndarray | None,
) -> None:
    """Fits the selection of each family again, with the first seed, and writes it.

    `soft` (n, k) are a teacher's probabilities of the training faces, for a distilled MLP.
    """
    for family in ELM_FAMILIES:
        run.memo(f"model-{family}", save_elm, config, run.folder, data, selections[family])
    selection = selections[MLP]
    answers = soft if selection.variant.distilled else None
    run.memo("model-MLP", save_mlp, config, run.folder, data, selection, compute, answers)


def save_elm(config: Config, folder: Path, data: Dataset, selection: Selection) -> dict[str, float]:
    """Fits and writes an ELM, with a temperature set on validation."""
    weights = ELM_FAMILIES[selection.family]
    table = representations(config, data.views.layout, data.codebook, weights, seed=0)
    model = new_elm(table[selection.variant.representation], selection.family, seed=0)
    model.set_params(penalty=selection.variant.penalty, alpha=selection.alpha)
    model.fit(*data.rows(data.split.train))
    model.calibrate(*data.rows(data.split.validation))
    with atomic_path(folder / elm_file(selection.family)) as temporary:
        model.save(temporary, features_to_file)
    return {"temperature": model.temperature}


def save_mlp(
    config: Config,
    folder: Path,
    data: Dataset,
    selection: Selection,
    compute: Compute,
    soft: np.ndarray | None,
) -> dict[str, int]:
    """Fits and writes an MLP."""
    table = representations(config, data.views.layout, data.codebook)
    representation = table[selection.variant.representation]
    model = new_mlp(config, representation, selection.variant.penalty, compute)
    model.fit(*data.rows(data.split.train), soft=soft)
    model.save(folder / MLP_FILE)
    return {"parameters": model.parameters_}


# ------------------------------------------------------------------------------------- arrays


def save_predictions(folder: Path, data: Dataset, candidates: list[Candidate]) -> None:
    """Writes the test labels and every candidate's predictions uint8 (S, n) to predictions.npz."""
    predictions = {
        prediction_key(item.model, item.label): item.test.astype(np.uint8) for item in candidates
    }
    write_arrays(folder / "predictions.npz", labels=data.labels[data.split.test], **predictions)


def save_examples(folder: Path, vqvae: VQVAE) -> None:
    """Writes one drawn face of each expression with its codes to reconstructions.npz.

    Never faces of the data set: figures must not show them. `colours` uint8 (n, 12, 12, 3) shows
    each code by its first three principal components, so that like codes look alike.
    """
    images, expression = draw_faces(EXAMPLES, EXAMPLES_SEED)
    images = images[np.unique(expression, return_index=True)[1]]
    codemaps = vqvae.encode(images)
    decoded = np.round(255 * vqvae.decode(codemaps)).astype(np.uint8)
    axes = principal_codes(vqvae.codebook.vectors.cpu().numpy(), codemaps, 3, power=1)  # (m, 3)
    colours = np.round(255 * (axes / COLOUR_RANGE / 2 + 0.5).clip(0, 1)).astype(np.uint8)
    write_arrays(
        folder / "reconstructions.npz",
        images=images,
        codemaps=codemaps,
        colours=colours[codemaps],
        reconstructions=decoded,
    )


def save_fingerprints(folder: Path, faces: Faces, data: Dataset) -> None:
    """Writes fingerprints of the faces that choices were made on, for evaluate.py."""
    rows = np.concatenate([data.split.train, data.split.validation])
    write_arrays(folder / FINGERPRINTS_FILE, fingerprints=fingerprints(faces.given[rows]))
