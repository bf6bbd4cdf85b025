"""What a VQ-VAE should be measured by for its codes to tell expressions: trainings of equal size.

    python assignment1/codes.py --preset smoke --source synthetic    under half a minute
    python assignment1/codes.py --source synthetic                   minutes, two cores
    python assignment1/codes.py --preset full --source fer2013       hours, two cores

One VQ-VAE per objective (objectives.py) is trained on the training part, with the same sizes, steps
and seed. What its codes alone tell is scored on validation: the decoded picture (PSNR), a ridge on
whitened patches of that picture, whose penalty leave-one-out chooses on the training part, and a
linear model of the one-hot codes. The test part is not used.
"""

from __future__ import annotations

from assignment1.config import CodesConfig
from common.cli import entry, read_options

if __name__ == "__main__":  # before the heavy imports: --help and a refusal answer at once
    OPTIONS = read_options(CodesConfig)

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from torch import Tensor, nn

from assignment1.audit import audit, held_out_split
from assignment1.config import (
    EXAMPLES,
    EXAMPLES_SEED,
    LINEAR_ITERATIONS,
    VQ_TRAINING,
    Compute,
)
from assignment1.data import Faces, load
from assignment1.elm import ELMClassifier
from assignment1.evaluation import METRICS_INFO, Scored, score_rows
from assignment1.features import OneHotCodes
from assignment1.figures import draw_objectives
from assignment1.objectives import Objective, label_head, new_objective
from assignment1.patches import WhitenedPatches
from assignment1.synthetic import draw_faces
from assignment1.train import (
    batch_indices,
    choose_compute,
    new_vqvae,
    parts_line,
    start_vqvae,
    vq_learning_rate,
)
from assignment1.variants import (
    FEATURES,
    LABEL_AWARE,
    LARGEST_CLASS,
    LINEAR_ON_ONE_HOT,
    NO_CODES,
    OBJECTIVES,
    READOUTS,
    RIDGE_ON_PATCHES,
    prediction_key,
)
from assignment1.vqvae import VQVAE, psnr
from common.cli import InputError
from common.files import State, StateDict, tensors, write_arrays
from common.imagenet import weights_path
from common.results import Metric, Results, Row, print_table
from common.run import Run, progress

HERE = Path(__file__).resolve().parent
RESAMPLED = "point of the accuracy under resampling of the validation faces"
INFO = METRICS_INFO | {
    "accuracy_low": Metric("share", "higher", f"2.5 % {RESAMPLED}"),
    "accuracy_high": Metric("share", "higher", f"97.5 % {RESAMPLED}"),
}


@dataclass(frozen=True)
class Part:
    """Faces uint8 (n, 48, 48) and labels int64 (n,) of one part of the split."""

    images: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, faces: Faces, rows: np.ndarray) -> Part:
        """The rows (n,) of the faces."""
        return cls(faces.given[rows], faces.truth[rows])


@dataclass(frozen=True)
class Coded:
    """Code maps uint8 (n, 12, 12) and the pictures uint8 (n, 48, 48) that they are decoded to."""

    train: np.ndarray
    validation: np.ndarray
    train_pictures: np.ndarray
    validation_pictures: np.ndarray
    psnr: float


@dataclass(frozen=True)
class Readout:
    """Predictions int64 (S, n) of the validation part, trained weights, and seconds of a fit."""

    predictions: np.ndarray
    params: int
    seconds: float


# ------------------------------------------------------------------------------- the VQ-VAEs


