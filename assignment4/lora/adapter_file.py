"""One adapter as a value, and its two files: x.safetensors with the factors, x.json about them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np
import safetensors
from safetensors.numpy import load, save

from assignment4.lora.adapter import Adapter, Bias, Factors, make_factors
from assignment4.lora.affine import affine_of_rank
from common.cli import InputError
from common.files import JsonObject, atomic_path, write_text

# 1 has A and B alone; 2 has magnitudes, weights trained whole, own alphas or dropout beside them
FORMATS = (1, 2)
TYPES = {"base": str, "rank": int, "alpha": float, "rank_stabilised": bool, "safetensors": str}
MORE_TYPES = {"alphas": dict, "dropout": float, "bias": str, "modules_to_save": list}
DAMAGES = (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError)


@dataclasses.dataclass(frozen=True)
class AdapterFile:
    """The trained factors of an adapter without its base.

    `base` is the sha256 of the base's weights. `targets` holds [position, in, out, r] of each
    adapted layer by its path; Keras numbers unnamed layers anew in every process, so a layer is
    found by its position. `factors` (weights,) holds A and B of each target in turn; those of
    PiSSA are written as what they add to the base. `alphas` {path: alpha} are those that are not
    `alpha`. `extras` holds the magnitude of a layer as magnitude.<its position>, and a weight that
    is trained whole as whole.<its position in model.weights>.
    """

    base: str
    base_name: str
    rank: int
    alpha: float
    rank_stabilised: bool
    targets: dict[str, list[int]]
    factors: np.ndarray
    alphas: dict[str, float] = dataclasses.field(default_factory=dict)
    dropout: float = 0.0
    bias: Bias = "none"
    modules_to_save: list[str] = dataclasses.field(default_factory=list)
    extras: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(
        cls,
        adapter: Adapter,
        base: str,
        base_name: str,
        layers: list[tuple[str, keras.layers.Layer]],
    ) -> AdapterFile:
        """The stored form of an adapter on layers that are known by their positions."""
        positions = {path: position for position, (path, _) in enumerate(layers)}
        targets = {}
        values = []
        extras = {f"whole.{index}": value for index, value in adapter.whole.items()}
        for path, factors in adapter.factors.items():
            a, b = factors.matrices()
            targets[path] = [positions[path], len(a), b.shape[1], len(b)]
            values += [a.ravel(), b.ravel()]
            if factors.magnitude is not None:
                extras[f"magnitude.{positions[path]}"] = factors.magnitude.numpy()
        return cls(
            base,
            base_name,
            adapter.rank,
            adapter.alpha,
            adapter.rank_stabilised,
            targets,
            np.concatenate(values).astype(np.float32),
            adapter.alphas,
            adapter.dropout,
            adapter.bias,
            list(adapter.modules_to_save),
            extras,
        )

    def adapter(
        self,
        path: Path,
        layers: list[tuple[str, keras.layers.Layer]],
        weights: list[keras.Variable],
    ) -> Adapter:
        """The adapter on the layers of a model; `path` is for the messages.

        Raises InputError for a layer or a weight of another shape.
        """
        factors: dict[str, Factors] = {}
        names = {}
        start = 0
        for written, (position, rows, columns, rank) in self.targets.items():
            if position not in range(len(layers)):
                raise InputError(
                    f"{path} adapts {written}, layer {position}; "
                    f"this model has the layers 0 to {len(layers) - 1}"
                )
            own = layers[position][0]
            names[written] = own
            affine = affine_of_rank(*layers[position], rank)
            if (rows, columns) != affine.size:
                raise InputError(
                    f"{path}: {written} is {rows} x {columns} in the file; "
                    f"the model's is {affine.size[0]} x {affine.size[1]}"
                )
            middle = start + rank * rows
            end = middle + rank * columns
            a, b = self.factors[start:middle], self.factors[middle:end]
            magnitude = self.extras.get(f"magnitude.{position}")
            if magnitude is not None and magnitude.size != columns:
                raise InputError(
                    f"{path}: the magnitude of {written} has {magnitude.size} values; "
                    f"the layer has {columns} outputs"
                )
            a = a.reshape(rows, rank)
            factors[own] = make_factors(affine, a, b, magnitude is not None, magnitude)
            start = end
        return Adapter(
            self.rank,
            self.alpha,
            self.rank_stabilised,
            factors,
            {names[written]: alpha for written, alpha in self.alphas.items()},
            self.dropout,
            self.bias,
            tuple(self.modules_to_save),
            self._whole(path, weights),
        )

    def _whole(self, path: Path, weights: list[keras.Variable]) -> dict[int, np.ndarray]:
        """The weights that are trained whole, by position in model.weights."""
        whole = {}
        for name, value in self.extras.items():
            kind, _, number = name.partition(".")
            if kind != "whole":
                continue
            index = int(number)
            if index >= len(weights) or tuple(weights[index].shape) != value.shape:
                raise InputError(f"{path}: weight {index} has another shape in this model")
            whole[index] = value
        return whole

    def save(self, path: Path) -> None:
        """Writes x.safetensors and x.json. Raises InputError for another suffix and for a place
        that cannot be written."""
        path = adapter_path(path)
        content = save({"factors": self.factors} | self.extras)
        plain = not (self.alphas or self.dropout or self.extras)
        facts: JsonObject = {
            "format": FORMATS[0] if plain else FORMATS[1],
            "base": self.base,
            "base_name": self.base_name,
            "rank": self.rank,
            "alpha": self.alpha,
            "rank_stabilised": self.rank_stabilised,
            "trained_weights": self.factors.size + sum(each.size for each in self.extras.values()),
            "safetensors": hashlib.sha256(content).hexdigest(),
            "targets": self.targets,
        }
        if not plain:
            facts |= {name: getattr(self, name) for name in MORE_TYPES}
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
        tensors = _read_tensors(path, facts["safetensors"])
        factors = tensors.pop("factors")
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
            facts.get("alphas", {}),
            facts.get("dropout", 0.0),
            facts.get("bias", "none"),
            facts.get("modules_to_save", []),
            tensors,
        )


def weights_digest(weights: Iterable[tuple[str, np.ndarray]]) -> str:
    """sha256 over name, dtype, shape and bytes of a model's weights, in the model's order.

    It names the numbers and not the file that holds them: the same weights written again into
    other bytes, with another date in them, are the same base.
    """
    digest = hashlib.sha256()
    for name, value in weights:
        digest.update(f"{name} {value.dtype} {value.shape}\n".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def adapter_path(path: Path) -> Path:
    """The path of an adapter file. Raises InputError unless it ends in .safetensors."""
    if Path(path).suffix != ".safetensors":
        raise InputError(f"{path}: the name of an adapter file ends in .safetensors")
    return Path(path)


def _read_facts(path: Path) -> JsonObject:
    """The checked facts of x.json."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if facts["format"] not in FORMATS:
            raise InputError(
                f"{path} has format {facts['format']}; "
                f"the formats {FORMATS[0]} and {FORMATS[1]} can be read"
            )
        types = TYPES | (MORE_TYPES if facts["format"] == FORMATS[1] else {})
        typed = all(isinstance(facts[key], kind) for key, kind in types.items())
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


def _read_tensors(path: Path, digest: str) -> dict[str, np.ndarray]:
    """The tensors of x.safetensors, which must have the digest and the factors."""
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            raise ValueError(f"its sha256 is not the one in {path.with_suffix('.json').name}")
        tensors = load(content)
        if "factors" not in tensors:
            raise ValueError("it has no factors")
        return tensors
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        raise InputError(f"{path} is damaged ({error}); copy the adapter again") from None
