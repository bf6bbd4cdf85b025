"""Assignment 1: the mathematics of the output layer, the representations, the VQ-VAE, the audit, and every bad input."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import ElasticNet, Lasso, Ridge, RidgeClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from assignment1 import data
from assignment1.config import Config
from assignment1.elm import ELMClassifier, Moments, random_layer
from assignment1.features import (
    CodebookLookup,
    OneHotCodes,
    RandomReceptiveFields,
    RawCodes,
    SideBySide,
    StandardisedIntegers,
    principal_codes,
)
from assignment1.mlp import CNNClassifier, MLPClassifier
from assignment1.protocols import representations, scores
from assignment1.synthetic import draw_faces
from assignment1.vqvae import VQVAE, Codebook, code_views, load_vqvae, psnr
from common.cli import InputError

RNG = np.random.default_rng(0)


def problem(
    n: int = 400, p: int = 6, k: int = 3, dtype: type = np.float64
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    y = rng.integers(k, size=n)
    return (rng.standard_normal((n, p)) + 1.5 * np.eye(k, p)[y]).astype(dtype), y


# --------------------------------------------------------------------------------------------------------- output layer


@parametrize_with_checks(
    [
        ELMClassifier(n_hidden=50),
        ELMClassifier(weights="binary", penalty="ridge", n_hidden=100),
        ELMClassifier(penalty="lasso", alpha=1e-3, n_hidden=50),
        ELMClassifier(penalty="elasticnet", alpha=1e-3, n_hidden=50, direct_links=True),
        MLPClassifier(hidden=(32,), epochs=20, batch=16, learning_rate=1e-2),
        StandardisedIntegers(),
    ]
)
@pytest.mark.filterwarnings("ignore")
def test_scikit_learn_estimator_checks(estimator, check):
    check(estimator)


def test_no_penalty_is_the_least_squares_solution():
    X, y = problem()
    model = ELMClassifier(40, fit_intercept=False, random_state=0).fit(X, y)
    expected = np.linalg.lstsq(model.hidden(X), np.eye(3)[y], rcond=None)[0]
    np.testing.assert_allclose(model.coef_, expected, atol=1e-8)
    np.testing.assert_array_equal(model.intercept_, 0)


def test_no_penalty_has_minimum_norm_when_there_are_more_units_than_rows():
    X, y = problem(30)
    model = ELMClassifier(80, fit_intercept=False, random_state=0).fit(X, y)
    hidden = model.hidden(X)
    expected = np.linalg.pinv(hidden) @ np.eye(3)[y]
    np.testing.assert_allclose(hidden @ model.coef_, np.eye(3)[y], atol=1e-5)
    np.testing.assert_allclose(model.coef_, expected, atol=1e-5)


def test_float32_rows_with_an_ill_conditioned_hidden_layer_still_get_the_least_squares_fit():
    X, y = problem(2000, dtype=np.float32)
    model = ELMClassifier(60, weight_scale=0.05, fit_intercept=False, random_state=0).fit(X, y)
    hidden = model.hidden(X).astype(np.float64)
    best = np.linalg.lstsq(hidden, np.eye(3)[y], rcond=None)[0]
    found, lowest = (np.square(hidden @ beta - np.eye(3)[y]).sum() for beta in (model.coef_, best))
    assert lowest <= found <= 1.001 * lowest


def test_ridge_tends_to_no_penalty_and_equals_scikit_learn():
    X, y = problem()
    bare = ELMClassifier(40, random_state=0).fit(X, y)
    moments = bare.accumulate(X, y)
    np.testing.assert_allclose(
        bare.set_params(penalty="ridge", alpha=1e-9).solve(moments).coef_,
        moments.minimum_norm(),
        atol=1e-6,
    )
    hidden, target = bare.hidden(X), np.eye(3)[y]
    for alpha in (0.01, 1.0, 100.0):
        peer = Ridge(alpha).fit(hidden, target)
        bare.set_params(alpha=alpha).solve(moments)
        np.testing.assert_allclose(bare.coef_, peer.coef_.T, atol=1e-8)
        np.testing.assert_allclose(bare.intercept_, peer.intercept_, atol=1e-8)
    np.testing.assert_allclose(moments.ridge_path([0.5])[0], moments.ridge(0.5), atol=1e-9)


@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
def test_lasso_and_elastic_net_paths_equal_coordinate_descent(l1_ratio):
    X, y = problem()
    model = ELMClassifier(40, random_state=0)
    moments = model.accumulate(X, y)
    hidden, target = model.hidden(X), np.eye(3)[y]
    top = moments.largest_alpha(l1_ratio)
    alphas = top * np.array([1.001, 0.5, 0.1, 0.02])
    path = moments.elastic_net_path(alphas, l1_ratio, tolerance=1e-6)
    assert not path[0].any()
    assert moments.elastic_net_path([0.9 * top], l1_ratio).any()
    for alpha, beta in zip(alphas[1:], path[1:], strict=True):
        peer = (
            Lasso(alpha, tol=1e-9, max_iter=100_000)
            if l1_ratio == 1
            else ElasticNet(alpha, l1_ratio=l1_ratio, tol=1e-9, max_iter=100_000)
        ).fit(hidden, target)
        np.testing.assert_allclose(beta, peer.coef_.T, atol=2e-5)
        np.testing.assert_array_equal(np.abs(beta) > 1e-4, np.abs(peer.coef_.T) > 1e-4)


def test_elastic_net_solutions_meet_the_optimality_conditions_in_float32():
    X, y = problem(3000, 20, dtype=np.float32)
    moments = ELMClassifier(600, random_state=0, penalty="lasso").accumulate(X, y)
    alpha = 0.1 * moments.largest_alpha()
    beta = moments.elastic_net_path([alpha], 1.0)[0]
    gradient = (moments.cross - moments.gram @ beta) / moments.n
    assert np.abs(gradient[beta == 0]).max() <= 1.02 * alpha
    np.testing.assert_allclose(gradient[beta != 0], alpha * np.sign(beta[beta != 0]), rtol=0.02)


def test_moments_do_not_depend_on_the_blocks_and_survive_large_means():
    rng = np.random.default_rng(0)
    hidden = (100 + rng.standard_normal((5000, 8))).astype(np.float32)
    target = rng.standard_normal((5000, 2))
    exact = hidden.astype(np.float64) - hidden.astype(np.float64).mean(0)
    for size in (5000, 333):
        moments = Moments.accumulate(
            (hidden[i : i + size].copy(), target[i : i + size]) for i in range(0, 5000, size)
        )
        np.testing.assert_allclose(moments.gram, exact.T @ exact, rtol=1e-3, atol=2)
        np.testing.assert_allclose(moments.cross, exact.T @ (target - target.mean(0)), atol=0.05)
        np.testing.assert_allclose(moments.hidden_mean, hidden.mean(0, dtype=np.float64), rtol=1e-6)


def test_a_fit_does_not_depend_on_the_block_size():
    X, y = problem(1000, dtype=np.float32)
    scores_ = [
        ELMClassifier(50, penalty="ridge", alpha=1.0, block_rows=rows, random_state=0)
        .fit(X, y)
        .decision_function(X)
        for rows in (64, 5000)
    ]
    np.testing.assert_allclose(scores_[0], scores_[1], atol=1e-4)


def test_calibration_finds_the_temperature_of_least_log_loss():
    X, y = problem(600)
    model = ELMClassifier(30, penalty="ridge", random_state=0).fit(X[:300], y[:300])

    def loss(temperature: float) -> float:
        return -np.log(
            model.set_params(temperature=temperature).predict_proba(X[300:])[
                np.arange(300), y[300:]
            ]
        ).mean()

    best = model.calibrate(X[300:], y[300:]).temperature
    assert 0.02 < best < 1
    assert loss(best) <= min(loss(best * 0.8), loss(best * 1.25))


def test_random_layers():
    weight, bias = random_layer("binary", 50, 40, 3)
    assert set(np.unique(weight)) == set(np.unique(bias)) == {-1.0, 1.0}
    assert abs(weight.mean()) < 0.1
    again = random_layer("binary", 50, 40, 3)[0]
    np.testing.assert_array_equal(weight, again)
    normal = random_layer("gaussian", 200, 200, 0)[0]
    assert abs(normal.std() - 1) < 0.02
    assert np.abs(normal - random_layer("gaussian", 200, 200, 1)[0]).max() > 0.1


def test_pipeline_grid_search_and_cross_validation():
    X, y = problem(200)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), ELMClassifier(30, penalty="ridge", random_state=0)),
        {"elmclassifier__alpha": [0.1, 10]},
        cv=2,
    )
    assert search.fit(X, y).best_score_ > 0.5
    assert cross_val_score(clone(search.best_estimator_), X, y, cv=3).mean() > 0.5
    with pytest.raises(NotFittedError):
        ELMClassifier().predict(X)
    for bad in (
        {"weights": "ternary"},
        {"penalty": "l0"},
        {"activation": "cos"},
        {"n_hidden": 0},
        {"alpha": -1.0},
        {"l1_ratio": 0.0},
    ):
        with pytest.raises(ValueError, match=next(iter(bad))):
            ELMClassifier(**bad).fit(X, y)


# ------------------------------------------------------------------------------------------------------ representations


@pytest.fixture(scope="module")
def views() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes, mirror codes and pictures (n, 144 + 144 + 2304), labels, codebook."""
    rng = np.random.default_rng(0)
    X = np.concatenate(
        [rng.integers(256, size=(120, 288)), rng.integers(256, size=(120, 2304))], axis=1
    ).astype(np.uint8)
    return X, rng.integers(3, size=120), rng.standard_normal((256, 16)).astype(np.float32)


