"""Options of tune.py."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from common.cli import Fields, InputError, check_ranges
from common.shard import Shard
from final_project.config import MODELS, STEPPERS, AutoencoderName, Config

AUTOENCODERS: dict[str, AutoencoderName] = {
    "autoencoder": "own",
    "autoencoder, as published": "as published",
}


class Knobs(NamedTuple):
    """The options of `Config` that set a network's peak learning rate, batch and steps."""

    lr: str
    batch: str
    steps: str


def knobs_of(network: str) -> Knobs:
    """The options that a network's training is set by."""
    if network in STEPPERS:
        prefix = STEPPERS[network]
        return Knobs(f"{prefix}_lr", "baseline_batch", f"{prefix}_steps")
    if network in AUTOENCODERS:
        prefix = "published_" if AUTOENCODERS[network] == "as published" else ""
        return Knobs(*(f"{prefix}autoencoder_{name}" for name in Knobs._fields))
    spec = MODELS[network]
    if spec.published:
        return Knobs("published_lr", "published_batch", "published_steps")
    if spec.patches:
        return Knobs("lr", "patch_batch", "wide_steps" if spec.wide else "patch_steps")
    return Knobs(*Knobs._fields)


@dataclass(frozen=True)
class TuneConfig(Config):
    """Tries learning rates and batches of one network for equal seconds, scored on validation."""

    script: ClassVar[str] = "tune.py"
    network: str = "autoencoder, as published"
    """autoencoder; autoencoder, as published; a name of --models; FNO; U-Net; Transolver"""
    rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3)
    """peak learning rates to try"""
    batches: tuple[int, ...] = (32, 128)
    """batches to try"""
    seconds: float = 120.0
    """seconds of each training, validation included: its steps are set by its measured speed"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not Shard.of(self.shard).is_whole:
            raise InputError(f"--shard {self.shard}: tries are not shared; allowed is 0/1")
        ranges = {"rates": (0.0, math.inf), "batches": (1.0, math.inf), "seconds": (0.0, math.inf)}
        check_ranges(self, ranges)
        allowed = [*AUTOENCODERS, *MODELS, *STEPPERS]
        if self.network not in allowed:
            raise InputError(f"--network {self.network}: allowed are {'; '.join(allowed)}")
        if not (self.rates and self.batches):
            raise InputError("--rates and --batches: at least one of each is needed")

    @classmethod
    def presets(cls) -> dict[str, Fields]:
        presets = super().presets()
        presets["smoke"] = {**presets["smoke"], "rates": (1e-3,), "batches": (2, 4), "seconds": 1.0}
        presets["full"] = {}
        return presets

    def attempt(self, lr: float, batch: int, steps: int) -> Config:
        """The options of a training of the network with this rate, batch and number of steps."""
        values: dict[str, Any] = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(Config)
        }
        knobs = knobs_of(self.network)
        values |= {knobs.lr: lr, knobs.batch: batch, knobs.steps: steps}
        return Config(**values)
