"""KID, neighbour scores and memorisation by their definitions, and the rows made of them."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from assignment5.evaluation import METRICS_INFO, Gaussian, Judge, baseline_rows
from assignment5.feature_net import FeatureNet, FeatureSpace, Inception, turned
from assignment5.quality import kid, nearest_distance, neighbour_scores
from assignment5.synthetic import draw_flowers
from common.cli import InputError

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


def test_without_training_images_there_are_no_scores_of_memorisation():
    images, _ = draw_flowers(20, 16, 0)
    judge = Judge(PIXELS, images[:10], "test")
    assert set(judge.scores(images[10:])) == {"kid", "precision", "recall", "density", "coverage"}


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


def test_the_feature_network_has_as_many_features_as_it_says():
    network = FeatureNet(5, 4, 16).eval()
    assert network.describe(draw_flowers(3, 16, 0)[0]).shape == (3, 32)


def test_an_image_is_turned_by_quarters():
    image = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    assert np.array_equal(turned(image, np.array([2]))[0], image[0, ::-1, ::-1])
