"""The output layer of an ELM, its hidden layer, and its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.ensemble import AdaBoostClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import ElasticNet, Lasso, Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from assignment1.config import Config
from assignment1.elm import ELMClassifier, Moments, random_layer
from assignment1.features import StandardisedIntegers, features_from_file, features_to_file
from assignment1.mlp import MLPClassifier
from assignment1.representations import new_elm, representations
from assignment1.selection import ELM_FAMILIES
from assignment1.views import Dataset
from tests.assignment1.samples import clouds


def unlike_scikit_learn(estimator: BaseEstimator) -> dict[str, str]:
    """The checks that an estimator cannot pass, with the reasons."""
    if isinstance(estimator, MLPClassifier):
        reason = "batches hold other rows where a row stands twice: equal on average alone"
        return {"check_sample_weight_equivalence_on_dense_data": reason}
    if isinstance(estimator, ELMClassifier) and estimator.penalty is None:
        reason = "50 units without a penalty fit the 50 rows exactly, whatever their weights"
        return {"check_class_weight_classifiers": reason}
    if isinstance(estimator, ELMClassifier) and estimator.alpha == "loo":
        reason = "a row that stands twice is left out once, a row of weight 2 twice"
        checks = ("on_dense_data", "on_sparse_data")
        return {f"check_sample_weight_equivalence_{name}": reason for name in checks}
    return {}


@parametrize_with_checks(
    [
        ELMClassifier(n_hidden=50),
        ELMClassifier(weights="binary", penalty="ridge", n_hidden=100),
        ELMClassifier(penalty="lasso", alpha=1e-3, n_hidden=50),
        ELMClassifier(penalty="elasticnet", alpha=1e-3, n_hidden=50, direct_links=True),
        ELMClassifier(penalty="ridge", alpha="loo", n_hidden=50),
        ELMClassifier(activation=("tanh", "relu", "rbf"), penalty="ridge", n_hidden=50),
        MLPClassifier(hidden=(32,), epochs=20, batch=16, learning_rate=1e-2),
        StandardisedIntegers(),
    ],
    expected_failed_checks=unlike_scikit_learn,
)
@pytest.mark.filterwarnings("ignore")
def test_scikit_learn_estimator_checks(estimator, check):
    check(estimator)


def test_no_penalty_is_the_least_squares_solution():
    X, y = clouds()
    model = ELMClassifier(40, fit_intercept=False, random_state=0).fit(X, y)
    expected = np.linalg.lstsq(model.hidden(X), np.eye(3)[y], rcond=None)[0]
    np.testing.assert_allclose(model.coef_, expected, atol=1e-8)
    np.testing.assert_array_equal(model.intercept_, 0)


def test_no_penalty_has_minimum_norm_when_there_are_more_units_than_rows():
    X, y = clouds(30)
    model = ELMClassifier(80, fit_intercept=False, random_state=0).fit(X, y)
    hidden = model.hidden(X)
    expected = np.linalg.pinv(hidden) @ np.eye(3)[y]
    np.testing.assert_allclose(hidden @ model.coef_, np.eye(3)[y], atol=1e-5)
    np.testing.assert_allclose(model.coef_, expected, atol=1e-5)


def test_float32_rows_with_an_ill_conditioned_hidden_layer_still_get_the_least_squares_fit():
    X, y = clouds(2000, dtype=np.float32)
    model = ELMClassifier(60, weight_scale=0.05, fit_intercept=False, random_state=0).fit(X, y)
    hidden = model.hidden(X).astype(np.float64)
    best = np.linalg.lstsq(hidden, np.eye(3)[y], rcond=None)[0]
    error = np.square(hidden @ model.coef_ - np.eye(3)[y]).sum()
    lowest = np.square(hidden @ best - np.eye(3)[y]).sum()
    assert lowest <= error <= 1.001 * lowest


def test_ridge_tends_to_no_penalty_and_equals_scikit_learn():
    X, y = clouds()
    bare = ELMClassifier(40, random_state=0).fit(X, y)
    moments = bare.accumulate(X, y)
    np.testing.assert_allclose(
        bare.set_params(penalty="ridge", alpha=1e-9).solve(moments).coef_,
        moments.minimum_norm(),
        atol=1e-6,
    )
    hidden = bare.hidden(X)
    target = np.eye(3)[y]
    for alpha in (0.01, 1.0, 100.0):
        peer = Ridge(alpha).fit(hidden, target)
        bare.set_params(alpha=alpha).solve(moments)
        np.testing.assert_allclose(bare.coef_, peer.coef_.T, atol=1e-8)
        np.testing.assert_allclose(bare.intercept_, peer.intercept_, atol=1e-8)
    np.testing.assert_allclose(moments.ridge_path([0.5])[0], moments.ridge(0.5), atol=1e-9)


@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
def test_lasso_and_elastic_net_paths_equal_coordinate_descent(l1_ratio):
    X, y = clouds()
    model = ELMClassifier(40, random_state=0)
    moments = model.accumulate(X, y)
    hidden = model.hidden(X)
    target = np.eye(3)[y]
    top = moments.largest_alpha(l1_ratio)
    alphas = top * np.array([1.001, 0.5, 0.1, 0.02])
    path = moments.elastic_net_path(alphas, l1_ratio, tolerance=1e-6)
    assert not path[0].any()
    assert moments.elastic_net_path([0.9 * top], l1_ratio).any()
    for alpha, beta in zip(alphas[1:], path[1:], strict=True):
        options = {"tol": 1e-9, "max_iter": 100_000}
        peer = ElasticNet(alpha, l1_ratio=l1_ratio, **options)
        if l1_ratio == 1:
            peer = Lasso(alpha, **options)
        peer.fit(hidden, target)
        np.testing.assert_allclose(beta, peer.coef_.T, atol=2e-5)
        np.testing.assert_array_equal(np.abs(beta) > 1e-4, np.abs(peer.coef_.T) > 1e-4)


def test_elastic_net_solutions_meet_the_optimality_conditions_in_float32():
    X, y = clouds(3000, 20, dtype=np.float32)
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
    X, y = clouds(1000, dtype=np.float32)
    model = ELMClassifier(50, penalty="ridge", alpha=1.0, random_state=0)
    small_blocks = model.set_params(block_rows=64).fit(X, y).decision_function(X)
    one_block = model.set_params(block_rows=5000).fit(X, y).decision_function(X)
    np.testing.assert_allclose(small_blocks, one_block, atol=1e-4)


def test_calibration_finds_the_temperature_of_least_log_loss():
    X, y = clouds(600)
    model = ELMClassifier(30, penalty="ridge", random_state=0).fit(X[:300], y[:300])

    def loss(temperature: float) -> float:
        probability = model.set_params(temperature=temperature).predict_proba(X[300:])
        return -np.log(probability[np.arange(300), y[300:]]).mean()

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
    X, y = clouds(200)
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


@pytest.mark.parametrize("family", list(ELM_FAMILIES))
@pytest.mark.parametrize(
    "name", ["integers", "one-hot", "look-up", "receptive fields", "decoded fields"]
)
def test_a_saved_elm_gives_the_same_scores_to_the_bit(
    data: Dataset, small: Config, tmp_path: Path, family: str, name: str
):
    weights = ELM_FAMILIES[family]
    table = representations(small, data.views.layout, data.codebook, weights, seed=0)
    model = new_elm(table[name], family, seed=4).set_params(penalty="ridge")
    X = data.views.matrix
    model.fit(X, data.labels).save(tmp_path / "m.npz", features_to_file)
    loaded = ELMClassifier.load(tmp_path / "m.npz", features_from_file)
    np.testing.assert_array_equal(model.decision_function(X), loaded.decision_function(X))
    np.testing.assert_array_equal(model.predict_proba(X), loaded.predict_proba(X))
    assert loaded.temperature == model.temperature


def test_a_saved_elm_is_small_and_another_stream_of_numbers_is_noticed(tmp_path):
    X, y = clouds(500, 144, 7, np.float32)
    for weights in ("gaussian", "binary"):
        model = ELMClassifier(2000, weights, penalty="ridge", random_state=0).fit(X, y)
        model.save(tmp_path / f"{weights}.npz")
        assert (tmp_path / f"{weights}.npz").stat().st_size < 2**20
    with np.load(tmp_path / "gaussian.npz", allow_pickle=False) as archive:
        arrays = dict(archive)
    arrays["facts"] = np.array(str(arrays["facts"]).replace('"seed": 0', '"seed": 1'))
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(ValueError, match="numpy"):
        ELMClassifier.load(tmp_path / "other.npz")
    (tmp_path / "broken.npz").write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match="not a file of an ELM"):
        ELMClassifier.load(tmp_path / "broken.npz")


# ------------------------------------------------------------------------------------ weights

PENALTIES = (
    {"penalty": None},
    {"penalty": "ridge", "alpha": 0.5},
    {"penalty": "lasso", "alpha": 2e-3},
    {"penalty": "elasticnet", "alpha": 2e-3},
)


@pytest.mark.parametrize("settings", PENALTIES, ids=lambda settings: str(settings["penalty"]))
@pytest.mark.parametrize("intercept", [True, False])
def test_a_weight_of_two_is_the_row_twice_and_one_of_zero_is_none(settings, intercept):
    X, y = clouds(200)
    times = np.random.default_rng(0).integers(0, 4, len(X))
    model = ELMClassifier(30, fit_intercept=intercept, random_state=0, **settings)
    weighted = clone(model).fit(X, y, sample_weight=times)
    repeated = clone(model).fit(np.repeat(X, times, axis=0), np.repeat(y, times))
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, atol=1e-5)
    np.testing.assert_allclose(weighted.intercept_, repeated.intercept_, atol=1e-5)


def test_weights_of_one_change_nothing_and_blocks_do_not_matter():
    X, y = clouds(200)
    model = ELMClassifier(30, penalty="ridge", random_state=0)
    plain = clone(model).fit(X, y).coef_
    np.testing.assert_allclose(clone(model).fit(X, y, np.ones(200)).coef_, plain, atol=1e-12)
    weight = np.random.default_rng(0).random(200)
    whole = clone(model).fit(X, y, weight).coef_
    parts = clone(model).set_params(block_rows=37).fit(X, y, weight).coef_
    np.testing.assert_allclose(parts, whole, atol=1e-10)


def test_weighted_solutions_equal_scikit_learns():
    X, y = clouds(300)
    weight = np.random.default_rng(0).random(300)
    model = ELMClassifier(25, penalty="ridge", alpha=0.3, random_state=0).fit(X, y, weight)
    hidden, target = model.hidden(X), np.eye(3)[y]
    peer = Ridge(0.3).fit(hidden, target, sample_weight=weight)
    np.testing.assert_allclose(model.coef_, peer.coef_.T, atol=1e-8)
    np.testing.assert_allclose(model.intercept_, peer.intercept_, atol=1e-8)
    model.set_params(penalty="lasso", alpha=2e-3).fit(X, y, weight)
    for column in range(3):
        lasso = Lasso(2e-3, tol=1e-10, max_iter=10**5).fit(hidden, target[:, column], weight)
        np.testing.assert_allclose(model.coef_[:, column], lasso.coef_, atol=2e-3)


def test_class_weights_are_row_weights():
    X, y = clouds(300)
    rare = np.r_[np.flatnonzero(y != 2), np.flatnonzero(y == 2)[:8]]
    X, y = X[rare], y[rare]
    model = ELMClassifier(20, penalty="ridge", random_state=0)
    balanced = clone(model).set_params(class_weight="balanced").fit(X, y)
    by_row = clone(model).fit(X, y, len(y) / (3 * np.bincount(y)[y]))
    np.testing.assert_allclose(balanced.coef_, by_row.coef_, atol=1e-9)
    by_name = clone(model).set_params(class_weight={2: 5.0}).fit(X, y, np.full(len(y), 2.0))
    np.testing.assert_allclose(
        by_name.coef_, clone(model).fit(X, y, np.where(y == 2, 10, 2)).coef_, atol=1e-9
    )
    plain = clone(model).fit(X, y)
    assert (balanced.predict(X) == 2).sum() > (plain.predict(X) == 2).sum()


def test_bad_weights_are_refused():
    X, y = clouds(30)
    for weight in (-np.ones(30), np.full(30, np.nan), np.ones(29), np.zeros(30)):
        with pytest.raises(ValueError, match="weight"):
            ELMClassifier(5).fit(X, y, weight)
    with pytest.raises(ValueError, match="one class"):
        ELMClassifier(5).fit(X, y, (y == 0).astype(float))


def test_adaboost_boosts_elms():
    X, y = clouds(300)
    boosted = AdaBoostClassifier(ELMClassifier(4, random_state=0), n_estimators=10, random_state=0)
    single = ELMClassifier(4, random_state=0).fit(X, y).score(X, y)
    boosted.fit(X, y)
    assert len(boosted.estimators_) > 1
    assert boosted.score(X, y) > single


def test_a_saved_weighted_elm_can_be_read(tmp_path):
    X, y = clouds(60)
    model = ELMClassifier(9, class_weight={np.int64(0): 2.0}, random_state=0).fit(X, y)
    model.save(tmp_path / "m.npz")
    loaded = ELMClassifier.load(tmp_path / "m.npz")
    np.testing.assert_array_equal(loaded.decision_function(X), model.decision_function(X))