@dataclass(frozen=True)
class Training:
    """A VQ-VAE, what it is measured by, the classifier of its codes if there is one, optimiser."""

    vqvae: VQVAE
    objective: Objective
    head: nn.Sequential | None
    optimiser: torch.optim.AdamW
    autocast: torch.autocast

    @classmethod
    def start(cls, config: CodesConfig, name: str, train: Part, compute: Compute) -> Training:
        """As train.py starts its VQ-VAE, under the objective `name`. Raises InputError."""
        vqvae, optimiser = start_vqvae(config, train.images, compute)
        head = None
        if name == LABEL_AWARE:
            head = label_head(config.code_dim, int(train.labels.max()) + 1).to(compute.device)
            optimiser.add_param_group({"params": list(head.parameters())})
        bfloat16 = compute.precision == "bfloat16"
        autocast = torch.autocast(compute.device, torch.bfloat16, enabled=bfloat16)
        return cls(vqvae, new_objective(name, config, vqvae), head, optimiser, autocast)

    @property
    def weights(self) -> list[nn.Parameter]:
        """All that is trained by gradients."""
        return [weight for group in self.optimiser.param_groups for weight in group["params"]]

    def state(self) -> State:
        """For a checkpoint."""
        return {
            "vqvae": self.vqvae.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "head": None if self.head is None else self.head.state_dict(),
        }

    def resume(self, saved: State) -> None:
        """Takes up a checkpoint."""
        self.vqvae.load_state_dict(tensors(saved["vqvae"]))
        self.optimiser.load_state_dict(tensors(saved["optimiser"]))
        if self.head is not None:
            self.head.load_state_dict(tensors(saved["head"]))

    def loss(
        self, config: CodesConfig, batch: Part, rng: np.random.Generator, quantise: bool
    ) -> Tensor:
        """The objective of a batch, and the commitment (van den Oord et al., eq. 3): ().

        The codebook moves by averages. A classifier of the codes adds its cross-entropy.
        """
        device = self.vqvae.mean.device
        pixels = torch.from_numpy(np.ascontiguousarray(batch.images)).to(device)
        pixels = pixels[:, None] / 255  # (B, 1, H, W)
        coded = self.vqvae.reconstruct(pixels, rng, quantise, self.autocast)
        loss = self.objective(coded.decoded, coded.pixels) + config.commitment * coded.commitment
        if self.head is None:
            return loss
        labels = torch.from_numpy(batch.labels).to(device)
        return loss + config.label_weight * F.cross_entropy(self.head(coded.quantised), labels)


