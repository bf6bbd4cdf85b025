"""Measures of a reconstruction, the VQ-VAEs that are trained under them, and codes.py."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from assignment1 import codes, train
from assignment1.audit import held_out_split
from assignment1.codes import Part, Training, code_parts, read_pictures, train_codes
from assignment1.config import CodesConfig, Compute
from assignment1.data import Faces, Split
from assignment1.elm import ELMClassifier
from assignment1.objectives import (
    CONTRAST_FLOOR,
    FEATURE_STAGES,
    WINDOW,
    Objective,
    PerceptualMaps,
    differences,
    local_contrast,
    new_objective,
    unexplained_variance,
)
from assignment1.synthetic import draw_faces
from assignment1.variants import (
    LABEL_AWARE,
    LARGEST_CLASS,
    NO_CODES,
    OBJECTIVES,
    PIXELS,
    READOUTS,
    RIDGE_ON_PATCHES,
    prediction_key,
)
from assignment1.vqvae import VQVAE
from common.files import read_json
from common.imagenet import feature_net
from common.run import Run
from tests.conftest import (
    assert_readable,
    assert_refused,
    assert_same_after_interruption,
    results,
    run_main,
    scores_alone,
)

TINY = {"vq_width": 8, "vq_fine_width": 8, "codes": 16, "code_dim": 8, "feature_side": 48}
CPU = Compute("cpu", "float32")
SMALL = ("--preset", "smoke", "--source", "synthetic", "--synthetic-faces", 160)
FEW = (*SMALL, "--vq-width", 8, "--vq-fine-width", 8, "--patches", 2)
BOTH = (*FEW, "--objectives", PIXELS, LABEL_AWARE)


@pytest.fixture(scope="module")
def small() -> CodesConfig:
    """Options of a tiny VQ-VAE that quantises from its second step on."""
    options = CodesConfig.of_preset("smoke")
    return dataclasses.replace(options, vq_warmup=1, vq_epochs=1, vq_batch=8, **TINY)


@pytest.fixture(scope="module")
def faces() -> Part:
    """Thirty-two built-in faces."""
    return Part(*draw_faces(32, 0))


# ----------------------------------------------------------------------------------- measures


def test_the_gradient_measure_by_hand():
    pixels = torch.tensor([[[[0.0, 1.0], [3.0, 8.0]]]])
    black = torch.zeros_like(pixels)
    # pixels: (0 + 1 + 9 + 64) / 4; horizontal (1, 5) and vertical (3, 7) differences of variance 4:
    # (1 + 25) / 2 / 4 and (9 + 49) / 2 / 4
    expected = 0.75 * 18.5 + 0.25 * (3.25 + 7.25) / 2
    assert Objective(0.25, differences)(black, pixels).item() == pytest.approx(expected)


def test_the_variance_is_that_about_the_mean_of_each_channel():
    wanted = torch.tensor([[[[0.0, 2.0]], [[10.0, 16.0]]]])  # variances 1 and 9
    found = wanted + torch.tensor([1.0, 3.0])[None, :, None, None]
    assert unexplained_variance(found, wanted).item() == pytest.approx((1 + 9) / 2 / 5)
    means = torch.tensor([1.0, 13.0])[None, :, None, None].expand_as(wanted)
    assert unexplained_variance(means, wanted).item() == pytest.approx(1)


def test_the_best_constant_slope_has_an_error_of_one():
    pixels = torch.rand(1, 1, 6, 5, generator=torch.Generator().manual_seed(0))
    across, down = (found.mean() for found in differences(pixels))
    plane = across * torch.arange(5.0) + down * torch.arange(6.0)[:, None]
    error = Objective(1, differences)(plane[None, None], pixels)
    assert error.item() == pytest.approx(1, abs=1e-5)


def test_local_contrast_by_hand_and_blind_to_brightness():
    pixels = torch.randn(2, 1, 20, 24, generator=torch.Generator().manual_seed(0))
    (found,) = local_contrast(pixels)
    half = WINDOW // 2
    for row, column in ((10, 12), (0, 0), (19, 5)):
        rows = slice(max(row - half, 0), row + half + 1)
        columns = slice(max(column - half, 0), column + half + 1)
        window = pixels[1, 0, rows, columns]
        deviation = (window.var(correction=0) + CONTRAST_FLOOR).sqrt()
        expected = (pixels[1, 0, row, column] - window.mean()) / deviation
        torch.testing.assert_close(found[1, 0, row, column], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(local_contrast(pixels + 3)[0], found, rtol=1e-3, atol=1e-4)
    measure = Objective(0.9, local_contrast)
    assert measure(pixels + 0.5, pixels).item() == pytest.approx(0.1 * 0.25, rel=1e-3)


def test_perceptual_maps_are_those_of_the_picture_with_unit_norm():
    vqvae = VQVAE(8, 4, 8, 8, 1, 1)
    vqvae.mean.fill_(0.4)
    vqvae.std.fill_(0.2)
    levels = torch.rand(2, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    net = feature_net()
    maps = PerceptualMaps(net, vqvae, 48)((levels - 0.4) / 0.2)
    raw = net.maps(levels, FEATURE_STAGES, 48)
    assert len(maps) == FEATURE_STAGES
    for found, given in zip(maps, raw, strict=True):
        torch.testing.assert_close(found.norm(dim=1), torch.ones(given[:, 0].shape))
        expected = given / given.norm(dim=1, keepdim=True)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_no_error_is_none_and_gradients_reach_the_encoder(name, small, faces):
    training = Training.start(small, name, faces, CPU)
    batch = torch.from_numpy(faces.images[:4])[:, None] / 255
    pixels = (batch - training.vqvae.mean) / training.vqvae.std
    assert training.objective(pixels, pixels).item() == pytest.approx(0, abs=1e-6)

    loss = training.loss(small, faces, np.random.default_rng(0), quantise=True)
    loss.backward()
    # each last convolution of a residual block starts at zero: look before the first one
    gradient = training.vqvae.encoder[1].weight.grad
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0
    assert 0.3 < loss.item() < 4, "of the scale of the pixels' loss, which starts at about 1"


# ----------------------------------------------------------------------------------- training


def test_pixels_are_the_loss_of_train_bit_by_bit(small, faces):
    torch.manual_seed(0)
    models = [train.new_vqvae(small) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    off = torch.autocast("cpu", enabled=False)
    pixels = torch.from_numpy(faces.images)[:, None] / 255
    reconstruction, commitment = models[0].losses(pixels, np.random.default_rng(0), True, off)
    batch = models[1].reconstruct(pixels, np.random.default_rng(0), True, off)
    measure = new_objective(PIXELS, small, models[1])
    assert torch.equal(measure(batch.decoded, batch.pixels), reconstruction)
    assert torch.equal(
        measure(batch.decoded, batch.pixels), F.mse_loss(batch.decoded, batch.pixels)
    )
    assert torch.equal(batch.commitment, commitment)


def test_the_vqvae_of_pixels_is_that_of_train_bit_by_bit(small, faces, tmp_path):
    weights = []
    for name in ("train", "codes"):
        config = dataclasses.replace(small, vq_epochs=2)
        with Run(config, tmp_path / name, train.__file__, "synthetic", {}) as run:
            if name == "train":
                found = train.train_vqvae(config, run, faces.images, faces.images[:8], CPU)
            else:
                found = train_codes(config, run, PIXELS, faces, Part(*draw_faces(8, 1)), CPU)
        weights.append({key: value.clone() for key, value in found.items()})
    assert weights[0].keys() == weights[1].keys()
    for key, value in weights[0].items():
        assert torch.equal(value, weights[1][key]), key


def test_labels_add_their_cross_entropy_and_train_the_head(small, faces):
    def start() -> Training:
        return Training.start(small, LABEL_AWARE, faces, CPU)

    def loss(weight: float, labels: np.ndarray) -> torch.Tensor:
        config = dataclasses.replace(small, label_weight=weight)
        part = Part(faces.images, labels)
        return start().loss(config, part, np.random.default_rng(0), quantise=True)

    without = loss(0, faces.labels)
    pixels = Training.start(small, PIXELS, faces, CPU)
    assert torch.equal(without, pixels.loss(small, faces, np.random.default_rng(0), quantise=True))
    once, twice = loss(1, faces.labels), loss(2, faces.labels)
    assert once - without > 1  # about ln 7 for an untrained classifier
    torch.testing.assert_close(twice - without, 2 * (once - without))
    assert loss(1, np.roll(faces.labels, 1)) != once

    training = start()
    training.loss(small, faces, np.random.default_rng(0), quantise=True).backward()
    assert training.head is not None
    assert all(weight.grad.abs().sum() > 0 for weight in training.head.parameters())
    trained = {id(weight) for weight in training.weights}
    assert {id(weight) for weight in training.head.parameters()} < trained
    assert len(trained) == len(pixels.weights) + len(list(training.head.parameters()))


def test_what_is_read_is_decoded_from_the_codes(small, faces):
    vqvae = Training.start(small, PIXELS, faces, CPU).vqvae.eval()
    vqvae.codebook.vectors.normal_(generator=torch.Generator().manual_seed(0))
    coded = code_parts(vqvae, faces, Part(*draw_faces(8, 1)))
    decoded = vqvae.decode(coded.validation)
    np.testing.assert_allclose(coded.validation_pictures, 255 * decoded, atol=0.51)
    errors = np.square(draw_faces(8, 1)[0] / 255 - decoded).mean((1, 2))
    assert coded.psnr == pytest.approx((-10 * np.log10(errors)).mean(), rel=1e-4)


def test_the_first_draw_chooses_the_penalty_by_training_rows_alone(small, faces, monkeypatch):
    alphas = []
    fit = ELMClassifier.fit

    def noted(model: ELMClassifier, X: np.ndarray, y: np.ndarray) -> ELMClassifier:
        alphas.append(model.alpha)
        return fit(model, X, y)

    monkeypatch.setattr(ELMClassifier, "fit", noted)
    config = dataclasses.replace(small, draws=3)
    images, labels = draw_faces(60, 2)
    found = read_pictures(config, images, labels, faces.images)
    assert found.predictions.shape == (3, 32)
    assert alphas[0] == "loo"
    assert alphas[1] == alphas[2] > 0
    other = read_pictures(config, images, labels, faces.images[:5])
    np.testing.assert_array_equal(other.predictions, found.predictions[:, :5])


# -------------------------------------------------------------------------------- the script


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unbroken small run of two objectives."""
    folder = tmp_path_factory.mktemp("codes") / "run"
    with scores_alone():
        run_main(codes.main, CodesConfig, *BOTH, "--out", folder)
    return folder


