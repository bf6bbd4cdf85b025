"""Assignment 5: DDIM diffusion (Song et al. 2021) with a Transformer of 12 heads and 8 layers in place of the U-Net.

    python assignment5/train.py                                  # Oxford Flowers 102 where it is found, else drawn flowers; 32 x 32
    python assignment5/train.py --preset full --source flowers   # 64 x 64, 50 epochs, both networks, both recipes: wants a GPU
    torchrun --nproc_per_node=4 assignment5/train.py --preset full --source flowers

Two recipes for each of the two networks: "as assigned" is Keras' example with nothing but the network changed, "tuned" is what
`ablate.py` chose on the validation part. Ten minutes on two cores for the default; sampled images, KID and the report land in results/.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from assignment5.diffusion import Diffusion, Schedule, Target, separate
from assignment5.dit import DiT
from assignment5.features import to_float
from assignment5.unet import UNet
from common.cli import BaseConfig, InputError
from common.parallel import Follower, World
from common.run import Run, progress, tensors

HERE = Path(__file__).resolve().parent
NETWORKS = ("Transformer", "U-Net")


@dataclasses.dataclass(frozen=True)
class Config(BaseConfig):
    """Assignment 5: DDIM with a Transformer; the defaults are the tuned recipe."""

    source: Literal["auto", "flowers", "folder", "synthetic"] = "auto"
    """where the images come from; auto: --data, else flowers in the data folder, else the built-in drawn sample"""
    seed: int = 0
    """of the split, the weights and every draw in training"""
    seeds: int = 5
    """how many sets of noise are sampled for every score"""
    synthetic_images: int = 4000
    """how many flowers the built-in sample has"""
    side: int = 32
    """pixels on a side"""
    recipes: tuple[Literal["tuned", "as assigned"], ...] = ("tuned",)
    """which recipes are trained, each with both networks"""

    patch: int = 4
    """pixels on a side of a patch"""
    width: int = 192
    """width of the Transformer, a multiple of the heads"""
    depth: int = 8
    """its blocks"""
    heads: int = 12
    """its attention heads"""
    conditioning: Literal["adaln", "token"] = "adaln"
    """how it learns the noise level: adaLN-Zero, or one more token"""
    skips: bool = False
    """long skips from its first half to its second (U-ViT)"""
    ends: Literal["linear", "convolution"] = "convolution"
    """its first and last layers: patches by one affine map, or 3 x 3 convolutions around them"""
    unet_widths: tuple[int, ...] = (32, 64, 96, 128)
    """widths of the U-Net's levels"""

    target: Target = "velocity"
    """what the network predicts"""
    error: Literal["mae", "mse"] = "mse"
    """of that prediction"""
    min_snr: float = 0.0
    """gamma of Min-SNR weighting; 0: none"""
    min_signal: float = 0.02
    """signal rate at t = 1"""
    max_signal: float = 0.95
    """signal rate at t = 0"""

    batch: int = 64
    """images in a step, over all processes"""
    accumulate: int = 1
    """parts that a step is computed in, for small memories"""
    epochs: int = 1
    """an epoch is --repeats passes over the training part"""
    repeats: int = 5
    """passes in an epoch"""
    lr: float = 1e-3
    """peak learning rate (AdamW)"""
    weight_decay: float = 1e-4
    """AdamW's weight decay"""
    warmup: int = 250
    """steps of linear warm-up"""
    decay: bool = True
    """the learning rate falls to zero on a cosine"""
    flips: bool = True
    """mirror half of the images"""
    ema: float = 0.999
    """decay of the averaged weights that sample, min(ema, (1 + step) / (10 + step))"""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """arithmetic of training; auto: bfloat16 where the processor has it"""

    samples: int = 512
    """images sampled for a score, a set of noise"""
    feature_width: int = 32
    """first width of the own feature network"""
    feature_epochs: int = 6
    """its passes over the training part"""
    inception: bool = False
    """score in Inception's features too (pip install torch-fidelity; fetches its weights)"""

    @classmethod
    def presets(cls) -> dict[str, dict[str, Any]]:
        return {
            "smoke": {"synthetic_images": 160, "side": 16, "width": 48, "unet_widths": (8, 16), "batch": 16, "epochs": 1, "repeats": 2, "warmup": 5, "seeds": 2,
                      "samples": 24, "feature_width": 8, "feature_epochs": 1, "recipes": ("tuned", "as assigned")},
            "full": {"side": 64, "width": 384, "epochs": 50, "samples": 1024, "feature_epochs": 30, "recipes": ("tuned", "as assigned")},
        }  # fmt: skip


