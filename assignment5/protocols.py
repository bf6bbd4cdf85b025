"""What is measured on a trained denoiser: scores of sampled images against held-out ones, and the arrays that figures are made from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from assignment5.diffusion import SAMPLERS, Diffusion, Sampler, evaluations, path, separate
from assignment5.features import to_float
from assignment5.quality import kid, nearest, neighbour_scores
from common.cli import InputError
from common.run import progress
from common.weights import parameters

METRICS_INFO = {
    "kid": {
        "unit": "squared MMD",
        "better": "lower",
        "reference": "kernel inception distance to held-out images, mean and spread over sets of noise; 0: the same distribution",
    },
    "precision": {
        "unit": "share",
        "better": "higher",
        "reference": "share of samples inside the real images' neighbourhoods; real images have about 0.7 to 0.8",
    },
    "recall": {
        "unit": "share",
        "better": "higher",
        "reference": "share of real images inside the samples' neighbourhoods",
    },
    "density": {
        "unit": "ratio",
        "better": "higher",
        "reference": "real neighbourhoods around a sample, over k; 1.0: as among real images",
    },
    "coverage": {
        "unit": "share",
        "better": "higher",
        "reference": "share of real images with a sample in their neighbourhood; 1.0: all",
    },
    "nearest_ratio": {
        "unit": "ratio",
        "better": "higher",
        "reference": "median distance to the nearest training image over that of held-out images; 1.0: as far, well below 1: copies",
    },
    "copies": {
        "unit": "share",
        "better": "lower",
        "reference": "share of samples nearer to a training image than 99 % of held-out images are; 0.01 is expected",
    },
    "noise_error": {
        "unit": "sd of the noise",
        "better": "lower",
        "reference": "mean absolute error of the predicted noise; 0.8: no knowledge",
    },
    "feature_accuracy": {
        "unit": "share",
        "better": "higher",
        "reference": "the feature network's accuracy on validation images; 1.0: all right",
    },
}
Describe = Callable[[np.ndarray], np.ndarray]


def noise_set(seed: int, count: int, side: int) -> torch.Tensor:
    """Standard normal (count, 3, side, side), the same for every network, sampler and machine."""
    return torch.randn(
        (count, 3, side, side), generator=torch.Generator().manual_seed(1_000_003 + seed)
    )


def to_bytes(images: torch.Tensor) -> np.ndarray:
    """float (B, 3, S, S) in [0, 1] -> uint8 (B, S, S, 3), rounded to 8 bits as a PNG file is."""
    return (images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def sample(
    model: Diffusion,
    noises: torch.Tensor,
    steps: int,
    sampler: Sampler = "ddim",
    eta: float = 0.0,
    bfloat16: bool = False,
    seed: int = 0,
    batch: int = 256,
    power: float = 1.0,
) -> np.ndarray:
    """Images uint8 (N, S, S, 3) from noises (N, 3, S, S), `batch` at once, or half as many, a quarter ... where the memory is too small for that.

    Raises InputError as `path`, and where there is not even memory for one image.
    """
    device = model.mean.device
    model.eval()
    generator, found = torch.Generator(device).manual_seed(seed), []
    try:
        for part in noises.split(batch):
            with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                images = model.sample(
                    part.to(device, memory_format=torch.channels_last),
                    steps,
                    sampler,
                    eta,
                    generator,
                    power,
                )
            found.append(to_bytes(images))
        return np.concatenate(found)
    except torch.OutOfMemoryError:
        if batch == 1:
            raise InputError(
                "the device has not enough memory to sample even one image; take --device cpu"
            ) from None
    return sample(
        model, noises, steps, sampler, eta, bfloat16, seed, min(batch, len(noises)) // 2 or 1, power
    )


class Judge:
    """Scores sets of images against real ones in one space of features, named `series` in the rows."""

    def __init__(
        self,
        series: str,
        describe: Describe,
        train: np.ndarray | None,
        real: np.ndarray,
        split: str,
    ):
        self.series, self.describe, self.split, self.real = series, describe, split, describe(real)
        self.train = None if train is None else describe(train)
        self.own = (
            None if self.train is None else nearest(self.real, self.train)[1]
        )  # how far held-out images are from the training part

    def scores(self, images: np.ndarray) -> dict[str, float]:
        """Every metric of uint8 (M, S, S, 3)."""
        seen = self.describe(images)
        found = {"kid": kid(self.real, seen), **neighbour_scores(self.real, seen)}
        if self.train is None or self.own is None:  # the training images are not at hand
            return found
        away = nearest(seen, self.train)[1]
        return found | {
            "nearest_ratio": float(np.median(away) / np.median(self.own)),
            "copies": float((away < np.quantile(self.own, 0.01)).mean()),
        }

    def rows(
        self, sets: Iterable[np.ndarray], model: str, variant: str, **fields: Any
    ) -> list[dict[str, Any]]:
        """Rows of mean and standard deviation over sets of images."""
        found = [self.scores(images) for images in sets]
        return [
            {
                "protocol": "held-out",
                "split": self.split,
                "model": model,
                "variant": variant,
                "metric": metric,
                "series": self.series,
                "n_seeds": len(found),
                "value": float(np.mean([scores[metric] for scores in found])),
                "std": float(np.std([scores[metric] for scores in found], ddof=1))
                if len(found) > 1
                else None,
                **fields,
            }
            for metric in found[0]
        ]


def baselines(judge: Judge, train: np.ndarray, count: int, seeds: int) -> list[dict[str, Any]]:
    """The floor (training images themselves) and a Gaussian with the training images' mean and covariance, as images (N, S, S, 3)."""
    flat = train.reshape(len(train), -1).astype(np.float32)
    mean = flat.mean(0)
    drawn, real = [], []
    for seed in range(seeds):
        rng = np.random.default_rng((seed, 9))
        real.append(train[rng.choice(len(train), min(count, len(train)), replace=False)])
        weights = rng.standard_normal((count, len(train)), np.float32) / np.sqrt(
            len(train) - 1
        )  # (flat - mean)' w has the sample covariance
        drawn.append(
            np.clip(weights @ (flat - mean) + mean, 0, 255)
            .round()
            .astype(np.uint8)
            .reshape(count, *train.shape[1:])
        )
    return judge.rows(real, "training images", "as they are") + judge.rows(
        drawn, "Gaussian", "mean and covariance"
    )