def test_one_hot_and_look_up_are_the_same_up_to_a_linear_map(views):
    X, _, codebook = views
    codes = X[:, :144]
    one_hot = OneHotCodes(256).fit(codes).transform(codes)
    assert one_hot.shape == (120, 144 * 256)
    np.testing.assert_array_equal(one_hot.sum(1), 144)
    lookup = CodebookLookup(codebook, components=None, power=0.0).fit(codes)
    flat = lookup.transform(codes)
    block = one_hot[:, :256] @ lookup.table_  # the first place
    np.testing.assert_allclose(block, flat[:, :16], rtol=1e-6)


def test_principal_codes_keep_distances_and_whiten(views):
    X, _, codebook = views
    kept = principal_codes(codebook, X[:, :144], None, 0.0)
    distances = [
        np.linalg.norm(table[:20, None] - table[None, :20], axis=2) for table in (kept, codebook)
    ]
    ratio = distances[0][np.triu_indices(20, 1)] / distances[1][np.triu_indices(20, 1)]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-3)
    white = principal_codes(codebook, X[:, :144], 5, 1.0)[X[:, :144].ravel()]
    np.testing.assert_allclose(np.cov(white.T), np.eye(5), atol=0.01)


def test_receptive_field_response_by_hand(views):
    """One filter, one size, pooled over the whole map: mean over places of relu of a plain correlation."""
    X, _, codebook = views
    fields = RandomReceptiveFields(
        codebook, components=2, sizes=(3,), maps=1, pool=1, random_state=0
    ).fit(X[:, :144])
    table = fields.table_[X[0, :144].astype(int)].reshape(12, 12, 2)
    padded = np.pad(table, ((1, 1), (1, 1), (0, 0)))
    kernel, offset = fields.filters_[0][0], fields.offsets_[0][0]
    places = [
        max(0.0, (padded[i : i + 3, j : j + 3].transpose(2, 0, 1) * kernel).sum() + offset)
        for i in range(12)
        for j in range(12)
    ]
    expected = (np.mean(places) - fields.mean_[0]) / fields.scale_[0]
    np.testing.assert_allclose(fields.transform(X[:1, :144])[0, 0], expected, rtol=1e-3, atol=1e-4)


