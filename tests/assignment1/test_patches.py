"""Random whitened patches, warped copies, and classifiers of rows that have several views."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from assignment1.elm import ELMClassifier
from assignment1.mlp import MLPClassifier, PictureCNNClassifier, Target, one_view
from assignment1.patches import CONTRAST, WHITENING, WhitenedPatches, Whitening
from assignment1.views import Dataset
from assignment1.warps import SHIFT, affine, warp_draws, warped
from tests.assignment1.samples import clouds


def test_whitening_is_the_inverse_root_of_the_covariance():
    patches = torch.from_numpy(np.random.default_rng(0).standard_normal((200, 9))) @ torch.rand(
        9, 9, dtype=torch.float64
    )
    whitening = Whitening.of(patches)
    inverse = torch.linalg.inv(whitening.matrix @ whitening.matrix)
    expected = torch.cov(patches.T) + WHITENING * torch.eye(9)
    np.testing.assert_allclose(inverse, expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(whitening(patches).mean(0), 0, atol=1e-10)


def test_a_feature_is_the_mean_of_its_thresholded_responses(data: Dataset):
    patches = WhitenedPatches(3, size=6, stride=3, pool=1, threshold=0.25, random_state=1)
    pictures = data.views.pictures
    patches.fit(pictures)
    picture = pictures[0].reshape(48, 48).astype(np.float64)
    picture = (picture - picture.mean()) / picture.std(ddof=1)

    sums = np.zeros(6)  # three filters above, and three below
    places = range(0, 43, 3)
    for image in (picture, picture[:, ::-1]):
        for row in places:
            for column in places:
                patch = image[row : row + 6, column : column + 6]
                patch = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + CONTRAST)
                response = (patches.filters_[:, 0] * patch).sum((1, 2)) + patches.offsets_
                sums[:3] += np.maximum(response - 0.25, 0)
                sums[3:] += np.maximum(-response - 0.25, 0)
    means = sums / (2 * len(places) ** 2)
    expected = (means - patches.mean_) / patches.scale_
    np.testing.assert_allclose(patches.transform(pictures[:1])[0], expected, rtol=2e-3, atol=2e-3)


def test_patches_do_not_tell_a_picture_from_its_mirror_image(data: Dataset):
    pictures = data.views.pictures
    flipped = pictures.reshape(-1, 48, 48)[:, :, ::-1].reshape(len(pictures), -1)
    for weights in ("gaussian", "binary"):
        patches = WhitenedPatches(4, weights=weights, random_state=0).fit(pictures)
        features = patches.transform(pictures)
        np.testing.assert_allclose(patches.transform(flipped), features, atol=1e-3)


def test_each_view_of_a_row_has_its_own_patches(data: Dataset):
    pictures = data.views.pictures
    other = pictures[::-1]
    both = WhitenedPatches(4, views=2, random_state=0).fit(np.hstack([pictures, other]))
    single = WhitenedPatches(4, random_state=0).fit(pictures)
    expected = np.hstack([single.transform(pictures), single.transform(other)])
    np.testing.assert_allclose(both.transform(np.hstack([pictures, other])), expected, atol=1e-5)
    with pytest.raises(ValueError, match="square"):
        WhitenedPatches(4, views=3).fit(np.zeros((5, 50)))
    with pytest.raises(ValueError, match="gaussian, binary"):
        WhitenedPatches(4, weights="ternary").fit(pictures)


def test_a_warp_of_nothing_is_the_picture_and_a_shift_moves_it():
    pictures = np.random.default_rng(0).integers(256, size=(1, 48, 48)).astype(np.uint8)
    pixel = 2 / 48 / SHIFT  # a shift by one pixel, in units of the largest
    matrices = torch.from_numpy(affine(np.array([[0, 0, 0, 0], [0, 0, pixel, 0]], np.float32)))
    both = torch.from_numpy(pictures).float()[:, None].repeat(2, 1, 1, 1)
    grid = torch.nn.functional.affine_grid(matrices, [2, 1, 48, 48], align_corners=False)
    moved = torch.nn.functional.grid_sample(both, grid, align_corners=False).numpy()[:, 0]
    np.testing.assert_allclose(moved[0], pictures[0], atol=0.01)
    np.testing.assert_allclose(moved[1][:, :-1], pictures[0][:, 1:], atol=0.01)


def test_the_warps_of_a_face_depend_on_its_codes_alone(data: Dataset):
    pictures = data.views.pictures.reshape(-1, 48, 48)
    codes = data.views.codes
    together = warped(pictures, codes)
    np.testing.assert_array_equal(warped(pictures[7:8], codes[7:8])[0], together[7])
    draws = warp_draws(codes, 4)
    assert np.abs(draws).max() <= 1
    assert len(np.unique(draws.reshape(-1, 4), axis=0)) == 4 * len(np.unique(codes, axis=0))


def test_an_elm_of_views_is_the_elm_of_all_of_them_as_rows():
    X, y = clouds()
    both = np.hstack([X, X + 0.1])
    options = {"n_hidden": 20, "penalty": "ridge", "alpha": 0.1, "random_state": 3}
    model = ELMClassifier(**options, views=2, block_rows=7).fit(both, y)
    rows = np.stack([X, X + 0.1], axis=1).reshape(-1, X.shape[1])
    stacked = ELMClassifier(**options).fit(rows, np.repeat(y, 2))
    np.testing.assert_allclose(model.coef_, stacked.coef_, rtol=1e-4, atol=1e-5)

    # a prediction is the mean of the views' scores, and knows no order of them
    scores = (model_scores(stacked, X) + model_scores(stacked, X + 0.1)) / 2
    np.testing.assert_allclose(model_scores(model, both), scores, rtol=1e-3, atol=1e-4)
    swapped = np.hstack([X + 0.1, X])
    np.testing.assert_allclose(model_scores(model, swapped), scores, rtol=1e-3, atol=1e-4)
    hidden = model.hidden(both)
    np.testing.assert_array_equal(model.predict_hidden(hidden), model.predict(both))


def model_scores(model: ELMClassifier, X: np.ndarray) -> np.ndarray:
    return model.decision_function(X)


def test_views_that_cannot_be_are_refused():
    X, y = clouds()
    with pytest.raises(ValueError, match="views=0"):
        ELMClassifier(5, views=0).fit(X, y)
    with pytest.raises(ValueError, match="not 7 views"):
        ELMClassifier(5, views=7).fit(X, y)
    with pytest.raises(ValueError, match="other views of the same row"):
        ELMClassifier(5, penalty="ridge", alpha="loo", views=2).fit(np.hstack([X, X]), y)


def test_one_view_of_each_row_is_trained_on():
    x = torch.arange(24.0).reshape(4, 6)  # three views of two columns
    rng = np.random.default_rng(0)
    seen = torch.stack([one_view(x, 3, rng) for _ in range(50)])  # (50, 4, 2)
    starts = seen[:, :, 0] - x[:, 0]
    assert set(starts.flatten().tolist()) == {0, 2, 4}
    assert (seen[:, :, 1] - seen[:, :, 0] == 1).all()


def test_a_networks_probabilities_are_the_mean_over_views():
    X, y = clouds()
    model = MLPClassifier((8,), epochs=2, batch=16, views=2, random_state=0)
    model.fit(np.hstack([X, X + 0.5]), y)
    same = model.predict_proba(np.hstack([X, X]))
    other = model.predict_proba(np.hstack([X + 0.5, X + 0.5]))
    mixed = model.predict_proba(np.hstack([X, X + 0.5]))
    np.testing.assert_allclose(mixed, (same + other) / 2, atol=1e-6)


def test_the_picture_cnn_does_not_tell_a_picture_from_its_mirror_image(data: Dataset, tmp_path):
    pictures = data.views.pictures
    model = PictureCNNClassifier((2,), epochs=1, batch=32, random_state=0)
    model.fit(pictures, data.labels)
    flipped = pictures.reshape(-1, 48, 48)[:, :, ::-1].reshape(len(pictures), -1)
    probability = model.predict_proba(pictures)
    np.testing.assert_allclose(model.predict_proba(flipped), probability, atol=1e-5)
    model.save(tmp_path / "cnn.safetensors")
    loaded = MLPClassifier.load(tmp_path / "cnn.safetensors")
    np.testing.assert_allclose(loaded.predict_proba(pictures), probability, atol=5e-3)


def test_a_student_imitates_its_teacher_and_half_of_each_is_the_mean_of_both_losses():
    X, y = clouds()
    classes = len(np.unique(y))
    turned = np.roll(np.eye(classes, dtype=np.float32)[y], 1, axis=1)  # a teacher that is wrong
    model = MLPClassifier((16,), epochs=30, batch=16, learning_rate=1e-2, random_state=0)
    model.set_params(soft_share=1.0).fit(X, y, soft=turned)
    answered = model.predict(X)
    assert (answered == turned.argmax(1)).mean() > 0.75 > 0.25 > (answered == y).mean()

    logits = torch.randn(5, classes)
    labels = torch.zeros(5, dtype=torch.int64)
    answers = torch.softmax(torch.randn(5, classes), 1)
    losses = [
        model.set_params(soft_share=share)._loss(logits, Target(labels, None, answers))
        for share in (0.0, 0.5, 1.0)
    ]
    log_probability = torch.log_softmax(logits, 1)
    torch.testing.assert_close(losses[0], -log_probability[:, 0].mean())
    torch.testing.assert_close(losses[2], -(answers * log_probability).sum(1).mean())
    torch.testing.assert_close(losses[1], (losses[0] + losses[2]) / 2)
    with pytest.raises(ValueError, match="no weights"):
        model.fit(X, y, soft=turned[:-1])
