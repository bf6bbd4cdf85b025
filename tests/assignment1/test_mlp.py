"""Networks on code maps."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.ensemble import AdaBoostClassifier

from assignment1.config import Compute, Config
from assignment1.mlp import MLPClassifier
from assignment1.representations import new_cnn, new_mlp, representations
from assignment1.views import Dataset
from common.cli import InputError
from common.weights import count_parameters
from tests.assignment1.samples import clouds

CPU = Compute("cpu", "float32")


def network(name: str, data: Dataset, config: Config) -> MLPClassifier:
    """A held-out network by the name of what it sees, or the CNN."""
    layout = data.views.layout
    if name == "CNN":
        return new_cnn(config, layout, data.codebook, CPU).set_params(hidden=(4,), epochs=1)
    representation = representations(config, layout, data.codebook)[name]
    return new_mlp(config, representation, "ridge", CPU)


@pytest.mark.parametrize("name", ["one-hot", "look-up", "decoded fields", "CNN"])
def test_a_saved_network_predicts_the_same_and_a_clone_trains_the_same(
    data: Dataset, small: Config, tmp_path: Path, name: str
):
    model = network(name, data, small)
    X = data.views.matrix
    model.fit(X, data.labels).save(tmp_path / "m.safetensors")
    loaded = MLPClassifier.load(tmp_path / "m.safetensors")
    assert type(loaded) is type(model)
    float16 = {"atol": 5e-3}  # of the weights
    np.testing.assert_allclose(loaded.predict_proba(X), model.predict_proba(X), **float16)
    again = clone(model).fit(X, data.labels)
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


def test_another_file_is_refused():
    with pytest.raises(InputError, match="not a network"):
        MLPClassifier.load(Path(__file__))


def test_the_mirror_image_gets_the_same_probabilities(data: Dataset, small: Config):
    model = network("look-up", data, small).fit(data.views.matrix, data.labels)
    views = data.views
    swapped = np.hstack([views.mirror, views.codes, views.pictures, views.copies])
    probability = model.predict_proba(data.views.matrix)
    np.testing.assert_allclose(model.predict_proba(swapped), probability, atol=1e-6)


def test_the_courses_mlp_has_its_number_of_parameters():
    model = MLPClassifier(Config().course_mlp, epochs=1)
    model.sparse_ = False
    sizes = (144, 640, 1650, 3000, 500, 7)
    expected = sum(a * b + b for a, b in itertools.pairwise(sizes))
    assert count_parameters(model._build(144, 7)) == expected == 7_607_457


def test_mlp_penalties_shrink_the_output_weights():
    X, y = clouds()
    model = MLPClassifier(
        (16,), epochs=20, batch=32, learning_rate=1e-2, alpha=0.05, random_state=0
    )
    size = {}
    for penalty in (None, "ridge", "lasso", "elasticnet"):
        model.set_params(penalty=penalty).fit(X, y)
        size[penalty] = float(model.network_[-1].weight.detach().abs().sum())
    assert max(size["ridge"], size["lasso"], size["elasticnet"]) < size[None]


def test_a_weight_of_two_is_the_row_twice_with_full_batches():
    X, y = clouds(60)
    times = np.random.default_rng(0).integers(0, 4, len(X))
    settings = {"epochs": 15, "batch": 10**6, "learning_rate": 1e-2, "label_smoothing": 0.1}
    model = MLPClassifier((8,), random_state=0, **settings)
    weighted = clone(model).fit(X, y, sample_weight=times).predict_proba(X)
    repeated = clone(model).fit(np.repeat(X, times, axis=0), np.repeat(y, times)).predict_proba(X)
    plain = clone(model).fit(X, y).predict_proba(X)
    np.testing.assert_allclose(weighted, repeated, atol=1e-4)
    assert np.abs(plain - repeated).max() > 1e-2


def test_weights_of_one_change_nothing_and_class_weights_are_row_weights():
    X, y = clouds(200)
    model = MLPClassifier((8,), epochs=3, batch=32, random_state=0)
    plain = clone(model).fit(X, y).predict_proba(X)
    np.testing.assert_allclose(
        clone(model).fit(X, y, np.ones(200)).predict_proba(X), plain, atol=1e-5
    )
    by_row = clone(model).fit(X, y, 200 / (3 * np.bincount(y)[y])).predict_proba(X)
    balanced = clone(model).set_params(class_weight="balanced").fit(X, y).predict_proba(X)
    np.testing.assert_allclose(balanced, by_row, atol=1e-6)
    AdaBoostClassifier(model, n_estimators=2, random_state=0).fit(X, y)