# Keras' example (peers: max 0.95, MAE on the noise, AdamW 1e-3 and 1e-4, no augmentation), and a plain ViT as the network
ASSIGNED = {"conditioning": "token", "skips": False, "ends": "linear", "target": "noise", "error": "mae", "min_snr": 0.0, "min_signal": 0.02, "max_signal": 0.95,
            "batch": 64, "lr": 1e-3, "weight_decay": 1e-4, "warmup": 0, "decay": False, "flips": False, "ema": 0.999}  # fmt: skip


def variant(config: Config, recipe: str) -> Config:
    """The config that a recipe trains with."""
    return dataclasses.replace(config, **ASSIGNED) if recipe == "as assigned" else config


def build(config: Config, network: str) -> Diffusion:
    """A fresh "Transformer" or "U-Net" in its diffusion. Raises InputError for sizes that do not fit."""
    if network == "U-Net":
        inner: nn.Module = UNet(config.side, config.unet_widths)
    else:
        inner = DiT(config.side, config.patch, config.width, config.depth, config.heads, config.conditioning, config.skips, config.ends)
    return Diffusion(inner, Schedule(config.min_signal, config.max_signal), config.target)


def draws(config: Config, step: int, count: int, device: str) -> tuple[np.ndarray, Tensor, Tensor, Tensor]:
    """Rows (B,) in 0..count-1, mirrored or not (B,), times (B,), noises (B, 3, S, S) of one step: functions of (seed, step) alone,
    whatever the number of processes and parts, so a resumed or a divided training is the same training."""
    places = step * config.batch + np.arange(config.batch)
    passes = {number: np.random.default_rng((config.seed, number)).permutation(count) for number in np.unique(places // count)}
    rows = np.array([passes[place // count][place % count] for place in places])
    generator = torch.Generator(device).manual_seed(config.seed * 10_000_019 + step)
    mirrored = (torch.rand(config.batch, generator=generator, device=device) < 0.5) & config.flips
    times = torch.rand(config.batch, generator=generator, device=device)
    return rows, mirrored, times, torch.randn((config.batch, 3, config.side, config.side), generator=generator, device=device)


def largest_part(attempt: Any, batch: int) -> int:
    """The largest half, quarter, ... of a batch that `attempt(size)` has the memory for; 0 where none."""
    for size in itertools.takewhile(bool, (batch >> halving for halving in range(1, batch.bit_length()))):
        try:
            attempt(size)
            return size
        except torch.OutOfMemoryError:
            continue
    return 0


def train(config: Config, run: Run | Follower, name: str, network: str, pixels: np.ndarray, judge: np.ndarray, device: str, bfloat16: bool,
          world: World = World()) -> dict[str, Any]:  # fmt: skip  # noqa: B008 (frozen)
    """Trains on uint8 (N, S, S, 3) -> {"weights": the averaged weights, "seconds", "images"}; `judge` are the validation images."""
    start, before = time.perf_counter(), 0.0
    torch.manual_seed(config.seed)
    model = build(config, network)
    model.mean.copy_(torch.from_numpy(pixels.mean((0, 1, 2)) / 255))
    model.std.copy_(torch.from_numpy((pixels / 255).std((0, 1, 2))))
    model.to(device, memory_format=torch.channels_last)
    averaged = build(config, network).to(device, memory_format=torch.channels_last).requires_grad_(False)
    averaged.load_state_dict(model.state_dict())
    average, current = ([value for value in net.state_dict().values() if value.is_floating_point()] for net in (averaged, model))
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
    images, parts = torch.from_numpy(pixels).to(device), world.share(config.batch, config.accumulate)
    per_epoch = max(config.repeats * len(pixels) // config.batch, 1)
    total, first = config.epochs * per_epoch, 0

    def save(step: int) -> None:
        run.save(name, {"step": step, "seconds": before + time.perf_counter() - start, "model": model.state_dict(), "averaged": averaged.state_dict(),
                        "optimiser": optimiser.state_dict()})  # fmt: skip

    if kept := run.load(name):
        first, before = kept["step"], kept["seconds"]
        model.load_state_dict(tensors(kept["model"]))
        averaged.load_state_dict(tensors(kept["averaged"]))
        optimiser.load_state_dict(tensors(kept["optimiser"]))
    learner: nn.Module = torch.compile(model) if device == "cuda" else model
    if world.size > 1:
        learner = nn.SyncBatchNorm.convert_sync_batchnorm(learner) if device == "cuda" else learner
        learner = nn.parallel.DistributedDataParallel(learner, broadcast_buffers=False)

    def backward(rows: Tensor, mirrored: Tensor, times: Tensor, noises: Tensor) -> Tensor:
        shown = to_float(images[rows])
        shown = torch.where(mirrored[:, None, None, None], shown.flip(3), shown).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            loss = learner(shown, noises, times, config.error, config.min_snr).mean() / config.accumulate
        loss.backward()
        return loss.detach()

    now = first
    with run.stoppable(lambda: save(now)) as stop_here:
        for now in progress(range(first, total), name):
            model.train()
            rows, *drawn = draws(config, now, len(pixels), device)
            chosen, loss = torch.from_numpy(rows).to(device), torch.zeros((), device=device)
            fall = (1 + np.cos(np.pi * now / total)) / 2 if config.decay else 1.0
            for group in optimiser.param_groups:
                group["lr"] = config.lr * fall * min(1, (now + 1) / max(config.warmup, 1))
            try:
                for part in parts:
                    learner.require_backward_grad_sync = part is parts[-1]  # (DistributedDataParallel's own switch)
                    loss += backward(chosen[part], *(value[part] for value in drawn))
            except torch.OutOfMemoryError:
                fits = largest_part(lambda size, all=(chosen, *drawn): backward(*(value[:size] for value in all)), len(chosen[parts[0]]))
                advice = (
                    f"parts of {fits} would fit: --accumulate {config.batch // fits // world.size}" if fits else "not even one image fits"
                )
                raise InputError(
                    f"--batch {config.batch}: the device has not enough memory for {len(chosen[parts[0]])} images at once; {advice}"
                ) from None
            optimiser.step()
            optimiser.zero_grad()
            torch._foreach_lerp_(average, current, 1 - min(config.ema, (1 + now) / (10 + now)))
            done = now + 1
            if done % 10 == 0 or done == total:  # (a look at the loss waits for the device)
                stop_here(done, float(loss))
            if done % 100 == 0 or done == total:
                run.log(done, now // per_epoch, "train", **{f"loss, {name}": float(loss)})
            if done % 1000 == 0 or done == total:
                run.log(done, done // per_epoch, "validation", **{f"noise error, {name}": validation_error(averaged, judge, device)})
                save(done)
    weights = {key: value.half().float() if value.is_floating_point() else value for key, value in averaged.state_dict().items()}
    return {"weights": weights, "seconds": before + time.perf_counter() - start, "images": total * config.batch}


@torch.inference_mode()
def validation_error(model: Diffusion, pixels: np.ndarray, device: str) -> float:
    """Mean absolute error of the noise in images uint8 (N, S, S, 3), whatever the network predicts: fixed noises, times spread over [0, 1]."""
    model.eval()
    generator, each = torch.Generator().manual_seed(0), []
    for part in torch.from_numpy(pixels).split(256):
        x0 = model.normalise(to_float(part.to(device)))
        noises = torch.randn(x0.shape, generator=generator).to(device)
        signal, noise = model.schedule.rates(torch.rand((len(part), 1, 1, 1), generator=generator).to(device))
        x = signal * x0 + noise * noises
        told = separate(model.target, x, model.network(x, noise.flatten() ** 2), signal, noise)[1]
        each.append((told - noises).abs().mean((1, 2, 3)).cpu())
    return float(torch.cat(each).mean())