def test_mirror_fields_do_not_change_when_a_picture_is_flipped(views):
    X = views[0]
    pictures = X[:, 288:]
    fields = RandomReceptiveFields(sizes=(9,), maps=4, stride=2, mirror=True, random_state=0).fit(
        pictures
    )
    flipped = pictures.reshape(-1, 48, 48)[:, :, ::-1].reshape(len(pictures), -1)
    np.testing.assert_allclose(fields.transform(pictures), fields.transform(flipped), atol=1e-3)
    binary = (
        RandomReceptiveFields(sizes=(9,), maps=4, stride=2, weights="binary", random_state=0)
        .fit(pictures)
        .filters_[0]
    )
    np.testing.assert_allclose(np.abs(binary).std((1, 2, 3)), 0, atol=1e-6)
    with pytest.raises(ValueError, match="square"):
        RandomReceptiveFields(sizes=(3,)).fit(np.zeros((5, 50)))


def test_bad_codes_are_refused(views):
    with pytest.raises(ValueError, match=r"0\.\.255"):
        OneHotCodes(256).fit(np.full((3, 4), 256))
    with pytest.raises(ValueError, match="whole"):
        CodebookLookup(views[2]).fit(np.full((3, 4), 0.5))


@pytest.mark.parametrize("family", ["gaussian", "binary"])
@pytest.mark.parametrize(
    "name", ["integers", "one-hot", "look-up", "receptive fields", "decoded fields"]
)
def test_a_saved_elm_gives_the_same_scores_to_the_bit(views, tmp_path, family, name):
    X, y, codebook = views
    config = dataclasses.replace(Config(), field_maps=2, picture_maps=2, look_up_components=4)
    features = representations(config, X.shape[1], codebook, family, 0)[name]
    model = ELMClassifier(
        60,
        family,
        penalty="ridge",
        direct_links="fields" in name,
        features=features,
        random_state=4,
    ).fit(X, y)
    model.save(tmp_path / "m.npz")
    back = ELMClassifier.load(tmp_path / "m.npz")
    np.testing.assert_array_equal(model.decision_function(X), back.decision_function(X))
    np.testing.assert_array_equal(model.predict_proba(X), back.predict_proba(X))
    assert back.temperature == model.temperature


