"""Assignment 5: DDIM diffusion (Song et al. 2021) with a Transformer of 12 heads and 8 layers in place of the U-Net.

    python assignment5/train.py                                  # Oxford Flowers 102 where it is found, else drawn flowers; 32 x 32
    python assignment5/train.py --preset full --source flowers   # 64 x 64, 50 epochs, both networks, both recipes: wants a GPU
    torchrun --nproc_per_node=4 assignment5/train.py --preset full --source flowers

Two recipes for each of the two networks: "as assigned" is Keras' example with nothing but the network changed, "tuned" is what
`ablate.py` chose on the validation part. Ten minutes on two cores for the default; sampled images, KID and the report land in results/.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from assignment5 import data
from assignment5.diffusion import Diffusion, Target
from assignment5.features import Inception, load_features, to_float, train_features
from assignment5.figures import draw_figures
from assignment5.models import NETWORKS, build, largest_part, save_model, variant
from assignment5.protocols import METRICS_INFO, distances, evaluate_all, pictures, print_table, validation_error
from common.cli import BaseConfig, InputError, entry, parse
from common.parallel import Follower, World
from common.report import compile_report
from common.run import Run, choose_device, plain, progress, tensors, write_arrays

HERE = Path(__file__).resolve().parent


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
    skips: bool = True
    """long skips from its first half to its second (U-ViT)"""
    ends: Literal["linear", "convolution"] = "linear"
    """its first and last layers: patches by one affine map, or 3 x 3 convolutions around them"""
    unet_widths: tuple[int, ...] = (32, 64, 96, 128)
    """widths of the U-Net's levels"""

    target: Target = "noise"
    """what the network predicts"""
    error: Literal["mae", "mse"] = "mae"
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
    steps: tuple[int, ...] = (5, 20)
    """DDIM steps that every network is scored at on the test part"""
    sweep: tuple[int, ...] = (5, 10)
    """network evaluations that every sampler is scored at on the validation part"""
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
                      "samples": 24, "feature_width": 8, "sweep": (3,), "steps": (2, 3), "feature_epochs": 1, "recipes": ("tuned", "as assigned")},
            "full": {"side": 64, "width": 384, "epochs": 50, "samples": 1024, "sweep": (3, 5, 7, 10, 15, 20, 50), "feature_epochs": 30, "recipes": ("tuned", "as assigned")},
        }  # fmt: skip


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
        shown = torch.where((mirrored & config.flips)[:, None, None, None], shown.flip(3), shown).contiguous(
            memory_format=torch.channels_last
        )
        with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            loss = learner(shown, noises, times, config.error, config.min_snr).mean() / config.accumulate
        loss.backward()
        return loss.detach()

    done = first
    with run.stoppable(lambda: save(done)) as stop_here:
        for now in progress(range(first, total), name):
            model.train()
            rows, *drawn = data.draws(config.seed, now, config.batch, len(pixels), config.side, device)
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


def main(config: Config) -> dict[str, Any]:
    # data: checked before anything is written
    images = data.load(config.source, config.data, config.side, config.synthetic_images, config.seed)
    parts = data.split(len(images), config.seed)
    if len(parts.train) < config.batch:
        raise InputError(
            f"{len(images)} images leave {len(parts.train)} to train on, fewer than --batch {config.batch}; give more images or a smaller batch"
        )
    device, can_bfloat16 = choose_device(config.device)
    bfloat16 = can_bfloat16 if config.precision == "auto" else config.precision == "bfloat16"
    names = {(network, recipe): f"{network}, {recipe}" for recipe in config.recipes for network in NETWORKS}
    for network, recipe in names:
        build(variant(config, recipe), network)  # sizes that do not fit are refused here
    pixels, judged, unseen = (images.pixels[rows] for rows in (parts.train, parts.validation, parts.test))
    folder = config.out or HERE / "results" / f"{images.source}-{config.preset}"
    world = World.join(device)
    world.share(config.batch, config.accumulate)

    def train_all(run: Run | Follower) -> dict[tuple[str, str], dict[str, Any]]:
        return {key: run.memo(name, lambda key=key, name=name: train(variant(config, key[1]), run, name, key[0], pixels, judged, device, bfloat16, world))
                for key, name in names.items()}  # fmt: skip

    if world.rank:  # the first process writes; the others only help it train
        train_all(Follower(folder))
        world.leave()
        return {}
    inception = [("Inception", Inception(device).describe)] if config.inception else []
    with Run(config, folder, __file__, images.source, images.provenance) as run:
        run.note(device=device, bfloat16=bfloat16, processes=world.size, split={name: len(rows) for name, rows in vars(parts).items()})
        if notice := images.provenance.get("notice"):
            print(f"notice: {notice}", file=sys.stderr)

        # models: both networks by every recipe, the same images in the same order
        trained = train_all(run)
        world.leave()
        models: dict[tuple[str, str], Diffusion] = {}
        for key in names:
            models[key] = build(variant(config, key[1]), key[0]).to(device, memory_format=torch.channels_last)
            models[key].load_state_dict(tensors(trained[key]["weights"]))

        # evaluation: samplers on validation, then every network on the test part, once
        state = run.memo("features", lambda: train_features(run, images.pixels, images.labels, parts.train, parts.validation, config.feature_width,
                                                            config.feature_epochs, config.seed, device, bfloat16))  # fmt: skip
        run.note(features={key: state[key] for key in ("task", "classes", "accuracy", "width")})
        describers = [("own network", load_features(tensors(state), device).describe), *inception]
        table = run.memo("scores", lambda: {"rows": evaluate_all(config, models, trained, describers, pixels, judged, unseen, bfloat16)})[
            "rows"
        ]
        table.append({"protocol": "held-out", "split": "validation", "model": "feature network", "variant": state["task"], "metric": "feature_accuracy",
                      "value": state["accuracy"], "n_seeds": 1})  # fmt: skip

        # record
        save_model(
            folder / "features.safetensors", state["weights"], {key: state[key] for key in ("classes", "width", "side", "task", "accuracy")}
        )
        for (network, recipe), model in models.items():
            if recipe == config.recipes[0]:
                save_model(folder / f"model.{network}.safetensors", model.state_dict(), {"network": network, "recipe": recipe, "bfloat16": bfloat16,
                                                                                    "config": plain(variant(config, recipe))}, half=True)  # fmt: skip
        write_arrays(folder / "pictures.npz", **pictures(models, config.side, bfloat16))
        write_arrays(folder / "distances.npz", **distances(models, describers[0][1], pixels, unseen, bfloat16))
        results = run.finish(table, METRICS_INFO)
        draw_figures(folder)
        compile_report(folder, HERE / "report.typ", folder / "report.pdf")
    print_table(results, folder)
    return results


if __name__ == "__main__":
    entry(lambda: main(parse(Config)))