def train_codes(
    config: CodesConfig, run: Run, name: str, train: Part, validation: Part, compute: Compute
) -> StateDict:
    """Trains a VQ-VAE under the objective `name`, else as train.py does, and returns its weights.

    Every random draw is a function of seed and step, so a resumed run is the same run.
    """
    training = Training.start(config, name, train, compute)
    per_epoch = max(len(train.images) // config.vq_batch, 1)
    total = config.vq_epochs * per_epoch
    warmup = min(config.vq_warmup, total // 2)
    step = 0

    def save() -> None:
        run.save(name, {"step": step, **training.state()})

    # resume
    saved = run.load(name)
    if saved is not None:
        step = saved["step"]
        training.resume(saved)

    with run.stoppable(save) as check:
        for now in progress(range(step, total), f"VQ-VAE, {name}"):
            epoch, number = divmod(now, per_epoch)
            rng = np.random.default_rng((config.seed, now))
            rows = batch_indices(config, len(train.images), epoch, number)
            images = train.images[rows]
            if rng.random() < VQ_TRAINING.mirrored:
                images = images[:, :, ::-1]

            loss = training.loss(config, Part(images, train.labels[rows]), rng, now >= warmup)
            training.optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(training.weights, VQ_TRAINING.clip)
            for group in training.optimiser.param_groups:
                group["lr"] = vq_learning_rate(config, now, total)
            training.optimiser.step()

            step = now + 1
            if step % VQ_TRAINING.log_every == 0 or step in (1, total):
                run.log(step, epoch, "train", **{f"{name}_loss": loss.item()})
            if step % per_epoch == 0:
                quality = reconstruction_psnr(training.vqvae, validation.images)
                run.log(step, epoch + 1, "validation", **{f"{name}_psnr": quality})
                save()
            check(step, loss.item())
    return training.vqvae.state_dict()


def reconstruction_psnr(vqvae: VQVAE, images: np.ndarray) -> float:
    """The mean PSNR of faces uint8 (n, 48, 48) in dB."""
    quality = psnr(images, vqvae.eval().decode(vqvae.encode(images))).mean()
    vqvae.train()
    return float(quality)


def trained_vqvae(config: CodesConfig, weights: StateDict, compute: Compute) -> VQVAE:
    """The VQ-VAE of stored weights."""
    vqvae = new_vqvae(config).to(compute.device)
    vqvae.load_state_dict(tensors(weights))
    return vqvae.eval()


# --------------------------------------------------------------------- what the codes tell


def code_parts(vqvae: VQVAE, train: Part, validation: Part) -> Coded:
    """The codes of both parts, and what they decode to."""
    maps = vqvae.encode(train.images)
    unseen = vqvae.encode(validation.images)
    decoded = vqvae.decode(unseen)  # (n, 48, 48) in 0..1
    return Coded(
        train=maps,
        validation=unseen,
        train_pictures=as_pictures(vqvae.decode(maps)),
        validation_pictures=as_pictures(decoded),
        psnr=float(psnr(validation.images, decoded).mean()),
    )


def as_pictures(decoded: np.ndarray) -> np.ndarray:
    """Decoded faces in 0..1 as uint8."""
    return np.round(255 * decoded).astype(np.uint8)


def read_pictures(config: CodesConfig, X: np.ndarray, y: np.ndarray, unseen: np.ndarray) -> Readout:
    """Ridge on random whitened patches of pictures uint8 (n, 48, 48), labelled y (n,).

    The first draw of the patches chooses the penalty for all, by leave-one-out on the given rows.
    """
    start = time.perf_counter()
    X, unseen = (images.reshape(len(images), -1) for images in (X, unseen))
    alpha: float | Literal["loo"] = "loo"
    predictions = []
    for draw in range(config.draws):
        patches = WhitenedPatches(config.patches, random_state=draw)
        model = ELMClassifier(
            0, penalty="ridge", alpha=alpha, direct_links=True, features=patches, random_state=draw
        )
        predictions.append(model.fit(X, y).predict(unseen))
        alpha = model.alpha_ if alpha == "loo" else alpha
    seconds = (time.perf_counter() - start) / config.draws
    return Readout(np.stack(predictions), model.coef_.size + model.intercept_.size, seconds)


def read_one_hot(config: CodesConfig, X: np.ndarray, y: np.ndarray, unseen: np.ndarray) -> Readout:
    """The linear baseline of train.py on one-hot codes uint8 (n, 12, 12), labelled y (n,)."""
    start = time.perf_counter()
    X, unseen = (codes.reshape(len(codes), -1) for codes in (X, unseen))
    regression = LogisticRegression(C=config.linear_c, max_iter=LINEAR_ITERATIONS)
    model = make_pipeline(OneHotCodes(config.codes), regression).fit(X, y)
    predictions = model.predict(unseen)[None]
    params = regression.coef_.size + regression.intercept_.size
    return Readout(predictions, params, time.perf_counter() - start)


def readout_rows(name: str, label: str, found: Readout, truth: np.ndarray) -> list[Row]:
    """The scores of a readout of the codes `label`, with the interval of the accuracy."""
    scored = Scored("held-out", "validation", name, label, found.params, found.seconds)
    return score_rows(scored, truth, found.predictions, intervals=True)


def vqvae_rows(vqvae: VQVAE, coded: Coded, label: str) -> list[Row]:
    """PSNR and codes in use on validation."""
    params = vqvae.parameters_and_codes
    values = {"psnr": coded.psnr, "codes_used": float(len(np.unique(coded.validation)))}
    return [
        Row(
            protocol="held-out",
            split="validation",
            model="VQ-VAE",
            variant=label,
            metric=metric,
            value=value,
            n_seeds=1,
            params=params,
        )
        for metric, value in values.items()
    ]


# ------------------------------------------------------------------------------------- main


def example_faces() -> np.ndarray:
    """One built-in face of each expression uint8 (7, 48, 48): figures show none of the data set."""
    images, expression = draw_faces(EXAMPLES, EXAMPLES_SEED)
    return images[np.unique(expression, return_index=True)[1]]


def controls(config: CodesConfig, run: Run, train: Part, validation: Part) -> dict[str, Readout]:
    """What is read without codes: the ridge on the faces themselves, and the largest class."""
    data = (train.images, train.labels, validation.images)
    dummy = DummyClassifier().fit(train.images[:, 0], train.labels)
    constant = dummy.predict(validation.images[:, 0])[None]
    return {
        RIDGE_ON_PATCHES: run.memo("faces", read_pictures, config, *data),
        LARGEST_CLASS: Readout(constant, 0, 0.0),
    }


def main(config: CodesConfig) -> Results:
    """Trains and reads every VQ-VAE; returns what metrics.json holds."""
    # data: checked and audited before anything is written; the test part is set aside
    faces = load(config.source, config.data, config.synthetic_faces, config.seed)
    if faces.images is None:
        raise InputError(f"{faces.source}: a VQ-VAE needs faces to train on, not their codes")
    if FEATURES in config.objectives:
        weights_path()
    audited = audit(faces)
    split = held_out_split(faces, audited, config.seed, config.validation)
    train = Part.of(faces, split.train)
    validation = Part.of(faces, split.validation)
    compute = choose_compute(config)
    folder = config.out or HERE / "results" / f"{faces.source}-codes-{config.preset}"

    with Run(config, folder, __file__, faces.source, faces.provenance) as run:
        sizes = {name: len(part) for name, part in vars(split).items()}
        run.note(audit=audited.counts, split=sizes, **vars(compute))
        print(f"{parts_line(faces, audited, split)}; the test part is not used here", flush=True)

        rows: list[Row] = []
        predictions: dict[str, np.ndarray] = {}
        pictures = {"images": example_faces()}

        def record(name: str, label: str, found: Readout) -> None:
            rows.extend(readout_rows(name, label, found, validation.labels))
            predictions[prediction_key(name, label)] = found.predictions.astype(np.uint8)

        # without codes
        for name, found in controls(config, run, train, validation).items():
            record(name, NO_CODES, found)

        # one VQ-VAE per objective: trained, and then read from its codes alone
        for name in config.objectives:
            label = OBJECTIVES[name]
            weights = run.memo(name, train_codes, config, run, name, train, validation, compute)
            vqvae = trained_vqvae(config, weights, compute)
            coded = run.memo(f"{name}-codes", code_parts, vqvae, train, validation)
            rows += vqvae_rows(vqvae, coded, label)
            seen = (coded.train_pictures, train.labels, coded.validation_pictures)
            record(RIDGE_ON_PATCHES, label, run.memo(f"{name}-ridge", read_pictures, config, *seen))
            maps = (coded.train, train.labels, coded.validation)
            record(
                LINEAR_ON_ONE_HOT, label, run.memo(f"{name}-linear", read_one_hot, config, *maps)
            )
            pictures[label] = vqvae.decode(vqvae.encode(pictures["images"]))

        # record
        write_arrays(folder / "predictions.npz", labels=validation.labels, **predictions)
        write_arrays(folder / "reconstructions.npz", **pictures)
        results = run.finish(rows, INFO, draw_objectives)
    print_objectives(results, folder)
    return results


def print_objectives(results: Results, folder: Path) -> None:
    """One line per objective, on the terminal."""
    columns = {"psnr, VQ-VAE": "PSNR (dB)", "codes_used, VQ-VAE": "codes used"}
    columns |= {f"accuracy, {name}": f"accuracy, {name}" for name in (*READOUTS, LARGEST_CLASS)}
    rows = [row | {"column": f"{row['metric']}, {row['model']}"} for row in results["rows"]]
    title = "Validation part: the same VQ-VAE under several measures of its reconstruction"
    print_table(rows, columns, across="column", index=("variant",), digits=3, title=title)
    print(f"\nall scores, figures and metrics.json are in {folder}")


if __name__ == "__main__":
    entry(main, OPTIONS)
