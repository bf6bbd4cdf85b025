"""One adapter as a value, and its two files: x.safetensors with the factors, x.json about them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import load, save

from common.cli import InputError
from common.files import JsonObject, atomic_path, write_text

FORMAT = 1
TYPES = {"base": str, "rank": int, "alpha": float, "rank_stabilised": bool, "safetensors": str}
DAMAGES = (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError)


@dataclasses.dataclass(frozen=True)
class AdapterFile:
    """The trained factors of an adapter without its base.

    `base` is the sha256 of the base's weights. `targets` holds [position, in, out, r] of each
    adapted layer by its path; Keras numbers unnamed layers anew in every process, so a layer is
    found by its position. `factors` (trained weights,) holds A and B of each target in turn.
    """

    base: str
    base_name: str
    rank: int
    alpha: float
    rank_stabilised: bool
    targets: dict[str, list[int]]
    factors: np.ndarray

    def save(self, path: Path) -> None:
        """Writes x.safetensors and x.json. Raises InputError for another suffix and for a place
        that cannot be written."""
        path = adapter_path(path)
        content = save({"factors": self.factors})
        facts = {
            "format": FORMAT,
            "base": self.base,
            "base_name": self.base_name,
            "rank": self.rank,
            "alpha": self.alpha,
            "rank_stabilised": self.rank_stabilised,
            "trained_weights": self.factors.size,
            "safetensors": hashlib.sha256(content).hexdigest(),
            "targets": self.targets,
        }
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
        text = json.dumps(facts, separators=(",", ":"), ensure_ascii=False)
        write_text(path.with_suffix(".json"), text + "\n")

    @classmethod
    def read(cls, path: Path) -> AdapterFile:
        """Reads both files. Raises InputError where one is missing, damaged or of another kind."""
        path = adapter_path(path)
        for file in (path, path.with_suffix(".json")):
            if not file.is_file():
                raise InputError(
                    f"{file} is not there; an adapter is x.safetensors and x.json side by side"
                )
        facts = _read_facts(path.with_suffix(".json"))
        factors = _read_factors(path, facts["safetensors"])
        count = sum((size[1] + size[2]) * size[3] for size in facts["targets"].values())
        if factors.shape != (count,):
            raise InputError(
                f"{path} holds factors of shape {factors.shape}; "
                f"{path.with_suffix('.json').name} speaks of {count} weights"
            )
        return cls(
            facts["base"],
            facts.get("base_name", ""),
            facts["rank"],
            facts["alpha"],
            facts["rank_stabilised"],
            facts["targets"],
            factors,
        )


def adapter_path(path: Path) -> Path:
    """The path of an adapter file. Raises InputError unless it ends in .safetensors."""
    if Path(path).suffix != ".safetensors":
        raise InputError(f"{path}: the name of an adapter file ends in .safetensors")
    return Path(path)


def _read_facts(path: Path) -> JsonObject:
    """The checked facts of x.json."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise InputError(f"{path} has format {facts['format']}; format {FORMAT} can be read")
        typed = all(isinstance(facts[key], kind) for key, kind in TYPES.items())
        sized = all(
            len(target) == 4 and all(isinstance(number, int) for number in target)
            for target in facts["targets"].values()
        )
        if not typed or not sized:
            raise ValueError("a value has another type")
    except DAMAGES as error:
        raise InputError(
            f"{path} is damaged ({type(error).__name__}: {error}); copy the adapter again"
        ) from None
    return facts


def _read_factors(path: Path, digest: str) -> np.ndarray:
    """The factors (trained weights,) of x.safetensors, which must have the digest."""
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            raise ValueError(f"its sha256 is not the one in {path.with_suffix('.json').name}")
        return load(content)["factors"]
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        raise InputError(f"{path} is damaged ({error}); copy the adapter again") from None