def test_a_saved_elm_is_small_and_another_stream_of_numbers_is_noticed(tmp_path):
    X, y = problem(500, 144, 7, np.float32)
    for weights in ("gaussian", "binary"):
        model = ELMClassifier(2000, weights, penalty="ridge", random_state=0).fit(X, y)
        model.save(tmp_path / f"{weights}.npz")
        assert (tmp_path / f"{weights}.npz").stat().st_size < 2**20
    held = dict(np.load(tmp_path / "gaussian.npz", allow_pickle=False))
    held["facts"] = np.array(str(held["facts"]).replace('"seed": 0', '"seed": 1'))
    np.savez(tmp_path / "other.npz", **held)
    with pytest.raises(InputError, match="numpy"):
        ELMClassifier.load(tmp_path / "other.npz")
    (tmp_path / "broken.npz").write_bytes(b"PK nothing")
    with pytest.raises(InputError, match="not an ELM"):
        ELMClassifier.load(tmp_path / "broken.npz")


@pytest.mark.parametrize("name", ["one-hot", "look-up", "decoded fields", "CNN"])
def test_saved_networks(views, tmp_path, name):
    X, y, codebook = views
    config = dataclasses.replace(Config(), field_maps=2, picture_maps=2, look_up_components=4)
    if name == "CNN":
        model = CNNClassifier(
            codebook,
            (4,),
            epochs=1,
            mirror=True,
            features=SideBySide([(RawCodes(), 0, 288)]),
            random_state=0,
        )
    else:
        model = MLPClassifier(
            (8,),
            epochs=2,
            features=representations(config, X.shape[1], codebook)[name],
            random_state=0,
        )
    model.fit(X, y).save(tmp_path / "m.safetensors")
    back = MLPClassifier.load(tmp_path / "m.safetensors")
    assert type(back) is type(model)
    np.testing.assert_allclose(
        back.predict_proba(X), model.predict_proba(X), atol=5e-3
    )  # float16 weights
    again = clone(model).fit(X, y)
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    with pytest.raises(InputError, match="not a network"):
        MLPClassifier.load(Path(__file__))


def test_the_courses_mlp_has_its_number_of_parameters():
    network = MLPClassifier(Config().course_mlp, epochs=1)
    network.sparse_ = False
    expected = sum(
        a * b + b for a, b in ((144, 640), (640, 1650), (1650, 3000), (3000, 500), (500, 7))
    )
    assert (
        sum(parameter.numel() for parameter in network._build(144, 7).parameters())
        == expected
        == 7_607_457
    )


def test_mlp_penalties_shrink_the_output_weights():
    X, y = problem()
    size = {}
    for penalty in (None, "ridge", "lasso", "elasticnet"):
        model = MLPClassifier(
            (16,),
            epochs=20,
            batch=32,
            learning_rate=1e-2,
            penalty=penalty,
            alpha=0.05,
            random_state=0,
        ).fit(X, y)
        size[penalty] = float(model.network_[-1].weight.detach().abs().sum())
    assert max(size["ridge"], size["lasso"], size["elasticnet"]) < size[None]


