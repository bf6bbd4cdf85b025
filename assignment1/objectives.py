"""What the reconstruction of a VQ-VAE is measured by, none of it with a label.

Every measure but the first is (1 - s) P + s mean_i |T_i(y) - T_i(x)|^2 / V_i: P is the mean squared
error of the pixels, T_i are maps of a picture, V_i the variance of T_i(x) about its channels' means
over the batch. The best constant map has an error of 1, as the best constant picture has in
standardised pixels, so every measure has the scale of P and the commitment term keeps its weight. A
share of P stays, because some T are blind to brightness, which a picture needs all the same.

Shape letters: B batch, C channels of a map, H W image side or side of a map, d code dimension, h w
code side, k classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assignment1.config import CodesConfig
from assignment1.variants import CONTRAST, FEATURES, GRADIENTS
from assignment1.vqvae import VQVAE
from common.imagenet import FeatureNet, feature_net

WINDOW = 9  # side of the square that local contrast is taken over
CONTRAST_FLOOR = 0.05  # added to the variance in it; standardised pixels have variance 1
SMALLEST = 1e-6  # below which a variance or a squared norm counts as none
FEATURE_STAGES = 3  # of the ImageNet network, to an eighth of the side
HEAD_WIDTH = 64  # channels of the classifier that sees labels
HEAD_SIDE = 3  # places a side that its last layer reads

Maps = Callable[[Tensor], list[Tensor]]


@dataclass(frozen=True)
class Objective:
    """A measure of decoded against true pixels: `share` of it is the error of `maps`."""

    share: float
    maps: Maps

    def __call__(self, decoded: Tensor, pixels: Tensor) -> Tensor:
        """The error () of decoded against standardised pixels, both float32 (B, 1, H, W)."""
        error = F.mse_loss(decoded, pixels)
        if self.share == 0:
            return error
        with torch.no_grad():
            wanted = self.maps(pixels)
        pairs = zip(self.maps(decoded), wanted, strict=True)
        unexplained = torch.stack([unexplained_variance(*pair) for pair in pairs])
        return (1 - self.share) * error + self.share * unexplained.mean()


def unexplained_variance(found: Tensor, wanted: Tensor) -> Tensor:
    """Squared error of maps (B, C, H, W) over the variance of the wanted ones: ().

    The variance is that about each channel's mean; the error of those means is 1.
    """
    variance = wanted.var((0, 2, 3), correction=0).mean()
    return F.mse_loss(found, wanted) / variance.clamp(min=SMALLEST)


def new_objective(name: str, config: CodesConfig, vqvae: VQVAE) -> Objective:
    """The measure of an objective by name; labels and pixels share one.

    Raises InputError where the ImageNet weights are not installed.
    """
    if name == CONTRAST:
        return Objective(config.contrast_share, local_contrast)
    if name == GRADIENTS:
        return Objective(config.gradients_share, differences)
    if name == FEATURES:
        net = feature_net(vqvae.mean.device.type)
        return Objective(config.features_share, PerceptualMaps(net, vqvae, config.feature_side))
    return Objective(0, lambda pixels: [])


# --------------------------------------------------------------------------------------- maps


def local_contrast(pixels: Tensor) -> list[Tensor]:
    """(x - m) / sqrt(v + floor), m and v mean and variance in a square around each pixel.

    Jarrett et al. 2009, "What is the best multi-stage architecture for object recognition?",
    section 2.1, with a square in place of a Gaussian window; beyond the edge there is nothing.
    """
    mean = local_mean(pixels)
    variance = (local_mean(pixels.square()) - mean.square()).clamp(min=0)
    return [(pixels - mean) * (variance + CONTRAST_FLOOR).rsqrt()]


def local_mean(pixels: Tensor) -> Tensor:
    """The mean of the pixels (B, 1, H, W) in a square around each."""
    return F.avg_pool2d(pixels, WINDOW, 1, WINDOW // 2, count_include_pad=False)


def differences(pixels: Tensor) -> list[Tensor]:
    """Horizontal (B, 1, H, W - 1) and vertical (B, 1, H - 1, W) differences of neighbours.

    After Mathieu et al. 2016, "Deep multi-scale video prediction beyond mean square error", arXiv
    1511.05440, eq. 6, but signed, and squared afterwards.
    """
    return [pixels.diff(dim=3), pixels.diff(dim=2)]


@dataclass(frozen=True)
class PerceptualMaps:
    """Early feature maps of a frozen ImageNet network, every place divided by its norm.

    Johnson et al. 2016, "Perceptual losses", arXiv 1603.08155, eq. 2; with the unit norm of Zhang
    et al. 2018, "The unreasonable effectiveness of deep features", arXiv 1801.03924, eq. 1, without
    their learnt weights.
    """

    net: FeatureNet
    vqvae: VQVAE  # whose standardisation is undone
    side: int

    def __call__(self, pixels: Tensor) -> list[Tensor]:
        levels = pixels * self.vqvae.std + self.vqvae.mean
        found = self.net.maps(levels, FEATURE_STAGES, self.side)
        return [m * (m.square().sum(1, keepdim=True) + SMALLEST).rsqrt() for m in found]


# ------------------------------------------------------------------------------------- labels


def label_head(code_dim: int, classes: int) -> nn.Sequential:
    """A small classifier of quantised codes (B, d, h, w): logits (B, k)."""
    return nn.Sequential(
        nn.Conv2d(code_dim, HEAD_WIDTH, 3, stride=2, padding=1),  # (B, width, h/2, w/2)
        nn.ReLU(),
        nn.Conv2d(HEAD_WIDTH, HEAD_WIDTH, 3, stride=2, padding=1),  # (B, width, h/4, w/4)
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(HEAD_SIDE),
        nn.Flatten(),
        nn.Linear(HEAD_WIDTH * HEAD_SIDE**2, classes),
    )
