"""Extreme learning machines (Huang et al. 2006) whose output layer is solved from one Gram matrix.

Hidden layer H = g(s X W + b) with random, untrained W and b; only the output weights beta are
learned, by least squares with no penalty, ridge, lasso or elastic net (see moments.py).

Shape letters: n rows, b rows of a block, p inputs, L hidden units, k outputs (classes).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.sparse import issparse, sparray
from scipy.special import expit, logsumexp
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils import Tags, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from assignment1.features import Matrix, Transformer, features_from_file, features_to_file
from assignment1.moments import Moments, Penalty
from assignment1.weighting import ClassWeight, weighted_rows
from common.cli import InputError
from common.files import JsonObject, atomic_path

Weights: TypeAlias = Literal["gaussian", "binary"]
Rows: TypeAlias = npt.ArrayLike | sparray

ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "tanh": lambda z: np.tanh(z, out=z),
    "relu": lambda z: np.maximum(z, 0, out=z),
    "sigmoid": lambda z: expit(z, out=z),
    "sign": lambda z: np.sign(z, out=z),
}
ALLOWED: dict[str, tuple[object, ...]] = {
    "weights": ("gaussian", "binary"),
    "activation": tuple(ACTIVATIONS),
    "penalty": (None, "ridge", "lasso", "elasticnet"),
}
TEMPERATURES = np.geomspace(0.02, 1, 40)  # among which `calibrate` chooses
SMALLEST_RATIO = 1e-4  # of eigenvalues, below which float32 moments do not do without a penalty
LARGEST_BITS = 2**22  # signs of a binary hidden layer that a file holds itself


class ELMClassifier(ClassifierMixin, BaseEstimator):
    """Extreme learning machine (Huang, Zhu & Siew 2006): random hidden layer, least-squares output.

    Parameters
    ----------
    n_hidden : number L of hidden units.
    weights : "gaussian", N(0, 1), or "binary", {-1, +1}, for W and b.
    activation : "tanh" | "relu" | "sigmoid" | "sign".
    penalty : None (minimum-norm least squares) | "ridge" | "lasso" | "elasticnet" on the output
        weights.
    alpha, l1_ratio : strength and mix of the penalty, scaled as in sklearn.linear_model.Ridge,
        Lasso and ElasticNet.
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
    class_weight : None | "balanced" | {class: weight}; multiplies the rows' own weights.

    Attributes
    ----------
    classes_ (k,), coef_ (L, k), intercept_ (k,), n_features_in_, seed_ (int, of the hidden layer).
    """

    def __init__(
        self,
        n_hidden: int = 1000,
        weights: Weights = "gaussian",
        activation: str = "tanh",
        penalty: Penalty = None,
        alpha: float = 1.0,
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
        return self.solve(self.accumulate(X, y, sample_weight))

    def accumulate(
        self, X: Rows, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None
    ) -> Moments:
        """Draws the hidden layer for X (n, p), y (n,) and returns the moments of its activations.

        `solve` gets the output layer of every penalty from them. Raises ValueError as `fit`.
        """
        self._check_parameters()
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=self._dtypes)
        check_classification_targets(y)
        X, y, weight = weighted_rows(X, y, sample_weight, self.class_weight)
        self.classes_, target = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"Classifier can't train when only one class is present: {self.classes_[0]!r}"
            )

        self.seed_ = integer_seed(self.random_state)
        if self.features is not None:
            self.features_ = clone(self.features).fit(X, y)
        self._draw(self._inputs(X[:1]).shape[1])

        if self.precision == "float64" or X.dtype == np.float64:
            return self._moments(X, target, np.float64, weight)
        moments = self._moments(X, target, np.float32, weight)
        if self.penalty is None and self._ill_conditioned(moments):
            # without a penalty nothing damps directions that float32 sums cannot tell from rounding
            return self._moments(X, target, np.float64, weight)
        return moments

    def solve(self, moments: Moments) -> ELMClassifier:
        """Solves the output layer from moments under the present penalty, alpha and l1_ratio."""
        self._check_parameters()
        if self.penalty == "ridge" and self.alpha > 0:
            return self.set_output(moments, moments.ridge(self.alpha))
        return self.set_output(moments, moments.path(self.penalty, [self.alpha], self.l1_ratio)[0])

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
        """Activations float32 (n, L) of all rows at once, and the inputs where there are links."""
        check_is_fitted(self, "seed_")
        return np.concatenate([hidden.copy() for _, hidden in self._blocks(X)])

    def predict_hidden(self, hidden: np.ndarray) -> np.ndarray:
        """Class of the largest score (n,) for activations (n, L) that `hidden` returned."""
        return self.classes_[(hidden @ self.coef_ + self.intercept_).argmax(1)]

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
        X = validate_data(self, X, accept_sparse="csr", dtype=self._dtypes, reset=False)
        blocks = [hidden @ self.coef_ + self.intercept_ for _, hidden in self._blocks(X)]
        return np.concatenate(blocks)

    # -- the hidden layer

    def _draw(self, inputs: int) -> None:
        """Draws W (p, L), scaled, and b (L,) from the seed."""
        self.n_inputs_ = inputs
        weight, self._bias = random_layer(self.weights, inputs, self.n_hidden, self.seed_)
        scale = inputs**-0.5 if self.weight_scale is None else self.weight_scale
        self._weight = weight if scale == 1 else weight * np.float32(scale)

    def _inputs(self, X: Matrix) -> Matrix:
        if self.features is None:
            return X
        return self.features_.transform(X).astype(np.float32, copy=False)

    def _blocks(self, X: Matrix) -> Iterator[tuple[slice, np.ndarray]]:
        """Row blocks of activations (b, L); a block is overwritten by the next one."""
        room: np.ndarray | None = None
        for start in range(0, X.shape[0], self.block_rows):
            rows = slice(start, start + self.block_rows)
            inputs = self._inputs(X[rows])  # (b, p)
            weight = self._weight.astype(inputs.dtype, copy=False)
            if issparse(inputs):
                hidden = inputs @ weight  # (b, L)
            else:
                if room is None:
                    room = np.empty((len(inputs), self.n_hidden), inputs.dtype)
                hidden = np.matmul(inputs, weight, out=room[: len(inputs)])  # (b, L)
            hidden += self._bias
            hidden = ACTIVATIONS[self.activation](hidden)
            if self.direct_links:
                dense = inputs if isinstance(inputs, np.ndarray) else inputs.toarray()
                hidden = np.concatenate([hidden, dense], axis=1)  # (b, L + p)
            yield rows, hidden

    def _moments(
        self, X: Matrix, target: np.ndarray, kind: npt.DTypeLike, weight: np.ndarray | None
    ) -> Moments:
        """Moments of the activations and the one-hot targets, from target indices (n,)."""
        one_hot = np.eye(len(self.classes_))
        blocks = (
            (
                hidden.astype(kind, copy=False),
                one_hot[target[rows]],
                None if weight is None else weight[rows],
            )
            for rows, hidden in self._blocks(X)
        )
        return Moments.accumulate(blocks, self.fit_intercept)

    @staticmethod
    def _ill_conditioned(moments: Moments) -> bool:
        diagonal = np.diag(moments.gram)
        if moments.n <= len(diagonal) or diagonal.min() <= 0:
            return True
        values = np.linalg.eigvalsh(moments.gram)
        return bool(values[0] < SMALLEST_RATIO * values[-1])

    # -- checks

    @property
    def _dtypes(self) -> list[type] | None:
        """What validate_data converts X to; features take X as it is."""
        return [np.float32, np.float64] if self.features is None else None

    def _check_parameters(self) -> None:
        for name, values in ALLOWED.items():
            if getattr(self, name) not in values:
                allowed = ", ".join(map(repr, values))
                raise ValueError(f"{name}={getattr(self, name)!r}; allowed are {allowed}")
        if self.n_hidden < (0 if self.direct_links else 1):
            raise ValueError(
                f"n_hidden={self.n_hidden}; at least 1 is needed (0 with direct_links)"
            )
        if self.alpha < 0 or not 0 < self.l1_ratio <= 1:
            raise ValueError(
                f"alpha={self.alpha}, l1_ratio={self.l1_ratio}; "
                "alpha >= 0 and 0 < l1_ratio <= 1 are needed"
            )

    # -- files: the seed stands for the hidden layer

    def __getstate__(self) -> dict[str, object]:
        state = super().__getstate__()
        return {name: value for name, value in state.items() if name not in ("_weight", "_bias")}

    def __setstate__(self, state: dict[str, object]) -> None:
        super().__setstate__(state)
        if hasattr(self, "seed_"):
            self._draw(self.n_inputs_)

    def save(self, path: Path) -> None:
        """Writes the fitted model as .npz: seed, output weights and the features' arrays.

        A small binary hidden layer is written as bits. Raises TypeError for features that have no
        `arrays` method.
        """
        check_is_fitted(self, "coef_")
        settings = self.get_params(deep=False)
        del settings["features"], settings["random_state"], settings["class_weight"]
        facts: JsonObject = {
            "settings": settings,
            "seed": self.seed_,
            "inputs": self.n_inputs_,
            "columns": self.n_features_in_,
            "digest": self._digest(),
        }
        arrays = {"coef": self.coef_, "intercept": self.intercept_, "classes": self.classes_}
        if self.weights == "binary" and self._weight.size <= LARGEST_BITS:
            signs = np.concatenate([self._weight.ravel(), self._bias])
            arrays["bits"] = np.packbits(signs > 0)
        if self.features is not None:
            facts["features"], feature_arrays = features_to_file(self.features_)
            arrays |= feature_arrays
        with atomic_path(path) as temporary:
            np.savez_compressed(temporary, facts=np.array(json.dumps(facts)), **arrays)

    @classmethod
    def load(cls, path: Path) -> ELMClassifier:
        """Reads what `save` wrote; predictions are the same to the bit.

        Raises InputError for anything else, also when this numpy draws other numbers from the seed
        than the one that saved it.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            facts: JsonObject = json.loads(str(arrays.pop("facts")))
            model = cls(**facts["settings"], random_state=facts["seed"])
            model.seed_ = facts["seed"]
            model.n_features_in_ = facts["columns"]
            model.coef_ = arrays["coef"]
            model.intercept_ = arrays["intercept"]
            model.classes_ = arrays["classes"]
            if "features" in facts:
                model.features_ = features_from_file(facts["features"], arrays)
                model.features = model.features_
            model._draw(facts["inputs"])
            if "bits" in arrays:
                model._take_bits(arrays["bits"])
        except Exception as error:
            raise InputError(f"{path}: not an ELM that assignment1 saved ({error})") from None
        if model._digest() != facts["digest"]:
            raise InputError(
                f"{path}: this version of numpy draws another hidden layer from the seed than the "
                "one that saved it"
            )
        return model

    def _take_bits(self, bits: np.ndarray) -> None:
        """Takes a binary hidden layer from packed bits, W row by row and then b."""
        count = (self.n_inputs_ + 1) * self.n_hidden
        signs = np.where(np.unpackbits(bits)[:count], np.float32(1), np.float32(-1))
        scale = np.abs(self._weight).max(initial=0)
        self._weight = signs[: -self.n_hidden].reshape(self._weight.shape) * scale
        self._bias = signs[-self.n_hidden :]

    def _digest(self) -> str:
        return hashlib.sha256(self._weight.tobytes() + self._bias.tobytes()).hexdigest()[:16]


def random_layer(kind: str, inputs: int, units: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """W float32 (p, L) and b (L,), from N(0, 1) or {-1, +1}, drawn from the seed's PCG64 stream."""
    rng = np.random.default_rng(seed)
    if kind == "gaussian":
        weight = rng.standard_normal((inputs, units), dtype=np.float32)
        return weight, rng.standard_normal(units, dtype=np.float32)
    count = (inputs + 1) * units
    drawn = np.frombuffer(rng.bytes((count + 7) // 8), np.uint8)
    bits = np.unpackbits(drawn)[:count]
    signs = np.where(bits, np.float32(1), np.float32(-1)).reshape(inputs + 1, units)
    return signs[:-1], signs[-1]


def integer_seed(random_state: int | np.random.RandomState | None) -> int:
    """scikit-learn's random_state as one integer."""
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))