def variant_name(recipe: str, sampler: Sampler, power: float = 1.0) -> str:
    """How rows name a recipe and its sampler, with the exponent of the sampler's times where they are not even."""
    return f"{recipe}, {SAMPLERS[sampler]}" + ("" if power == 1 else f", times ^{power:g}")


def sampled_rows(
    judges: list[Judge],
    model: Diffusion,
    name: str,
    recipe: str,
    settings: Iterable[tuple[Sampler, int]],
    count: int,
    seeds: int,
    side: int,
    bfloat16: bool,
    power: float = 1.0,
    **fields: Any,
) -> list[dict[str, Any]]:
    """Rows of a denoiser for each (sampler, steps); `horizon` is the number of network evaluations."""
    rows: list[dict[str, Any]] = []
    for sampler, steps in settings:
        start = time.perf_counter()
        sets = [
            sample(
                model, noise_set(seed, count, side), steps, sampler, bfloat16=bfloat16, power=power
            )
            for seed in range(seeds)
        ]
        fields["seconds"] = round(time.perf_counter() - start, 2)
        for judge in judges:
            rows += judge.rows(
                sets,
                name,
                variant_name(recipe, sampler, power),
                horizon=evaluations(sampler, steps),
                **fields,
            )
    return rows


def sphere(start: torch.Tensor, end: torch.Tensor, count: int) -> torch.Tensor:
    """Spherical interpolation (count, C, S, S) between two noises (C, S, S): its variance stays that of noise (Shoemake 1985)."""
    a, b = start.flatten(), end.flatten()
    angle = torch.arccos((a @ b / (a.norm() * b.norm())).clamp(-1, 1))
    share = torch.linspace(0, 1, count)[:, None, None, None]
    return (torch.sin((1 - share) * angle) * start + torch.sin(share * angle) * end) / torch.sin(
        angle
    )


