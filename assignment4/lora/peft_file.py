"""Adapter folders of Hugging Face's PEFT: adapter_config.json and adapter_model.safetensors.

The tensors are torch's: A (r, in) and B (out, r) are ours transposed, a kernel is (out, in), and
that of a convolution (out, in, height, width). A layer a/b of ours is the module a.b of torch.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path

import keras
import numpy as np
import safetensors
from safetensors.numpy import load, save

from assignment4.lora.adapter import Adapter, Factors, make_factors
from assignment4.lora.affine import Affine, Convolution, Lookup, affine_map, affine_of_rank
from common.cli import InputError
from common.files import JsonObject, atomic_path, write_text

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
# torch's names of what Keras calls so
WHOLE = {"kernel": "weight", "embeddings": "weight", "gamma": "weight", "bias": "bias"} | {
    "beta": "bias"
}
MATRIX = ("lora_A.weight", "lora_B.weight")
TABLE = ("lora_embedding_A", "lora_embedding_B")
MAGNITUDE = "lora_magnitude_vector"
# starts after which PEFT's A and B belong to another W, unless it converted them when it saved
CHANGED_BASE = ("pissa", "olora", "corda", "loftq")


@dataclasses.dataclass(frozen=True)
class Layout:
    """A model as PEFT's files see it.

    `affine` {path: layer} are its affine maps, `layers` all layers, and `weights` those of the base
    in order.
    """

    affine: dict[str, keras.layers.Layer]
    layers: dict[str, keras.layers.Layer]
    weights: list[keras.Variable]

    def owner(self, index: int) -> str:
        """The path of the layer that has a weight."""
        weight = self.weights[index]
        return next(
            path
            for path, layer in self.layers.items()
            if any(
                each is weight
                for each in (*layer._trainable_variables, *layer._non_trainable_variables)
            )
        )

    def name(self, index: int, adapted: bool) -> str | None:
        """The name of a weight that is trained whole; None where torch has none that is known."""
        weight = self.weights[index]
        kernel = len(weight.shape) > 1 and weight.name != "bias"
        if weight.name not in WHOLE or (kernel and self._kernel(index) is None):
            return None
        wrapped = ".base_layer" if adapted else ""
        return f"{PREFIX}{dotted(self.owner(index))}{wrapped}.{WHOLE[weight.name]}"

    def to_torch(self, index: int, value: np.ndarray) -> np.ndarray:
        """A weight in torch's axes; one axis stays one."""
        affine = self._kernel(index)
        if affine is None:
            return value.ravel()
        if isinstance(affine, Lookup):
            return value
        if isinstance(affine, Convolution):
            return np.moveaxis(value, (-1, -2), (0, 1))
        return affine.matrix(value).T

    def from_torch(self, index: int, value: np.ndarray) -> np.ndarray:
        """The way back; the result may have the wrong shape if the value has."""
        affine = self._kernel(index)
        if affine is None:
            return value.reshape(self.weights[index].shape)
        if isinstance(affine, Lookup):
            return value
        if isinstance(affine, Convolution):
            return np.moveaxis(value, (0, 1), (-1, -2))
        return affine.from_matrix(np.ascontiguousarray(value.T))

    def _kernel(self, index: int) -> Affine | None:
        """The affine map whose kernel the weight is."""
        path = self.owner(index)
        if self.weights[index].name in ("kernel", "embeddings") and path in self.affine:
            return affine_map(path, self.affine[path])
        return None


def write_peft(folder: Path, adapter: Adapter, layout: Layout, base_name: str) -> None:
    """Writes both files. Raises InputError for a weight that has no name in torch and for a place
    that cannot be written."""
    tensors: dict[str, np.ndarray] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for path, factors in adapter.factors.items():
        affine = affine_map(path, layout.affine[path])
        a, b = factors.matrices()
        for name, value in _torch_factors(affine, a, b, factors.magnitude).items():
            tensors[f"{PREFIX}{dotted(path)}.{name}"] = value

        # ours divides alpha by the adapter's rank, PEFT by the layer's
        rank = len(b)
        alpha = adapter.scale_of(path) * _divisor(rank, adapter.rank_stabilised)
        if rank != adapter.rank:
            ranks[_exactly(path)] = rank
        if not math.isclose(alpha, adapter.alpha):
            alphas[_exactly(path)] = alpha
    for index, value in adapter.whole.items():
        owner = layout.owner(index)
        known = layout.name(index, owner in adapter.factors)
        if known is None:
            raise InputError(f"{owner}: PEFT has no name for its {layout.weights[index].name}")
        tensors[known] = layout.to_torch(index, value)

    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": base_name or None,
        "r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "target_modules": _target_modules(adapter, layout),
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "use_rslora": adapter.rank_stabilised,
        "use_dora": adapter.dora,
        "lora_dropout": adapter.dropout,
        "bias": adapter.bias,
        "modules_to_save": _saved_modules(adapter, layout) or None,
        "inference_mode": True,
    }
    contiguous = {
        name: np.ascontiguousarray(value, dtype=np.float32) for name, value in tensors.items()
    }
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror})") from None
    with atomic_path(folder / TENSORS) as temporary:
        temporary.write_bytes(save(contiguous, metadata={"format": "pt"}))
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")


