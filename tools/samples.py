"""The systems on their built-in data: how `make run` trains each, and what it tells of the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Scored:
    """What the table calls a model, and its model and variant in metrics.json.

    Names of options in braces stand for the run's values.
    """

    label: str
    model: str
    variant: str


@dataclass(frozen=True)
class System:
    """One system: its training, and the two rows of metrics.json that sum it up."""

    name: str
    about: str
    """what is trained on what"""
    minutes: float
    """that the default preset takes, as run.json has them, on two processor cores"""
    source: str
    """its built-in data, as --source names them"""
    score: str
    """what is measured, in words"""
    row: Mapping[str, str]
    """what both rows have in common: the metric, series and horizon where they have one, and how
    many digits are shown; braces as in Scored"""
    ours: Scored
    """that of the README's overview, if the default preset trains it"""
    baseline: Scored
    """that of the README's overview"""
    flow: str = ""
    """what the name of the run folder has behind the source"""
    after: str = ""
    """the system whose newest run this one begins with"""

    def command(self, preset: str) -> str:
        """As run.json has it."""
        return f"python {self.name}/train.py --preset {preset} --source {self.source}"

    def folder(self, preset: str) -> Path:
        """Where train.py writes without --out, from the repository's root."""
        return Path(self.name, "results", f"{self.source}{self.flow}-{preset}")


CRPS = {"metric": "crps_ratio", "digits": "4"}
KID = {"metric": "kid", "digits": "3", "series": "own network", "horizon": "{steps[1]}"}
ERROR = {"metric": "relative_l2_squared", "digits": "4"}
HAR = Scored("linear model", "log-HAR-t", "with the clock")
SAMPLER = "tuned, DPM-Solver++(2M)"
SYSTEMS = {
    1: System(
        *("assignment1", "ELM and MLP on VQ-VAE codes, synthetic faces", 2.0, "synthetic"),
        *("accuracy", {"metric": "accuracy", "digits": "3"}),
        ours=Scored("MLP", "MLP", "whitened patches, ridge, distilled"),
        baseline=Scored("linear model", "linear", "one-hot, ridge"),
    ),
    2: System(
        *("assignment2", "Seq2Seq with attention, simulated prices", 1.8, "simulated"),
        *("CRPS ratio", CRPS),
        ours=Scored("Seq2Seq", "Seq2Seq", "mean of {seeds} seeds"),
        baseline=HAR,
    ),
    3: System(
        *("assignment3", "Transformer encoder, simulated prices", 2.2, "simulated"),
        *("CRPS ratio", CRPS),
        ours=Scored("Transformer", "Transformer", "log, mean of {seeds} seeds"),
        baseline=HAR,
    ),
    4: System(
        *("assignment4", "transfer with LoRA, simulated currencies and oil", 1.9, "simulated"),
        *("CRPS ratio", CRPS),
        ours=Scored("LoRA", "LoRA, rank {rank}", "to convergence"),  # full alone trains DoRA
        baseline=HAR,
        after="assignment3",
    ),
    5: System(
        *("assignment5", "DDIM with a Transformer, synthetic flowers", 9.0, "synthetic"),
        *("KID", KID),
        ours=Scored("Transformer", "Transformer", SAMPLER),
        baseline=Scored("U-Net", "U-Net", SAMPLER),
    ),
    6: System(
        *("final_project", "state-exchange attention, simulated cylinder", 7.0, "simulated"),
        *("squared error", ERROR),
        ours=Scored("one wide stream", "patches, joint, wide", "interpolation"),
        baseline=Scored("FNO", "FNO", "interpolation"),
        flow="-cylinder",
    ),
}
