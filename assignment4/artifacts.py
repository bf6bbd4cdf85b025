"""What the run folder keeps so that an adapter can be used: its files, and the target's scales."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from assignment3.config import Normalisation
from assignment4.pretrained import Base
from assignment4.strategies import Strategy
from common.cli import InputError
from common.files import JsonObject, load_state, save_state

SCALES = "scales.safetensors"


def adapter_name(strategy: Strategy, seed: int) -> str:
    """The name of a saved adapter, as in adapter.r8-0.safetensors."""
    return f"r{strategy.rank}-{seed}"


@dataclasses.dataclass(frozen=True)
class Scales:
    """What the adapters of a run need beside their bases.

    `bases` holds {"run", "file", "weights"} of each seed's pretrained network, the last of them the
    digest of its weights, `fitted` the arrays of its quantile layer on the target, and `shrink`
    (H, P) of each adapter by its name.
    """

    series: list[str]
    normalisation: Normalisation
    bases: list[JsonObject]
    fitted: list[np.ndarray]
    shrink: dict[str, np.ndarray]

    @classmethod
    def of(
        cls,
        base: Base,
        series: Sequence[str],
        normalisation: Normalisation,
        fitted: list[np.ndarray],
        shrink: dict[str, np.ndarray],
    ) -> Scales:
        """The scales of the target's `series`."""
        bases = [
            {"run": file.parent.name, "file": file.name, "weights": digest}
            for file, digest in zip(base.files, base.digests, strict=True)
        ]
        return cls(list(series), normalisation, bases, fitted, shrink)

    def save(self, path: Path) -> None:
        """Writes the scales atomically."""
        save_state(path, vars(self))

    @classmethod
    def read(cls, path: Path) -> Scales:
        """Reads what `save` wrote. Raises InputError for anything else."""
        if not path.is_file():
            raise InputError(
                f"{path} does not exist; an adapter needs the scales of the run that made it "
                "beside it (python assignment4/train.py)"
            )
        try:
            state = load_state(path)
            return cls(**{field.name: state[field.name] for field in dataclasses.fields(cls)})
        except Exception as error:  # safetensors and json raise their own on a damaged file
            reason = " ".join(str(error).split())[:150]
            raise InputError(f"{path}: not the scales of an assignment 4 run ({reason})") from None