# --------------------------------------------------------------------------------------------------------------- VQ-VAE


def test_codebook_nearest_and_moving_average_by_hand():
    book = Codebook(2, 2, decay=0.5, dead_below=0.01)
    book.vectors.copy_(torch.tensor([[0.0, 0.0], [10.0, 0.0]]))
    book.counts.fill_(2.0)
    book.sums.copy_(book.vectors * 2)
    z = torch.tensor([[1.0, 0.0], [3.0, 0.0], [9.0, 0.0]])
    indices = book.nearest(z)
    assert indices.tolist() == [0, 0, 1]
    book.update(z, indices, np.random.default_rng(0))
    # N = (2, 1.5), s = ((0 + 4) / 2, (20 + 9) / 2)
    torch.testing.assert_close(book.counts, torch.tensor([2.0, 1.5]))
    torch.testing.assert_close(book.vectors, torch.tensor([[1.0, 0.0], [14.5 / 1.5, 0.0]]))


def test_dead_codes_start_again_at_vectors_of_the_batch():
    book = Codebook(4, 2)
    z = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    book.start(z, np.random.default_rng(0))
    assert len(np.unique(book.nearest(z))) == 4
    book.vectors[3] = 1e4
    book.counts[3] = 0.1
    book.update(z, book.nearest(z), np.random.default_rng(0))
    assert (book.vectors[3] == z).all(1).any()


def test_gradients_pass_the_quantiser_and_the_commitment_is_eq_3():
    torch.manual_seed(0)
    model = VQVAE(8, 4, 8, 8, 1, 1)
    pixels = torch.rand(2, 1, 48, 48)
    off = torch.autocast("cpu", enabled=False)
    model.losses(pixels, np.random.default_rng(0), True, off)
    reconstruction, commitment = model.losses(pixels, np.random.default_rng(1), True, off)
    reconstruction.backward(retain_graph=True)
    assert model.encoder[1].weight.grad.abs().sum() > 0
    assert commitment > 0
    assert not model.codebook.vectors.requires_grad


def test_vqvae_round_trip_and_views(tmp_path):
    torch.manual_seed(0)
    model = VQVAE(16, 4, 8, 8, 1, 1).eval()
    model.codebook.vectors.normal_()
    faces, _ = draw_faces(5, 0)
    maps = model.encode(faces)
    assert maps.shape == (5, 12, 12)
    assert maps.dtype == np.uint8
    model.save(tmp_path / "v.safetensors")
    back = load_vqvae(tmp_path / "v.safetensors")
    np.testing.assert_array_equal(back.encode(faces), maps)
    np.testing.assert_array_equal(back.decode(maps), model.decode(maps))
    X = code_views(maps, model)
    assert X.shape == (5, 144 + 144 + 2304)
    np.testing.assert_array_equal(
        X, code_views(maps.copy(), model)
    )  # a function of the code map alone
    with pytest.raises(InputError, match="not a VQ-VAE"):
        load_vqvae(Path(__file__))


def test_psnr_by_hand():
    images = np.full((1, 2, 2), 255, np.uint8)
    np.testing.assert_allclose(psnr(images, np.full((1, 2, 2), 0.9, np.float32)), 20.0, atol=1e-4)


# ------------------------------------------------------------------------------------------------------ synthetic faces


def test_synthetic_faces_are_deterministic_and_neither_trivial_nor_hopeless():
    faces, labels = draw_faces(6000, 0)
    again, _ = draw_faces(6000, 0)
    np.testing.assert_array_equal(faces, again)
    assert set(labels) == set(range(7))
    X = faces.reshape(len(faces), -1) / 255.0
    linear = RidgeClassifier(alpha=100).fit(X[:5000] - X[:5000].mean(0), labels[:5000])
    assert 0.5 < linear.score(X[5000:] - X[:5000].mean(0), labels[5000:]) < 0.85


# ------------------------------------------------------------------------------------------------------ audit and split


