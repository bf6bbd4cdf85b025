"""Rows that come, go, stay on disk or are left out: leave-one-out, increments, mapped files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.linear_model import Ridge

from assignment1 import fit
from assignment1.config import FitConfig
from assignment1.elm import ELMClassifier, LeaveOneOut, Moments
from tests.assignment1.samples import clouds
from tests.conftest import ROOT, assert_refused, run_main

GRID = np.geomspace(100, 1e-3, 6)

# ---------------------------------------------------------------------------- leave one out


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_leave_one_out_predictions_equal_refits(intercept, weighted):
    X, y = clouds(40)
    weight = np.random.default_rng(1).uniform(0.2, 3, len(y)) if weighted else np.ones(len(y))
    model = ELMClassifier(15, penalty="ridge", fit_intercept=intercept, random_state=0)
    moments = model.accumulate(X, y, weight)
    hidden, target = model.hidden(X), np.eye(3)[y]
    given = weight if weighted else None
    predicted = LeaveOneOut.of(moments, GRID, intercept).predictions(hidden.copy(), target, given)
    for row, alpha in enumerate(GRID):
        for left_out in range(len(y)):
            rest = np.arange(len(y)) != left_out
            peer = Ridge(alpha, fit_intercept=intercept)
            peer.fit(hidden[rest], target[rest], weight[rest])
            expected = peer.predict(hidden[left_out : left_out + 1])[0]
            np.testing.assert_allclose(predicted[row, left_out], expected, atol=1e-6)


def test_loo_takes_the_alpha_of_the_highest_accuracy_and_the_largest_of_equals():
    X, y = clouds(80)
    model = ELMClassifier(30, penalty="ridge", alpha="loo", alphas=GRID, random_state=0).fit(X, y)
    right = np.zeros(len(GRID))
    for row, alpha in enumerate(GRID):
        fixed = ELMClassifier(30, penalty="ridge", alpha=alpha, random_state=0)
        for left_out in range(len(y)):
            rest = np.arange(len(y)) != left_out
            refit = clone(fixed).fit(X[rest], y[rest])
            right[row] += refit.predict(X[[left_out]])[0] == y[left_out]
    np.testing.assert_allclose(model.loo_accuracy_, right / len(y), atol=1e-12)
    assert model.alpha_ == GRID[right == right.max()].max()
    fixed = ELMClassifier(30, penalty="ridge", alpha=model.alpha_, random_state=0).fit(X, y)
    np.testing.assert_allclose(model.coef_, fixed.coef_, atol=1e-9)
    flat = clone(model).set_params(alphas=[1e-9, 1e-8]).fit(X, y)
    assert flat.loo_accuracy_[0] == flat.loo_accuracy_[1]
    assert flat.alpha_ == 1e-8


def test_loo_is_saved_as_the_alpha_that_it_chose(tmp_path):
    X, y = clouds(80)
    model = ELMClassifier(20, penalty="ridge", alpha="loo", random_state=0).fit(X, y)
    model.save(tmp_path / "m.npz")
    loaded = ELMClassifier.load(tmp_path / "m.npz")
    assert loaded.alpha == model.alpha_
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))


def test_loo_is_refused_where_it_has_no_meaning():
    X, y = clouds(30)
    for settings in (
        {"alpha": "loo", "penalty": "lasso"},
        {"alpha": "best", "penalty": "ridge"},
        {"alpha": "loo", "penalty": "ridge", "alphas": [0.0, 1.0]},
        {"alpha": "loo", "penalty": "ridge", "alphas": []},
    ):
        with pytest.raises(ValueError, match="alpha"):
            ELMClassifier(5, **settings).fit(X, y)
    assert not hasattr(ELMClassifier(5, penalty="ridge", alpha="loo"), "partial_fit")


# ------------------------------------------------------------------------ rows come and go


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("penalty", [None, "ridge"])
def test_parts_in_any_chunks_equal_one_fit_and_forgetting_undoes_them(intercept, penalty):
    X, y = clouds(300)
    weight = np.random.default_rng(0).uniform(0.5, 2, len(y))
    plain = ELMClassifier(30, penalty=penalty, fit_intercept=intercept, random_state=0)
    whole = clone(plain).fit(X, y, weight)
    for chunk in (1, 37, 299):
        model = clone(plain)
        for start in range(0, len(y), chunk):
            rows = slice(start, start + chunk)
            model.partial_fit(X[rows], y[rows], sample_weight=weight[rows])
        np.testing.assert_allclose(model.coef_, whole.coef_, atol=1e-7)
        np.testing.assert_allclose(model.intercept_, whole.intercept_, atol=1e-7)
    rest = clone(plain).fit(X[120:], y[120:], weight[120:])
    for fitted in (model, whole):
        fitted.forget(X[:120], y[:120], weight[:120])
        np.testing.assert_allclose(fitted.coef_, rest.coef_, atol=1e-7)
        np.testing.assert_allclose(fitted.intercept_, rest.intercept_, atol=1e-7)


def test_a_class_that_comes_later_gets_its_output():
    X, y = clouds(300)
    names = np.array(["b", "c", "a"])[y]
    order = np.argsort(names == "a", kind="stable")  # the first in the alphabet comes last
    X, names = X[order], names[order]
    whole = ELMClassifier(30, penalty="ridge", random_state=0).fit(X, names)
    late = ELMClassifier(30, penalty="ridge", random_state=0)
    late.partial_fit(X[:50], names[:50])
    assert "a" not in late.classes_
    late.partial_fit(X[50:], names[50:])
    told = ELMClassifier(30, penalty="ridge", random_state=0)
    told.partial_fit(X[:50], names[:50], classes=["a", "b", "c"])
    assert told.coef_.shape == (30, 3)
    told.partial_fit(X[50:], names[50:])
    for model in (late, told):
        np.testing.assert_array_equal(model.classes_, whole.classes_)
        np.testing.assert_allclose(model.coef_, whole.coef_, atol=1e-9)
        np.testing.assert_allclose(model.intercept_, whole.intercept_, atol=1e-9)


def test_rows_that_cannot_be_added_or_taken_are_refused(tmp_path):
    X, y = clouds(60)
    model = ELMClassifier(9, penalty="ridge", random_state=0).partial_fit(X, y)
    before = model.coef_.copy()
    with pytest.raises(ValueError, match="never saw"):
        model.forget(X[:2], [7, 7])
    with pytest.raises(ValueError, match="cannot be taken"):
        model.forget(X, y)
    np.testing.assert_array_equal(model.coef_, before)
    model.save(tmp_path / "m.npz")
    with pytest.raises(ValueError, match="holds no moments"):
        ELMClassifier.load(tmp_path / "m.npz").partial_fit(X, y)
    with pytest.raises(ValueError, match="balanced"):
        ELMClassifier(9, class_weight="balanced").partial_fit(X, y)


def test_moments_add_and_subtract_in_float32_with_large_means():
    rng = np.random.default_rng(0)
    hidden = (30 + rng.standard_normal((4000, 6))).astype(np.float32)
    target = rng.standard_normal((4000, 2))

    def of(rows: slice) -> Moments:
        return Moments.accumulate([(hidden[rows].copy(), target[rows])])

    whole, first, last = of(slice(None)), of(slice(1000)), of(slice(1000, None))
    for got, expected in ((first + last, whole), (whole - first, last)):
        assert got.gram.dtype == np.float32
        assert got.n == expected.n
        np.testing.assert_allclose(got.gram, expected.gram, rtol=1e-3, atol=1)
        np.testing.assert_allclose(got.cross, expected.cross, atol=0.1)
        np.testing.assert_allclose(got.hidden_mean, expected.hidden_mean, rtol=1e-6)


# ---------------------------------------------------------------------------------- units


def test_radial_units_are_the_formula_for_dense_and_sparse_rows():
    X, y = clouds(50)
    for weights in ("gaussian", "binary"):
        model = ELMClassifier(20, weights, "rbf", "ridge", random_state=0).fit(X, y)
        centres, widths = model._layer.weight.T.astype(float), np.abs(model._layer.bias)
        scaled = X / np.sqrt(X.shape[1])
        distance = np.square(scaled[:, None] - centres[None]).sum(2)  # (n, L)
        np.testing.assert_allclose(model.hidden(X), np.exp(-widths * distance), atol=1e-6)
        np.testing.assert_allclose(model.hidden(csr_array(X)), model.hidden(X), atol=1e-12)


def test_mixed_units_stand_side_by_side_and_are_saved_by_their_seed(tmp_path):
    X, y = clouds(100)
    kinds = ("tanh", "relu", "rbf")
    mixed = ELMClassifier(31, activation=kinds, penalty="ridge", random_state=0).fit(X, y)
    hidden = mixed.hidden(X)
    for kind, units in zip(kinds, (slice(0, 10), slice(10, 21), slice(21, 31)), strict=True):
        alone = ELMClassifier(31, activation=kind, penalty="ridge", random_state=0).fit(X, y)
        np.testing.assert_allclose(hidden[:, units], alone.hidden(X)[:, units], atol=1e-12)
    mixed.save(tmp_path / "m.npz")
    loaded = ELMClassifier.load(tmp_path / "m.npz")
    assert loaded.activation == kinds
    np.testing.assert_array_equal(loaded.decision_function(X), mixed.decision_function(X))
    for bad in ((), ("tanh", "cos"), ("tanh",) * 32):
        with pytest.raises(ValueError, match="activation"):
            ELMClassifier(31, activation=bad).fit(X, y)


# ------------------------------------------------------------------------- files of rows


def written(folder: Path, kind: type = np.int16) -> tuple[Path, Path, np.ndarray, np.ndarray]:
    """X.npy and y.npy of small whole numbers, with their contents."""
    X, y = clouds(1000)
    X = np.round(3 * X).astype(kind)
    np.save(folder / "X.npy", X)
    np.save(folder / "y.npy", y)
    return folder / "X.npy", folder / "y.npy", X, y


def test_a_mapped_file_of_whole_numbers_is_fitted_without_a_copy(tmp_path, monkeypatch):
    path, _, X, y = written(tmp_path)
    model = ELMClassifier(20, penalty="ridge", alpha="loo", block_rows=100, random_state=0)
    expected = clone(model).fit(X.astype(np.float32), y)
    seen: list[np.ndarray] = []
    inputs = ELMClassifier._inputs
    monkeypatch.setattr(ELMClassifier, "_inputs", lambda self, X: seen.append(X) or inputs(self, X))
    mapped = np.load(path, mmap_mode="r")
    model.fit(mapped, y, np.ones(len(y)))
    assert len(seen) > 20
    assert all(np.shares_memory(block, mapped) and len(block) <= 100 for block in seen)
    np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-5)


def test_two_processes_fit_the_model_of_one(tmp_path):
    path, labels, X, y = written(tmp_path, np.float64)
    words = ["--data", path, "--labels", labels, "--units", 40, "--alpha", "loo"]
    one = run_main(fit.main, FitConfig, *words, "--out", tmp_path / "one.npz")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [ROOT / "assignment1" / "fit.py", *words, "--out", tmp_path / "two.npz"]
    process = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert process.returncode == 0, process.stderr
    two = ELMClassifier.load(tmp_path / "two.npz")
    direct = ELMClassifier(40, penalty="ridge", alpha="loo", random_state=0).fit(X, y)
    assert two.alpha == one.alpha_ == direct.alpha_
    for other in (one, direct):
        np.testing.assert_allclose(two.coef_, other.coef_, atol=1e-9)
        np.testing.assert_allclose(two.intercept_, other.intercept_, atol=1e-9)


def test_bad_input_of_fit(tmp_path):
    path, labels, X, y = written(tmp_path, np.float32)
    out = ("--out", tmp_path / "m.npz")
    X[3, 0] = np.nan
    np.save(tmp_path / "nan.npy", X)
    np.save(tmp_path / "short.npy", y[:-1])
    (tmp_path / "text.npy").write_text("1,2,3")
    for words, message in (
        (("--data", path, *out), "--labels is missing"),
        (("--data", tmp_path / "none.npy", "--labels", labels, *out), "does not exist"),
        (("--data", path, "--labels", labels, "--out", tmp_path / "m.pkl"), "end in .npz"),
        (("--data", tmp_path / "text.npy", "--labels", labels, *out), "no readable .npy"),
        (("--data", labels, "--labels", labels, *out), "2 axes"),
        (("--data", path, "--labels", tmp_path / "short.npy", *out), "999"),
        (("--data", tmp_path / "nan.npy", "--labels", labels, *out), "NaN"),
        (("--data", path, "--labels", labels, "--alpha", "loo", "--penalty", "lasso", *out), "loo"),
        (("--data", path, "--labels", labels, "--units", "0", *out), "--units 0"),
    ):
        assert_refused(fit.main, FitConfig, words, message, tmp_path)
