"""Features that images are compared in: an own small residual classifier, or Inception where its weights can be had.

Shape letters: B batch, S side, W width, F features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.cli import InputError
from common.run import Run, progress


class Unit(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut (He et al. 2016, pre-activation)."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(width)
        self.first = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.short = (
            nn.Conv2d(inputs, width, 1, stride, bias=False)
            if stride > 1 or inputs != width
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, S, S) -> (B, W, S / stride, S / stride)."""
        return self.short(x) + self.second(F.relu(self.norm2(self.first(F.relu(self.norm1(x))))))


class FeatureNet(nn.Module):
    """Residual classifier of images float (B, 3, S, S) in [0, 1]; its pooled last maps (B, 8 W) are the features."""

    def __init__(self, classes: int, width: int = 32, side: int = 32):
        super().__init__()
        self.classes, self.width, self.side = classes, width, side
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
        """(B, 3, S, S) in [0, 1] -> (B, 8 W)."""
        return F.relu(self.norm(self.units(self.stem((images - 0.5) / 0.25)))).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes)."""
        return self.head(self.features(images))

    @torch.inference_mode()
    def describe(self, pixels: np.ndarray, batch: int = 256) -> np.ndarray:
        """Features float64 (N, 8 W) of uint8 (N, S, S, 3)."""
        device = self.head.weight.device
        parts = [
            self.features(to_float(torch.from_numpy(pixels[at : at + batch]).to(device)))
            for at in range(0, len(pixels), batch)
        ]
        return torch.cat(parts).double().cpu().numpy()


def to_float(pixels: Tensor) -> Tensor:
    """uint8 (B, S, S, 3) -> float (B, 3, S, S) in [0, 1]."""
    return pixels.permute(0, 3, 1, 2).float() / 255


def quarter_turns(count: int, seed: int) -> np.ndarray:
    """Labels 0..3 for images without any: by how many quarter turns each will be turned (Gidaris et al. 2018)."""
    return np.random.default_rng((seed, 4)).integers(0, 4, count)


def turned(pixels: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """uint8 (N, S, S, 3), each turned by its number of quarter turns."""
    return (
        np.stack([np.rot90(image, turn) for image, turn in zip(pixels, turns, strict=True)])
        if len(pixels)
        else pixels
    )


def train_features(
    run: Run,
    pixels: np.ndarray,
    labels: np.ndarray | None,
    fit: np.ndarray,
    judge: np.ndarray,
    width: int,
    epochs: int,
    seed: int,
    device: str,
    bfloat16: bool,
) -> dict[str, Any]:
    """Trains on the rows `fit` (AdamW, one cycle, mirror images, shifts) -> {"weights", "accuracy" on the rows `judge`, "classes"}.

    Without labels the network learns by how many quarter turns an image was turned.
    """
    task = "classes" if labels is not None else "quarter turns"
    if labels is None:
        labels = quarter_turns(len(pixels), seed)
        pixels = turned(pixels, labels)
    torch.manual_seed(seed)
    classes, side = int(labels.max()) + 1, pixels.shape[1]
    model = FeatureNet(classes, width, side)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    batch = min(64, len(fit))
    per_epoch = -(-len(fit) // batch)
    total = epochs * per_epoch
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, max(total, 2))
    images, answers = torch.from_numpy(pixels), torch.from_numpy(labels)
    for step in progress(range(total), "feature network"):
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng((seed, epoch, 2)).permutation(fit)
        rows = torch.from_numpy(order[place * batch : (place + 1) * batch])
        rng = np.random.default_rng((seed, step, 3))
        batch_images = to_float(images[rows].to(device))
        if task == "classes" and rng.random() < 0.5:
            batch_images = batch_images.flip(3)
        reach = side // 8
        down, right = (int(shift) for shift in rng.integers(-reach, reach + 1, 2))
        batch_images = F.pad(batch_images, (reach,) * 4, mode="reflect")[
            :, :, reach + down : reach + down + side, reach + right : reach + right + side
        ]
        with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            loss = F.cross_entropy(
                model(batch_images.contiguous(memory_format=torch.channels_last)),
                answers[rows].to(device),
                label_smoothing=0.1,
            )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if (step + 1) % 20 == 0 or step + 1 == total:
            run.log(step + 1, epoch, "train", feature_loss=loss.item())
    model.eval()
    with torch.inference_mode():
        said = torch.cat(
            [
                model(to_float(images[part].to(device))).argmax(1).cpu()
                for part in torch.from_numpy(judge).split(256)
            ]
        )
    accuracy = float((said == answers[judge]).float().mean())
    return {
        "weights": model.state_dict(),
        "accuracy": accuracy,
        "classes": classes,
        "width": width,
        "side": side,
        "task": task,
    }


class Inception:
    """InceptionV3's 2,048 pooled features by torch-fidelity, whose weights it fetches once.

    Raises InputError where the package or its weights cannot be had.
    """

    def __init__(self, device: str):
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

            self.network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"]).to(device)
        except ImportError:
            raise InputError(
                "--inception: pip install torch-fidelity (and the torchvision that fits torch) first"
            ) from None
        except Exception as error:  # (a download can fail in many ways)
            raise InputError(
                f"--inception: the weights cannot be had ({type(error).__name__}: {error})"
            ) from None
        self.device = device

    @torch.inference_mode()
    def describe(self, pixels: np.ndarray, batch: int = 64) -> np.ndarray:
        """Features float64 (N, 2048) of uint8 (N, S, S, 3)."""
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        return (
            torch.cat([self.network(part.to(self.device))[0] for part in images.split(batch)])
            .double()
            .cpu()
            .numpy()
        )


def load_features(state: dict[str, Any], device: str) -> FeatureNet:
    """The network that `train_features` gave back, ready to describe."""
    model = FeatureNet(int(state["classes"]), int(state["width"]), int(state["side"]))
    model.load_state_dict(
        {name: torch.as_tensor(value) for name, value in state["weights"].items()}
    )
    return model.to(device).eval()
