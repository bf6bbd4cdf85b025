"""LoRA for any Keras model made of Dense and EinsumDense layers, those inside MultiHeadAttention included."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import re
import string
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import keras
import numpy as np
import safetensors
from keras import ops
from safetensors.numpy import load, save

from common.cli import InputError
from common.run import atomic_path, write_text

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Affine:
    """How the x W of one layer splits into (x A) B: A takes the kernel's summed axes to r, B takes r to its output axes."""

    down: str
    """einsum equation of x, A -> x A"""
    up: str
    """einsum equation of x A, B -> x A B"""
    outer: str
    """einsum equation of A, B -> A B in the axis order of W"""
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def size(self) -> tuple[int, int]:
        """(in, out) of W as a matrix."""
        return math.prod(self.inputs), math.prod(self.outputs)


@dataclasses.dataclass(frozen=True)
class Adapter:
    """One set of trained factors: {layer path: (A (inputs..., r), B (r, outputs...))}."""

    rank: int
    alpha: float
    rank_stabilised: bool
    factors: dict[str, tuple[keras.Variable, keras.Variable]]

    @property
    def scale(self) -> float:
        """alpha / r (Hu et al. 2021, section 4.1), or alpha / sqrt(r) (rsLoRA, Kalajdzievski 2023, theorem 3.2)."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)


def affine_layers(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """{names from the model down to the layer: layer} in the order of model.weights; a layer met twice is listed once.

    A subclass of Dense or EinsumDense that computes its output in another way is no affine map and is left out.
    """
    found: dict[str, keras.layers.Layer] = {}
    seen: set[int] = set()

    def visit(parent: keras.layers.Layer, prefix: str) -> None:
        for layer in parent._layers:
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            path = prefix + layer.name
            if getattr(type(layer), "call", None) in (
                keras.layers.Dense.call,
                keras.layers.EinsumDense.call,
            ):
                found[f"{path}:{len(found)}" if path in found else path] = (
                    layer  # a subclassed model may use a name twice
                )
            visit(layer, f"{path}/")

    visit(model, "")
    return found


def split(path: str, layer: keras.layers.Layer) -> Affine:
    """Splits the affine map of a built layer.

    Raises InputError for a kernel that is not plain float32 and for an einsum equation that is no matrix product.
    """
    if layer.quantization_mode or {layer.compute_dtype, layer.variable_dtype} != {"float32"}:
        raise InputError(
            f"{path} computes in {layer.dtype_policy.name}; LoRA is written for float32"
        )
    if layer.lora_enabled:
        raise InputError(f"{path} has Keras' own LoRA; build it without lora_rank")
    equation = layer.equation if isinstance(layer, keras.layers.EinsumDense) else "...x,xy->...y"
    x, kernel, y = re.split(",|->", equation)
    summed = "".join(axis for axis in kernel if axis in x and axis not in y)
    made = "".join(axis for axis in kernel if axis in y and axis not in x)
    if len(summed) + len(made) < len(kernel):
        raise InputError(
            f"{path}: {equation} cannot be split into x A B; an axis of the kernel must be in the input or in the output, not in both"
        )
    r = next(letter for letter in string.ascii_letters if letter not in equation)
    middle = "".join(axis for axis in x if axis not in summed) + r
    length = dict(zip(kernel, layer.kernel.shape, strict=True))
    return Affine(
        down=f"{x},{summed}{r}->{middle}",
        up=f"{middle},{r}{made}->{y}",
        outer=f"{summed}{r},{r}{made}->{kernel}",
        inputs=tuple(length[axis] for axis in summed),
        outputs=tuple(length[axis] for axis in made),
    )


def _einsum(equation: str, x: keras.KerasTensor, factor: keras.Variable) -> keras.KerasTensor:
    """ops.einsum with the ellipsis spelt out, because TensorFlow's gradient of an einsum with an ellipsis is slow."""
    unused = "".join(letter for letter in string.ascii_letters if letter not in equation)
    return ops.einsum(
        equation.replace("...", unused[: len(x.shape) + len("...") - equation.index(",")]),
        x,
        factor,
    )


