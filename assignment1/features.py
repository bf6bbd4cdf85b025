"""Representations of a code map as scikit-learn transformers: look-up of the codes, and random receptive fields.

Shape letters: n rows, S side of a map, c channels, F maps, r side of a receptive field, q pooling grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted, validate_data


def principal_codes(
    codebook: np.ndarray, codes: np.ndarray, components: int | None, power: float
) -> np.ndarray:
    """The codebook (m, d) in its principal axes under the codes' frequencies: float32 (m, components).

    Axis i is divided by its standard deviation to the `power` (0 keeps the scale, 1 whitens): a VQ-VAE spends most of its
    codebook's variance on brightness, and what tells faces apart is small beside it.
    """
    share = np.bincount(codes.ravel().astype(np.int64), minlength=len(codebook)) / codes.size
    centred = codebook - share @ codebook
    variance, axes = np.linalg.eigh((centred * share[:, None]).T @ centred)
    order = np.argsort(variance)[::-1][:components]
    variance = np.maximum(variance[order], 1e-7 * variance.max())
    table = centred @ axes[:, order] * variance ** (-power / 2)
    return (table / np.sqrt((share @ table**2).mean())).astype(np.float32)


class Saved:
    """Writes a fitted transformer as plain arrays and settings, and reads it back (no pickle)."""

    n_features_in_: int  # of scikit-learn, as get_params
    get_params: Callable[..., dict[str, Any]]

    def arrays(self) -> dict[str, Any]:
        """{"settings": JSON values, name: array ...}: enough for `from_arrays`."""
        settings = {
            name: value
            for name, value in self.get_params(deep=False).items()
            if not isinstance(value, np.ndarray)
        }
        held: dict[str, Any] = {"settings": {**settings, "columns": self.n_features_in_}}
        for name, value in vars(self).items():
            if name.endswith("_") and isinstance(value, np.ndarray):
                held[name] = value
            elif name.endswith("_") and isinstance(value, list):
                held |= {f"{name}{number}": item for number, item in enumerate(value)}
        return held

    @classmethod
    def from_arrays(cls, held: dict[str, Any]) -> Any:
        """The fitted transformer again."""
        settings: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in held["settings"].items()
        }
        columns = settings.pop("columns")
        model = cls(**settings, **({"codebook": held["table_"]} if "table_" in held else {}))
        model.n_features_in_ = columns
        names = [name for name in held if name != "settings"]
        for name in names:
            if name.endswith("_"):
                setattr(model, name, held[name])
        for stem in {name.rstrip("0123456789") for name in names if not name.endswith("_")}:
            count = sum(name.rstrip("0123456789") == stem for name in names)
            setattr(model, stem, [held[f"{stem}{number}"] for number in range(count)])
        return model


class StandardisedIntegers(Saved, TransformerMixin, BaseEstimator):
    """Integers (n, P) column by column to mean 0 and variance 1, float32: the indices as if they were quantities, as the
    course used them. Attributes: mean_, scale_ (P,)."""

    def fit(self, X: np.ndarray, y: Any = None) -> StandardisedIntegers:
        X = validate_data(self, X, dtype=None)
        self.mean_ = X.mean(0, dtype=np.float64).astype(np.float32)
        spread = X.std(0, dtype=np.float64).astype(np.float32)
        self.scale_ = np.where(spread > 0, spread, 1).astype(np.float32)
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        check_is_fitted(self)
        return (validate_data(self, X, dtype=None, reset=False) - self.mean_) / self.scale_


class RawCodes(Saved, TransformerMixin, BaseEstimator):
    """Integers (n, P) as they are, for a network that looks them up itself."""

    def fit(self, X: np.ndarray, y: Any = None) -> RawCodes:
        validate_data(self, X, dtype=None)
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        return validate_data(self, X, dtype=None, reset=False)


class OneHotCodes(Saved, TransformerMixin, BaseEstimator):
    """Integers (n, P) in 0..m-1 -> sparse float32 (n, P m), one 1 a place."""

    def __init__(self, codes: int = 256):
        self.codes = codes

    def fit(self, X: np.ndarray, y: Any = None) -> OneHotCodes:
        check_codes(self, X, self.codes)
        self.places_ = np.arange(X.shape[1]) * self.codes
        return self

    def transform(self, X: np.ndarray) -> csr_array:
        check_is_fitted(self)
        X = check_codes(self, X, self.codes, reset=False)
        pointers = np.arange(0, X.size + 1, X.shape[1])
        return csr_array(
            (np.ones(X.size, np.float32), (X + self.places_).ravel(), pointers),
            shape=(len(X), X.shape[1] * self.codes),
        )


class CodebookLookup(Saved, TransformerMixin, BaseEstimator):
    """Integers (n, P) in 0..m-1 -> the codes they stand for, float32 (n, P * components), standardised by principal_codes.

    Attributes: table_ float32 (m, components).
    """

    def __init__(
        self, codebook: np.ndarray | None = None, components: int | None = 16, power: float = 0.5
    ):
        self.codebook = codebook
        self.components = components
        self.power = power

    def fit(self, X: np.ndarray, y: Any = None) -> CodebookLookup:
        if self.codebook is None:
            raise ValueError("codebook=None; the vectors that the codes stand for are needed")
        X = check_codes(self, X, len(self.codebook))
        self.table_ = principal_codes(self.codebook, X, self.components, self.power)
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        check_is_fitted(self)
        X = check_codes(self, X, len(self.table_), reset=False)
        return self.table_[X].reshape(len(X), -1)


def check_codes(estimator: BaseEstimator, X: np.ndarray, m: int, reset: bool = True) -> np.ndarray:
    """X as an index array int64 (n, P). Raises ValueError for values that are not whole numbers in 0..m-1."""
    X = validate_data(estimator, X, dtype=None, reset=reset)
    if X.dtype.kind not in "iu" and not np.array_equal(X, np.floor(X)):
        raise ValueError("code indices must be whole numbers")
    if X.size and (X.min() < 0 or X.max() >= m):
        raise ValueError(f"code indices {X.min()}..{X.max()}; allowed are 0..{m - 1}")
    return X.astype(np.int64)


class RandomReceptiveFields(Saved, TransformerMixin, BaseEstimator):
    """Random local filters, rectified and average-pooled: ELM-LRF (Huang et al. 2015) with the receptive fields of
    McDonnell et al. (2015).

    Parameters
    ----------
    codebook : (m, d) to look codes up in, X then being indices (n, S * S); None when X is a picture, pixels (n, S * S).
    components, power : the look-up, as in principal_codes.
    sizes, maps : side of the receptive fields and how many of each side. stride : step between them.
    pool : grid q x q over which the rectified responses are averaged.
    weights : "gaussian" for real-valued filters, "binary" for filters in {-1, +1}.
    filters : "patches" takes a filter from a random place of a random training row (its signs, for binary weights),
        "noise" draws it from N(0, 1) or {-1, +1}.
    mirror : average the features with those of the mirror image. X then holds the mirror image's codes behind the
        codes, (n, 2 S S); pictures are flipped here.

    Each response is standardised over the places of a sample before it is rectified, each feature after it is pooled.
    Attributes: filters_ (list of float32 (F, c, r, r)), offsets_ (list of (F,)), mean_, scale_ (n_features,).
    """

    def __init__(
        self,
        codebook: np.ndarray | None = None,
        components: int = 8,
        power: float = 0.5,
        sizes: tuple[int, ...] = (3, 5, 7),
        maps: int = 50,
        stride: int = 1,
        pool: int = 4,
        weights: Literal["gaussian", "binary"] = "gaussian",
        filters: Literal["patches", "noise"] = "patches",
        mirror: bool = False,
        sample: int = 1500,
        random_state: int = 0,
    ):
        self.codebook = codebook
        self.components = components
        self.power = power
        self.sizes = sizes
        self.maps = maps
        self.stride = stride
        self.pool = pool
        self.weights = weights
        self.filters = filters
        self.mirror = mirror
        self.sample = sample
        self.random_state = random_state

    def fit(self, X: np.ndarray, y: Any = None) -> RandomReceptiveFields:
        """Draws the filters and measures their responses on a sample of X; nothing is trained. Raises ValueError for bad X."""
        for name, allowed in (
            ("weights", ("gaussian", "binary")),
            ("filters", ("patches", "noise")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name}={getattr(self, name)!r}; allowed are {', '.join(allowed)}"
                )
        X = validate_data(self, X, dtype=None)
        rng = np.random.default_rng(self.random_state)
        rows = X[np.sort(rng.choice(len(X), min(self.sample, len(X)), replace=False))]
        if self.codebook is not None:
            side = self._side(X.shape[1])
            codes = check_codes(self, X, len(self.codebook), reset=False)[:, : side * side]
            self.table_ = principal_codes(self.codebook, codes, self.components, self.power)
        maps, self.filters_, self.offsets_ = self._maps(rows)[0], [], []
        for size in self.sizes:
            patches = (
                F.unfold(maps, size, stride=2).transpose(1, 2).flatten(0, 1)
            )  # (places, c r r)
            patches = patches[
                torch.from_numpy(rng.choice(len(patches), min(20000, len(patches)), replace=False))
            ]
            if self.filters == "patches":
                draw = patches[torch.from_numpy(rng.integers(len(patches), size=self.maps))]
                draw = draw - draw.mean(1, keepdim=True)
            else:
                draw = torch.from_numpy(
                    rng.standard_normal((self.maps, patches.shape[1]), dtype=np.float32)
                )
            if self.weights == "binary":
                draw = torch.where(draw >= 0, 1.0, -1.0)
            response = patches @ draw.T
            scale = response.std(0).clamp(min=1e-6)
            self.filters_.append((draw / scale[:, None]).reshape(self.maps, -1, size, size).numpy())
            self.offsets_.append((-response.mean(0) / scale).numpy())
        self.mean_, self.scale_ = np.float32(0), np.float32(1)
        features = self._features(rows)
        self.mean_, self.scale_ = features.mean(0), features.std(0) + np.float32(1e-4)
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Features float32 (n, len(sizes) * maps * pool * pool)."""
        check_is_fitted(self, "scale_")
        X = validate_data(self, X, dtype=None, reset=False)
        if self.codebook is not None:
            X = check_codes(self, X, len(self.table_), reset=False)
        return np.concatenate(
            [self._features(X[start : start + 256]) for start in range(0, len(X), 256)]
        )

    def _side(self, columns: int) -> int:
        side = round((columns / (2 if self.mirror and self.codebook is not None else 1)) ** 0.5)
        if side * side * (2 if self.mirror and self.codebook is not None else 1) != columns:
            raise ValueError(
                f"{columns} columns are not a square map{' and its mirror' if self.mirror else ''}"
            )
        return side

    def _maps(self, X: np.ndarray) -> list[torch.Tensor]:
        """The map of each row, and of its mirror image: float32 (n, c, S, S)."""
        side = self._side(X.shape[1])
        if self.codebook is None:
            picture = contrast_normalised(
                torch.from_numpy(X.astype(np.float32)).reshape(-1, 1, side, side)
            )
            return [picture, picture.flip(3)] if self.mirror else [picture]
        parts = np.split(X, 2, axis=1) if self.mirror else [X]
        tables = [
            torch.from_numpy(self.table_[part.astype(np.int64)]) for part in parts
        ]  # (n, S S, c)
        return [table.transpose(1, 2).reshape(len(X), -1, side, side) for table in tables]

    @torch.no_grad()
    def _features(self, X: np.ndarray) -> np.ndarray:
        total = torch.zeros(())
        views = self._maps(X)
        for view in views:
            pooled = []
            for filters, offsets in zip(self.filters_, self.offsets_, strict=True):
                # fields that are large beside the map would leave few places: pad so that about S / stride remain
                padding = max(0, filters.shape[2] // 2 - (0 if self.codebook is not None else 4))
                response = F.conv2d(
                    view,
                    torch.from_numpy(filters),
                    torch.from_numpy(offsets),
                    stride=self.stride,
                    padding=padding,
                )
                pooled.append(
                    F.adaptive_avg_pool2d(response.relu_(), self.pool).flatten(1)
                )  # (n, F q q)
            total = total + torch.cat(pooled, 1) / len(views)
        return (total.numpy() - self.mean_) / self.scale_


def contrast_normalised(pictures: torch.Tensor, window: int = 9) -> torch.Tensor:
    """Local contrast normalisation (Jarrett et al. 2009) of (n, 1, S, S): minus the local mean, over the local deviation,
    after each picture has been brought to mean 0 and variance 1."""
    pictures = pictures - pictures.mean((1, 2, 3), keepdim=True)
    pictures = pictures / pictures.std((1, 2, 3), keepdim=True).clamp(min=1e-3)
    centred = pictures - F.avg_pool2d(pictures, window, 1, window // 2, count_include_pad=False)
    deviation = F.avg_pool2d(
        centred.square(), window, 1, window // 2, count_include_pad=False
    ).sqrt()
    return centred / (deviation + 0.5)


class SideBySide(TransformerMixin, BaseEstimator):
    """Transformers side by side, each on its own columns of X; unlike scikit-learn's ColumnTransformer it is saved without pickle.

    `parts` is a list of (transformer, first column, last column + 1).
    """

    def __init__(self, parts: Sequence[tuple[Any, int, int]] = ()):
        self.parts = parts

    def fit(self, X: np.ndarray, y: Any = None) -> SideBySide:
        self.n_features_in_ = X.shape[1]
        self.parts_ = [
            (clone(part).fit(X[:, first:last], y), first, last) for part, first, last in self.parts
        ]
        return self

    def transform(self, X: np.ndarray) -> Any:
        check_is_fitted(self)
        features = [part.transform(X[:, first:last]) for part, first, last in self.parts_]
        return features[0] if len(features) == 1 else np.concatenate(features, axis=1)

    def arrays(self) -> dict[str, Any]:
        """As Saved.arrays, the parts numbered."""
        held: dict[str, Any] = {"settings": {"columns": self.n_features_in_, "parts": []}}
        for number, (part, first, last) in enumerate(self.parts_):
            inner = part.arrays()
            held["settings"]["parts"].append(
                [type(part).__name__, inner.pop("settings"), first, last]
            )
            held |= {f"{number}.{name}": array for name, array in inner.items()}
        return held

    @classmethod
    def from_arrays(cls, held: dict[str, Any]) -> SideBySide:
        """The fitted transformer again."""
        parts = []
        for number, (kind, settings, first, last) in enumerate(held["settings"]["parts"]):
            inner = {
                name.removeprefix(f"{number}."): array
                for name, array in held.items()
                if name.startswith(f"{number}.")
            }
            parts.append((SAVED[kind].from_arrays({"settings": settings, **inner}), first, last))
        model = cls(parts)
        model.parts_, model.n_features_in_ = parts, held["settings"]["columns"]
        return model


SAVED = {
    kind.__name__: kind
    for kind in (
        RawCodes,
        StandardisedIntegers,
        OneHotCodes,
        CodebookLookup,
        RandomReceptiveFields,
        SideBySide,
    )
}