def read_peft(folder: Path, layout: Layout) -> Adapter:
    """Reads both files as an adapter of the model.

    The files do not say which weights they belong to, so that no base is checked. Raises InputError
    where one is missing, damaged or no LoRA, and for a layer or a shape that the model has not.
    """
    folder = Path(folder)
    config, tensors = _read(folder)
    paths = {dotted(path): path for path in layout.affine}
    factors: dict[str, Factors] = {}
    scales: dict[str, float] = {}
    rslora = bool(config.get("use_rslora", False))
    for name in [each for each in tensors if each.endswith((MATRIX[0], TABLE[0]))]:
        module = name.removeprefix(PREFIX).rsplit(".lora_", 1)[0]
        if module not in paths:
            known = ", ".join(paths)
            raise InputError(f"{folder} adapts {module}; the layers of this model are {known}")
        path = paths[module]
        factors[path] = _factors(folder, path, layout, tensors)
        alpha = _by_pattern(config.get("alpha_pattern"), module, config["lora_alpha"])
        scales[path] = alpha / _divisor(factors[path].rank, rslora)
    whole = _whole(folder, layout, tensors, factors)
    if tensors:
        raise InputError(f"{folder} holds {next(iter(tensors))}, for which this model has no place")

    # the scale is alpha over the adapter's rank, so a layer of another rank has an alpha of its own
    rank, alpha = int(config["r"]), float(config["lora_alpha"])
    own = {path: scale * _divisor(rank, rslora) for path, scale in scales.items()}
    return Adapter(
        rank,
        alpha,
        rslora,
        {path: factors[path] for path in layout.affine if path in factors},
        {path: each for path, each in own.items() if not math.isclose(each, alpha)},
        float(config.get("lora_dropout", 0.0)),
        config.get("bias", "none"),
        tuple(f"^{re.escape(each)}$" for each in _slashed(config.get("modules_to_save"), layout)),
        whole,
    )


def dotted(path: str) -> str:
    """The name of torch's module."""
    return path.replace("/", ".")


def _divisor(rank: int, rank_stabilised: bool) -> float:
    return math.sqrt(rank) if rank_stabilised else rank


def _exactly(path: str) -> str:
    """A key of PEFT's patterns that means this module alone."""
    return f"^{re.escape(dotted(path))}"


def _torch_factors(
    affine: Affine, a: np.ndarray, b: np.ndarray, magnitude: keras.Variable | None
) -> dict[str, np.ndarray]:
    """A (in, r), B (r, out) and the magnitude as torch's tensors by name."""
    names = TABLE if isinstance(affine, Lookup) else MATRIX
    first, second = a.T, b.T
    ones: tuple[int, ...] = ()
    if isinstance(affine, Convolution):
        ones = (1,) * affine.layer.rank
        split = a.reshape(*affine.inputs, -1)
        first = np.moveaxis(split, (-1, -2), (0, 1))
        second = b.T.reshape(*b.T.shape, *ones)
    tensors = {names[0]: first, names[1]: second}
    if magnitude is not None:
        lengths = magnitude.numpy().ravel()
        tensors[MAGNITUDE] = lengths.reshape(1, -1, *ones) if ones else lengths
    return tensors


