"""Extreme learning machines (Huang et al. 2006) whose output layer is solved from one Gram matrix.

Hidden layer H = g(s X W + b) with random, untrained W and b; only the output weights beta are learned, by least squares
with no penalty, ridge, lasso or elastic net. All four need nothing but H'H and H'Y, so the rows are read once, in blocks,
and a whole path of penalties costs little more than one fit.

Shape letters: n rows, p inputs, L hidden units, k outputs (classes), A alphas.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigh
from scipy.sparse import issparse
from scipy.special import expit, logsumexp
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from assignment1.features import SAVED
from common.cli import InputError
from common.run import atomic_path

Penalty = Literal["ridge", "lasso", "elasticnet"] | None
ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "tanh": lambda z: np.tanh(z, out=z),
    "relu": lambda z: np.maximum(z, 0, out=z),
    "sigmoid": lambda z: expit(z, out=z),
    "sign": lambda z: np.sign(z, out=z),
}


# ----------------------------------------------------------------------------------------------------------- the moments


@dataclasses.dataclass
class Moments:
    """Centred second moments of hidden activations H (n, L) and targets Y (n, k): all that the output layer needs.

    gram = sum (h - mean)(h - mean)' (L, L) and cross = sum (h - mean)(y - mean)' (L, k), float32 (or float64);
    means zero when there is no intercept.
    """

    n: int
    gram: np.ndarray
    cross: np.ndarray
    hidden_mean: np.ndarray
    target_mean: np.ndarray

    @classmethod
    def accumulate(
        cls, blocks: Iterable[tuple[np.ndarray, np.ndarray]], intercept: bool = True
    ) -> Moments:
        """Adds up row blocks (H_block (b, L), Y_block (b, k)); memory does not grow with the number of rows.

        Where a unit's mean is large beside its deviation, rows are shifted by the first block's mean before they are
        multiplied, so that float32 does not cancel. H_block may be overwritten.
        """
        n = 0
        gram: Any = None  # made to the measure of the first block
        for hidden, target in blocks:
            if gram is None:
                units, kind = hidden.shape[1], hidden.dtype
                gram, product = np.zeros((2, units, units), kind)
                sums = np.zeros((units, target.shape[1] + 1))
                target_sum, shift = np.zeros(target.shape[1]), np.zeros(units, kind)
                if intercept and (np.abs(hidden.mean(0)) > 3 * hidden.std(0)).any():
                    shift = hidden.mean(0)
            if shift.any():
                hidden -= shift
            # one BLAS for every product: numpy's and scipy's threads wait for each other's; H'H is done as half a product
            gram += np.matmul(hidden.T, hidden, out=product)
            sums += hidden.T @ np.column_stack([target, np.ones(len(target))]).astype(
                kind
            )  # H'Y, and H'1 beside it
            target_sum += target.sum(0)
            n += len(hidden)
        del product
        cross, hidden_sum = sums[:, :-1], sums[:, -1]
        if intercept:
            cross = cross - np.outer(hidden_sum, target_sum / n)
            for start in range(0, units, 1024):
                gram[start : start + 1024] -= np.outer(
                    hidden_sum[start : start + 1024], hidden_sum / n
                ).astype(kind)
        else:
            hidden_sum, target_sum = 0 * hidden_sum, 0 * target_sum
        return cls(
            n,
            gram,
            cross.astype(kind),
            (shift + hidden_sum / n).astype(kind),
            (target_sum / n).astype(kind),
        )

    def ridge(self, alpha: float) -> np.ndarray:
        """argmin |H beta - Y|^2 + alpha |beta|^2 (L, k), by Cholesky with one step of iterative refinement.

        The residual of the normal equations is checked; where float32 does not reach 1e-4 the matrix is solved in float64.
        """
        beta = np.zeros_like(self.cross)
        try:
            matrix = (
                self.gram.copy().T
            )  # Fortran order, as LAPACK wants it; the matrix is symmetric
            matrix[np.diag_indices_from(matrix)] += alpha
            factor = cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
            for _ in range(2):
                residual = self.cross - self._times(beta, alpha)
                beta += cho_solve(factor, residual, check_finite=False)
            error = np.linalg.norm(self.cross - self._times(beta, alpha))
            if error <= 1e-4 * np.linalg.norm(self.cross):
                return beta
        except np.linalg.LinAlgError:
            pass
        return self.ridge_path([alpha])[0]

    def _times(self, beta: np.ndarray, alpha: float) -> np.ndarray:
        return self.gram @ beta + self.gram.dtype.type(alpha) * beta

    def eigen(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues (L,) ascending and vectors (L, L) of the Gram matrix, float64."""
        return eigh(self.gram.astype(np.float64), overwrite_a=True, check_finite=False)

    def ridge_path(
        self,
        alphas: Sequence[float] | np.ndarray,
        eigen: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> np.ndarray:
        """Ridge solutions (A, L, k) for many alphas from one eigendecomposition; alpha = 0 is the minimum-norm solution."""
        values, vectors = eigen or self.eigen()
        rotated = vectors.T @ self.cross  # (L, k)
        # rounding of the accumulated sums: what lies below it is not signal and must not be divided by
        noise = values[-1] * len(values) * np.finfo(self.gram.dtype).eps
        path = np.empty((len(alphas), *self.cross.shape), self.gram.dtype)
        for row, alpha in enumerate(alphas):
            keep = values > (noise if alpha == 0 else -alpha)
            inverse = np.where(
                keep, 1 / np.where(keep, np.maximum(values, 0 if alpha else noise) + alpha, 1), 0
            )
            path[row] = vectors @ (inverse[:, None] * rotated)
        return path

    def minimum_norm(self) -> np.ndarray:
        """The least-squares solution of minimum norm (L, k), pinv(H) Y."""
        return self.ridge_path([0.0])[0]

    def elastic_net_path(
        self,
        alphas: Sequence[float] | np.ndarray,
        l1_ratio: float,
        eigen: tuple[np.ndarray, np.ndarray] | None = None,
        tolerance: float = 1e-3,
        max_rounds: int = 3000,
    ) -> np.ndarray:
        """argmin |H beta - Y|^2 / 2n + alpha (l1_ratio |beta|_1 + (1 - l1_ratio) |beta|^2 / 2) for many alphas: (A, L, k).

        ADMM (Boyd et al. 2011, section 6.4) on all alphas and outputs at once: in the eigenbasis of the Gram matrix each round
        is two matrix products, whatever the step size rho of each column, and columns leave as they converge.
        Warns (ConvergenceWarning) when a column does not reach the tolerance, relative change and gap, in `max_rounds`.
        """
        values, vectors = eigen or self.eigen()
        kind = (
            self.gram.dtype if len(values) <= 512 else np.float32
        )  # the tolerance is far above float32's rounding
        spectrum = (np.maximum(values, 0) / self.n).astype(kind)[:, None]
        vectors = vectors.astype(kind)
        outputs, columns = self.cross.shape[1], len(alphas) * self.cross.shape[1]
        target = np.tile(
            vectors.T @ (self.cross / self.n).astype(kind), (1, len(alphas))
        )  # (L, A k)
        weight = np.repeat(np.asarray(alphas, kind), outputs)
        rho = np.full(columns, max(np.median(spectrum), 1e-6 * spectrum[-1, 0]), kind)
        split, dual = np.zeros((2, len(values), columns), kind)
        solution, open_columns = np.zeros((len(values), columns), kind), np.arange(columns)
        for rounds in range(1, max_rounds + 1):
            rotated = vectors.T @ (split - dual)
            rotated = (rotated * rho + target) / (spectrum + (weight * (1 - l1_ratio) + rho))
            smooth = vectors @ rotated
            moved = 1.6 * smooth - 0.6 * split + dual  # over-relaxation, section 3.4.3
            before, threshold = split, weight * l1_ratio / rho
            split = np.maximum(moved - threshold, 0) + np.minimum(moved + threshold, 0)
            dual = moved - split
            if rounds % 10:
                continue
            size, tiny = np.linalg.norm(split, axis=0), 1e-12
            primal = np.where(
                size > 0,
                np.linalg.norm(smooth - split, axis=0) / np.maximum(size, tiny),
                np.abs(smooth).max(0) > 1e-6,
            )
            change = np.linalg.norm(split - before, axis=0) / np.maximum(
                np.linalg.norm(dual, axis=0), tiny
            )
            done = (primal < tolerance) & (change < tolerance)
            solution[:, open_columns[done]] = split[:, done]
            go_on = ~done
            open_columns, split, dual, target = (
                open_columns[go_on],
                split[:, go_on],
                dual[:, go_on],
                target[:, go_on],
            )
            rho, weight = rho[go_on], weight[go_on]
            balance = np.sqrt(
                np.maximum(primal[go_on], 1e-9) / np.maximum(change[go_on], 1e-9)
            ).clip(1 / 3, 3)
            balance = np.where(np.abs(np.log(balance)) > 0.26, balance, 1).astype(
                kind
            )  # section 3.4.1, on relative residuals
            rho, dual = rho * balance, dual / balance
            if not open_columns.size:
                break
        else:
            warnings.warn(
                f"{open_columns.size} of {columns} columns did not converge in {max_rounds} rounds",
                ConvergenceWarning,
                stacklevel=2,
            )
            solution[:, open_columns] = split
        return solution.reshape(len(values), len(alphas), outputs).transpose(1, 0, 2)

    def path(
        self,
        penalty: Penalty,
        alphas: Sequence[float] | np.ndarray,
        l1_ratio: float = 0.5,
        eigen: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> np.ndarray:
        """Output weights (A, L, k) of one penalty along `alphas` (no penalty: one entry, whatever they are)."""
        if penalty is None:
            return self.ridge_path([0.0], eigen)
        if penalty == "ridge":
            return self.ridge_path(alphas, eigen)
        return self.elastic_net_path(alphas, 1.0 if penalty == "lasso" else l1_ratio, eigen)

    def largest_alpha(self, l1_ratio: float = 1.0) -> float:
        """The smallest alpha at which every lasso or elastic-net weight is zero: max |H'Y| / (n l1_ratio)."""
        return float(np.abs(self.cross).max() / self.n / l1_ratio)


# --------------------------------------------------------------------------------------------------------- the estimator


def random_layer(kind: str, inputs: int, units: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """W float32 (p, L) and b (L,), standard normal or from {-1, +1}, drawn from the PCG64 stream of `seed`."""
    rng = np.random.default_rng(seed)
    if kind == "gaussian":
        return rng.standard_normal((inputs, units), dtype=np.float32), rng.standard_normal(
            units, dtype=np.float32
        )
    bits = np.unpackbits(np.frombuffer(rng.bytes(((inputs + 1) * units + 7) // 8), np.uint8))[
        : (inputs + 1) * units
    ]
    signs = np.where(bits, np.float32(1), np.float32(-1)).reshape(inputs + 1, units)
    return signs[:-1], signs[-1]


class ELMClassifier(ClassifierMixin, BaseEstimator):
    """Extreme learning machine (Huang, Zhu & Siew 2006): a random hidden layer and a linear least-squares output.

    Parameters
    ----------
    n_hidden : number L of hidden units.
    weights : "gaussian", N(0, 1), or "binary", {-1, +1}, for W and b.
    activation : "tanh" | "relu" | "sigmoid" | "sign".
    penalty : None (minimum-norm least squares) | "ridge" | "lasso" | "elasticnet" on the output weights.
    alpha, l1_ratio : strength and mix of the penalty, scaled as in sklearn.linear_model.Ridge, Lasso and ElasticNet.
    weight_scale : factor s on X W; None is 1 / sqrt(p), which keeps standardised inputs out of saturation; the course used 1.
    direct_links : also feed the inputs themselves to the output layer (random vector functional link, Pao et al. 1994).
    features : a transformer that is fitted first and applied block by block, so that wide features are never held whole.
    precision : of the moments; "auto" is that of X (float32 for features), and float64 where there is no penalty and the
        float32 Gram matrix cannot tell its small directions from rounding.
    temperature : predict_proba is softmax(decision_function / temperature); set it on held-out rows.
    block_rows : rows in memory at a time.

    Attributes
    ----------
    classes_ (k,), coef_ (L, k), intercept_ (k,), n_features_in_, seed_ (int, the hidden layer's).
    """

    def __init__(
        self,
        n_hidden: int = 1000,
        weights: Literal["gaussian", "binary"] = "gaussian",
        activation: str = "tanh",
        penalty: Penalty = None,
        alpha: float = 1.0,
        l1_ratio: float = 0.5,
        weight_scale: float | None = None,
        direct_links: bool = False,
        fit_intercept: bool = True,
        features: Any = None,
        precision: Literal["auto", "float64"] = "auto",
        temperature: float = 0.2,
        block_rows: int = 4096,
        random_state: Any = None,
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

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def fit(self, X: Any, y: Any) -> ELMClassifier:
        """Draws the hidden layer and solves the output layer. Raises ValueError for bad parameters or fewer than two classes."""
        return self.solve(self.accumulate(X, y))

    def accumulate(self, X: Any, y: Any) -> Moments:
        """Draws the hidden layer for X (n, p), y (n,) and returns the moments from which `solve` gets every penalty."""
        self._check_parameters()
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse="csr",
            dtype=None if self.features is not None else [np.float32, np.float64],
        )
        check_classification_targets(y)
        self.classes_, target = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"Classifier can't train when only one class is present: {self.classes_[0]!r}"
            )
        if isinstance(self.random_state, int | np.integer):
            self.seed_ = int(self.random_state)
        else:
            from sklearn.utils import check_random_state

            self.seed_ = int(check_random_state(self.random_state).randint(2**31 - 1))
        if self.features is not None:
            from sklearn.base import clone

            self.features_ = clone(self.features).fit(X, y)
        self._draw(self._inputs(X[:1]).shape[1])
        one_hot = np.eye(len(self.classes_))

        def moments(kind: type[np.floating]) -> Moments:
            blocks = (
                (hidden.astype(kind, copy=False), one_hot[target[rows]])
                for rows, hidden in self._blocks(X)
            )
            return Moments.accumulate(blocks, self.fit_intercept)

        if self.precision == "float64" or X.dtype == np.float64:
            return moments(np.float64)
        found = moments(np.float32)
        # without a penalty nothing damps the directions that float32 sums cannot tell from rounding
        return (
            moments(np.float64) if self.penalty is None and self._ill_conditioned(found) else found
        )

    def solve(self, moments: Moments) -> ELMClassifier:
        """Solves the output layer from moments under the present penalty, alpha and l1_ratio."""
        self._check_parameters()
        beta = (
            moments.ridge(self.alpha)
            if self.penalty == "ridge" and self.alpha > 0
            else moments.path(self.penalty, [self.alpha], self.l1_ratio)[0]
        )
        return self.set_output(moments, beta)

    def set_output(self, moments: Moments, beta: np.ndarray) -> ELMClassifier:
        """Takes output weights (L, k), such as one row of Moments.path."""
        self.coef_ = np.ascontiguousarray(beta)
        self.intercept_ = moments.target_mean - moments.hidden_mean @ beta
        return self

    def hidden(self, X: Any) -> np.ndarray:
        """Activations float32 (n, L) of all rows at once (with the inputs appended when there are direct links)."""
        check_is_fitted(self, "seed_")
        return np.concatenate([hidden.copy() for _, hidden in self._blocks(X)])

    def decision_function(self, X: Any) -> np.ndarray:
        """Scores float32 (n, k), or (n,) for two classes; about 1 for the class and 0 elsewhere."""
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: Any) -> np.ndarray:
        """Class of the largest score (n,)."""
        best = self._scores(X).argmax(1)
        return self.classes_[best]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities float32 (n, k): softmax of the scores over `temperature`."""
        scores = self._scores(X) / self.temperature
        scores = np.exp(scores - scores.max(1, keepdims=True))
        return scores / scores.sum(1, keepdims=True)

    def calibrate(self, X: Any, y: Any) -> ELMClassifier:
        """Sets `temperature` to the value of least log-loss on held-out rows X (n, p), y (n,) (Guo et al. 2017)."""
        scores, place = self._scores(X), np.searchsorted(self.classes_, y)
        grid = np.geomspace(0.02, 1, 40)
        losses = [
            (logsumexp(scores / t, axis=1) - scores[np.arange(len(place)), place] / t).mean()
            for t in grid
        ]
        return self.set_params(temperature=float(grid[int(np.argmin(losses))]))

    def _scores(self, X: Any) -> np.ndarray:
        check_is_fitted(self, "coef_")
        X = validate_data(
            self,
            X,
            accept_sparse="csr",
            dtype=None if self.features is not None else [np.float32, np.float64],
            reset=False,
        )
        return np.concatenate(
            [hidden @ self.coef_ + self.intercept_ for _, hidden in self._blocks(X)]
        )

    def _check_parameters(self) -> None:
        allowed = {
            "weights": ("gaussian", "binary"),
            "activation": tuple(ACTIVATIONS),
            "penalty": (None, "ridge", "lasso", "elasticnet"),
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ValueError(
                    f"{name}={getattr(self, name)!r}; allowed are {', '.join(map(repr, values))}"
                )
        if self.n_hidden < (0 if self.direct_links else 1):
            raise ValueError(
                f"n_hidden={self.n_hidden}; at least 1 is needed (0 with direct_links)"
            )
        if self.alpha < 0 or not 0 < self.l1_ratio <= 1:
            raise ValueError(
                f"alpha={self.alpha}, l1_ratio={self.l1_ratio}; alpha >= 0 and 0 < l1_ratio <= 1 are needed"
            )

    def _draw(self, inputs: int) -> None:
        self.n_inputs_ = inputs
        weight, self._bias = random_layer(self.weights, inputs, self.n_hidden, self.seed_)
        scale = inputs**-0.5 if self.weight_scale is None else self.weight_scale
        self._weight = weight if scale == 1 else weight * np.float32(scale)

    def _inputs(self, X: Any) -> Any:
        return (
            X
            if self.features is None
            else self.features_.transform(X).astype(np.float32, copy=False)
        )

    def _blocks(self, X: Any) -> Iterable[tuple[slice, np.ndarray]]:
        """Row blocks of activations (b, L); a block is overwritten by the next one."""
        room = None
        for start in range(0, X.shape[0], self.block_rows):
            rows = slice(start, start + self.block_rows)
            inputs = self._inputs(X[rows])
            weight = self._weight.astype(inputs.dtype, copy=False)
            if issparse(inputs):
                hidden = inputs @ weight
            else:
                room = (
                    np.empty((len(inputs), self.n_hidden), inputs.dtype) if room is None else room
                )
                hidden = np.matmul(inputs, weight, out=room[: len(inputs)])
            hidden += self._bias
            hidden = ACTIVATIONS[self.activation](hidden)
            if self.direct_links:
                hidden = np.concatenate(
                    [hidden, inputs.toarray() if issparse(inputs) else inputs], axis=1
                )
            yield rows, hidden

    @staticmethod
    def _ill_conditioned(moments: Moments) -> bool:
        diagonal = np.diag(moments.gram)
        if moments.n <= len(diagonal) or diagonal.min() <= 0:
            return True
        values = np.linalg.eigvalsh(moments.gram)
        return bool(values[0] < 1e-4 * values[-1])

    # -- a seed and beta

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: value
            for name, value in super().__getstate__().items()
            if name not in ("_weight", "_bias")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if hasattr(self, "seed_"):
            self._draw(self.n_inputs_)

    def save(self, path: Path) -> None:
        """Writes the fitted model as .npz: the seed of the hidden layer (as bits, for a small binary one), beta, and the
        features' arrays. Raises TypeError for features that have no `arrays` method."""
        check_is_fitted(self, "coef_")
        settings = {
            name: value
            for name, value in self.get_params(deep=False).items()
            if name not in ("features", "random_state")
        }
        facts = {
            "settings": settings,
            "seed": self.seed_,
            "inputs": self.n_inputs_,
            "columns": self.n_features_in_,
            "digest": self._digest(),
        }
        arrays = {"coef": self.coef_, "intercept": self.intercept_, "classes": self.classes_}
        if self.weights == "binary" and self._weight.size <= 2**22:
            arrays["bits"] = np.packbits(np.concatenate([self._weight.ravel(), self._bias]) > 0)
        if self.features is not None:
            if not hasattr(self.features_, "arrays"):
                raise TypeError(
                    f"{type(self.features_).__name__} cannot be saved here; fit it apart, in a Pipeline"
                )
            held = self.features_.arrays()
            facts["features"] = {
                "class": type(self.features_).__name__,
                "settings": held.pop("settings"),
            }
            arrays |= {f"features.{name}": array for name, array in held.items()}
        with atomic_path(path) as temporary:
            np.savez_compressed(temporary, facts=np.array(json.dumps(facts)), **arrays)

    @classmethod
    def load(cls, path: Path) -> ELMClassifier:
        """Reads what `save` wrote; predictions are the same to the bit. Raises InputError for anything else, also when this
        numpy draws other numbers from the seed than the one that saved it."""
        try:
            with np.load(path, allow_pickle=False) as archive:
                held = {name: archive[name] for name in archive.files}
            facts = json.loads(str(held.pop("facts")))
            model = cls(**facts["settings"], random_state=facts["seed"])
            model.seed_, model.n_features_in_ = facts["seed"], facts["columns"]
            model.coef_, model.intercept_, model.classes_ = (
                held["coef"],
                held["intercept"],
                held["classes"],
            )
            if "features" in facts:
                kind = SAVED[facts["features"]["class"]]
                inner = {
                    name.removeprefix("features."): array
                    for name, array in held.items()
                    if name.startswith("features.")
                }
                model.features = model.features_ = kind.from_arrays(
                    {"settings": facts["features"]["settings"], **inner}
                )
            model._draw(facts["inputs"])
            if "bits" in held:
                signs = np.where(
                    np.unpackbits(held["bits"])[: (facts["inputs"] + 1) * model.n_hidden],
                    np.float32(1),
                    np.float32(-1),
                )
                scale = np.abs(model._weight).max(initial=0)
                model._weight, model._bias = (
                    signs[: -model.n_hidden].reshape(model._weight.shape) * scale,
                    signs[-model.n_hidden :],
                )
        except Exception as error:
            raise InputError(f"{path}: not an ELM that assignment1 saved ({error})") from None
        if model._digest() != facts["digest"]:
            raise InputError(
                f"{path}: this version of numpy draws another hidden layer from the seed than the one that saved it"
            )
        return model

    def _digest(self) -> str:
        return hashlib.sha256(self._weight.tobytes() + self._bias.tobytes()).hexdigest()[:16]