def pictures(
    models: dict[tuple[str, str], Diffusion], side: int, bfloat16: bool, shown: int = 48
) -> dict[str, np.ndarray]:
    """The arrays uint8 that figures are made from: grids of every model, and of the first: steps, trajectory, interpolation."""
    noises = noise_set(0, shown, side)
    found = {
        f"samples | {name} | {recipe}": sample(model, noises, 20, bfloat16=bfloat16)
        for (name, recipe), model in progress(models.items(), "figures")
    }
    first = next(iter(models.values()))
    counts = (1, 2, 3, 5, 10, 20, 50)
    found["step_counts"] = np.array(counts)
    found["steps"] = np.stack(
        [sample(first, noises[:6], count, bfloat16=bfloat16) for count in counts]
    )  # (7, 6, S, S, 3)
    device, frames = first.mean.device, []
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        for x0 in path(first.denoise, first.schedule, noises[:10].to(device), 25):
            frames.append(to_bytes(first.denormalise(x0)))
    found["trajectory"] = np.stack(frames)  # (25, 10, S, S, 3)
    ways = torch.cat([sphere(noises[2 * pair], noises[2 * pair + 1], 9) for pair in range(4)])
    found["interpolation"] = sample(first, ways, 20, bfloat16=bfloat16).reshape(4, 9, side, side, 3)
    return found


@torch.inference_mode()
def validation_error(model: Diffusion, pixels: np.ndarray, device: str) -> float:
    """Mean absolute error of the noise in images uint8 (N, S, S, 3), whatever the network predicts: fixed noises, times spread over [0, 1]."""
    model.eval()
    generator, each = torch.Generator().manual_seed(0), []
    for part in torch.from_numpy(pixels).split(256):
        x0 = model.normalise(to_float(part.to(device)))
        noises = torch.randn(x0.shape, generator=generator).to(device)
        signal, noise = model.schedule.rates(
            torch.rand((len(part), 1, 1, 1), generator=generator).to(device)
        )
        x = signal * x0 + noise * noises
        told = separate(model.target, x, model.network(x, noise.flatten() ** 2), signal, noise)[1]
        each.append((told - noises).abs().mean((1, 2, 3)).cpu())
    return float(torch.cat(each).mean())


