"""What validation chooses, and how it is scored."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from assignment1.config import Config
from assignment1.evaluation import scores
from assignment1.selection import (
    Candidate,
    ElmFit,
    ModelFit,
    Selection,
    best_on_validation,
    elm_candidates,
    path_arrays,
    selections_of,
)
from assignment1.train import fit_elm
from assignment1.variants import PENALTIES, Variant, path_key
from assignment1.views import Dataset


def test_a_label_is_made_from_its_values():
    labels = [Variant("look-up", penalty).label for penalty in PENALTIES]
    assert labels == [
        "look-up, no penalty",
        "look-up, ridge",
        "look-up, lasso",
        "look-up, elastic net",
    ]
    assert path_key("ELM", Variant("one-hot", "lasso"), "alphas") == "ELM, one-hot | lasso | alphas"


@pytest.mark.parametrize("name", ["integers", "whitened patches"])
def test_the_first_seed_chooses_the_alpha_of_highest_validation_accuracy(
    data: Dataset, small: Config, name: str
):
    fit = fit_elm(small, data, "ELM", name, 0, None)
    labels = data.labels[data.split.validation]
    for alpha, path, prediction in zip(fit.alphas, fit.paths, fit.validation, strict=True):
        best = int(path["accuracy"].argmax())
        assert alpha == path["alphas"][best]
        assert (prediction == labels).mean() == path["accuracy"][best]

    # a chosen alpha gives the same output layer as the whole path does
    again = fit_elm(small, data, "ELM", name, 0, fit.alphas)
    np.testing.assert_array_equal(again.validation, fit.validation)
    np.testing.assert_array_equal(again.test, fit.test)
    assert [len(path["alphas"]) for path in again.paths] == [1] * len(fit.paths)


def test_the_choice_of_alpha_does_not_see_the_test_part(data: Dataset, small: Config):
    views = data.views
    codes = views.codes.copy()
    labels = data.labels.copy()
    codes[data.split.test] = 255 - codes[data.split.test]
    labels[data.split.test] = (labels[data.split.test] + 1) % 3
    poisoned = dataclasses.replace(
        data, views=dataclasses.replace(views, codes=codes), labels=labels
    )
    before = fit_elm(small, data, "binary ELM", "look-up", 0, None)
    after = fit_elm(small, poisoned, "binary ELM", "look-up", 0, None)
    assert after.alphas == before.alphas
    np.testing.assert_array_equal(after.validation, before.validation)


def candidate(model: str, label: str, right: int) -> Candidate:
    """A candidate that predicts `right` of ten validation faces of class 1."""
    validation = np.array([1] * right + [0] * (10 - right))
    return Candidate.single(model, label, ModelFit(validation, validation, None, 0.0))


def test_the_first_of_the_best_on_validation_is_chosen_for_each_model():
    candidates = [
        candidate("ELM", "a", 3),
        candidate("ELM", "b", 7),
        candidate("ELM", "c", 7),
        candidate("linear", "d", 1),
    ]
    chosen = best_on_validation(candidates, np.ones(10, int))
    assert [(item.model, item.label) for item in chosen] == [("ELM", "b"), ("linear", "d")]
    assert chosen[0].accuracy(np.ones(10, int)) == 0.7
    assert not selections_of(chosen)


def test_the_fits_of_all_seeds_become_one_candidate_per_penalty():
    path = {name: np.ones(2) for name in ("alphas", "accuracy", "share_used")}
    fits = [
        ElmFit(
            seconds=seed,
            alphas=[0.0, 2.0],
            paths=[path, path],
            validation=[np.full(3, seed), np.full(3, 10 + seed)],
            test=[np.full(4, seed), np.full(4, 10 + seed)],
            params=[5, 6],
        )
        for seed in range(3)
    ]
    _, ridge = elm_candidates("ELM", "one-hot", (None, "ridge"), fits)
    assert ridge.selection == Selection("ELM", Variant("one-hot", "ridge"), 2.0)
    np.testing.assert_array_equal(ridge.validation[:, 0], [10, 11, 12])
    assert ridge.test.shape == (3, 4)
    assert (ridge.params, ridge.seconds) == (6, 1.0)
    assert len(path_arrays("ELM", "one-hot", (None, "ridge"), fits[0])) == 6


def test_scores_by_hand():
    labels = np.array([0, 0, 0, 1])
    predictions = np.array([[0, 0, 1, 1], [0, 0, 0, 0]])
    values = scores(labels, predictions, intervals=True)
    np.testing.assert_allclose(values["accuracy"], [0.75, 0.75])
    np.testing.assert_allclose(values["balanced_accuracy"], [(2 / 3 + 1) / 2, 0.5])
    np.testing.assert_allclose(values["macro_f1"], [(0.8 + 2 / 3) / 2, (6 / 7) / 2])
    assert values["accuracy_low"][0] <= 0.75 <= values["accuracy_high"][0]