def test_a_run_has_every_objective_its_controls_and_figures_and_no_test_row(tmp_path):
    folder = tmp_path / "run"
    run_main(codes.main, CodesConfig, *FEW, "--out", folder)
    assert read_json(folder / "run.json")["status"] == "finished"
    assert_readable(folder)
    for name in ("metrics.csv", "predictions.npz", "objectives.png", "decoded.png"):
        assert (folder / name).stat().st_size > 0, name
    table = pd.DataFrame(read_json(folder / "metrics.json")["rows"])
    assert set(table.split) == {"validation"}
    for label in OBJECTIVES.values():
        rows = table[table.variant == label]
        assert set(rows[rows.model == "VQ-VAE"].metric) == {"psnr", "codes_used"}
        for readout in READOUTS:
            scores = rows[rows.model == readout].set_index("metric").value
            assert scores.accuracy_low <= scores.accuracy <= scores.accuracy_high
    controls = table[(table.variant == NO_CODES) & (table.metric == "accuracy")]
    assert set(controls.model) == {RIDGE_ON_PATCHES, LARGEST_CLASS}
    assert "upper bound: sees labels" in OBJECTIVES[LABEL_AWARE]

    # accuracies come from the stored predictions
    with np.load(folder / "predictions.npz", allow_pickle=False) as arrays:
        for row in table[table.metric == "accuracy"].itertuples():
            right = arrays[prediction_key(row.model, row.variant)] == arrays["labels"]
            assert abs(right.mean() - row.value) < 1e-12


