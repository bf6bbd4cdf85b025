"""What the ablation changes in the recipe, one row per change.

Nothing heavy is imported here, so that `--help` and a refusal answer at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from assignment5.config import ASSIGNED, Config, Job, Network, Sampling, changed
from common.cli import Fields, InputError

BASE: Fields = {
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
NOISE: Fields = {  # the best of the first round, from which the second goes on
    "target": "noise",
    "error": "mae",
}
SCORED = (Sampling("ddim", 5), Sampling("ddim", 20))


@dataclass(frozen=True)
class Ablation:
    """One row: its name, the network, and what it changes in BASE."""

    name: str
    changes: Fields
    network: Network = "Transformer"


def noise(name: str, **changes: object) -> Ablation:
    """A row of the second round: something else changed beside NOISE."""
    return Ablation(f"noise, MAE; {name}", {**NOISE, **changes})


def tuned(name: str, **changes: object) -> Ablation:
    """A row of the third round: something changed beside the tuned recipe, with its long skips."""
    return Ablation(f"tuned; {name}", {**NOISE, "skips": True, **changes})


IMAGE: Fields = {"target": "image", "loss": "velocity"}  # Li & He 2025, "JiT"
FIRST = (
    Ablation("base", {}),
    Ablation("convolutional ends", {"ends": "convolution"}),
    Ablation("token conditioning", {"conditioning": "token"}),
    Ablation("long skips", {"skips": True}),
    Ablation("noise target, MAE", NOISE),
    Ablation("noise target", {"target": "noise"}),
    Ablation("image target", {"target": "image"}),
    Ablation("velocity, MAE", {"error": "mae"}),
    Ablation("Min-SNR 5", {"min_snr": 5.0}),
    Ablation("signal to 0.995", {"max_signal": 0.995}),
)
SECOND = (
    Ablation("noise, MAE; U-Net", NOISE, network="U-Net"),
    Ablation("as assigned, U-Net", ASSIGNED, network="U-Net"),
    Ablation("as assigned", ASSIGNED),
    noise("signal to 0.995", max_signal=0.995),
    noise("convolutional ends", ends="convolution"),
    noise("long skips", skips=True),
    noise("learning rate 2e-3", lr=2e-3),
    noise("no flips", flips=False),
    noise("no warm-up, no decay", warmup=0, decay=False),
    noise("learning rate 5e-4", lr=5e-4),
    noise("width 240", width=240),
    noise("weight decay 0.05", weight_decay=0.05),
)
THIRD = (
    tuned("image, error of the velocity", **IMAGE),
    tuned("image, error of the noise", target="image", loss="noise"),
    tuned("velocity, error of the noise", target="velocity", loss="noise"),
    tuned("rotary positions too", positions="both"),
    tuned("normalised queries and keys", qk_norm=True),
    tuned("value residuals", value_residual=True),
    tuned("overlapping patches", ends="overlap"),
    tuned("Muon", optimiser="muon"),
    tuned("moved images (ScoreAug)", scoreaug=True),
)
ABLATIONS = {row.name: row for row in FIRST + SECOND + THIRD}


@dataclass(frozen=True)
class AblateConfig(Config):
    """Assignment 5's ablation: short trainings, scored on validation."""

    script: ClassVar[str] = "ablate.py"
    rows: tuple[str, ...] = ()
    """names of the changes to train (default: all of them)"""

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = set(self.rows) - set(ABLATIONS)
        if unknown:
            names = ", ".join(sorted(unknown))
            raise InputError(f"--rows {names}: allowed are {'; '.join(ABLATIONS)}")

    @classmethod
    def presets(cls) -> dict[str, Fields]:
        """Those of train.py; the default preset is Config's own defaults."""
        presets = super().presets()
        return {name: presets[name] for name in ("smoke", "full")}

    def jobs(self) -> list[Job]:
        """The trainings of the wanted rows, in the order of the table."""
        wanted = [row for row in ABLATIONS.values() if not self.rows or row.name in self.rows]
        return [
            Job(row.name, row.network, row.name, changed(self, {**BASE, **row.changes}))
            for row in wanted
        ]
