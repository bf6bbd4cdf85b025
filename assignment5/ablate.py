"""What in the tuned recipe matters: each row trains the Transformer with one thing changed, and is scored on the validation part only.

    python assignment5/ablate.py --source flowers

Every row stands in results/<source>-ablation, also those that lost.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

from assignment5 import data
from assignment5.config import ASSIGNED, Config
from assignment5.diffusion import Diffusion
from assignment5.features import load_features, train_features
from assignment5.models import filled
from assignment5.protocols import METRICS_INFO, Judge, sampled_rows
from assignment5.train import HERE, train
from common.cli import InputError, entry, parse
from common.run import Run, choose_device, tensors
from common.weights import parameters

BASE: dict[str, Any] = {
    "conditioning": "adaln",
    "skips": False,
    "ends": "linear",
    "target": "velocity",
    "error": "mse",
    "min_snr": 0.0,
    "max_signal": 0.95,
    "warmup": 250,
    "decay": True,
    "flips": True,
    "patch": 4,
    "lr": 1e-3,
}
CHANGES: dict[str, dict[str, Any]] = {
    "base": {},
    "convolutional ends": {"ends": "convolution"},
    "token conditioning": {"conditioning": "token"},
    "long skips": {"skips": True},
    "noise target, MAE": {"target": "noise", "error": "mae"},
    "noise target": {"target": "noise"},
    "image target": {"target": "image"},
    "velocity, MAE": {"error": "mae"},
    "Min-SNR 5": {"min_snr": 5.0},
    "signal to 0.995": {"max_signal": 0.995},
}
NOISE = {"target": "noise", "error": "mae"}  # the first round's best, from which the second goes on
SECOND: dict[str, tuple[str, dict[str, Any]]] = {
    "noise, MAE; U-Net": ("U-Net", NOISE),
    "as assigned, U-Net": ("U-Net", ASSIGNED),
    "as assigned": ("Transformer", ASSIGNED),
    "noise, MAE; signal to 0.995": ("Transformer", NOISE | {"max_signal": 0.995}),
    "noise, MAE; convolutional ends": ("Transformer", NOISE | {"ends": "convolution"}),
    "noise, MAE; long skips": ("Transformer", NOISE | {"skips": True}),
    "noise, MAE; learning rate 2e-3": ("Transformer", NOISE | {"lr": 2e-3}),
    "noise, MAE; no flips": ("Transformer", NOISE | {"flips": False}),
    "noise, MAE; no warm-up, no decay": ("Transformer", NOISE | {"warmup": 0, "decay": False}),
    "noise, MAE; learning rate 5e-4": ("Transformer", NOISE | {"lr": 5e-4}),
    "noise, MAE; width 240": ("Transformer", NOISE | {"width": 240}),
    "noise, MAE; weight decay 0.05": ("Transformer", NOISE | {"weight_decay": 0.05}),
}


@dataclasses.dataclass(frozen=True)
class AblateConfig(Config):
    """Assignment 5's ablation: short trainings, scored on validation."""

    script: ClassVar[str] = "ablate.py"
    rows: tuple[str, ...] = ()
    """which changes, by name (default: all)"""

    @classmethod
    def presets(cls) -> dict[str, dict[str, Any]]:
        return {name: change for name, change in super().presets().items() if name != "default"}


def main(config: AblateConfig) -> dict[str, Any]:
    images = data.load(
        config.source, config.data, config.side, config.synthetic_images, config.seed
    )
    parts = data.split(len(images), config.seed)
    pixels, judged = images.pixels[parts.train], images.pixels[parts.validation]
    device, bfloat16 = choose_device(config.device)
    folder = config.out or HERE / "results" / f"{images.source}-ablation"
    every = {name: ("Transformer", change) for name, change in CHANGES.items()} | SECOND
    if unknown := set(config.rows) - set(every):
        raise InputError(f"--rows {', '.join(sorted(unknown))}: allowed are {'; '.join(every)}")
    table: list[dict[str, Any]] = []
    with Run(config, folder, __file__, images.source, images.provenance) as run:
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
        judge = Judge(
            "own network",
            load_features(tensors(state), device).describe,
            pixels,
            judged,
            "validation",
        )
        jobs = {
            name: (network, dataclasses.replace(config, **{**BASE, **change}))
            for name, (network, change) in every.items()
            if not config.rows or name in config.rows
        }
        for name, (network, settings) in jobs.items():
            done = run.memo(
                name, partial(train, settings, run, name, network, pixels, judged, device, bfloat16)
            )
            model = filled(settings, network, tensors(done["weights"]), device)
            params = parameters(model)

            def scores(
                model: Diffusion = model,
                name: str = name,
                network: str = network,
                params: int = params,
            ) -> dict[str, Any]:
                return {
                    "rows": sampled_rows(
                        [judge],
                        model,
                        network,
                        name,
                        [("ddim", 5), ("ddim", 20)],
                        config.samples,
                        config.seeds,
                        config.side,
                        bfloat16,
                        params=params,
                    )
                }

            rows = run.memo(f"{name} scores", scores)["rows"]
            table += rows
            line = {
                row["horizon"]: f"{row['value']:.4f} ± {row['std'] or 0:.4f}"
                for row in rows
                if row["metric"] == "kid"
            }
            results = run.finish(
                table, METRICS_INFO
            )  # after every row, so that a stopped ablation shows what it has
            print(f"{network:12s} {name:24s} KID {line}  {done['seconds']:.0f} s", flush=True)
        return results


if __name__ == "__main__":
    entry(lambda: main(parse(AblateConfig)))
