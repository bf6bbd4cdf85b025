"""Assignment 5: DDIM diffusion (Song et al. 2021) with a Transformer of 12 heads and 8 layers in place of the U-Net.

    python assignment5/train.py                                  # Oxford Flowers 102 where it is found, else drawn flowers; 32 x 32
    python assignment5/train.py --preset full --source flowers   # 64 x 64, 50 epochs, both networks, both recipes: wants a GPU
    torchrun --nproc_per_node=4 assignment5/train.py --preset full --source flowers

"as assigned" is Keras' example with nothing but the network changed, "tuned" is what `ablate.py` chose on validation; ten minutes on two cores.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from assignment5 import data
from assignment5.config import Config, variant
from assignment5.features import Inception, load_features, to_float, train_features
from assignment5.figures import draw_figures
from assignment5.models import NETWORKS, build, filled, largest_part, too_large
from assignment5.protocols import (
    METRICS_INFO,
    Describe,
    accuracy_row,
    distances,
    evaluate_all,
    evaluate_times,
    pictures,
    print_table,
    validation_error,
)
from common.cli import InputError, entry, parse
from common.parallel import Follower, World
from common.report import compile_report
from common.run import Run, choose_device, plain, progress, tensors, write_arrays
from common.weights import save_model

HERE = Path(__file__).resolve().parent
ALONE = World()


def train(
    config: Config,
    run: Run | Follower,
    name: str,
    network: str,
    pixels: np.ndarray,
    judge: np.ndarray,
    device: str,
    bfloat16: bool,
    world: World = ALONE,
) -> dict[str, Any]:
    """Trains on uint8 (N, S, S, 3) -> {"weights": the averaged weights, "seconds", "images"}; `judge` are the validation images."""
    start, before = time.perf_counter(), 0.0
    torch.manual_seed(config.seed)
    model = build(config, network)
    if world.size > 1 and device == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    model.mean.copy_(torch.from_numpy(pixels.mean((0, 1, 2)) / 255))
    model.std.copy_(torch.from_numpy((pixels / 255).std((0, 1, 2))))
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    averaged = build(config, network).requires_grad_(False)
    averaged.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    averaged.load_state_dict(model.state_dict())
    average, current = (
        [value for value in net.state_dict().values() if value.is_floating_point()]
        for net in (averaged, model)
    )
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True
    )
    images, parts = (
        torch.from_numpy(pixels).to(device),
        world.share(config.batch, config.accumulate),
    )
    per_epoch = max(config.repeats * len(pixels) // config.batch, 1)
    total, done = config.epochs * per_epoch, 0

    def save() -> None:
        run.save(
            name,
            {
                "step": done,
                "seconds": before + time.perf_counter() - start,
                "model": model.state_dict(),
                "averaged": averaged.state_dict(),
                "optimiser": optimiser.state_dict(),
            },
        )

    if kept := run.load(name):
        done, before = kept["step"], kept["seconds"]
        model.load_state_dict(tensors(kept["model"]))
        averaged.load_state_dict(tensors(kept["averaged"]))
        optimiser.load_state_dict(tensors(kept["optimiser"]))
    learner: Any = torch.compile(model) if device == "cuda" else model
    if world.size > 1:
        learner = nn.parallel.DistributedDataParallel(learner, forward_sync_buffers=False)

    def backward(rows: Tensor, mirrored: Tensor, times: Tensor, noises: Tensor) -> Tensor:
        shown = to_float(images[rows])
        shown = torch.where((mirrored & config.flips)[:, None, None, None], shown.flip(3), shown)
        shown = shown.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            loss = (
                learner(shown, noises, times, config.error, config.min_snr).mean()
                / config.accumulate
            )
        loss.backward()
        return loss.detach()

    with run.stoppable(save) as stop_here:
        for now in progress(range(done, total), name):
            model.train()
            rows, *drawn = data.draws(
                config.seed, now, config.batch, len(pixels), config.side, device
            )
            chosen, loss = torch.from_numpy(rows).to(device), torch.zeros((), device=device)
            for group in optimiser.param_groups:
                group["lr"] = (
                    config.lr
                    * min(1, (now + 1) / max(config.warmup, 1))
                    * ((1 + np.cos(np.pi * now / total)) / 2 if config.decay else 1)
                )
            try:
                for part in parts:
                    learner.require_backward_grad_sync = (
                        part is parts[-1]
                    )  # (DistributedDataParallel's own switch)
                    loss += backward(chosen[part], *(value[part] for value in drawn))
            except torch.OutOfMemoryError:
                most = len(chosen[parts[0]])
                fits = largest_part(
                    lambda size, all=(chosen, *drawn): backward(*(value[:size] for value in all)),
                    most,
                )
                raise too_large(config.batch, most, fits, world.size) from None
            optimiser.step()
            optimiser.zero_grad()
            torch._foreach_lerp_(average, current, 1 - min(config.ema, (1 + now) / (10 + now)))
            done = now + 1
            if done % 10 == 0 or done == total:  # (a look at the loss waits for the device)
                stop_here(done, float(loss))
            if done % 100 == 0 or done == total:
                run.log(done, now // per_epoch, "train", **{f"loss, {name}": float(loss)})
            if done % 1000 == 0 or done == total:
                run.log(
                    done,
                    done // per_epoch,
                    "validation",
                    **{f"noise error, {name}": validation_error(averaged, judge, device)},
                )
                save()
    weights = {
        key: value.half().float() if value.is_floating_point() else value
        for key, value in averaged.state_dict().items()
    }
    return {
        "weights": weights,
        "seconds": before + time.perf_counter() - start,
        "images": total * config.batch,
    }


def main(config: Config) -> dict[str, Any]:
    # data: checked before anything is written
    images = data.load(
        config.source, config.data, config.side, config.synthetic_images, config.seed
    )
    parts = data.split(len(images), config.seed)
    if len(parts.train) < config.batch:
        raise InputError(
            f"{len(images)} images leave {len(parts.train)} to train on, fewer than --batch {config.batch}; give more of them"
        )
    if (held := min(len(parts.validation), len(parts.test))) < 6:
        raise InputError(
            f"{len(images)} images leave {held} to judge by, and six are needed for neighbourhoods; give at least 60 of them"
        )
    device, can = choose_device(config.device)
    bfloat16 = can if config.precision == "auto" else config.precision == "bfloat16"
    names: dict[tuple[str, str], str] = {
        (network, recipe): f"{network}, {recipe}"
        for recipe in config.recipes
        for network in NETWORKS
    }
    _ = [
        build(variant(config, recipe), network) for network, recipe in names
    ]  # sizes that do not fit are refused here
    pixels, judged, unseen = (
        images.pixels[rows] for rows in (parts.train, parts.validation, parts.test)
    )
    folder = config.out or HERE / "results" / f"{images.source}-{config.preset}"
    world = World.join(device)
    world.share(config.batch, config.accumulate)

    def train_all(run: Run | Follower) -> dict[tuple[str, str], dict[str, Any]]:
        return {
            key: run.memo(
                name,
                partial(
                    train,
                    variant(config, key[1]),
                    run,
                    name,
                    key[0],
                    pixels,
                    judged,
                    device,
                    bfloat16,
                    world,
                ),
            )
            for key, name in names.items()
        }

    if world.rank:  # the first process writes; the others only help it train
        world.wait()
        train_all(Follower(folder))
        world.leave()
        return {}
    inception = [("Inception", Inception(device).describe)] if config.inception else []
    with Run(config, folder, __file__, images.source, images.provenance) as run:
        world.wait()
        run.note(
            device=device,
            bfloat16=bfloat16,
            processes=world.size,
            split={name: len(rows) for name, rows in vars(parts).items()},
        )
        if notice := images.provenance.get("notice"):
            print(f"notice: {notice}", file=sys.stderr)

        # models: both networks by every recipe, the same images in the same order
        trained = train_all(run)
        world.leave()
        models = {
            key: filled(variant(config, key[1]), key[0], tensors(trained[key]["weights"]), device)
            for key in names
        }

        # evaluation: samplers on validation, then every network on the test part, once
        state = run.memo(
            "features",
            lambda: train_features(
                run,
                images.pixels,
                images.labels,
                parts.train,
                parts.validation,
                config.feature_width,
                config.feature_epochs,
                config.seed,
                device,
                bfloat16,
            ),
        )
        run.note(features={key: state[key] for key in ("task", "classes", "accuracy", "width")})
        describers: list[tuple[str, Describe]] = [
            ("own network", load_features(tensors(state), device).describe),
            *inception,
        ]
        scores = run.memo(
            "scores",
            lambda: {
                "rows": evaluate_all(
                    config, models, trained, describers, pixels, judged, unseen, bfloat16
                )
            },
        )
        times = run.memo(
            "times",
            lambda: {
                "rows": evaluate_times(config, models, describers, pixels, judged, unseen, bfloat16)
            },
        )
        table = [*scores["rows"], *times["rows"], accuracy_row(state)]

        # record: the first recipe's models, and what the figures are made from
        save_model(
            folder / "features.safetensors",
            state["weights"],
            {key: value for key, value in state.items() if key != "weights"},
            half=True,
        )
        for network in NETWORKS:
            about = {
                "network": network,
                "recipe": config.recipes[0],
                "bfloat16": bfloat16,
                "config": plain(variant(config, config.recipes[0])),
            }
            save_model(
                folder / f"model.{network}.safetensors",
                models[network, config.recipes[0]].state_dict(),
                about,
                half=True,
            )
        write_arrays(folder / "pictures.npz", **pictures(models, config.side, bfloat16))
        write_arrays(
            folder / "distances.npz",
            **distances(models, describers[0][1], pixels, unseen, bfloat16),
        )
        results = run.finish(table, METRICS_INFO)
        draw_figures(folder)
        compile_report(folder, HERE / "report.typ", folder / "report.pdf")
    print_table(results, folder)
    return results


if __name__ == "__main__":
    entry(lambda: main(parse(Config)))
