"""Random whitened patches of a picture as the hidden layer of an ELM.

The recipe of single-layer networks for small pictures: patches that are brought to mean 0 and
variance 1 and whitened (Coates, Ng and Lee 2011), filters that are drawn from them and never
trained, a threshold on both sides (Coates and Ng 2011), means over a coarse grid. With a linear
read-out it is what Bergstra and Cox (2013) classified faces of FER-2013 with.

Shape letters: n rows, V views, S side of a picture, F filters, r side of a patch, q pooling grid,
D = 2 F q q features.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from assignment1.saving import Saved

ROWS_AT_ONCE = 256
PICTURES_AT_ONCE = 16  # through the filters: the responses stay in the cache
SAMPLE_STRIDE = 3  # between the patches that are whitened by
PATCHES = 60_000  # of them
WHITENING = 0.1  # added to the variance of each axis (epsilon of ZCA)
CONTRAST = 0.1  # added to the variance of a patch
FLOOR = 1e-3  # below which a picture has no contrast, and a feature no scale


class Whitening(NamedTuple):
    """ZCA: (patches - mean) @ matrix has about unit covariance; mean (p,), matrix (p, p)."""

    mean: Tensor
    matrix: Tensor

    @classmethod
    def of(cls, patches: Tensor) -> Whitening:
        """The whitening of patches (n, p)."""
        variance, axes = torch.linalg.eigh(torch.cov(patches.T))
        matrix = (axes * (variance + WHITENING).rsqrt()) @ axes.T
        return cls(patches.mean(0), matrix)

    def __call__(self, patches: Tensor) -> Tensor:
        return (patches - self.mean) @ self.matrix


class WhitenedPatches(Saved, TransformerMixin, BaseEstimator):
    """Pictures (n, V S S) -> thresholded responses to random patches, pooled: float32 (n, V D).

    Parameters
    ----------
    filters, size, stride : how many random patches, their side, and the step between responses.
    threshold : t of max(0, z - t) and max(0, -z - t), for responses z of variance 1.
    pool : grid q x q over whose cells both are averaged.
    weights : "gaussian" for patches as they are, "binary" for their signs, {-1, +1}.
    views : pictures in a row of X; each has its features, in the same order.
    sample : training rows that the whitening and the filters are drawn from, and features
        standardised by.

    The features of a picture are averaged with those of its mirror image. `fit` looks at the first
    view alone. Attributes: filters_ float32 (F, 1, r, r), offsets_ (F,), mean_, scale_ (D,).
    """

    def __init__(
        self,
        filters: int = 150,
        size: int = 6,
        stride: int = 2,
        threshold: float = 0.5,
        pool: int = 4,
        weights: Literal["gaussian", "binary"] = "gaussian",
        views: int = 1,
        sample: int = 3000,
        random_state: int = 0,
    ):
        self.filters = filters
        self.size = size
        self.stride = stride
        self.threshold = threshold
        self.pool = pool
        self.weights = weights
        self.views = views
        self.sample = sample
        self.random_state = random_state

    def fit(self, X: np.ndarray, y: np.ndarray | None = None) -> WhitenedPatches:
        """Draws the filters from a sample of X and standardises by it; nothing is trained.

        Raises ValueError for bad parameters or rows that are no square pictures.
        """
        if self.weights not in ("gaussian", "binary"):
            raise ValueError(f"weights={self.weights!r}; allowed are gaussian, binary")
        X = validate_data(self, X, dtype=None)
        rng = np.random.default_rng(self.random_state)
        chosen = rng.choice(len(X), min(self.sample, len(X)), replace=False)
        pictures = self._pictures(X[np.sort(chosen)])[:, 0]  # (n, 1, S, S)

        # patches of mean 0 and variance 1, and their whitening
        patches = F.unfold(pictures, self.size, stride=SAMPLE_STRIDE)  # (n, r r, places)
        patches = patches.transpose(1, 2).flatten(0, 1)  # (n places, r r)
        count = min(PATCHES, len(patches))
        patches = patches[torch.from_numpy(rng.choice(len(patches), count, replace=False))]
        patches = patches - patches.mean(1, keepdim=True)
        patches = patches * (patches.var(1, keepdim=True) + CONTRAST).rsqrt()
        whitening = Whitening.of(patches)
        whitened = whitening(patches)

        # filters: whitened patches at random, for responses of variance 1
        drawn = whitened[torch.from_numpy(rng.integers(count, size=self.filters))]  # (F, r r)
        if self.weights == "binary":
            drawn = torch.where(drawn >= 0, 1.0, -1.0)
        drawn = drawn / (whitened @ drawn.T).std(0).clamp(min=FLOOR)[:, None]

        # the whitening and the mean of a patch are linear, so the filters take them over
        filters = drawn @ whitening.matrix
        offsets = -filters @ whitening.mean
        filters = filters - filters.mean(1, keepdim=True)
        self.filters_ = filters.reshape(-1, 1, self.size, self.size).numpy()
        self.offsets_ = offsets.numpy()

        features = self._features(pictures)
        self.mean_ = features.mean(0)
        self.scale_ = features.std(0) + np.float32(FLOOR)
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Standardised features float32 (n, V D)."""
        check_is_fitted(self, "scale_")
        X = validate_data(self, X, dtype=None, reset=False)
        result = np.empty((len(X), self.views * len(self.scale_)), np.float32)
        for start in range(0, len(X), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            pictures = self._pictures(X[rows]).flatten(0, 1)  # (b V, 1, S, S)
            features = (self._features(pictures) - self.mean_) / self.scale_  # (b V, D)
            result[rows] = features.reshape(-1, result.shape[1])
        return result

    def _pictures(self, X: np.ndarray) -> Tensor:
        """The views of the rows: float32 (n, V, 1, S, S), every picture of mean 0, variance 1."""
        side = round((X.shape[1] / self.views) ** 0.5)
        if side * side * self.views != X.shape[1]:
            raise ValueError(f"{X.shape[1]} columns are not {self.views} square pictures")
        pixels = torch.from_numpy(np.ascontiguousarray(X)).float()
        pixels = pixels.reshape(len(X), self.views, 1, side, side)
        pixels = pixels - pixels.mean((3, 4), keepdim=True)
        return pixels / pixels.std((3, 4), keepdim=True).clamp(min=FLOOR)

    @torch.no_grad()
    def _features(self, pictures: Tensor) -> np.ndarray:
        """Features (n, D) of pictures (n, 1, S, S), not yet standardised."""
        blocks = []
        for block in pictures.split(PICTURES_AT_ONCE):
            both = torch.cat([block, block.flip(3)])
            pooled = self._pooled(both)  # (2 n, D)
            blocks.append((pooled[: len(block)] + pooled[len(block) :]) / 2)
        return torch.cat(blocks).numpy()

    def _pooled(self, pictures: Tensor) -> Tensor:
        """Thresholded and pooled responses (n, D) of pictures (n, 1, S, S)."""
        # the filters of a place stand side by side in memory: pooling is twice as fast
        filters = torch.from_numpy(self.filters_).to(memory_format=torch.channels_last)
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        response = F.conv2d(pictures, filters, stride=self.stride)

        # over the deviation of the patch under each response
        squares = F.avg_pool2d(pictures.square(), self.size, self.stride)
        means = F.avg_pool2d(pictures, self.size, self.stride)
        pixels = self.size**2
        variance = (squares - means.square()).clamp(min=0) * (pixels / (pixels - 1))
        response *= (variance + CONTRAST).rsqrt()  # (n, F, places, places)
        response += torch.from_numpy(self.offsets_)[:, None, None]

        # max(0, z - t) is max(z, t) - t, and max(0, -z - t) is -min(z, -t) - t
        above = F.adaptive_avg_pool2d(response.clamp(min=self.threshold), self.pool)
        below = F.adaptive_avg_pool2d(response.clamp_(max=-self.threshold), self.pool)
        pooled = torch.cat([above, -below], 1) - self.threshold  # (n, 2 F, q, q)
        return pooled.contiguous().flatten(1)