def adapted_call(
    layer: keras.layers.Layer, a: keras.Variable, b: keras.Variable, scale: float
) -> Callable:
    """The layer's `call` with h = W x + s (x A) B + bias (Hu et al. 2021, equation 3) in front of the activation."""
    affine = split(layer.name, layer)
    product = (
        ops.matmul
        if isinstance(layer, keras.layers.Dense)
        else functools.partial(ops.einsum, layer.equation)
    )

    def call(inputs, training=None):
        # not x (W + s A B), whose backward pass would pay for the gradient of a whole kernel
        low = _einsum(affine.up, scale * _einsum(affine.down, inputs, a), b)
        h = ops.add(product(inputs, layer.kernel), low)
        if layer.bias is not None:
            h = ops.add(h, layer.bias)
        return h if layer.activation is None else layer.activation(h)

    return call


def inference_call(layer: keras.layers.BatchNormalization) -> Callable:
    """The layer's `call` in inference mode, which leaves the moving averages as they are."""

    def call(inputs, training=None, mask=None):
        return type(layer).call(layer, inputs, training=False, mask=mask)

    return call


class LoRA:
    """Low-rank adapters on a built Keras model: h = W x + b + s (x A) B with W and every other weight frozen (Hu et al. 2021).

    The model stays the object that it was: `fit`, `predict` and a GradientTape see the active adapter's A and B as its only
    trainable variables, and `model.save` writes the base's own weights (merged: W + s A B), which load without this module.
    Layers are told apart by the names on the way from the model down to them. A tf.function of the user's own has to be
    traced again after a change of adapter; `fit`, `evaluate` and `predict` are. An optimizer belongs to the adapter it
    began with: compile again to train another.

    Raises InputError for a model that is not built, has no affine layer, or is held by another LoRA.
    """

    def __init__(self, model: keras.Model, base_name: str = ""):
        self.model = model
        self.base_name = base_name
        self._layers = affine_layers(model)
        if unbuilt := [path for path, layer in self._layers.items() if not layer.built] or (
            [] if self._layers else [model.name]
        ):
            raise InputError(
                f"{unbuilt[0]} has no Dense or EinsumDense weights yet; call the model once before LoRA"
            )
        if any("call" in vars(layer) for layer in self._layers.values()):
            raise InputError(f"{model.name} has an adapter of another LoRA; detach that first")
        self._weights = list(model.weights)
        self._trainable: list[bool] = []  # of each weight before it was frozen
        self._kernels: dict[str, np.ndarray] = {}  # W of each layer that an adapter is merged into
        self._adapters: dict[str, Adapter] = {}
        self._active: str | None = None
        self.base_sha256 = self._digest()

    # -- what there is

    def targets(self) -> dict[str, keras.layers.Layer]:
        """{path: layer} of every affine map, in the order of model.weights."""
        return dict(self._layers)

    @property
    def names(self) -> tuple[str, ...]:
        """Every adapter, oldest first."""
        return tuple(self._adapters)

    @property
    def active(self) -> str | None:
        """The adapter in use; None when switched off."""
        return self._active

    @property
    def merged(self) -> bool:
        """Whether the active adapter is merged into W."""
        return bool(self._kernels)

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """A and B of each layer of the active adapter, in the order of model.trainable_variables; empty when off or merged."""
        if self._active is None or self.merged:
            return []
        return [
            variable for pair in self._adapters[self._active].factors.values() for variable in pair
        ]

    def count(self, name: str | None = None) -> int:
        """Trained weights of an adapter (None: the active one): the sum of r (in + out) over its layers."""
        return sum(
            math.prod(variable.shape)
            for pair in self._get(name).factors.values()
            for variable in pair
        )

    def update(self, name: str | None = None) -> dict[str, np.ndarray]:
        """{path: s A B as a float64 matrix (in, out)} of an adapter (None: the active one)."""
        adapter = self._get(name)
        return {
            path: adapter.scale
            * a.numpy().reshape(-1, b.shape[0]).astype(np.float64)
            @ b.numpy().reshape(b.shape[0], -1)
            for path, (a, b) in adapter.factors.items()
        }

    # -- adding and switching

    def add(
        self,
        name: str,
        rank: int,
        alpha: float | None = None,
        targets: Iterable[str] | None = None,
        rank_stabilised: bool = False,
        seed: int = 0,
        rank_pattern: Mapping[str, int] | None = None,
    ) -> None:
        """Adds an adapter to every layer whose path matches one of the regular expressions (None: to all) and makes it active.

        B = 0 and A is Gaussian (Hu et al. 2021, section 4.1), here with variance 1 / in, so that x A has the mean square of x;
        the paper leaves the variance open. `alpha` None is the rank. `rank_pattern` {regular expression: rank} gives layers, for
        one those narrower than `rank`, another rank under the same scale. Raises InputError for a taken name, a pattern that matches
        no layer, a layer that `split` refuses, a rank outside 1..min(in, out) of a layer and an alpha that is not above 0.
        """
        generator = np.random.default_rng(seed)
        factors = {}
        for path in self._choose(targets):
            own = next(
                (
                    other
                    for pattern, other in (rank_pattern or {}).items()
                    if re.search(pattern, path)
                ),
                rank,
            )
            affine = self._split(path, own)
            a = generator.normal(0, affine.size[0] ** -0.5, (*affine.inputs, own))
            factors[path] = a, np.zeros((own, *affine.outputs))
        self._attach(name, rank, rank if alpha is None else alpha, rank_stabilised, factors)

    def activate(self, name: str | None) -> None:
        """Switches to an adapter, or with None to the base model; a merge is undone first. Raises InputError for an unknown name."""
        if name is not None:
            self._get(name)
        self._switch(name)

    @contextlib.contextmanager
    def disabled(self) -> Iterator[None]:
        """Inside the block the model is the base model."""
        active, merged = self._active, self.merged
        self._switch(None)
        try:
            yield
        finally:
            self._switch(active, merged)

    def merge(self) -> None:
        """W <- W + s A B of the active adapter, rounded once; the layers then run plainly. Raises InputError when off or merged."""
        self._get(None)
        if self.merged:
            raise InputError(f"adapter {self._active} is merged already; unmerge it first")
        self._switch(self._active, merged=True)

    def unmerge(self) -> None:
        """Puts W back bit by bit and computes the adapter beside it again. Raises InputError when nothing is merged."""
        if not self.merged:
            raise InputError("no adapter is merged; merge one first")
        self._switch(self._active)

    def detach(self) -> keras.Model:
        """Forgets every adapter and returns the model as it was before the first one, each weight as trainable as then."""
        self._switch(None)
        for layer in self.model._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                vars(layer).pop("call", None)
        for weight, trainable in zip(self._weights, self._trainable, strict=bool(self._trainable)):
            weight.trainable = trainable
        self._trainable = []
        self._adapters.clear()
        return self.model

    # -- files

    def save(self, path: Path, name: str | None = None) -> None:
        """Writes an adapter (None: the active one) without its base as x.safetensors and x.json.

        The one tensor holds A and B of each layer in turn. Raises InputError for another
        suffix, a place that cannot be written, and a base that is no longer the one LoRA was made for.
        """
        adapter = self._get(name)
        path = _adapter_path(path)
        if (digest := self._digest()) != self.base_sha256:
            raise InputError(
                f"{path}: the weights under the adapter were {self.base_sha256} and have become {digest}; it is not saved"
            )
        content = save(
            {
                "factors": np.concatenate(
                    [factor.numpy().ravel() for pair in adapter.factors.values() for factor in pair]
                )
            }
        )
        positions = {key: position for position, key in enumerate(self._layers)}
        facts = {
            "format": FORMAT,
            "base": self.base_sha256,
            "base_name": self.base_name,
            "rank": adapter.rank,
            "alpha": adapter.alpha,
            "rank_stabilised": adapter.rank_stabilised,
            "trained_weights": self.count(name),
            "safetensors": hashlib.sha256(content).hexdigest(),
            # Keras numbers unnamed layers anew in every process, so a layer is found by its position
            "targets": {
                key: [positions[key], *split(key, self._layers[key]).size, b.shape[0]]
                for key, (_, b) in adapter.factors.items()
            },
        }
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
        write_text(
            path.with_suffix(".json"),
            json.dumps(facts, separators=(",", ":"), ensure_ascii=False) + "\n",
        )

    def load(self, path: Path, name: str) -> None:
        """Adds the adapter of a file under a name and makes it active.

        Raises InputError for a file that is missing, damaged or of another format, for another base, and for other shapes.
        """
        path = _adapter_path(path)
        facts, held = _read(path)
        if facts["base"] != self.base_sha256:
            raise InputError(
                f"{path} was trained on the base {facts['base']}, this base is {self.base_sha256}; use the one it was trained on"
            )
        rank, start, factors = facts["rank"], 0, {}
        here = list(self._layers)
        for written, (position, *size, own) in facts["targets"].items():
            if position not in range(len(here)):
                raise InputError(
                    f"{path} adapts {written}, layer {position}; this model has the layers 0 to {len(here) - 1}"
                )
            affine = self._split(here[position], own)
            if tuple(size) != affine.size:
                raise InputError(
                    f"{path}: {written} is {size[0]} x {size[1]} in the file; the model's is {affine.size[0]} x {affine.size[1]}"
                )
            a, b = np.split(held[start : start + own * sum(size)], [own * size[0]])
            factors[here[position]] = (
                a.reshape(*affine.inputs, own),
                b.reshape(own, *affine.outputs),
            )
            start += own * sum(size)
        self._attach(name, rank, facts["alpha"], facts["rank_stabilised"], factors)

    # -- inside

    def _get(self, name: str | None) -> Adapter:
        """An adapter by name, or the active one."""
        name = self._active if name is None else name
        if name not in self._adapters:
            raise InputError(
                f"no adapter {'is active' if name is None else name}; there are: {', '.join(self._adapters) or 'none'}"
            )
        return self._adapters[name]

    def _choose(self, targets: Iterable[str] | None) -> list[str]:
        """The paths that the patterns match, in the order of model.weights."""
        patterns = (
            [""] if targets is None else [targets] if isinstance(targets, str) else list(targets)
        )
        matched: set[str] = set()
        for pattern in patterns:
            try:
                found = {path for path in self._layers if re.search(pattern, path)}
            except re.error as error:
                raise InputError(f"targets: {pattern} is no regular expression ({error})") from None
            if not found:
                raise InputError(
                    f"targets: {pattern} matches no layer; the layers are {', '.join(self._layers)}"
                )
            matched |= found
        if not matched:
            raise InputError(f"targets: no pattern given; the layers are {', '.join(self._layers)}")
        return [path for path in self._layers if path in matched]

    def _split(self, path: str, rank: int) -> Affine:
        """The split of a layer that has room for the rank."""
        affine = split(path, self._layers[path])
        if not 1 <= rank <= min(affine.size):
            raise InputError(
                f"rank {rank}: {path} is {affine.size[0]} x {affine.size[1]}, so its rank goes from 1 to {min(affine.size)}"
            )
        return affine

    def _attach(
        self,
        name: str,
        rank: int,
        alpha: float,
        rank_stabilised: bool,
        factors: dict[str, tuple[np.ndarray, np.ndarray]],
    ) -> None:
        """Makes the variables of a new adapter, freezes the base if this is the first, and switches to it."""
        if name in self._adapters:
            raise InputError(
                f"an adapter {name} is there already; the taken names are {', '.join(self._adapters)}"
            )
        if not (alpha > 0 and math.isfinite(alpha)):
            raise InputError(f"alpha {alpha}: the adapter's scale must be a finite number above 0")
        if not self.model.trainable:
            raise InputError(
                f"{self.model.name}.trainable is False, so Keras trains nothing of it; set it to True, LoRA freezes W itself"
            )
        if not self._trainable:
            self._trainable = [weight.trainable for weight in self._weights]
            for weight in self._weights:
                weight.trainable = False
            for layer in self.model._flatten_layers():
                if isinstance(layer, keras.layers.BatchNormalization):
                    vars(layer)["call"] = inference_call(layer)
        self._adapters[name] = Adapter(
            rank,
            float(alpha),
            rank_stabilised,
            {
                path: (
                    keras.Variable(a, dtype="float32", name="lora_a"),
                    keras.Variable(b, dtype="float32", name="lora_b"),
                )
                for path, (a, b) in factors.items()
            },
        )
        self._switch(name)

    def _switch(self, name: str | None, merged: bool = False) -> None:
        """Takes the active adapter off the model and puts another on it: beside W, or merged into W."""
        for path, pair in self._adapters[self._active].factors.items() if self._active else ():
            vars(self._layers[path]).pop("call", None)
            for variable in pair:
                self._layers[path]._untrack_variable(variable)
        for path, kernel in self._kernels.items():
            self._layers[path].kernel.assign(kernel)
        self._kernels = {}
        self._active = name
        factors, scale = (
            (self._adapters[name].factors, self._adapters[name].scale) if name else ({}, 1.0)
        )
        for path, pair in factors.items():
            layer = self._layers[path]
            if merged:
                a, b = (variable.numpy().astype(np.float64) for variable in pair)
                self._kernels[path] = layer.kernel.numpy()
                layer.kernel.assign(
                    self._kernels[path] + scale * np.einsum(split(path, layer).outer, a, b)
                )
                continue
            # on the instance, not its class: the model's configuration, and so model.save, stays the base's
            vars(layer)["call"] = adapted_call(layer, *pair, scale)
            layer._tracker.unlock()
            for variable in pair:
                layer._track_variable(variable)
                variable.trainable = True  # also in a layer that the user had frozen
            layer._tracker.lock()
        for part in self.model._flatten_layers():
            if isinstance(part, keras.Model):
                for kind in (
                    "train",
                    "test",
                    "predict",
                ):  # made again rather than dropped: a callback may switch inside fit
                    if getattr(part, f"{kind}_function") is not None:
                        getattr(part, f"make_{kind}_function")(force=True)

    def _digest(self) -> str:
        """sha256 over name, shape and bytes of the base's weights, whatever adapter is on or merged."""
        merged = {id(self._layers[path].kernel): kernel for path, kernel in self._kernels.items()}
        digest = hashlib.sha256()
        for weight in self._weights:
            value = np.ascontiguousarray(merged.get(id(weight), weight.numpy()))
            digest.update(f"{weight.name} {value.dtype} {value.shape}\n".encode())
            digest.update(value.tobytes())
        return digest.hexdigest()


