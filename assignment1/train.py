"""Assignment 1: extreme learning machines and MLPs on 12 x 12 VQ-VAE codes of faces.

A VQ-VAE (van den Oord et al. 2017) turns a 48 x 48 face into 144 code indices. ELMs (Huang et al.
2006) with Gaussian and binary hidden weights and MLPs classify seven expressions from them, with
four penalties on the output weights, from six representations of a code map.

    python assignment1/train.py --preset smoke --source synthetic    under a minute
    python assignment1/train.py                                      two minutes, two cores
    python assignment1/train.py --preset full --source fer2013       hours, two cores

Score to expect of the full run on FER-2013 (held out, test accuracy of what validation chose):
ELM 0.53, binary ELM 0.52, MLP 0.55; README.md has the baselines and the ceiling.
"""

from __future__ import annotations

from assignment1.config import Config
from common.cli import entry, read_options

if __name__ == "__main__":  # before the heavy imports: --help and a refusal answer at once
    OPTIONS = read_options(Config)

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from assignment1.artifacts import (
    VQVAE_FILE,
    save_examples,
    save_fingerprints,
    save_models,
    save_predictions,
)
from assignment1.assigned import as_assigned
from assignment1.audit import Audit, audit, held_out_split
from assignment1.config import ALPHA_GRIDS, LINEAR_ITERATIONS, VQ_TRAINING, Compute
from assignment1.data import Faces, Split, load
from assignment1.elm import Alphas
from assignment1.evaluation import METRICS_INFO, held_out_rows, print_chosen, vqvae_rows
from assignment1.figures import draw_figures
from assignment1.mlp import Epoch, MLPClassifier
from assignment1.representations import (
    alpha_grid,
    new_cnn,
    new_elm,
    new_mlp,
    new_picture_cnn,
    representations,
)
from assignment1.selection import (
    ELM_FAMILIES,
    Candidate,
    ElmFit,
    ModelFit,
    Selection,
    TeacherFit,
    alphas_note,
    best_on_validation,
    chosen_note,
    elm_candidates,
    path_arrays,
    selections_of,
)
from assignment1.sweep import QUANTITIES, SWEPT, sweep, sweep_key
from assignment1.variants import (
    CNN,
    DECODED_PICTURES,
    DISTILLED,
    LARGEST_CLASS,
    LINEAR,
    LOOK_UP,
    MLP,
    ONE_HOT,
    PICTURE_CNN,
    Variant,
)
from assignment1.views import Dataset, code_views
from assignment1.vqvae import VQVAE, psnr
from common.cli import InputError
from common.files import StateDict, tensors, write_arrays
from common.machine import choose_device
from common.results import Results
from common.run import Run, progress
from common.shard import Shard

HERE = Path(__file__).resolve().parent


# -------------------------------------------------------------------------------- the VQ-VAE


def new_vqvae(config: Config) -> VQVAE:
    """An untrained VQ-VAE of the configured size."""
    return VQVAE(config.codes, config.code_dim, config.vq_width, config.vq_fine_width)


