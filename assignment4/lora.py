"""LoRA (Hu et al. 2021) for any Keras model made of Dense and EinsumDense layers.

A frozen affine map h = x W + b becomes h = x W + b + s (x A) B with A and B alone trained; layers
inside MultiHeadAttention are affine maps too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import keras
import numpy as np
from keras import ops

from assignment4.adapter_file import AdapterFile, adapter_path
from assignment4.affine import Affine, affine_layers, affine_map
from common.cli import InputError


def adapted_call(
    layer: keras.layers.Layer, a: keras.Variable, b: keras.Variable, scale: float
) -> Callable:
    """The layer's `call` with h = x W + s (x A) B + bias before the activation (equation 3)."""
    affine = affine_map(layer.name, layer)
    product = ops.matmul
    if isinstance(layer, keras.layers.EinsumDense):
        product = functools.partial(ops.einsum, layer.equation)

    def call(inputs, training=None):
        # not x (W + s A B), whose backward pass would pay for the gradient of a whole kernel
        low_rank = affine.low_rank(inputs, a, b, scale)
        h = ops.add(product(inputs, layer.kernel), low_rank)
        if layer.bias is not None:
            h = ops.add(h, layer.bias)
        return h if layer.activation is None else layer.activation(h)

    return call


@dataclasses.dataclass(frozen=True)
class Adapter:
    """One set of trained factors: {layer path: (A (inputs..., r), B (r, outputs...))}.

    Raises InputError for an alpha that is not a finite number above 0.
    """

    rank: int
    alpha: float
    rank_stabilised: bool
    factors: dict[str, tuple[keras.Variable, keras.Variable]]

    def __post_init__(self) -> None:
        if not (self.alpha > 0 and math.isfinite(self.alpha)):
            raise InputError(
                f"alpha {self.alpha}: the adapter's scale must be a finite number above 0"
            )

    @property
    def scale(self) -> float:
        """s = alpha / r (Hu et al. 2021, section 4.1), or alpha / sqrt(r) (rsLoRA, Kalajdzievski
        2023, theorem 3.2)."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)

    @property
    def variables(self) -> list[keras.Variable]:
        """A and B of each layer in turn."""
        return [variable for pair in self.factors.values() for variable in pair]


class LoRA:
    """Low-rank adapters on a built Keras model; W and every other weight are frozen.

    The model stays the object that it was: `fit`, `predict` and a GradientTape see the active
    adapter's A and B as its only trainable variables, and `model.save` writes the base's own
    weights (merged: W + s A B), which load without this module. So do weights files: `save_weights`
    and keras.callbacks.ModelCheckpoint keep nothing of an adapter, `save` and AdapterCheckpoint do.
    Layers are identified by the names on the way from the model down to them. A tf.function of the
    user's own has to be traced again after a change of adapter; `fit`, `evaluate` and `predict`
    are. An optimizer belongs to the adapter that it began with: compile again to train another.
    To quantise, merge first: a quantised layer computes past an adapter beside its W, so that
    `quantize` is refused while there is one.

    Raises InputError for a model that is not built, has no affine layer, or is held by another
    LoRA.
    """

    def __init__(self, model: keras.Model, base_name: str = ""):
        self.model = model
        self.base_name = base_name
        self._layers = affine_layers(model)
        unbuilt = [path for path, layer in self._layers.items() if not layer.built]
        if unbuilt or not (self._layers or model.built):
            name = unbuilt[0] if unbuilt else model.name
            raise InputError(
                f"{name} has no Dense or EinsumDense weights yet; call the model once before LoRA"
            )
        if not self._layers:
            kinds = sorted({type(layer).__name__ for layer in model.layers} - {"InputLayer"})
            raise InputError(
                f"{model.name} holds no Dense or EinsumDense layer, so LoRA has nothing to adapt; "
                f"it is made of {', '.join(kinds)}"
            )
        if any("call" in vars(layer) for layer in self._layers.values()):
            raise InputError(f"{model.name} has an adapter of another LoRA; detach that first")

        self._weights = list(model.weights)
        self._trainable: list[bool] = []  # of each weight before it was frozen
        # W of each layer that an adapter is merged into, and what it was before
        self._kernels: dict[str, tuple[keras.Variable, np.ndarray]] = {}
        # Keras' `quantize` of each part, in whose place an adapter beside W puts a refusal
        self._quantisers: list[tuple[keras.layers.Layer, Callable]] = []
        self._adapters: dict[str, Adapter] = {}
        self._active: str | None = None
        self.base_sha256 = self.digest()

    # -- state

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
        """A and B of each layer of the active adapter, in the order of model.trainable_variables;
        empty when off or merged."""
        if self._active is None or self.merged:
            return []
        return self._adapters[self._active].variables

    def count(self, name: str | None = None) -> int:
        """Trained weights of an adapter (None: the active one): the sum of r (in + out)."""
        return sum(math.prod(variable.shape) for variable in self.adapter(name).variables)

    def update(self, name: str | None = None) -> dict[str, np.ndarray]:
        """{path: s A B as a float64 matrix (in, out)} of an adapter (None: the active one)."""
        adapter = self.adapter(name)
        updates = {}
        for path, (a, b) in adapter.factors.items():
            rows = a.numpy().reshape(-1, b.shape[0]).astype(np.float64)  # (in, r)
            columns = b.numpy().reshape(b.shape[0], -1)  # (r, out)
            updates[path] = adapter.scale * rows @ columns  # (in, out)
        return updates

    def adapter(self, name: str | None = None) -> Adapter:
        """An adapter by name (None: the active one). Raises InputError where there is none."""
        name = self._active if name is None else name
        if name is None or name not in self._adapters:
            missing = "is active" if name is None else name
            raise InputError(
                f"no adapter {missing}; there are: {', '.join(self._adapters) or 'none'}"
            )
        return self._adapters[name]

    def digest(self) -> str:
        """sha256 over name, shape and bytes of the base's weights, whatever adapter is on or
        merged."""
        originals = {id(variable): kernel for variable, kernel in self._kernels.values()}
        digest = hashlib.sha256()
        for weight in self._weights:
            value = np.ascontiguousarray(originals.get(id(weight), weight.numpy()))
            digest.update(f"{weight.name} {value.dtype} {value.shape}\n".encode())
            digest.update(value.tobytes())
        return digest.hexdigest()

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
        """Adds an adapter to every layer whose path matches one of the regular expressions
        `targets` (None: to all) and makes it active.

        B = 0 and A is Gaussian (Hu et al. 2021, section 4.1), here with variance 1 / in, so that
        x A has the mean square of x; the paper leaves the variance open. `alpha` None is the rank.
        A layer narrower than the rank, such as a head of one output, has as much as it has room
        for, and `rank_pattern` {regular expression: rank} gives layers another rank; the scale is
        the same for all. Raises InputError for a taken name, a pattern that matches no layer, a
        layer that `affine_map` refuses, a rank below 1 or above min(in, out) of every layer (of
        `rank_pattern`: of a layer), and an alpha that is not above 0.
        """
        generator = np.random.default_rng(seed)
        factors = {}
        for path, own_rank in self._ranks(
            rank, self._matching(targets), rank_pattern or {}
        ).items():
            affine = self._affine_of_rank(path, own_rank)
            a = generator.normal(0, affine.size[0] ** -0.5, (*affine.inputs, own_rank))
            b = np.zeros((own_rank, *affine.outputs))
            factors[path] = _variables(a, b)
        scale = float(rank if alpha is None else alpha)
        self._attach(name, Adapter(rank, scale, rank_stabilised, factors))

    def activate(self, name: str | None) -> None:
        """Switches to an adapter, or with None to the base model; a merge is undone first.

        Raises InputError for an unknown name.
        """
        if name is not None:
            self.adapter(name)
        self._switch(name)

    @contextlib.contextmanager
    def disabled(self) -> Iterator[None]:
        """Inside the block the model is the base model."""
        active = self._active
        merged = self.merged
        self._switch(None)
        try:
            yield
        finally:
            self._switch(active, merged)

    def merge(self) -> None:
        """W <- W + s A B of the active adapter, rounded once; the layers then run plainly.

        Raises InputError when off or merged.
        """
        self.adapter()
        if self.merged:
            raise InputError(f"adapter {self._active} is merged already; unmerge it first")
        self._switch(self._active, merged=True)

    def unmerge(self) -> None:
        """Puts W back bit by bit and computes the adapter beside it again.

        Raises InputError when nothing is merged.
        """
        if not self.merged:
            raise InputError("no adapter is merged; merge one first")
        self._switch(self._active)

    def detach(self) -> keras.Model:
        """Forgets every adapter and returns the model as it was before the first one, each weight
        as trainable as then.

        Raises InputError where a layer was quantised, because its W is gone then.
        """
        self._switch(None)
        for layer in self._batch_normalisations():
            vars(layer).pop("call", None)
        for weight, trainable in zip(self._weights, self._trainable, strict=bool(self._trainable)):
            weight.trainable = trainable
        self._trainable = []
        self._adapters.clear()
        return self.model

    # -- files

    def export(self, name: str | None = None, base: str | None = None) -> AdapterFile:
        """An adapter (None: the active one) without its base.

        `base` is the sha256 of the base's weights that the adapter was trained on (None: as LoRA
        found them). Raises InputError where they have changed since and `base` does not say which
        ones are meant. A base that was merely quantised has not.
        """
        adapter = self.adapter(name)
        digest = self.digest()
        known = (self.base_sha256, digest)
        if digest != self.base_sha256 and base not in known:
            raise InputError(
                f"the weights under the adapter were {known[0]} and have become {digest}; "
                "it is not saved; say which of the two it was trained on with base="
            )
        if base is not None and base not in known:
            raise InputError(f"base {base}: the weights under the adapter are {digest}")
        positions = {path: position for position, path in enumerate(self._layers)}
        targets = {}
        for path, (a, b) in adapter.factors.items():
            rows = math.prod(a.shape[:-1])
            columns = math.prod(b.shape[1:])
            targets[path] = [positions[path], rows, columns, b.shape[0]]
        return AdapterFile(
            base or self.base_sha256,
            self.base_name,
            adapter.rank,
            adapter.alpha,
            adapter.rank_stabilised,
            targets,
            np.concatenate([variable.numpy().ravel() for variable in adapter.variables]),
        )

    def save(self, path: Path, name: str | None = None, base: str | None = None) -> None:
        """Writes an adapter (None: the active one) without its base as x.safetensors and x.json.

        Raises InputError as `export` and `AdapterFile.save` do.
        """
        adapter = self.export(name, base)
        adapter.save(path)

    def load(self, path: Path, name: str) -> None:
        """Adds the adapter of a file under a name and makes it active.

        Raises InputError for a file that is missing, damaged or of another format, for another
        base, and for other shapes.
        """
        path = adapter_path(path)
        stored = AdapterFile.read(path)
        if stored.base != self.base_sha256:
            raise InputError(
                f"{path} was trained on the base {stored.base}, this base is {self.base_sha256}; "
                "use the one that it was trained on"
            )
        paths = list(self._layers)
        factors = {}
        start = 0
        for written, (position, rows, columns, own_rank) in stored.targets.items():
            if position not in range(len(paths)):
                raise InputError(
                    f"{path} adapts {written}, layer {position}; "
                    f"this model has the layers 0 to {len(paths) - 1}"
                )
            affine = self._affine_of_rank(paths[position], own_rank)
            if (rows, columns) != affine.size:
                raise InputError(
                    f"{path}: {written} is {rows} x {columns} in the file; "
                    f"the model's is {affine.size[0]} x {affine.size[1]}"
                )
            middle = start + own_rank * rows
            end = middle + own_rank * columns
            a = stored.factors[start:middle].reshape(*affine.inputs, own_rank)
            b = stored.factors[middle:end].reshape(own_rank, *affine.outputs)
            factors[paths[position]] = _variables(a, b)
            start = end
        self._attach(name, Adapter(stored.rank, stored.alpha, stored.rank_stabilised, factors))

    # -- inside

    def _matching(self, targets: Iterable[str] | None) -> list[str]:
        """The paths that the patterns match, in the order of model.weights."""
        if targets is None:
            return list(self._layers)
        patterns = [targets] if isinstance(targets, str) else list(targets)
        matched: set[str] = set()
        for pattern in patterns:
            try:
                paths = {path for path in self._layers if re.search(pattern, path)}
            except re.error as error:
                raise InputError(f"targets: {pattern} is no regular expression ({error})") from None
            if not paths:
                raise InputError(
                    f"targets: {pattern} matches no layer; the layers are {', '.join(self._layers)}"
                )
            matched |= paths
        if not matched:
            raise InputError(f"targets: no pattern given; the layers are {', '.join(self._layers)}")
        return [path for path in self._layers if path in matched]

    def _ranks(self, rank: int, paths: list[str], pattern: Mapping[str, int]) -> dict[str, int]:
        """The rank of each layer: that of the first pattern, else `rank` or all it has room for.

        Raises InputError for a rank that no layer has room for.
        """
        room = {path: min(affine_map(path, self._layers[path]).size) for path in paths}
        widest = max(paths, key=room.__getitem__)
        if not 1 <= rank <= room[widest]:
            self._affine_of_rank(widest, rank)
        ranks = {path: min(rank, room[path]) for path in paths}
        for path in paths:
            matching = (other for words, other in pattern.items() if re.search(words, path))
            ranks[path] = next(matching, ranks[path])
        return ranks

    def _affine_of_rank(self, path: str, rank: int) -> Affine:
        """The affine map of a layer. Raises InputError where it has no room for the rank."""
        affine = affine_map(path, self._layers[path])
        rows, columns = affine.size
        if not 1 <= rank <= min(rows, columns):
            raise InputError(
                f"rank {rank}: {path} is {rows} x {columns}, "
                f"so its rank goes from 1 to {min(rows, columns)}; targets= names other layers, "
                "and rank_pattern= gives single ones another rank"
            )
        return affine

    def _attach(self, name: str, adapter: Adapter) -> None:
        """Freezes the base if this is the first adapter, and switches to it."""
        if name in self._adapters:
            raise InputError(
                f"an adapter {name} is there already; "
                f"the taken names are {', '.join(self._adapters)}"
            )
        if not self.model.trainable:
            raise InputError(
                f"{self.model.name}.trainable is False, so Keras trains nothing of it; "
                "set it to True, LoRA freezes W itself"
            )
        if not self._trainable:
            self._freeze()
        self._adapters[name] = adapter
        self._switch(name)

    def _freeze(self) -> None:
        """Freezes every weight, the moving averages of batch normalisation too."""
        self._trainable = [weight.trainable for weight in self._weights]
        for weight in self._weights:
            weight.trainable = False
        for layer in self._batch_normalisations():
            vars(layer)["call"] = _inference_call(layer)

    def _batch_normalisations(self) -> list[keras.layers.BatchNormalization]:
        layers = self.model._flatten_layers()
        return [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]

    def _switch(self, name: str | None, merged: bool = False) -> None:
        """Takes the active adapter off the model and puts another on it: beside W, or merged."""
        if name != self._active or merged != self.merged:
            self._check_not_quantised()
        self._take_off()
        self._active = name
        if name is not None and merged:
            self._merge_into_kernels(self._adapters[name])
        elif name is not None:
            self._put_beside_kernels(self._adapters[name])
        self._trace_again()

    def _check_not_quantised(self) -> None:
        """Raises InputError where a layer was quantised since: its W is gone."""
        for path, layer in self._layers.items():
            if layer.quantization_mode:
                raise InputError(
                    f"{path} is quantised to {layer.quantization_mode}, so that no adapter can be "
                    "put on or taken off; build the base anew and load the adapter from its file"
                )

    def _take_off(self) -> None:
        """Leaves the layers as they were without an adapter."""
        for part, quantize in self._quantisers:
            vars(part)["quantize"] = quantize
        self._quantisers = []
        if self._active is not None:
            for path, pair in self._adapters[self._active].factors.items():
                vars(self._layers[path]).pop("call", None)
                for variable in pair:
                    self._layers[path]._untrack_variable(variable)
        for variable, kernel in self._kernels.values():
            variable.assign(kernel)
        self._kernels = {}

    def _put_beside_kernels(self, adapter: Adapter) -> None:
        """h = x W + b + s (x A) B in every layer of the adapter."""
        # (Keras itself has its method on each instance)
        self._quantisers = [(part, vars(part)["quantize"]) for part in self._quantisable()]
        for part, _ in self._quantisers:
            vars(part)["quantize"] = _refused_quantisation(self)
        for path, pair in adapter.factors.items():
            layer = self._layers[path]
            # on the instance, not its class: the model's configuration, and so model.save, stays
            # the base's
            vars(layer)["call"] = adapted_call(layer, *pair, adapter.scale)
            layer._tracker.unlock()
            for variable in pair:
                layer._track_variable(variable)
                variable.trainable = True  # also in a layer that the user had frozen
            layer._tracker.lock()

    def _merge_into_kernels(self, adapter: Adapter) -> None:
        """W <- W + s A B in every layer of the adapter."""
        for path, pair in adapter.factors.items():
            layer = self._layers[path]
            a, b = (variable.numpy().astype(np.float64) for variable in pair)
            product = affine_map(path, layer).product(a, b)
            kernel = layer.kernel.numpy()
            self._kernels[path] = (layer.kernel, kernel)
            layer.kernel.assign(kernel + adapter.scale * product)

    def _quantisable(self) -> list[keras.layers.Layer]:
        """The model, the models in it and the affine layers: what `quantize` may be called on."""
        models = [part for part in self.model._flatten_layers() if isinstance(part, keras.Model)]
        return list(dict.fromkeys([self.model, *models, *self._layers.values()]))

    def _trace_again(self) -> None:
        """Makes the compiled functions of `fit`, `evaluate` and `predict` again.

        They are made rather than dropped, because a callback may switch inside `fit`.
        """
        for part in self.model._flatten_layers():
            if not isinstance(part, keras.Model):
                continue
            for kind in ("train", "test", "predict"):
                if getattr(part, f"{kind}_function") is not None:
                    getattr(part, f"make_{kind}_function")(force=True)


class AdapterCheckpoint(keras.callbacks.Callback):
    """Saves the active adapter after each epoch of `fit` that is the best so far.

    keras.callbacks.ModelCheckpoint writes the base's weights alone. `path` is as in LoRA.save;
    `monitor` names a value of the logs, which is better when it is smaller, or larger with
    `larger_is_better`. Raises InputError for a value that is not in the logs.
    """

    def __init__(
        self, lora: LoRA, path: Path, monitor: str = "val_loss", larger_is_better: bool = False
    ):
        super().__init__()
        self.lora = lora
        self.path = adapter_path(path)
        self.monitor = monitor
        self.sign = -1 if larger_is_better else 1
        self.best: float | None = None

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        logs = logs or {}
        if self.monitor not in logs:
            raise InputError(
                f"monitor {self.monitor}: the logs have {', '.join(logs) or 'nothing'}"
            )
        value = float(logs[self.monitor])
        if self.best is None or self.sign * value < self.sign * self.best:
            self.lora.save(self.path)
            self.best = value


def _refused_quantisation(lora: LoRA) -> Callable:
    """What stands in the place of `quantize` while an adapter is beside W."""

    def quantize(*arguments: object, **options: object) -> None:
        raise InputError(
            f"adapter {lora.active} is on, and a quantised layer computes past it; call merge() "
            "first, or activate(None) to quantise the base without it"
        )

    return quantize


def _variables(a: np.ndarray, b: np.ndarray) -> tuple[keras.Variable, keras.Variable]:
    """A and B as float32 variables."""
    return (
        keras.Variable(a, dtype="float32", name="lora_a"),
        keras.Variable(b, dtype="float32", name="lora_b"),
    )


def _inference_call(layer: keras.layers.BatchNormalization) -> Callable:
    """The layer's `call` in inference mode, which leaves the moving averages as they are."""

    def call(inputs, training=None, mask=None):
        return type(layer).call(layer, inputs, training=False, mask=mask)

    return call
