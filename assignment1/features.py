"""Representations of a code map as scikit-learn transformers: look-up, random receptive fields.

Shape letters: n rows, P places of a map, S side of a map, c channels, m codebook size, d code
dimension, F maps, r side of a receptive field, q pooling grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol, Self, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from assignment1.patches import WhitenedPatches
from assignment1.saving import Arrays, Saved
from common.files import JsonObject

Matrix: TypeAlias = np.ndarray | csr_array

ROWS_AT_ONCE = 256  # through the convolutions
PATCHES = 20_000  # patches of the sample that filters are drawn from and standardised by
PATCH_STRIDE = 2  # between the patches of a sample
PICTURE_PLACES = 4  # places that a field larger than the picture's margin may lose at each side


class Transformer(Protocol):
    """A scikit-learn transformer."""

    def fit(self, X: np.ndarray, y: np.ndarray | None = None) -> Self: ...

    def transform(self, X: np.ndarray) -> Matrix: ...


class SavedTransformer(Transformer, Protocol):
    """A transformer that can be written without pickle."""

    def to_file(self) -> tuple[JsonObject, Arrays]: ...

    @classmethod
    def from_file(cls, settings: JsonObject, arrays: Arrays) -> Self: ...


def principal_codes(
    codebook: np.ndarray, codes: np.ndarray, components: int | None, power: float
) -> np.ndarray:
    """The codebook (m, d) in its principal axes under the codes' frequencies: (m, components).

    Axis i is divided by its standard deviation to the `power` (0 keeps the scale, 1 whitens): a
    VQ-VAE spends most of its codebook's variance on brightness, and what distinguishes faces is
    small beside it. Returns float32.
    """
    share = np.bincount(codes.ravel().astype(np.int64), minlength=len(codebook)) / codes.size
    centred = codebook - share @ codebook
    variance, axes = np.linalg.eigh((centred * share[:, None]).T @ centred)
    order = np.argsort(variance)[::-1][:components]
    variance = np.maximum(variance[order], 1e-7 * variance.max())
    table = centred @ axes[:, order] * variance ** (-power / 2)  # (m, components)
    return (table / np.sqrt((share @ table**2).mean())).astype(np.float32)


def check_codes(estimator: BaseEstimator, X: Matrix, m: int, reset: bool = True) -> np.ndarray:
    """X as an index array int64 (n, P); raises ValueError unless all are whole and in 0..m-1."""
    X = validate_data(estimator, X, dtype=None, reset=reset)
    if X.dtype.kind not in "iu" and not np.array_equal(X, np.floor(X)):
        raise ValueError("code indices must be whole numbers")
    if X.size and (X.min() < 0 or X.max() >= m):
        raise ValueError(f"code indices {X.min()}..{X.max()}; allowed are 0..{m - 1}")
    return X.astype(np.int64)


# ------------------------------------------------------------------------------ transformers


class StandardisedIntegers(Saved, TransformerMixin, BaseEstimator):
    """Integers (n, P) column by column to mean 0 and variance 1, float32.

    The indices as if they were quantities, as the course used them. Attributes: mean_, scale_ (P,).
    """

    def fit(self, X: np.ndarray, y: np.ndarray | None = None) -> StandardisedIntegers:
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

    def fit(self, X: np.ndarray, y: np.ndarray | None = None) -> RawCodes:
        validate_data(self, X, dtype=None)
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        return validate_data(self, X, dtype=None, reset=False)


class OneHotCodes(Saved, TransformerMixin, BaseEstimator):
    """Integers (n, P) in 0..m-1 -> sparse float32 (n, P m), one 1 per place."""

    def __init__(self, codes: int = 256):
        self.codes = codes

    def fit(self, X: np.ndarray, y: np.ndarray | None = None) -> OneHotCodes:
        check_codes(self, X, self.codes)
        self.places_ = np.arange(X.shape[1]) * self.codes
        return self

    def transform(self, X: np.ndarray) -> csr_array:
        check_is_fitted(self)
        X = check_codes(self, X, self.codes, reset=False)
        ones = np.ones(X.size, np.float32)
        columns = (X + self.places_).ravel()
        pointers = np.arange(0, X.size + 1, X.shape[1])
        return csr_array((ones, columns, pointers), shape=(len(X), X.shape[1] * self.codes))


class CodebookLookup(Saved, TransformerMixin, BaseEstimator):
    """Integers (n, P) in 0..m-1 -> the codes they stand for, float32 (n, P * components).

    The codes are standardised by principal_codes. Attributes: table_ float32 (m, components).
    """

    def __init__(
        self, codebook: np.ndarray | None = None, components: int | None = 16, power: float = 0.5
    ):
        self.codebook = codebook
        self.components = components
        self.power = power

    def fit(self, X: np.ndarray, y: np.ndarray | None = None) -> CodebookLookup:
        if self.codebook is None:
            raise ValueError("codebook=None; the vectors that the codes stand for are needed")
        X = check_codes(self, X, len(self.codebook))
        self.table_ = principal_codes(self.codebook, X, self.components, self.power)
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        check_is_fitted(self)
        X = check_codes(self, X, len(self.table_), reset=False)
        return self.table_[X].reshape(len(X), -1)


class RandomReceptiveFields(Saved, TransformerMixin, BaseEstimator):
    """Random local filters, rectified and average-pooled.

    ELM-LRF (Huang et al. 2015) with the receptive fields of McDonnell et al. (2015): a filter is a
    random patch of a random training row, less its mean.

    Parameters
    ----------
    codebook : (m, d) to look codes up in, X then being indices (n, S S); None when X is a picture,
        pixels (n, S S).
    components, power : the look-up, as in principal_codes.
    sizes, maps : side of the receptive fields and how many of each side.
    stride : step between them.
    pool : grid q x q over which the rectified responses are averaged.
    weights : "gaussian" for real-valued filters, "binary" for their signs, {-1, +1}.
    mirror : average the features with those of the mirror image. X then holds the mirror image's
        codes behind the codes, (n, 2 S S); pictures are flipped here.
    sample : training rows that filters are drawn from and features standardised by.

    Each response is standardised over the places of a sample before it is rectified, each feature
    after it is pooled. Attributes: filters_ (list of float32 (F, c, r, r)), offsets_ (list of
    (F,)), mean_, scale_ (n_features,).
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
        self.mirror = mirror
        self.sample = sample
        self.random_state = random_state

    def fit(self, X: np.ndarray, y: np.ndarray | None = None) -> RandomReceptiveFields:
        """Draws the filters and measures their responses on a sample of X; nothing is trained.

        Raises ValueError for bad parameters or a bad X.
        """
        if self.weights not in ("gaussian", "binary"):
            raise ValueError(f"weights={self.weights!r}; allowed are gaussian, binary")
        X = validate_data(self, X, dtype=None)
        rng = np.random.default_rng(self.random_state)
        chosen = rng.choice(len(X), min(self.sample, len(X)), replace=False)
        rows = X[np.sort(chosen)]

        if self.codebook is not None:
            side = self._side(X.shape[1])
            codes = check_codes(self, X, len(self.codebook), reset=False)[:, : side * side]
            self.table_ = principal_codes(self.codebook, codes, self.components, self.power)

        maps = self._maps(rows)[0]
        self.filters_: list[np.ndarray] = []
        self.offsets_: list[np.ndarray] = []
        for size in self.sizes:
            filters, offsets = self._draw_filters(maps, size, rng)
            self.filters_.append(filters)
            self.offsets_.append(offsets)

        features = self._pooled(rows)
        self.mean_ = features.mean(0)
        self.scale_ = features.std(0) + np.float32(1e-4)
        return self

    def _draw_filters(
        self, maps: Tensor, size: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Filters (F, c, r, r) and offsets (F,) that standardise the responses to the maps."""
        patches = F.unfold(maps, size, stride=PATCH_STRIDE)  # (n, c r r, places)
        patches = patches.transpose(1, 2).flatten(0, 1)  # (n places, c r r)
        count = min(PATCHES, len(patches))
        patches = patches[torch.from_numpy(rng.choice(len(patches), count, replace=False))]

        drawn = patches[torch.from_numpy(rng.integers(len(patches), size=self.maps))]  # (F, c r r)
        drawn = drawn - drawn.mean(1, keepdim=True)
        if self.weights == "binary":
            drawn = torch.where(drawn >= 0, 1.0, -1.0)

        response = patches @ drawn.T  # (places, F)
        scale = response.std(0).clamp(min=1e-6)
        filters = (drawn / scale[:, None]).reshape(self.maps, -1, size, size)
        return filters.numpy(), (-response.mean(0) / scale).numpy()

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Features float32 (n, len(sizes) * maps * pool * pool)."""
        check_is_fitted(self, "scale_")
        X = validate_data(self, X, dtype=None, reset=False)
        if self.codebook is not None:
            X = check_codes(self, X, len(self.table_), reset=False)
        starts = range(0, len(X), ROWS_AT_ONCE)
        blocks = [self._pooled(X[start : start + ROWS_AT_ONCE]) for start in starts]
        return np.concatenate([(block - self.mean_) / self.scale_ for block in blocks])

    def _side(self, columns: int) -> int:
        """Side S of the map in so many columns. Raises ValueError where they are no square map."""
        views = 2 if self.mirror and self.codebook is not None else 1
        side = round((columns / views) ** 0.5)
        if side * side * views != columns:
            mirror = " and its mirror" if self.mirror else ""
            raise ValueError(f"{columns} columns are not a square map{mirror}")
        return side

    def _maps(self, X: np.ndarray) -> list[Tensor]:
        """The map of each row, and of its mirror image: float32 (n, c, S, S)."""
        side = self._side(X.shape[1])
        if self.codebook is None:
            pixels = torch.from_numpy(X.astype(np.float32))
            picture = contrast_normalised(pixels.reshape(-1, 1, side, side))
            return [picture, picture.flip(3)] if self.mirror else [picture]
        maps = []
        for codes in np.split(X, 2, axis=1) if self.mirror else [X]:
            vectors = torch.from_numpy(self.table_[codes.astype(np.int64)])  # (n, S S, c)
            maps.append(vectors.transpose(1, 2).reshape(len(X), -1, side, side))  # (n, c, S, S)
        return maps

    @torch.no_grad()
    def _pooled(self, X: np.ndarray) -> np.ndarray:
        """Rectified and pooled responses, averaged over the views, not yet standardised."""
        views = self._maps(X)
        total = torch.zeros(())
        for view in views:
            pooled = []
            for filters, offsets in zip(self.filters_, self.offsets_, strict=True):
                # a field that is large beside the map would leave few places:
                # pad so that about S / stride remain
                lost = 0 if self.codebook is not None else PICTURE_PLACES
                response = F.conv2d(
                    view,
                    torch.from_numpy(filters),
                    torch.from_numpy(offsets),
                    stride=self.stride,
                    padding=max(0, filters.shape[2] // 2 - lost),
                )
                means = F.adaptive_avg_pool2d(response.relu_(), self.pool)  # (n, F, q, q)
                pooled.append(means.flatten(1))  # (n, F q q)
            total = total + torch.cat(pooled, 1) / len(views)
        return total.numpy()

    @classmethod
    def from_file(cls, settings: JsonObject, arrays: Arrays) -> Self:
        """The fitted transformer again; older files also name where the filters came from."""
        known = {name: value for name, value in settings.items() if name != "filters"}
        return super().from_file(known, arrays)


def contrast_normalised(pictures: Tensor, window: int = 9) -> Tensor:
    """Local contrast normalisation (Jarrett et al. 2009) of pictures (n, 1, S, S).

    Minus the local mean, over the local deviation, after each picture has been brought to mean 0
    and variance 1.
    """

    def local_mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, window, 1, window // 2, count_include_pad=False)

    pictures = pictures - pictures.mean((1, 2, 3), keepdim=True)
    pictures = pictures / pictures.std((1, 2, 3), keepdim=True).clamp(min=1e-3)
    centred = pictures - local_mean(pictures)
    deviation = local_mean(centred.square()).sqrt()
    return centred / (deviation + 0.5)


# ------------------------------------------------------------------------------ side by side


class Part(NamedTuple):
    """A transformer and the columns of X that it is given: from `first` up to, without, `last`."""

    transformer: SavedTransformer
    first: int
    last: int


class SideBySide(TransformerMixin, BaseEstimator):
    """Transformers side by side, each on its own columns of X.

    Unlike scikit-learn's ColumnTransformer it is saved without pickle.
    """

    def __init__(self, parts: Sequence[Part] = ()):
        self.parts = parts

    def fit(self, X: np.ndarray, y: np.ndarray | None = None) -> SideBySide:
        self.n_features_in_ = X.shape[1]
        self.parts_ = [
            Part(clone(transformer).fit(X[:, first:last], y), first, last)
            for transformer, first, last in self.parts
        ]
        return self

    def transform(self, X: np.ndarray) -> Matrix:
        check_is_fitted(self)
        features = [
            transformer.transform(X[:, first:last]) for transformer, first, last in self.parts_
        ]
        return features[0] if len(features) == 1 else np.concatenate(features, axis=1)

    def to_file(self) -> tuple[JsonObject, Arrays]:
        """Settings and arrays of all parts, the arrays numbered by part."""
        written = []
        arrays: Arrays = {}
        for number, (transformer, first, last) in enumerate(self.parts_):
            settings, part_arrays = transformer.to_file()
            written.append([type(transformer).__name__, settings, first, last])
            arrays |= {f"{number}.{name}": array for name, array in part_arrays.items()}
        return {"columns": self.n_features_in_, "parts": written}, arrays

    @classmethod
    def from_file(cls, settings: JsonObject, arrays: Arrays) -> SideBySide:
        """The fitted transformer again."""
        parts = []
        for number, (kind, part_settings, first, last) in enumerate(settings["parts"]):
            part_arrays = without_prefix(arrays, f"{number}.")
            transformer = SAVED[kind].from_file(part_settings, part_arrays)
            parts.append(Part(transformer, first, last))
        model = cls(parts)
        model.parts_ = parts
        model.n_features_in_ = settings["columns"]
        return model


# -------------------------------------------------------------------------------------- files

SAVED: dict[str, type[SavedTransformer]] = {
    kind.__name__: kind
    for kind in (
        WhitenedPatches,
        RawCodes,
        StandardisedIntegers,
        OneHotCodes,
        CodebookLookup,
        RandomReceptiveFields,
        SideBySide,
    )
}


def features_to_file(features: object) -> tuple[JsonObject, Arrays]:
    """What a classifier's file holds of its fitted features: JSON values, and named arrays.

    Raises TypeError for a transformer that is not of this module.
    """
    name = type(features).__name__
    if not isinstance(features, Saved | SideBySide):
        raise TypeError(f"{name} cannot be saved here; fit it apart, in a Pipeline")
    settings, arrays = features.to_file()
    named = {f"features.{key}": array for key, array in arrays.items()}
    return {"class": name, "settings": settings}, named


def features_from_file(about: JsonObject, arrays: Mapping[str, np.ndarray]) -> SavedTransformer:
    """The fitted features that features_to_file wrote, from all arrays of a classifier's file."""
    kind = SAVED[about["class"]]
    return kind.from_file(about["settings"], without_prefix(arrays, "features."))


def without_prefix(arrays: Mapping[str, np.ndarray], prefix: str) -> Arrays:
    """The arrays whose names begin with the prefix, named without it."""
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