def evaluate_all(
    config: Any,
    models: dict[tuple[str, str], Diffusion],
    trained: dict[tuple[str, str], dict[str, Any]],
    describers: list[tuple[str, Describe]],
    pixels: np.ndarray,
    judged: np.ndarray,
    unseen: np.ndarray,
    bfloat16: bool,
) -> list[dict[str, Any]]:
    """Every row of a run: samplers compared on the validation images, then every network scored on the test images by DDIM and DPM-Solver++."""
    first = next(iter(models))
    on_validation = [
        Judge(name, describe, pixels, judged, "validation") for name, describe in describers
    ]
    settings = [
        (sampler, (count + 1) // 2 if sampler == "heun" else count)
        for sampler in SAMPLERS
        for count in config.sweep
    ]
    table = sampled_rows(
        on_validation,
        models[first],
        *first,
        progress(settings, "samplers"),
        config.samples,
        config.seeds,
        config.side,
        bfloat16,
        params=parameters(models[first]),
    )
    on_test = [Judge(name, describe, pixels, unseen, "test") for name, describe in describers]
    for judge in on_test:
        table += baselines(judge, pixels, config.samples, config.seeds)
    for (network, recipe), model in progress(models.items(), "scores"):
        fields = {"params": parameters(model)}
        wanted: list[tuple[Sampler, int]] = [("ddim", steps) for steps in config.steps] + [
            ("dpm++", steps) for steps in config.steps
        ]
        table += sampled_rows(
            on_test,
            model,
            network,
            recipe,
            wanted,
            config.samples,
            config.seeds,
            config.side,
            bfloat16,
            **fields,
        )
        base = {
            "model": network,
            "variant": recipe,
            "n_seeds": 1,
            "protocol": "held-out",
            "seconds": round(trained[network, recipe]["seconds"], 1),
            **fields,
        }
        table.append(
            base
            | {
                "split": "validation",
                "metric": "noise_error",
                "value": validation_error(model, judged, str(model.mean.device)),
            }
        )
    return table


def evaluate_times(
    config: Any,
    models: dict[tuple[str, str], Diffusion],
    describers: list[tuple[str, Describe]],
    pixels: np.ndarray,
    judged: np.ndarray,
    unseen: np.ndarray,
    bfloat16: bool,
) -> list[dict[str, Any]]:
    """How far apart a sampler's times should be: every exponent of config.powers on the validation images, for every network, sampler and number of
    steps, then the best one on the test images, where it is not 1 (`evaluate_all` has those). All are judged in the first space of features.
    No row where 1 is the only exponent: there is nothing to choose."""
    if set(config.powers) == {1}:
        return []
    on_validation, on_test = (
        Judge(*describers[0], pixels, real, split)
        for real, split in ((judged, "validation"), (unseen, "test"))
    )
    first = next(iter(models))
    cells = [
        (key, sampler, steps)
        for key in models
        for sampler in ("ddim", "dpm++")
        for steps in config.steps
    ]
    table: list[dict[str, Any]] = []
    for key, sampler, steps in progress(cells, "times"):
        network, recipe = key
        common = (
            network,
            recipe,
            [(sampler, steps)],
            config.samples,
            config.seeds,
            config.side,
            bfloat16,
        )
        fields: dict[str, Any] = {"params": parameters(models[key])}
        tried = {
            power: sampled_rows([on_validation], models[key], *common, power=power, **fields)
            for power in config.powers
        }
        seen = (
            key == first and steps in config.sweep
        )  # its even times stand among `evaluate_all`'s rows
        table += [row for power, rows in tried.items() for row in rows if not (power == 1 and seen)]
        best = min(
            config.powers,
            key=lambda power: next(row["value"] for row in tried[power] if row["metric"] == "kid"),
        )
        if best != 1:
            table += sampled_rows([on_test], models[key], *common, power=best, **fields)
    return table


def accuracy_row(state: dict[str, Any]) -> dict[str, Any]:
    """How good the feature network is at what it was trained for."""
    return {
        "protocol": "held-out",
        "split": "validation",
        "model": "feature network",
        "variant": state["task"],
        "metric": "feature_accuracy",
        "value": state["accuracy"],
        "n_seeds": 1,
    }


def distances(
    models: dict[tuple[str, str], Diffusion],
    describe: Describe,
    pixels: np.ndarray,
    unseen: np.ndarray,
    bfloat16: bool,
) -> dict[str, np.ndarray]:
    """float32 distances to the nearest training image, in features: of the held-out images, and of as many samples of each network."""
    train = describe(pixels)
    found = {"held-out images": nearest(describe(unseen), train)[1].astype(np.float32)}
    for (network, recipe), model in models.items():
        drawn = sample(model, noise_set(0, len(unseen), unseen.shape[1]), 20, bfloat16=bfloat16)
        found[f"{network}, {recipe}"] = nearest(describe(drawn), train)[1].astype(np.float32)
    return found


def print_table(results: dict[str, Any], folder: Any, split: str = "test") -> None:
    """KID, precision and coverage on one part, the best first."""
    found: dict[tuple, dict[str, dict]] = {}
    for row in results["rows"]:
        if row["split"] == split and row["series"]:
            found.setdefault((row["series"], row["model"], row["variant"], row["horizon"]), {})[
                row["metric"]
            ] = row
    print(
        f"\n{'features':12}{'model':18}{'variant':40}{'evaluations':>12}{'KID':>18}{'precision':>11}{'coverage':>10}"
    )
    for (series, model, variant, horizon), values in sorted(
        found.items(), key=lambda item: item[1]["kid"]["value"]
    ):
        kid_text = f"{values['kid']['value']:.4f} ± {values['kid']['std'] or 0:.4f}"
        print(
            f"{series:12}{model:18}{variant:40}{horizon or '-':>12}{kid_text:>18}{values['precision']['value']:>11.3f}{values['coverage']['value']:>10.3f}"
        )
    print(f"\nwritten: {folder}")