def start_vqvae(
    config: Config, train: np.ndarray, compute: Compute
) -> tuple[VQVAE, torch.optim.AdamW]:
    """A VQ-VAE that standardises by faces uint8 (N, 48, 48), and its optimiser."""
    torch.manual_seed(config.seed)
    model = new_vqvae(config)
    model.to(compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.mean.fill_(train.mean() / 255)
    model.std.fill_(train.std() / 255)
    optimiser = torch.optim.AdamW(
        model.parameters(),
        lr=config.vq_lr,
        betas=VQ_TRAINING.betas,
        weight_decay=VQ_TRAINING.weight_decay,
    )
    return model, optimiser


def train_vqvae(
    config: Config, run: Run, train: np.ndarray, validation: np.ndarray, compute: Compute
) -> StateDict:
    """Trains on faces uint8 (N, 48, 48) and returns the weights.

    Every random draw is a function of seed and step, so a resumed run is the same run.
    """
    model, optimiser = start_vqvae(config, train, compute)
    use_bfloat16 = compute.precision == "bfloat16"
    autocast = torch.autocast(compute.device, torch.bfloat16, enabled=use_bfloat16)
    per_epoch = max(len(train) // config.vq_batch, 1)
    total = config.vq_epochs * per_epoch
    warmup = min(config.vq_warmup, total // 2)  # few faces: the codes are placed all the same
    step = 0

    def save() -> None:
        state = {"model": model.state_dict(), "optimiser": optimiser.state_dict()}
        run.save("vqvae", {"step": step, **state})

    # resume
    saved = run.load("vqvae")
    if saved is not None:
        step = saved["step"]
        model.load_state_dict(tensors(saved["model"]))
        optimiser.load_state_dict(tensors(saved["optimiser"]))

    with run.stoppable(save) as check:
        for now in progress(range(step, total), "VQ-VAE"):
            epoch, number = divmod(now, per_epoch)
            rng = np.random.default_rng((config.seed, now))
            batch = train[batch_indices(config, len(train), epoch, number)]
            if rng.random() < VQ_TRAINING.mirrored:
                batch = batch[:, :, ::-1]
            pixels = torch.from_numpy(np.ascontiguousarray(batch)).to(compute.device)
            pixels = pixels[:, None] / 255  # (B, 1, H, W)

            # reconstruction and commitment, equation 3; the codebook moves by averages
            quantise = now >= warmup
            reconstruction, commitment = model.losses(pixels, rng, quantise, autocast)
            loss = reconstruction + config.commitment * commitment
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), VQ_TRAINING.clip)
            for group in optimiser.param_groups:
                group["lr"] = vq_learning_rate(config, now, total)
            optimiser.step()

            step = now + 1
            if step % VQ_TRAINING.log_every == 0 or step in (1, total):
                run.log(step, epoch, "train", vq_reconstruction=reconstruction.item())
                run.log(step, epoch, "train", vq_commitment=commitment.item())
            if step % per_epoch == 0:
                log_reconstruction(run, model, validation, step, epoch + 1)
                save()
            check(step, loss.item())
    return model.state_dict()


def batch_indices(config: Config, rows: int, epoch: int, number: int) -> np.ndarray:
    """The rows of a batch in the epoch's random order."""
    order = np.random.default_rng((config.seed, epoch, 1)).permutation(rows)
    return order[number * config.vq_batch : (number + 1) * config.vq_batch]


def vq_learning_rate(config: Config, step: int, total: int) -> float:
    """Linear warm-up, then a cosine to zero."""
    warm_up = min(1, (step + 1) / VQ_TRAINING.warmup_steps)
    return config.vq_lr * warm_up * (1 + np.cos(np.pi * step / total)) / 2


def log_reconstruction(run: Run, model: VQVAE, faces: np.ndarray, step: int, epoch: int) -> None:
    """Logs the PSNR of faces uint8 (N, 48, 48) and how many codes they use."""
    codemaps = model.eval().encode(faces)
    quality = psnr(faces, model.decode(codemaps)).mean()
    used = len(np.unique(codemaps))
    run.log(step, epoch, "validation", vq_psnr=quality, vq_codes_used=used)
    model.train()


@dataclass(frozen=True)
class Codes:
    """Code maps uint8 (N, 12, 12), and the VQ-VAE and codebook (m, d) that they are of."""

    maps: np.ndarray
    vqvae: VQVAE | None
    codebook: np.ndarray | None


def check_codes(codes: Codes, split: Split) -> None:
    """Raises InputError where all training faces have the same code map."""
    maps = codes.maps[split.train]
    if (maps == maps[:1]).all():
        raise InputError(
            "all training faces have the same codes, so that nothing can be learnt from them; give "
            "more faces, or more --vq-epochs"
        )


def encode_faces(config: Config, run: Run, faces: Faces, split: Split, compute: Compute) -> Codes:
    """Codes from a VQ-VAE that is trained on the training part alone, or the user's own codes."""
    if faces.images is None:
        return Codes(faces.given, None, faces.codebook)
    train = faces.images[split.train]
    validation = faces.images[split.validation]
    weights = run.memo("vqvae", train_vqvae, config, run, train, validation, compute)
    vqvae = new_vqvae(config).to(compute.device)
    vqvae.load_state_dict(tensors(weights))
    vqvae.eval().save(run.folder / VQVAE_FILE)
    maps = run.memo("codemaps", vqvae.encode, faces.images)
    return Codes(maps, vqvae, vqvae.codebook.vectors.cpu().numpy())


# ---------------------------------------------------------------------------------- the ELMs


def fit_elm(
    config: Config,
    data: Dataset,
    family: str,
    name: str,
    seed: int,
    chosen: Sequence[float] | None,
) -> ElmFit:
    """One random hidden layer under every penalty of a representation.

    The alphas are `chosen` already, one per penalty, or are chosen on validation here.
    """
    weights = ELM_FAMILIES[family]
    table = representations(config, data.views.layout, data.codebook, weights, seed)
    representation = table[name]

    # a random hidden layer; its second moments are all that the output layer needs
    start = time.perf_counter()
    elm = new_elm(representation, family, seed)
    moments = elm.accumulate(*data.rows(data.split.train))
    eigen = None if representation.cholesky else moments.eigen()
    X, y = data.rows(data.split.validation)
    hidden_validation = elm.hidden(X)  # (n, L)
    hidden_test = elm.hidden(data.rows(data.split.test)[0])  # (n, L)
    fit = ElmFit(seconds=time.perf_counter() - start)

    for number, penalty in enumerate(representation.penalties):
        # output weights along a path of penalties
        alphas: Alphas
        if chosen is None:
            alphas = alpha_grid(representation, penalty, moments, config.alphas)
        else:
            alphas = [chosen[number]]
        if representation.cholesky:
            betas = np.stack([moments.ridge(alpha) for alpha in alphas])  # (A, L, k)
        else:
            betas = moments.path(penalty, alphas, ALPHA_GRIDS.l1_ratio, eigen)  # (A, L, k)

        # alpha: the highest accuracy on validation
        predictions = [elm.set_output(moments, b).predict_hidden(hidden_validation) for b in betas]
        accuracy = np.array([(prediction == y).mean() for prediction in predictions])  # (A,)
        best = int(accuracy.argmax())
        share_used = (betas != 0).any(2).mean(1)  # (A,)

        # the chosen output layer on test
        elm.set_output(moments, betas[best])
        fit.alphas.append(float(alphas[best]))
        fit.paths.append(
            {"alphas": np.asarray(alphas), "accuracy": accuracy, "share_used": share_used}
        )
        fit.validation.append(predictions[best])
        fit.test.append(elm.predict_hidden(hidden_test))
        fit.params.append(elm.coef_.size + elm.intercept_.size)
    return fit


def fit_elms(config: Config, run: Run, data: Dataset, family: str, name: str) -> list[ElmFit]:
    """The ELMs of one family and representation, one per seed; the first chooses the alphas."""
    fits: list[ElmFit] = []
    for seed in progress(range(config.seeds), f"{family}, {name}"):
        alphas = fits[0].alphas if fits else None
        part = f"elm-{family}-{name}-{seed}"
        fits.append(run.memo(part, fit_elm, config, data, family, name, seed, alphas))
    return fits


def held_out_elms(
    config: Config, run: Run, data: Dataset
) -> tuple[list[Candidate], dict[str, np.ndarray]]:
    """Every ELM family, representation, penalty and seed, and the arrays of the penalty paths."""
    candidates = []
    paths: dict[str, np.ndarray] = {}
    for family, weights in ELM_FAMILIES.items():
        table = representations(config, data.views.layout, data.codebook, weights)
        for name, representation in table.items():
            fits = fit_elms(config, run, data, family, name)
            penalties = representation.penalties
            candidates += elm_candidates(family, name, penalties, fits)
            paths |= path_arrays(family, name, penalties, fits[0])
            run.note(**{f"alphas: {family}, {name}": alphas_note(penalties, fits[0])})
    return candidates, paths


def swept_units(
    config: Config, run: Run, data: Dataset, family: str, name: str
) -> dict[str, np.ndarray]:
    """Accuracy and seconds of one family and representation, as `sweep`."""
    return run.memo(f"units-{family}-{name}", sweep, config, data, family, name)


def sweeps(config: Config, run: Run, data: Dataset) -> dict[str, np.ndarray]:
    """Accuracy and seconds against hidden units, under their names in units.npz."""
    arrays: dict[str, np.ndarray] = {}
    for family in ELM_FAMILIES:
        table = representations(config, data.views.layout, data.codebook)
        for name in (name for name in SWEPT if name in table):
            swept = swept_units(config, run, data, family, name)
            arrays |= {sweep_key(family, name, key): swept[key] for key in QUANTITIES}
    return arrays


# ---------------------------------------------------------------- what they are compared with


class Classifier(Protocol):
    """A scikit-learn classifier."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> object: ...

    def predict(self, X: np.ndarray) -> np.ndarray: ...


def fit_model(
    run: Run, data: Dataset, model: Classifier, soft: np.ndarray | None = None
) -> ModelFit:
    """Trains a network or baseline and predicts validation and test; logs a network's losses.

    An MLP may also learn from a teacher's probabilities `soft` (n, k) of the training faces.
    """
    start = time.perf_counter()
    X, y = data.rows(data.split.train)
    if soft is None:
        model.fit(X, y)
    else:
        cast(MLPClassifier, model).fit(X, y, soft=soft)
    history: list[Epoch] = getattr(model, "history_", [])
    for epoch in history:
        loss = {f"{type(model).__name__}_loss": epoch["loss"]}
        run.log(epoch["epoch"], epoch["epoch"], "train", **loss)
    return ModelFit(
        validation=model.predict(data.rows(data.split.validation)[0]),
        test=model.predict(data.rows(data.split.test)[0]),
        params=getattr(model, "parameters_", None),
        seconds=time.perf_counter() - start,
    )


def train_teacher(config: Config, run: Run, data: Dataset, compute: Compute) -> TeacherFit:
    """The CNN on decoded pictures of the training part, and what it says of them as they are."""
    model = new_picture_cnn(config, data.views.layout, compute)
    fit = fit_model(run, data, model)
    soft = model.first_view_proba(data.rows(data.split.train)[0])
    return TeacherFit(fit.validation, fit.test, model.parameters_, fit.seconds, soft)


def fit_pupils(
    config: Config, run: Run, data: Dataset, compute: Compute, soft: np.ndarray
) -> list[Candidate]:
    """The two MLPs that also learn from a teacher's answers."""
    variants = [Variant(name, "ridge", distilled=True) for name in DISTILLED]
    return [fit_mlp(config, run, data, compute, each, soft) for each in variants]


def mlp_variants(config: Config, data: Dataset) -> list[Variant]:
    """Every representation and penalty of an MLP."""
    table = representations(config, data.views.layout, data.codebook)
    return [
        Variant(name, penalty)
        for name, representation in table.items()
        for penalty in representation.penalties
    ]


def fit_mlp(
    config: Config,
    run: Run,
    data: Dataset,
    compute: Compute,
    variant: Variant,
    soft: np.ndarray | None = None,
) -> Candidate:
    """The MLP of a variant, which may learn from a teacher's answers `soft` (n, k)."""
    table = representations(config, data.views.layout, data.codebook)
    model = new_mlp(config, table[variant.representation], variant.penalty, compute)
    fit = run.memo(f"mlp-{variant.label}", fit_model, run, data, model, soft)
    selection = Selection(MLP, variant, config.mlp_alpha)
    return Candidate.single(MLP, variant.label, fit, selection)


def baselines(config: Config, run: Run, data: Dataset, compute: Compute) -> list[Candidate]:
    """The largest class, a linear model on one-hot codes, and the CNN on codes."""
    layout = data.views.layout
    one_hot = representations(config, layout, data.codebook)[ONE_HOT].features
    regression = LogisticRegression(C=config.linear_c, max_iter=LINEAR_ITERATIONS)
    models: list[tuple[str, str, Classifier]] = [
        (LARGEST_CLASS, "none", DummyClassifier()),
        (LINEAR, Variant(ONE_HOT, "ridge").label, make_pipeline(one_hot, regression)),
    ]
    if data.codebook is not None:
        models.append((CNN, LOOK_UP, new_cnn(config, layout, data.codebook, compute)))
    candidates = []
    for name, label, model in models:
        fit = run.memo(f"baseline-{name}", fit_model, run, data, model)
        candidates.append(Candidate.single(name, label, fit))
    return candidates


# --------------------------------------------------------------------------------------- main


def teach(config: Config, run: Run, data: Dataset, compute: Compute) -> None:
    """Trains the CNN on decoded pictures and the MLPs that learn from it, in one process."""
    teacher = run.memo("teacher", train_teacher, config, run, data, compute)
    fit_pupils(config, run, data, compute, teacher.soft)


def train_share(config: Config, run: Run, data: Dataset, compute: Compute) -> None:
    """Trains the classifiers of the run's shard and leaves them to the whole run."""
    inputs = (config, run, data)
    table = representations(config, data.views.layout, data.codebook)
    trainings: list[Callable[[], object]] = [partial(as_assigned, *inputs, compute)]
    for family in ELM_FAMILIES:
        trainings += [partial(fit_elms, *inputs, family, name) for name in table]
        trainings += [
            partial(swept_units, *inputs, family, name) for name in SWEPT if name in table
        ]
    if data.views.pictures is not None:
        trainings.append(partial(teach, *inputs, compute))
    trainings += [
        partial(fit_mlp, *inputs, compute, variant) for variant in mlp_variants(config, data)
    ]
    trainings.append(partial(baselines, *inputs, compute))
    for train in run.shard.share(trainings):
        train()
    print(run.shard.last_words)


def main(config: Config) -> Results | None:
    """Trains, evaluates and records; returns what metrics.json holds (None: of a shard)."""
    # data: checked and audited before anything is written
    faces = load(config.source, config.data, config.synthetic_faces, config.seed)
    audited = audit(faces)
    split = held_out_split(faces, audited, config.seed, config.validation)
    compute = choose_compute(config)
    shard = Shard.of(config.shard)
    folder = config.out or HERE / "results" / f"{faces.source}-{config.preset}"

    with Run(config, folder, __file__, faces.source, faces.provenance, shard=shard) as run:
        sizes = {name: len(part) for name, part in vars(split).items()}
        run.note(audit=audited.counts, split=sizes, **vars(compute))
        print(parts_line(faces, audited, split), flush=True)

        # codes: a VQ-VAE trained on the training part only, or the user's own code maps
        codes = encode_faces(config, run, faces, split, compute)
        views = run.memo("views", code_views, codes.maps, codes.vqvae)
        check_codes(codes, split)
        data = Dataset(views, faces.truth, split, codes.codebook)
        if not shard.is_whole:
            train_share(config, run, data, compute)
            return None
        rows = vqvae_rows(codes.vqvae, faces, split, codes.maps) if codes.vqvae else []

        # as assigned: the course's models on the course's split
        rows += as_assigned(config, run, data, compute)

        # held out: every choice on validation, every model scored on test
        candidates, paths = held_out_elms(config, run, data)
        soft = None
        if codes.vqvae is not None:
            teacher = run.memo("teacher", train_teacher, config, run, data, compute)
            soft = teacher.soft
            candidates.append(Candidate.single(PICTURE_CNN, DECODED_PICTURES, teacher.fit))
        candidates += [
            fit_mlp(config, run, data, compute, each) for each in mlp_variants(config, data)
        ]
        if soft is not None:
            candidates += fit_pupils(config, run, data, compute, soft)
        candidates += baselines(config, run, data, compute)
        labels = data.labels[split.validation]
        chosen = best_on_validation(candidates, labels)
        run.note(best_on_validation=chosen_note(chosen, labels))
        rows += held_out_rows(candidates, data)

        # record: the chosen models, the metrics, and what figures and report are made from
        save_models(config, run, data, selections_of(chosen), compute, soft)
        save_predictions(folder, data, candidates)
        write_arrays(folder / "paths.npz", **paths)
        write_arrays(folder / "units.npz", **sweeps(config, run, data))
        save_fingerprints(folder, faces, data)
        if codes.vqvae is not None:
            save_examples(folder, codes.vqvae)
        results = run.finish(rows, METRICS_INFO, draw_figures, HERE / "report.typ")
    print_chosen(results, chosen, folder)
    return results


def parts_line(faces: Faces, audited: Audit, split: Split) -> str:
    """What the parts hold and where they come from, for the terminal."""
    given = set(faces.part)
    chosen = "as given" if "validation" in given else "drawn from the training part"
    tested = "as given" if given & {"test", "private"} else "drawn from the training part"
    used = sum(len(part) for part in vars(split).values())
    aside = int((faces.part == "private").sum()) if "test" in given else 0
    private = f"; the private part of {aside:,} faces is kept aside" if aside else ""
    return (
        f"parts: {len(split.train):,} faces to train on, {len(split.validation):,} to choose on "
        f"({chosen}), {len(split.test):,} to test on ({tested}){private}; "
        f"{len(faces) - used - aside:,} left out: twins of other parts' faces, "
        f"{audited.counts['groups_with_conflicting_labels']:,} groups of twins with different "
        f"labels, {audited.counts['constant_images']:,} constant images"
    )


def choose_compute(config: Config) -> Compute:
    """The device and the arithmetic of the options."""
    device = choose_device(config.device)
    precision = config.precision
    if precision == "auto":
        precision = "bfloat16" if device.bfloat16 else "float32"
    return Compute(device.name, precision)


if __name__ == "__main__":
    entry(main, OPTIONS)