def planted() -> data.Faces:
    faces, labels = draw_faces(400, 1)
    faces[1] = faces[0]  # an exact twin
    labels[1] = labels[0]
    faces[3] = np.clip(faces[2].astype(int) + 3, 0, 255)  # a brighter near twin with another label
    labels[3] = (labels[2] + 1) % 7
    faces[350] = faces[10]  # a twin in the test part
    labels[350] = labels[10]
    faces[5] = 128
    part = np.where(np.arange(400) >= 300, "test", "train")
    return data.Faces("fer2013", faces, None, None, labels, part, {})


def test_audit_finds_what_was_planted():
    faces = planted()
    groups, unfit, counts = data.audit(faces)
    assert groups[0] == groups[1]
    assert groups[2] == groups[3]
    assert groups[10] == groups[350]
    assert len(np.unique(groups)) == 397
    assert set(np.flatnonzero(unfit)) == {2, 3, 5}
    assert counts["exact_duplicates"] == 2
    assert counts["near_duplicates"] == 1
    assert counts["groups_with_conflicting_labels"] == 1
    assert counts["groups_with_conflicting_labels_exact"] == 0
    assert counts["training_rows_with_a_twin_in_another_part"] == 1
    assert counts["constant_images"] == 1


def test_no_group_stands_on_two_sides_and_the_test_part_is_whole():
    faces = planted()
    groups, unfit, _ = data.audit(faces)
    for seed in range(5):
        split = data.held_out_split(faces, groups, unfit, seed, 0.2)
        parts = [set(groups[part]) for part in (split.train, split.validation, split.test)]
        assert not parts[0] & parts[1]
        assert not parts[0] & parts[2]
        assert not parts[1] & parts[2]
        np.testing.assert_array_equal(split.test, np.arange(300, 400))
        assert 10 not in split.train
        assert 10 not in split.validation
        assert not unfit[np.concatenate([split.train, split.validation])].any()
        assert 40 < len(split.validation) < 80


def test_the_split_does_not_look_at_test_labels_or_pixels():
    faces = planted()
    groups, unfit, _ = data.audit(faces)
    before = data.held_out_split(faces, groups, unfit, 0, 0.2)
    labels = faces.labels.copy()
    labels[300:] = (labels[300:] + 3) % 7
    after = data.held_out_split(dataclasses.replace(faces, labels=labels), groups, unfit, 0, 0.2)
    np.testing.assert_array_equal(before.train, after.train)
    np.testing.assert_array_equal(before.validation, after.validation)


def test_poisoned_validation_and_test_rows_leave_a_fit_unchanged(views):
    X, y, codebook = views
    config = dataclasses.replace(Config(), field_maps=2, picture_maps=2, look_up_components=4)
    poisoned = X.copy()
    poisoned[80:] = 255 - poisoned[80:]
    for features in representations(config, X.shape[1], codebook).values():
        models = [
            ELMClassifier(30, penalty="ridge", features=features, random_state=0).fit(
                rows[:80], y[:80]
            )
            for rows in (X, poisoned)
        ]
        np.testing.assert_array_equal(models[0].coef_, models[1].coef_)


def test_scores_by_hand():
    labels, predictions = np.array([0, 0, 0, 1]), np.array([[0, 0, 1, 1], [0, 0, 0, 0]])
    found = scores(labels, predictions, intervals=True)
    np.testing.assert_allclose(found["accuracy"], [0.75, 0.75])
    np.testing.assert_allclose(found["balanced_accuracy"], [(2 / 3 + 1) / 2, 0.5])
    np.testing.assert_allclose(found["macro_f1"], [(0.8 + 2 / 3) / 2, (6 / 7) / 2])
    assert found["accuracy_low"][0] <= 0.75 <= found["accuracy_high"][0]


# ------------------------------------------------------------------------------------------------------------- bad input


def write_csv(path: Path, emotion="3", pixels=None, usage="Training", rows: int = 3) -> Path:
    text = pixels if pixels is not None else " ".join(["7"] * 2304)
    lines = [f"{i % 3},{' '.join([str(i)] * 2304)},Training" for i in range(rows - 1)] + [
        f"{emotion},{text},{usage}"
    ]
    path.write_text("emotion,pixels,Usage\n" + "\n".join(lines) + "\n")
    return path


