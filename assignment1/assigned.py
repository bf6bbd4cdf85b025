"""As assigned: the course's nine models on its random split, on standardised code indices.

Shape letters: n test faces, Q penalties.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import train_test_split

from assignment1.config import COURSE, Compute, Config
from assignment1.elm import ELMClassifier
from assignment1.evaluation import Scored, score_rows
from assignment1.features import StandardisedIntegers
from assignment1.mlp import MLPClassifier
from assignment1.selection import ELM_FAMILIES
from assignment1.variants import INTEGERS, LARGEST_CLASS, MLP, PENALTIES, Variant
from assignment1.views import Dataset
from common.results import Row
from common.run import Run


@dataclass(frozen=True)
class CourseSplit:
    """Standardised indices float32 (rows, 144) and labels of the course's two parts."""

    X_train: np.ndarray
    y_train: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray


@dataclass(frozen=True)
class CourseFit:
    """Test predictions (Q, n) of one model with Q penalties, its parameters and times (Q,)."""

    predictions: np.ndarray
    params: list[int]
    seconds: list[float]


def course_split(data: Dataset) -> CourseSplit:
    """The course's random 80/20 split: duplicates stand on both sides of it."""
    rows = np.arange(len(data.labels))
    train, test = train_test_split(
        rows, test_size=COURSE.test_share, random_state=COURSE.split_seed
    )
    codes = data.views.codes
    X = StandardisedIntegers().fit(codes[train]).transform(codes)
    y = data.labels
    return CourseSplit(X[train], y[train], X[test], y[test])


def course_mlp(config: Config, split: CourseSplit, compute: Compute) -> CourseFit:
    """The course's MLP, trained by plain gradient descent."""
    start = time.perf_counter()
    model = MLPClassifier(
        config.course_mlp,
        "sgd",
        COURSE.mlp_lr,
        COURSE.mlp_epochs,
        COURSE.mlp_batch,
        precision=compute.precision,
        random_state=config.seed,
    )
    model.fit(split.X_train, split.y_train)
    predictions = model.predict(split.X_test)[None]
    return CourseFit(predictions, [model.parameters_], [time.perf_counter() - start])


def course_elm(config: Config, split: CourseSplit, family: str, units: int) -> CourseFit:
    """The course's ELM of one family with every penalty."""
    start = time.perf_counter()
    # no intercept: the course's 0.136 is what an all-zero output layer scores, by naming class 0
    model = ELMClassifier(
        units,
        ELM_FAMILIES[family],
        weight_scale=COURSE.weight_scale,
        fit_intercept=False,
        l1_ratio=COURSE.l1_ratio,
        random_state=config.seed,
    )
    moments = model.accumulate(split.X_train, split.y_train)
    predictions = []
    params = []
    seconds = []
    for penalty in PENALTIES:
        alpha = 0 if penalty is None else COURSE.alphas[penalty]
        model.set_params(penalty=penalty, alpha=alpha).solve(moments)
        predictions.append(model.predict(split.X_test))
        params.append(model.coef_.size)
        seconds.append(time.perf_counter() - start)
    return CourseFit(np.stack(predictions), params, seconds)


def as_assigned(config: Config, run: Run, data: Dataset, compute: Compute) -> list[Row]:
    """Rows of the course's nine models and of the largest class."""
    split = course_split(data)
    mlp = run.memo("assigned-mlp", course_mlp, config, split, compute)
    rows = fit_rows(MLP, mlp, split)
    for family, units in zip(ELM_FAMILIES, config.course_units, strict=True):
        elm = run.memo(f"assigned-{family}", course_elm, config, split, family, units)
        rows += fit_rows(family, elm, split)
    largest = DummyClassifier().fit(split.X_train, split.y_train).predict(split.X_test)
    scored = Scored("as-assigned", "test", LARGEST_CLASS, "none", params=0)
    return rows + score_rows(scored, split.y_test, largest)


def fit_rows(model: str, fit: CourseFit, split: CourseSplit) -> list[Row]:
    """Rows of one model, one penalty after the other."""
    rows = []
    for number, predictions in enumerate(fit.predictions):
        variant = Variant(INTEGERS, PENALTIES[number])
        scored = Scored(
            protocol="as-assigned",
            split="test",
            model=model,
            variant=variant.label,
            params=fit.params[number],
            seconds=fit.seconds[number],
        )
        rows += score_rows(scored, split.y_test, predictions)
    return rows
