"""Extreme learning machines (Huang et al. 2006) whose output layer is solved from one Gram matrix.

Hidden layer H = g(s X W + b) with random, untrained W and b; only the output weights beta are
learned, by least squares with no penalty, ridge, lasso or elastic net (see moments.py).

Shape letters: n rows, b rows of a block, V views of a row, p inputs, L hidden units, k outputs
(classes).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, Self, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.sparse import sparray
from scipy.special import logsumexp
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils import Tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from . import files
from .moments import Alphas, Block, Moments, Penalty
from .press import LeaveOneOut, best_alpha
from .units import KINDS, Activation, HiddenLayer, Matrix, Weights, integer_seed, kinds_of
from .weighting import ClassWeight, weighted_rows

Rows: TypeAlias = npt.ArrayLike | sparray
Checked: TypeAlias = Any  # what scikit-learn's validate_data returns: an array or a sparse matrix

ALLOWED: dict[str, tuple[object, ...]] = {
    "weights": ("gaussian", "binary"),
    "penalty": (None, "ridge", "lasso", "elasticnet"),
}
LOO = "loo"
LOO_ALPHAS = np.geomspace(1e5, 1e-2, 30)  # among which alpha="loo" chooses by default
TEMPERATURES = np.geomspace(0.02, 1, 40)  # among which `calibrate` chooses
SMALLEST_RATIO = 1e-4  # of eigenvalues, below which float32 moments do not do without a penalty
LARGEST_BITS = 2**22  # signs of a binary hidden layer that a file holds itself
UNSAVED = ("features", "random_state", "class_weight", "alphas")


class Transformer(Protocol):
    """A scikit-learn transformer."""

    def fit(self, X: np.ndarray, y: np.ndarray | None = None) -> Self: ...

    def transform(self, X: np.ndarray) -> Matrix: ...


FeaturesToFile: TypeAlias = Callable[[Any], tuple[files.JsonObject, files.Arrays]]
FeaturesFromFile: TypeAlias = Callable[[files.JsonObject, Mapping[str, np.ndarray]], Transformer]


def _has_one_alpha(model: ELMClassifier) -> bool:
    """Whether the output layer follows from the moments alone."""
    return not isinstance(model.alpha, str)


class ELMClassifier(ClassifierMixin, BaseEstimator):
    """Extreme learning machine (Huang, Zhu & Siew 2006): random hidden layer, least-squares output.

    Parameters
    ----------
    n_hidden : number L of hidden units.
    weights : "gaussian", N(0, 1), or "binary", {-1, +1}, for W and b.
    activation : "tanh" | "relu" | "sigmoid" | "sign" | "rbf", or a tuple of them, which share the
        units evenly; radial units have random centres, for standardised inputs (see units.py).
    penalty : None (minimum-norm least squares) | "ridge" | "lasso" | "elasticnet" on the output
        weights.
    alpha, l1_ratio : strength and mix of the penalty, scaled as in sklearn.linear_model.Ridge,
        Lasso and ElasticNet. "loo" takes the ridge penalty of the highest leave-one-out accuracy
        (the largest of equals) among `alphas`, with the weights of the rows as they are.
    weight_scale : factor s on X W; None is 1 / sqrt(p), which keeps standardised inputs out of
        saturation; the course used 1.
    direct_links : also feed the inputs themselves to the output layer (random vector functional
        link, Pao et al. 1994).
    features : a transformer that is fitted first and applied block by block, so that wide features
        are never held whole.
    precision : of the moments; "auto" is that of X (float32 for features), and float64 where there
        is no penalty and the float32 Gram matrix cannot tell its small directions from rounding.
    temperature : predict_proba is softmax(decision_function / temperature); set it on held-out
        rows with `calibrate`.
    block_rows : rows in memory at a time.
    views : V of each row of X, or of its features, side by side (n, V p): warped copies of a
        picture, say. Each counts as a row of its own in training; predictions average their scores.
    class_weight : None | "balanced" | {class: weight}; multiplies the rows' own weights.
    alphas : (A,) above 0, for alpha="loo"; None is 30 from 1e5 to 0.01.

    Attributes
    ----------
    classes_ (k,), coef_ (L, k), intercept_ (k,), n_features_in_, seed_ (int, of the hidden layer);
    moments_ (Moments, of all rows), or after alpha="loo" alpha_, alphas_ (A,), loo_accuracy_ (A,).
    """

    def __init__(
        self,
        n_hidden: int = 1000,
        weights: Weights = "gaussian",
        activation: Activation = "tanh",
        penalty: Penalty = None,
        alpha: float | Literal["loo"] = 1.0,
        l1_ratio: float = 0.5,
        weight_scale: float | None = None,
        direct_links: bool = False,
        fit_intercept: bool = True,
        features: Transformer | None = None,
        precision: Literal["auto", "float64"] = "auto",
        temperature: float = 0.2,
        block_rows: int = 4096,
        random_state: int | np.random.RandomState | None = None,
        class_weight: ClassWeight = None,
        alphas: Alphas | None = None,
        views: int = 1,
    ):
        self.n_hidden = n_hidden
        self.weights = weights
        self.activation = activation
        self.penalty = penalty
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.weight_scale = weight_scale
        self.direct_links = direct_links
        self.fit_intercept = fit_intercept
        self.features = features
        self.precision = precision
        self.temperature = temperature
        self.block_rows = block_rows
        self.random_state = random_state
        self.class_weight = class_weight
        self.alphas = alphas
        self.views = views

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    # -- training

    def fit(
        self, X: Rows, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None
    ) -> ELMClassifier:
        """Draws the hidden layer and solves the output layer.

        A `sample_weight` (n,) of 2 is the row twice, of 0 none; `features` are fitted on the rows
        as they are. As in sklearn.linear_model.Ridge a ridge penalty is relative to the sum of the
        weights, so boosting, whose weights add up to 1, wants a small alpha or no penalty. Raises
        ValueError for bad parameters or fewer than two classes.
        """
        self._forget_everything()
        self._check_parameters()
        X, target, weight = self._start(X, y, sample_weight)
        moments = self._all_moments(X, target, weight)
        if self.alpha == LOO:
            right = self.leave_one_out(moments).right(self._targeted(X, target, weight))
            return self.take_alpha(moments, right / moments.n)
        self.moments_ = moments
        return self.solve(moments)

    def accumulate(
        self,
        X: Rows,
        y: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
        classes: npt.ArrayLike | None = None,
    ) -> Moments:
        """Draws the hidden layer for X (n, p), y (n,) and returns the moments of its activations.

        `solve` gets the output layer of every penalty from them. Moments of other rows, of the same
        seed and `classes` (k,), may be added. Raises ValueError as `fit`.
        """
        self._check_parameters()
        return self._all_moments(*self._start(X, y, sample_weight, classes))

    @available_if(_has_one_alpha)
    def partial_fit(
        self,
        X: Rows,
        y: npt.ArrayLike,
        classes: npt.ArrayLike | None = None,
        sample_weight: npt.ArrayLike | None = None,
    ) -> ELMClassifier:
        """Adds rows to those of earlier calls; the result is that of `fit` on all of them.

        The first call draws the hidden layer and fits `features`; sums are float64 then if there is
        no penalty. Classes that are new, in y or in `classes` (k,), get an output of their own.
        There is none with alpha="loo", which sees all rows at once. Raises ValueError as `fit`, for
        class_weight="balanced", and for a model from a file, which holds no moments.
        """
        self._check_parameters()
        self._check_incremental()
        if not hasattr(self, "moments_"):
            X, target, weight = self._start(X, y, sample_weight, classes, least=1)
            exact = self.precision == "float64" or self.penalty is None
            kind = np.float64 if exact else self._kind(X)
            self.moments_ = self._moments(X, target, kind, weight)
            return self.solve(self.moments_)

        X, y, weight = self._checked(X, y, sample_weight, reset=False)
        self._widen(y if classes is None else np.concatenate([classes, y]))
        self.moments_ += self._batch(X, y, weight)
        return self.solve(self.moments_)

    @available_if(_has_one_alpha)
    def forget(
        self, X: Rows, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None
    ) -> ELMClassifier:
        """Takes rows away that the model was fitted to, with the weights that they had.

        The result is that of a fit without them. Classes stay, also those that lose all rows.
        Raises ValueError for an unknown class and where no row would be left.
        """
        self._check_parameters()
        self._check_incremental()
        check_is_fitted(self, "moments_")
        X, y, weight = self._checked(X, y, sample_weight, reset=False)
        unknown = np.setdiff1d(y, self.classes_)
        if unknown.size:
            raise ValueError(f"y holds classes that the model never saw: {unknown.tolist()}")
        self.moments_ -= self._batch(X, y, weight)
        return self.solve(self.moments_)

    def solve(self, moments: Moments) -> ELMClassifier:
        """Solves the output layer from moments under the present penalty, alpha and l1_ratio."""
        self._check_parameters()
        alpha = self._alpha()
        if self.penalty == "ridge" and alpha > 0:
            return self.set_output(moments, moments.ridge(alpha))
        return self.set_output(moments, moments.path(self.penalty, [alpha], self.l1_ratio)[0])

    def _alpha(self) -> float:
        """The strength of the penalty, given or chosen. Raises ValueError for neither."""
        if not isinstance(self.alpha, str):
            return self.alpha
        if not hasattr(self, "alpha_"):
            raise ValueError('alpha="loo" needs the rows and not only their moments: call fit')
        return self.alpha_

    def leave_one_out(self, moments: Moments) -> LeaveOneOut:
        """What the leave-one-out predictions of all rows follow from, for a grid of alphas."""
        self.alphas_ = self._grid()
        return LeaveOneOut.of(moments, self.alphas_, self.fit_intercept)

    def take_alpha(self, moments: Moments, accuracy: np.ndarray) -> ELMClassifier:
        """Solves the output layer under the alpha of the highest accuracy (A,) along `alphas_`."""
        self.loo_accuracy_ = accuracy
        self.alpha_ = best_alpha(self.alphas_, accuracy)
        return self.set_output(moments, moments.ridge(self.alpha_))

    def blocks(
        self, X: Rows, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None
    ) -> Iterator[Block]:
        """Blocks (H (b, L), Y one-hot (b, k), weights (b,) or None) of a model with `seed_`."""
        X, y, weight = self._checked(X, y, sample_weight, reset=False)
        return self._targeted(X, np.searchsorted(self.classes_, y), weight)

    def set_output(self, moments: Moments, beta: np.ndarray) -> ELMClassifier:
        """Takes output weights (L, k), such as one entry of Moments.path."""
        self.coef_ = np.ascontiguousarray(beta)
        self.intercept_ = moments.target_mean - moments.hidden_mean @ beta
        return self

    def calibrate(self, X: Rows, y: npt.ArrayLike) -> ELMClassifier:
        """Sets the temperature of least log-loss on held-out rows X (n, p), y (n,).

        Guo et al. 2017, "On calibration of modern neural networks".
        """
        scores = self._scores(X)  # (n, k)
        label = np.searchsorted(self.classes_, y)
        of_label = scores[np.arange(len(label)), label]
        losses = [
            (logsumexp(scores / temperature, axis=1) - of_label / temperature).mean()
            for temperature in TEMPERATURES
        ]
        return self.set_params(temperature=float(TEMPERATURES[int(np.argmin(losses))]))

    # -- prediction

    def hidden(self, X: Rows) -> np.ndarray:
        """Activations float32 (n V, L) of all rows, and the inputs where there are links."""
        check_is_fitted(self, "seed_")
        return np.concatenate([hidden.copy() for _, hidden in self._blocks(X)])

    def predict_hidden(self, hidden: np.ndarray) -> np.ndarray:
        """Class of the largest score (n,) for activations (n V, L) that `hidden` returned."""
        return self.classes_[self._output(hidden).argmax(1)]

    def _output(self, hidden: np.ndarray) -> np.ndarray:
        """Scores (n, k) of activations (n V, L): means over the views."""
        scores = hidden @ self.coef_ + self.intercept_
        return scores.reshape(-1, self.views, scores.shape[1]).mean(1)

    def decision_function(self, X: Rows) -> np.ndarray:
        """Scores float32 (n, k), or (n,) for two classes: about 1 for the class, 0 elsewhere."""
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: Rows) -> np.ndarray:
        """Class of the largest score (n,)."""
        best = self._scores(X).argmax(1)
        return self.classes_[best]

    def predict_proba(self, X: Rows) -> np.ndarray:
        """Probabilities float32 (n, k): softmax of the scores over `temperature`."""
        scores = self._scores(X) / self.temperature
        scores = np.exp(scores - scores.max(1, keepdims=True))
        return scores / scores.sum(1, keepdims=True)

    def _scores(self, X: Rows) -> np.ndarray:
        check_is_fitted(self, "coef_")
        X = validate_data(self, X, accept_sparse="csr", dtype=self._dtypes(X), reset=False)
        return np.concatenate([self._output(hidden) for _, hidden in self._blocks(X)])

    # -- the rows

    def _checked(
        self, X: Rows, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None, reset: bool
    ) -> tuple[Checked, np.ndarray, np.ndarray | None]:
        """Rows X (n, p), labels y (n,) and weights (n,) of the rows whose weight is not zero."""
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=self._dtypes(X), reset=reset)
        check_classification_targets(y)
        return weighted_rows(X, y, sample_weight, self.class_weight)

    def _start(
        self,
        X: Rows,
        y: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None,
        classes: npt.ArrayLike | None = None,
        least: int = 2,
    ) -> tuple[Checked, np.ndarray, np.ndarray | None]:
        """Draws the hidden layer; returns rows, indices (n,) of their classes, and weights.

        Raises ValueError for fewer than `least` classes.
        """
        X, y, weight = self._checked(X, y, sample_weight, reset=True)
        labels, target = np.unique(y, return_inverse=True)
        if classes is not None:
            labels = np.union1d(labels, classes)
            target = np.searchsorted(labels, y)
        if len(labels) < least:
            raise ValueError(
                f"Classifier can't train when only one class is present: {labels[0]!r}"
            )
        self.classes_ = labels

        self.seed_ = integer_seed(self.random_state)
        if self.features is not None:
            self.features_ = clone(self.features).fit(X, y)
        self._draw(self._inputs(X[:1]).shape[1])
        return X, target, weight

    def _widen(self, labels: np.ndarray) -> None:
        """Gives the moments an output for every class among labels that is new."""
        classes = np.union1d(self.classes_, labels)
        places = np.searchsorted(classes, self.classes_)
        self.moments_ = self.moments_.with_outputs(places, len(classes))
        self.classes_ = classes

    def _batch(self, X: Checked, y: np.ndarray, weight: np.ndarray | None) -> Moments:
        """Moments of more rows, in the precision of those that are there."""
        target = np.searchsorted(self.classes_, y)
        return self._moments(X, target, self.moments_.gram.dtype, weight)

    def _forget_everything(self) -> None:
        """A new fit: nothing of an earlier one is left."""
        for name in ("moments_", "alpha_", "alphas_", "loo_accuracy_"):
            self.__dict__.pop(name, None)

    # -- the hidden layer

    def _draw(self, inputs: int) -> None:
        """Draws the hidden layer for p inputs from the seed."""
        self.n_inputs_ = inputs
        scale = inputs**-0.5 if self.weight_scale is None else self.weight_scale
        self._layer = HiddenLayer.draw(
            (inputs, self.n_hidden), self.seed_, self.weights, self.activation, scale
        )

    def _inputs(self, X: Matrix) -> Matrix:
        """What the hidden layer sees of rows X (b, ...): (b V, p). Raises ValueError."""
        if self.features is not None:
            inputs = self.features_.transform(X).astype(np.float32, copy=False)
        else:
            inputs = X.astype(self._kind(X), copy=False)
        if self.views == 1:
            return inputs
        if inputs.shape[1] % self.views:
            raise ValueError(f"{inputs.shape[1]} columns are not {self.views} views of a row")
        return inputs.reshape(inputs.shape[0] * self.views, -1)

    @staticmethod
    def _kind(X: Matrix) -> npt.DTypeLike:
        """The precision of the activations of X, and of its moments as far as X decides."""
        return np.float64 if X.dtype == np.float64 else np.float32

    def _blocks(self, X: Matrix) -> Iterator[tuple[slice, np.ndarray]]:
        """Row blocks of activations (b V, L); a block is overwritten by the next one."""
        room: np.ndarray | None = None
        for start in range(0, X.shape[0], self.block_rows):
            rows = slice(start, start + self.block_rows)
            inputs = self._inputs(X[rows])  # (b V, p)
            if room is None:
                room = np.empty((inputs.shape[0], self.n_hidden), inputs.dtype)
            hidden = self._layer.activations(inputs, room)
            if self.direct_links:
                dense = inputs if isinstance(inputs, np.ndarray) else inputs.toarray()
                hidden = np.concatenate([hidden, dense], axis=1)  # (b V, L + p)
            yield rows, hidden

    def _targeted(
        self,
        X: Matrix,
        target: np.ndarray,
        weight: np.ndarray | None,
        kind: npt.DTypeLike | None = None,
    ) -> Iterator[Block]:
        """Row blocks of activations, one-hot targets of indices (n,), and weights."""
        one_hot = np.eye(len(self.classes_))
        for rows, hidden in self._blocks(X):
            share = None if weight is None else weight[rows].repeat(self.views)
            wanted = one_hot[target[rows].repeat(self.views)]  # (b V, k)
            yield hidden.astype(kind or hidden.dtype, copy=False), wanted, share

    def _moments(
        self, X: Matrix, target: np.ndarray, kind: npt.DTypeLike, weight: np.ndarray | None
    ) -> Moments:
        """Moments of the activations and the one-hot targets, from target indices (n,)."""
        return Moments.accumulate(self._targeted(X, target, weight, kind), self.fit_intercept)

    def _all_moments(self, X: Matrix, target: np.ndarray, weight: np.ndarray | None) -> Moments:
        """Moments of all rows, in the precision that they need."""
        if self.precision == "float64" or X.dtype == np.float64:
            return self._moments(X, target, np.float64, weight)
        moments = self._moments(X, target, np.float32, weight)
        if self.penalty is None and self._ill_conditioned(moments):
            # without a penalty nothing damps directions that float32 sums cannot tell from rounding
            return self._moments(X, target, np.float64, weight)
        return moments

    @staticmethod
    def _ill_conditioned(moments: Moments) -> bool:
        diagonal = np.diag(moments.gram)
        if moments.n <= len(diagonal) or diagonal.min() <= 0:
            return True
        values = np.linalg.eigvalsh(moments.gram)
        return bool(values[0] < SMALLEST_RATIO * values[-1])

    # -- checks

    def _dtypes(self, X: Rows) -> list[type] | None:
        """What validate_data converts X to.

        Features take X as it is; whole numbers are converted block by block, so that a file that is
        mapped into memory is never copied.
        """
        whole = isinstance(X, np.ndarray) and X.dtype.kind in "iub"
        return None if whole or self.features is not None else [np.float32, np.float64]

    def _check_parameters(self) -> None:
        for name, values in ALLOWED.items():
            if getattr(self, name) not in values:
                allowed = ", ".join(map(repr, values))
                raise ValueError(f"{name}={getattr(self, name)!r}; allowed are {allowed}")
        kinds = kinds_of(self.activation)
        if not kinds or not set(kinds) <= set(KINDS):
            allowed = ", ".join(map(repr, KINDS))
            raise ValueError(
                f"activation={self.activation!r}; allowed are {allowed} or a tuple of them"
            )
        if 0 < self.n_hidden < len(kinds):
            raise ValueError(f"activation={self.activation!r}; n_hidden={self.n_hidden} is less")
        if self.n_hidden < (0 if self.direct_links else 1):
            raise ValueError(
                f"n_hidden={self.n_hidden}; at least 1 is needed (0 with direct_links)"
            )
        if isinstance(self.alpha, str):
            self._check_grid()
        elif self.alpha < 0:
            raise ValueError(f'alpha={self.alpha}; a number from 0 or "loo" is needed')
        if self.views < 1:
            raise ValueError(f"views={self.views}; at least 1 is needed")
        if not 0 < self.l1_ratio <= 1:
            raise ValueError(f"l1_ratio={self.l1_ratio}; a number above 0, up to 1, is needed")

    def _check_grid(self) -> None:
        if self.alpha != LOO:
            raise ValueError(f'alpha={self.alpha!r}; a number from 0 or "loo" is needed')
        if self.penalty != "ridge":
            raise ValueError(f'alpha="loo" is for penalty="ridge", not {self.penalty!r}')
        if self.views > 1:
            raise ValueError('alpha="loo" would predict a view from other views of the same row')
        grid = self._grid()
        if grid.ndim != 1 or not grid.size or not (grid > 0).all():
            raise ValueError(f"alphas={self.alphas!r}; a list of numbers above 0 is needed")

    def _grid(self) -> np.ndarray:
        """The alphas (A,) that alpha="loo" chooses from."""
        return np.asarray(LOO_ALPHAS if self.alphas is None else self.alphas, np.float64)

    def _check_incremental(self) -> None:
        if self.class_weight == "balanced":
            raise ValueError('class_weight="balanced" needs all rows at once: call fit')
        if hasattr(self, "coef_") and not hasattr(self, "moments_"):
            raise ValueError(
                "a model from a file holds no moments that rows could be added to or taken from"
            )

    # -- files: the seed stands for the hidden layer

    def __getstate__(self) -> dict[str, object]:
        state = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_layer"}

    def __setstate__(self, state: dict[str, object]) -> None:
        super().__setstate__(state)
        if hasattr(self, "seed_"):
            self._draw(self.n_inputs_)

    def save(self, path: Path, features_to_file: FeaturesToFile | None = None) -> None:
        """Writes the fitted model as .npz: seed and output weights, without `moments_`.

        A small binary hidden layer is written as bits. Fitted `features` are written as what
        `features_to_file` makes of them: JSON values, and arrays of names of their own. Raises
        TypeError where it is missing, OSError where the file cannot be written.
        """
        check_is_fitted(self, "coef_")
        settings = self.get_params(deep=False)
        for name in UNSAVED:
            del settings[name]
        if hasattr(self, "alpha_"):
            settings["alpha"] = self.alpha_
        facts: files.JsonObject = {
            "settings": settings,
            "seed": self.seed_,
            "inputs": self.n_inputs_,
            "columns": self.n_features_in_,
            "digest": self._layer.digest(),
        }
        arrays = {"coef": self.coef_, "intercept": self.intercept_, "classes": self.classes_}
        if self.weights == "binary" and self._layer.weight.size <= LARGEST_BITS:
            arrays["bits"] = self._layer.bits()
        if self.features is not None:
            if features_to_file is None:
                raise TypeError("features need features_to_file; or fit them apart, in a Pipeline")
            facts["features"], feature_arrays = features_to_file(self.features_)
            arrays |= feature_arrays
        files.write(path, facts, arrays)

    @classmethod
    def load(cls, path: Path, features_from_file: FeaturesFromFile | None = None) -> ELMClassifier:
        """Reads what `save` wrote; predictions are the same to the bit.

        `features_from_file` makes the fitted features of the JSON values and all arrays. Raises
        ValueError for anything else, also when this numpy draws other numbers from the seed than
        the one that saved it.
        """
        with files.one_line(path):
            facts, arrays = files.read(path)
            settings = facts["settings"]
            if isinstance(settings["activation"], list):
                settings["activation"] = tuple(settings["activation"])
            model = cls(**settings, random_state=facts["seed"])
            model.seed_ = facts["seed"]
            model.n_features_in_ = facts["columns"]
            model.coef_ = arrays["coef"]
            model.intercept_ = arrays["intercept"]
            model.classes_ = arrays["classes"]
            if "features" in facts:
                if features_from_file is None:
                    raise TypeError("it holds features: features_from_file is needed")
                model.features_ = features_from_file(facts["features"], arrays)
                model.features = model.features_
            model._draw(facts["inputs"])
            if "bits" in arrays:
                model._layer.take_bits(arrays["bits"])
        if model._layer.digest() != facts["digest"]:
            raise ValueError(
                f"{path}: this version of numpy draws another hidden layer from the seed than the "
                "one that saved it"
            )
        return model
