"""What the ablation changes in the recipe, one row per change.

Nothing heavy is imported here, so that `--help` and a refusal answer at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from assignment5.config import ASSIGNED, Config, Job, Network, Sampling, changed
from common.cli import Fields, InputError

SCORED = (Sampling("ddim", 5), Sampling("ddim", 20))


@dataclass(frozen=True)
class Ablation:
    """One row: its name, the network, and what it changes in the given options."""

    name: str
    changes: Fields
    network: Network = "Transformer"


IMAGE: Fields = {"target": "image", "loss": "velocity"}  # Li & He 2025, "JiT"


def image(name: str, **changes: object) -> Ablation:
    """A row with something else changed beside IMAGE."""
    return Ablation(f"image, error of the velocity; {name}", {**IMAGE, **changes})


# what the networks predict, and of what the error is taken
OBJECTIVES = (
    Ablation("base", {}),
    Ablation("squared error", {"error": "mse"}),
    Ablation("image, error of the velocity", IMAGE),
    Ablation("image, error of the noise", {"target": "image", "loss": "noise"}),
    Ablation("velocity, error of the noise", {"target": "velocity", "loss": "noise"}),
)
# the Transformer's parts, and how it is trained
PARTS = (
    image("rotary positions too", positions="both"),
    image("normalised queries and keys", qk_norm=True),
    image("value residuals", value_residual=True),
    image("overlapping patches", ends="overlap"),
    image("convolutional ends", ends="convolution"),
    image("no long skips", skips=False),
    image("Muon", optimiser="muon"),
    image("moved images (ScoreAug)", scoreaug=True),
)
# the U-Net, and both recipes as assigned
OPPONENTS = (
    Ablation("base, U-Net", {}, network="U-Net"),
    Ablation("image, error of the velocity, U-Net", IMAGE, network="U-Net"),
    Ablation("as assigned, U-Net", ASSIGNED, network="U-Net"),
    Ablation("as assigned", ASSIGNED),
)
ABLATIONS = {row.name: row for row in OBJECTIVES + PARTS + OPPONENTS}


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
        return [Job(row.name, row.network, row.name, changed(self, row.changes)) for row in wanted]