def test_the_test_part_changes_nothing(both, tmp_path, monkeypatch):
    def poisoned(found: Faces, *others: object) -> Split:
        split = held_out_split(found, *others)
        found.given[split.test] = 255 - found.given[split.test]
        found.truth[split.test] = 0
        return split

    monkeypatch.setattr(codes, "held_out_split", poisoned)
    with scores_alone():
        run_main(codes.main, CodesConfig, *BOTH, "--out", tmp_path / "run")
    assert results(tmp_path / "run") == results(both)


def test_an_interrupted_and_resumed_run_has_the_same_metrics(both, tmp_path):
    folder = tmp_path / "run"
    assert_same_after_interruption(both, codes.main, CodesConfig, BOTH, LABEL_AWARE, folder)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--objectives", "pixels", "pixels"), "each of them once"),
        (("--objectives", "pixel"), "pixels"),
        (("--contrast-share", 1.5), "--contrast-share 1.5: allowed are 0 to 1"),
        (("--draws", 0), "--draws 0: allowed are 1 and more"),
        (("--source", "codemaps", "--data", "maps"), "needs faces to train on"),
    ],
)
def test_options_that_cannot_be_are_one_line(words, message, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "maps").mkdir()
    np.save(
        tmp_path / "maps" / "codemaps.npy", rng.integers(256, size=(40, 12, 12), dtype=np.uint8)
    )
    np.save(tmp_path / "maps" / "labels.npy", np.eye(7, dtype=np.uint8)[np.arange(40) % 7])
    assert_refused(codes.main, CodesConfig, words, message, tmp_path)