def test_good_csv_npz_and_folder_agree(tmp_path):
    from PIL import Image

    faces, labels = draw_faces(12, 0)
    rows = [
        f"{label},{' '.join(map(str, face.ravel()))},{'PublicTest' if i % 4 == 3 else 'Training'}"
        for i, (face, label) in enumerate(zip(faces, labels, strict=True))
    ]
    (tmp_path / "fer2013.csv").write_text("emotion,pixels,Usage\n" + "\n".join(rows))
    usage = np.where(np.arange(12) % 4 == 3, "PublicTest", "Training")
    np.savez(tmp_path / "f.npz", images=faces, labels=labels, usage=usage)
    for i, (face, label) in enumerate(zip(faces, labels, strict=True)):
        place = tmp_path / "tree" / ("test" if i % 4 == 3 else "train") / data.CLASSES[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(face).save(place / f"{i:02d}.png")
    loaded = [data.load("fer2013", tmp_path / name) for name in ("fer2013.csv", "f.npz", "tree")]
    for found in loaded:
        order = np.argsort(data.fingerprints(found.images))
        expected = np.argsort(data.fingerprints(faces))
        np.testing.assert_array_equal(found.images[order], faces[expected])
        np.testing.assert_array_equal(found.labels[order], labels[expected])
        np.testing.assert_array_equal(
            (found.part == "test")[order], (usage == "PublicTest")[expected]
        )


def bad_inputs(tmp_path: Path) -> dict[str, tuple[str, Path, str]]:
    """name -> (source, path, words of the message)."""
    faces, labels = draw_faces(8, 0)
    maps = RNG.integers(256, size=(8, 12, 12))

    def codemaps(name: str, **changes: np.ndarray) -> Path:
        place = tmp_path / name
        place.mkdir()
        for key, array in ({"codemaps": maps, "labels": labels} | changes).items():
            np.save(place / f"{key}.npy", array, allow_pickle=array.dtype == object)
        return place

    def npz(name: str, **arrays: np.ndarray) -> Path:
        np.savez(tmp_path / name, **arrays)
        return tmp_path / name

    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "header.csv").write_text("emotion,pixels,Usage\n")
    (tmp_path / "columns.csv").write_text("a,b\n1,2\n")
    cut = write_csv(tmp_path / "cut.csv").read_text()
    (tmp_path / "cut.csv").write_text(cut[: len(cut) - 900])
    (tmp_path / "no_images").mkdir()
    (tmp_path / "tree/train/happy").mkdir(parents=True)
    (tmp_path / "tree/train/happy/a.png").write_bytes(b"not a picture")
    (tmp_path / "strange/train/bored").mkdir(parents=True)
    (tmp_path / "strange/train/bored/a.png").write_bytes(b"x")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 cut off")
    one_hot = np.eye(7)[labels]
    two = one_hot.copy()
    two[4, (labels[4] + 1) % 7] = 1
    return {
        "empty csv": ("fer2013", tmp_path / "empty.csv", "not a readable csv"),
        "csv without rows": ("fer2013", tmp_path / "header.csv", "no rows"),
        "csv without columns": ("fer2013", tmp_path / "columns.csv", "no column emotion, pixels"),
        "truncated csv": ("fer2013", tmp_path / "cut.csv", "pixels; 2304 are needed"),
        "short pixel string": (
            "fer2013",
            write_csv(tmp_path / "short.csv", pixels="1 2 3"),
            "3 pixels",
        ),
        "pixel not a number": (
            "fer2013",
            write_csv(tmp_path / "word.csv", pixels=" ".join(["x"] * 2304)),
            "not a number",
        ),
        "pixel out of range": (
            "fer2013",
            write_csv(tmp_path / "range.csv", pixels=" ".join(["256"] * 2304)),
            "256",
        ),
        "label 7": ("fer2013", write_csv(tmp_path / "seven.csv", emotion="7"), "label 7"),
        "label NaN": ("fer2013", write_csv(tmp_path / "nan.csv", emotion="nan"), "NaN"),
        "unknown usage": ("fer2013", write_csv(tmp_path / "usage.csv", usage="Secret"), "Secret"),
        "one class": (
            "fer2013",
            npz("one.npz", images=faces, labels=np.zeros(8, int)),
            "1 of the classes",
        ),
        "NaN pixels": (
            "fer2013",
            npz("nan.npz", images=np.full((8, 48, 48), np.nan), labels=labels),
            "NaN",
        ),
        "wrong image size": (
            "fer2013",
            npz("size.npz", images=np.zeros((8, 32, 32)), labels=labels),
            "48, 48",
        ),
        "labels of another length": (
            "fer2013",
            npz("length.npz", images=faces, labels=labels[:3]),
            "one label an image",
        ),
        "no labels": ("fer2013", npz("none.npz", images=faces), "labels are needed"),
        "pickled objects": (
            "fer2013",
            npz("pickle.npz", images=np.array([{1: 2}], dtype=object), labels=labels),
            "pickled",
        ),
        "broken npz": ("fer2013", tmp_path / "broken.npz", "not a readable npz"),
        "folder without images": ("fer2013", tmp_path / "no_images", "no images"),
        "unreadable image": ("fer2013", tmp_path / "tree", "not a readable image"),
        "unknown class folder": ("fer2013", tmp_path / "strange", "a class of angry"),
        "another format": ("fer2013", Path(__file__), "allowed are"),
        "missing path": ("auto", tmp_path / "nowhere", "does not exist"),
        "index 256": (
            "codemaps",
            codemaps("c256", codemaps=np.where(maps == maps[0, 0, 0], 256, maps)),
            "256",
        ),
        "index -1": ("codemaps", codemaps("cneg", codemaps=maps - 1 - maps.min()), "-1"),
        "map of another shape": ("codemaps", codemaps("cshape", codemaps=maps[:, :11]), "12, 12"),
        "rows that are not one-hot": ("codemaps", codemaps("ctwo", labels=two), "row 4"),
        "one-hot of another width": (
            "codemaps",
            codemaps("cwide", labels=np.eye(8)[labels]),
            "(N, 7)",
        ),
        "label 9": ("codemaps", codemaps("cnine", labels=labels + 9), "0..6"),
        "codebook of another shape": (
            "codemaps",
            codemaps("cbook", codebook=np.zeros((128, 256))),
            "(256, d)",
        ),
        "codebook with NaN": (
            "codemaps",
            codemaps("cnan", codebook=np.full((256, 4), np.nan)),
            "NaN",
        ),
        "pickled code maps": (
            "codemaps",
            codemaps("cpickle", labels=np.array([{1: 2}] * 8, dtype=object)),
            "pickled",
        ),
        "code maps missing": ("codemaps", tmp_path / "no_images", "does not exist"),
    }