def _adapter_path(path: Path) -> Path:
    """A path that ends in .safetensors."""
    if Path(path).suffix != ".safetensors":
        raise InputError(f"{path}: the name of an adapter file ends in .safetensors")
    return Path(path)


def _read(path: Path) -> tuple[dict, np.ndarray]:
    """The checked facts and the factors (trained weights,) of an adapter file."""
    beside = path.with_suffix(".json")
    for file in (path, beside):
        if not file.is_file():
            raise InputError(
                f"{file} is not there; an adapter is x.safetensors and x.json side by side"
            )
    try:
        facts = json.loads(beside.read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise InputError(f"{beside} has format {facts['format']}; format {FORMAT} can be read")
        count = sum((size[1] + size[2]) * size[3] for size in facts["targets"].values())
        wanted = {
            "base": str,
            "rank": int,
            "alpha": float,
            "rank_stabilised": bool,
            "safetensors": str,
        }
        if not all(isinstance(facts[key], kind) for key, kind in wanted.items()) or any(
            len(size) != 4 for size in facts["targets"].values()
        ):
            raise ValueError("a value has another type")
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(
            f"{beside} is damaged ({type(error).__name__}: {error}); copy the adapter again"
        ) from None
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != facts["safetensors"]:
            raise ValueError(f"its sha256 is not the one in {beside.name}")
        held = load(content)["factors"]
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        raise InputError(f"{path} is damaged ({error}); copy the adapter again") from None
    if held.shape != (count,):
        raise InputError(
            f"{path} holds factors of shape {held.shape}; {beside.name} speaks of {count} weights"
        )
    return facts, held