def _factors(folder: Path, path: str, layout: Layout, tensors: dict[str, np.ndarray]) -> Factors:
    """Takes the tensors of a layer out of the dictionary."""
    module = f"{PREFIX}{dotted(path)}."
    layer = layout.affine[path]
    names = TABLE if isinstance(layer, keras.layers.Embedding) else MATRIX
    if any(module + name not in tensors for name in names):
        raise InputError(f"{folder} has not both factors of {path}")
    first, second = (tensors.pop(module + name) for name in names)
    affine = affine_of_rank(path, layer, len(first))
    if isinstance(affine, Convolution):
        first = np.moveaxis(first, (0, 1), (-1, -2))
        matched = first.shape[:-1] == affine.inputs
        a = first.reshape(-1, first.shape[-1])
    else:
        a = first.T
        matched = len(a) == affine.size[0]
    b = second.reshape(len(second), -1).T
    if not matched or b.shape != (a.shape[1], affine.size[1]):
        raise InputError(
            f"{folder}: {path} has A {first.shape} and B {second.shape}; "
            f"the layer is {affine.size[0]} x {affine.size[1]}"
        )
    magnitude = tensors.pop(module + MAGNITUDE, None)
    if magnitude is not None and magnitude.size != affine.size[1]:
        raise InputError(f"{folder}: the magnitude of {path} has {magnitude.size} values")
    return make_factors(affine, a, b, magnitude is not None, magnitude)


def _whole(
    folder: Path,
    layout: Layout,
    tensors: dict[str, np.ndarray],
    adapted: dict[str, Factors],
) -> dict[int, np.ndarray]:
    """Takes the weights that are trained whole out of the dictionary."""
    whole = {}
    for copy in [name for name in tensors if re.search("modules_to_save|original_module", name)]:
        tensors.pop(copy)  # PEFT stores biases of modules_to_save again under bias="all"
    for index, weight in enumerate(layout.weights):
        name = None
        if weight.name in WHOLE:
            name = layout.name(index, layout.owner(index) in adapted)
        if name is None or name not in tensors:
            continue
        value = tensors.pop(name)
        if value.size != math.prod(weight.shape):
            raise InputError(f"{folder}: {name} is {value.shape}; the weight is {weight.shape}")
        whole[index] = layout.from_torch(index, value)
    return whole


def _target_modules(adapter: Adapter, layout: Layout) -> list[str] | str:
    """The adapted modules by name, or as a regular expression where a name would mean another one
    too (PEFT takes a name for an ending)."""
    names = [dotted(path) for path in adapter.factors]
    others = [dotted(path) for path in layout.layers if path not in adapter.factors]
    if any(other.endswith(f".{name}") for other in others for name in names):
        return "|".join(re.escape(name) for name in names)
    return names


def _saved_modules(adapter: Adapter, layout: Layout) -> list[str]:
    """The modules that are trained whole."""
    owners = dict.fromkeys(layout.owner(index) for index in adapter.whole)
    return [
        dotted(path)
        for path in owners
        if path not in adapter.factors
        and any(
            re.search(pattern, prefix)
            for pattern in adapter.modules_to_save
            for prefix in _ancestors(path)
        )
    ]


def _ancestors(path: str) -> list[str]:
    """A path and those of the layers around it."""
    parts = path.split("/")
    return ["/".join(parts[: end + 1]) for end in range(len(parts))]


def _slashed(modules: list[str] | None, layout: Layout) -> list[str]:
    """The paths of modules by their dotted names."""
    return [path for path in layout.layers if dotted(path) in (modules or [])]


def _by_pattern(pattern: dict[str, float] | None, module: str, default: float) -> float:
    """The value of the first key that matches the module or its ending."""
    for key, value in (pattern or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return default


def _read(folder: Path) -> tuple[JsonObject, dict[str, np.ndarray]]:
    """The checked configuration and the tensors in float32."""
    for name in (CONFIG, TENSORS):
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} is not there; a PEFT adapter has both files")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        kind = config["peft_type"]
        numbers = float(config["r"]), float(config["lora_alpha"])
        start = config.get("init_lora_weights", True)
        tensors = load((folder / TENSORS).read_bytes())
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise InputError(
            f"{folder} is damaged ({type(error).__name__}: {error}); copy the adapter again"
        ) from None
    if kind != "LORA" or min(numbers) <= 0:
        raise InputError(f"{folder} is {kind} of rank {config['r']}; LORA can be read")
    if isinstance(start, str) and start.startswith(CHANGED_BASE):
        raise InputError(
            f"{folder} began with {start}, which changes the base; let PEFT convert it to a plain "
            "LoRA when it saves (path_initial_model_for_weight_conversion)"
        )
    return config, {name: value.astype(np.float32) for name, value in tensors.items()}