def test_every_bad_input_is_one_clear_line(tmp_path):
    for name, (source, path, words) in bad_inputs(tmp_path).items():
        with pytest.raises(InputError) as caught:
            data.load(source, path)
        message = " ".join(str(caught.value).split())
        assert words in message, f"{name}: {message}"
        assert path.name.split("/")[-1] in message, f"{name}: {message}"


def test_a_source_that_is_asked_for_never_falls_back(tmp_path, monkeypatch):
    monkeypatch.setenv("ADL_DATA_DIR", str(tmp_path))
    with pytest.raises(InputError, match="fer2013"):
        data.load("fer2013", None)
    assert data.load("auto", None, 50).source == "synthetic"


def test_any_image_is_read(tmp_path):
    from PIL import Image

    base = Image.fromarray(draw_faces(1, 0)[0][0]).resize((300, 200))
    for name, mode in (
        ("rgb.png", "RGB"),
        ("rgba.png", "RGBA"),
        ("palette.png", "P"),
        ("grey.jpg", "L"),
        ("deep.png", "I;16"),
        ("bit.png", "1"),
    ):
        image = (
            Image.fromarray(np.asarray(base, np.uint16) * 200)
            if mode == "I;16"
            else base.convert(mode)
        )
        image.save(tmp_path / name)
        found = data.read_image(tmp_path / name)
        assert found.shape == (48, 48)
        assert found.dtype == np.uint8
        assert found.std() > 5, name


@pytest.mark.realdata
@pytest.mark.skipif(not os.environ.get("ADL_DATA_DIR"), reason="ADL_DATA_DIR names no data folder")
def test_audit_of_fer2013():
    faces = data.load("fer2013", None)
    groups, unfit, counts = data.audit(faces)
    assert counts["groups_with_conflicting_labels_exact"] == 43
    assert counts["constant_images"] == 12
    split = data.held_out_split(faces, groups, unfit, 0)
    assert len(split.test) == 3589
    assert not set(groups[split.train]) & set(groups[split.test])
