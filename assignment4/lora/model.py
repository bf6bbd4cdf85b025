"""LoRA (Hu et al. 2021) on a Keras model: adapters are added, switched, merged, mixed and stored.

A frozen affine map h = x W + b becomes h = x W + b + s (x A) B with A and B alone trained; layers
inside MultiHeadAttention are affine maps too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar, Unpack

import keras
import numpy as np

from assignment4.lora.adapter import Adapter, Options, Settings, first_factors
from assignment4.lora.adapter_file import AdapterFile, adapter_path, weights_digest
from assignment4.lora.affine import affine_layers, affine_map, affine_of_rank, all_layers
from assignment4.lora.calls import adapted_call, inference_call, quantised_call
from assignment4.lora.mixing import mix
from assignment4.lora.peft_file import Layout, read_peft, write_peft
from common.cli import InputError

Value = TypeVar("Value")
BIASES = ("bias", "beta")  # beta is the bias of a normalisation


class LoRA:
    """Low-rank adapters on a built Keras model; W and every other weight are frozen.

    The model stays the object that it was: `fit`, `predict` and a GradientTape see the active
    adapter's A and B as its only trainable variables, and `model.save` writes the base's own
    weights (merged: W + s A B), which load without this module. So do weights files: `save_weights`
    and keras.callbacks.ModelCheckpoint keep nothing of an adapter, `save` and AdapterCheckpoint do.
    Weights that an adapter trains whole (biases, modules_to_save) are in their places in the model
    while it is on, so `model.save` writes them as they are then.
    Layers are identified by the names on the way from the model down to them. A tf.function of the
    user's own has to be traced again after a change of adapter; `fit`, `evaluate` and `predict`
    are. An optimizer belongs to the adapter that it began with: compile again to train another.
    To quantise what was adapted, merge first: `quantize` is refused while an adapter is beside W.
    A base that was quantised to int8 before is adapted as it is, and never merged into.

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
            raise InputError(f"{name} has no weights to adapt yet; call the model once before LoRA")
        if not self._layers:
            kinds = sorted({type(layer).__name__ for layer in model.layers} - {"InputLayer"})
            raise InputError(
                f"{model.name} holds no Dense, EinsumDense, Conv or Embedding layer, so LoRA has "
                f"nothing to adapt; it is made of {', '.join(kinds)}"
            )
        if any(_call_name(layer) in vars(layer) for layer in self._layers.values()):
            raise InputError(f"{model.name} has an adapter of another LoRA; detach that first")

        self._weights = list(model.weights)
        self._trainable: list[bool] = []  # of each weight before it was frozen
        # what the weights were that an adapter is merged into or that it trains whole
        self._originals: dict[int, np.ndarray] = {}
        self._merged = False
        self._modes = {path: layer.quantization_mode for path, layer in self._layers.items()}
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
        return self._merged

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """What the active adapter trains, as model.trainable_variables: A and B of each layer, a
        magnitude, and weights that are trained whole; empty when off or merged."""
        if self._active is None or self.merged:
            return []
        return list(self.model.trainable_variables)

    def count(self, name: str | None = None) -> int:
        """Trained weights of an adapter (None: the active one): the sum of r (in + out), and of
        what it trains beside A and B."""
        return self.adapter(name).count

    def update(self, name: str | None = None) -> dict[str, np.ndarray]:
        """{path: what an adapter (None: the active one) adds to W, as a float64 matrix (in, out)}.

        That is s A B; with a magnitude m ||W + s A B||^-1 (W + s A B) - W.
        """
        adapter = self.adapter(name)
        updates = {}
        for path, factors in adapter.factors.items():
            a, b = factors.matrices()
            update = adapter.scale_of(path) * a @ b  # (in, out)
            if factors.magnitude is not None:
                kernel = self._matrix(path)
                direction = kernel + update
                norms = np.linalg.norm(direction, axis=0)
                known = norms > 0
                length = factors.magnitude.numpy().ravel() / np.where(known, norms, 1)
                length = np.where(known, length, 1)
                update = length * direction - kernel
            updates[path] = update
        return updates

    def adapter(self, name: str | None = None) -> Adapter:
        """An adapter by name (None: the active one). Raises InputError where there is none."""
        name = self._active if name is None else name
        if name is None or name not in self._adapters:
            missing = "is active" if name is None else name
            raise InputError(
                f"no adapter {missing}; there are: {', '.join(self._adapters) or 'none'}"
            )
        adapter = self._adapters[name]
        if name == self._active:
            adapter.whole = {index: self._weights[index].numpy() for index in adapter.whole}
        return adapter

    def digest(self) -> str:
        """`weights_digest` of the base's weights, whatever adapter is on or merged."""
        return weights_digest(
            (weight.name, self._originals.get(index, weight.numpy()))
            for index, weight in enumerate(self._weights)
        )

    # -- adding and switching

    def add(
        self, name: str, rank: int, alpha: float | None = None, **options: Unpack[Options]
    ) -> None:
        """Adds an adapter to every layer that `targets` names (None: to all but embeddings) and
        makes it active. The options are those of Settings.

        B = 0 and A is Gaussian (Hu et al. 2021, section 4.1), here with variance 1 / in, so that
        x A has the mean square of x; the paper leaves the variance open. `alpha` None is the rank.
        A layer narrower than the rank, such as a head of one output, has as much as it has room
        for, and `rank_pattern` gives layers another rank; the scale stays alpha / rank, unless
        `alpha_pattern` gives a layer another alpha. Raises InputError for a taken name, a pattern
        that matches no layer, a layer that `affine_map` refuses, a rank below 1 or above
        min(in, out) of every layer (of `rank_pattern`: of a layer), an alpha that is not above 0,
        and DoRA or PiSSA of a quantised layer.
        """
        settings = Settings(rank, alpha, **options)
        self._check_not_quantised()
        whole_layers = self._whole_layers(settings.modules_to_save)
        paths = [path for path in self._matching(settings.targets) if path not in whole_layers]
        ranks = self._ranks(rank, paths, settings.rank_pattern or {})
        adapter = Adapter(
            rank,
            float(rank if alpha is None else alpha),
            settings.rank_stabilised,
            {},
            self._by_pattern("alpha_pattern", settings.alpha_pattern or {}, paths),
            settings.dropout,
            settings.bias,
            _patterns(settings.modules_to_save),
        )
        with self.disabled() if self._originals else contextlib.nullcontext():
            factors = {}
            generator = np.random.default_rng(settings.seed)
            for path, own in ranks.items():
                affine = affine_of_rank(path, self._layers[path], own)
                if affine.layer.quantization_mode and (settings.dora or settings.start == "pissa"):
                    raise InputError(
                        f"{path} is quantised to {affine.layer.quantization_mode}; "
                        "DoRA and PiSSA need W in float32"
                    )
                scale = adapter.scale_of(path)
                factors[path] = first_factors(affine, own, scale, settings, generator)
            whole = self._whole(settings.bias, paths, whole_layers)
            adapter = dataclasses.replace(adapter, factors=factors, whole=whole)
        self._attach(name, adapter)

    def combine(self, name: str, shares: Mapping[str, float], rank: int | None = None) -> None:
        """Adds a weighted sum of adapters {name: share} as a new one and makes it active.

        Without a rank the sum is exact; with one it is the nearest of that rank. Raises InputError
        for an unknown or a taken name, and as `mix` does.
        """
        self._check_not_quantised()
        adapters = {each: self.adapter(each) for each in shares}
        weights = {index for adapter in adapters.values() for index in adapter.whole}
        base = {
            index: self._originals.get(index, self._weights[index].numpy())
            for index in sorted(weights)
        }
        paths = {path for adapter in adapters.values() for path in adapter.factors}
        affines = {
            path: affine_map(path, layer) for path, layer in self._layers.items() if path in paths
        }
        self._attach(name, mix(shares, adapters, affines, base, rank))

    def activate(self, name: str | None) -> None:
        """Switches to an adapter, or with None to the base model; a merge is undone first.

        Raises InputError for an unknown name.
        """
        if name is not None:
            self.adapter(name)
        self._switch(name)

    def swap(self, name: str) -> None:
        """Switches to an adapter of the same form by exchanging values, so that no function has to
        be traced again.

        The two adapters exchange their variables, and each takes its values along. Raises
        InputError when off or merged, for an unknown name, and for an adapter with other layers,
        ranks or options (their alphas may differ).
        """
        if self._active is None or self.merged:
            raise InputError("swap() goes from one adapter beside W to another; activate one first")
        old, new = self.adapter(), self.adapter(name)
        if old is new:
            return
        if _form(old) != _form(new):
            raise InputError(
                f"adapter {name} has other layers, ranks or options than {self._active}, "
                "so it cannot take its place; use activate()"
            )
        for path, there in new.factors.items():
            here = old.factors[path]
            for ours, theirs in zip(here.variables, there.variables, strict=True):
                value = ours.numpy()
                ours.assign(theirs)
                theirs.assign(value)
            starts = here.start, there.start
            new.factors[path] = dataclasses.replace(here, start=starts[1])
            old.factors[path] = dataclasses.replace(there, start=starts[0])
        for index, value in new.whole.items():
            self._weights[index].assign(value)
        self._active = name

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

        Raises InputError when off or merged, and for a layer that is quantised.
        """
        for path in self.adapter().factors:
            if self._modes[path]:
                raise InputError(
                    f"{path} is quantised to {self._modes[path]}, which W + s A B is not; "
                    "the adapter stays beside it"
                )
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
        return AdapterFile.of(adapter, base or self.base_sha256, self.base_name, self._affines())

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
        self._check_not_quantised()
        stored = AdapterFile.read(path)
        if stored.base != self.base_sha256:
            raise InputError(
                f"{path} was trained on the base {stored.base}, this base is {self.base_sha256}; "
                "use the one that it was trained on"
            )
        self._attach(name, stored.adapter(path, self._affines(), self._weights))

    def save_peft(self, folder: Path, name: str | None = None) -> None:
        """Writes an adapter (None: the active one) as a folder that PEFT reads.

        Raises InputError as `write_peft` does.
        """
        write_peft(folder, self.adapter(name), self._layout(), self.base_name)

    def load_peft(self, folder: Path, name: str) -> None:
        """Adds the adapter of a PEFT folder under a name and makes it active.

        Raises InputError as `read_peft` does.
        """
        self._check_not_quantised()
        self._attach(name, read_peft(folder, self._layout()))

    # -- inside

    def _layout(self) -> Layout:
        """The model as PEFT's files see it."""
        return Layout(self._layers, all_layers(self.model), self._weights)

    def _affines(self) -> list[tuple[str, keras.layers.Layer]]:
        """Path and layer of every affine map by position."""
        return list(self._layers.items())

    def _matrix(self, path: str) -> np.ndarray:
        """W (in, out) of the base in float64, whatever adapter is merged into it."""
        affine = affine_map(path, self._layers[path])
        kernel = self._originals.get(self._position(affine.kernel), affine.kernel.numpy())
        return affine.matrix(kernel.astype(np.float64))

    def _position(self, variable: keras.Variable) -> int:
        """The position of a weight of the base in model.weights."""
        return next(index for index, each in enumerate(self._weights) if each is variable)

    def _matching(self, targets: Iterable[str] | None) -> list[str]:
        """The paths that the patterns match, in the order of model.weights."""
        if targets is None:
            plain = [path for path in self._layers if not self._is_embedding(path)]
            return plain or list(self._layers)
        patterns = _patterns(targets)
        matched = _search("targets", patterns, self._layers)
        if not matched:
            raise InputError(f"targets: no pattern given; the layers are {', '.join(self._layers)}")
        return [path for path in self._layers if path in matched]

    def _is_embedding(self, path: str) -> bool:
        return isinstance(self._layers[path], keras.layers.Embedding)

    def _ranks(self, rank: int, paths: list[str], pattern: Mapping[str, int]) -> dict[str, int]:
        """The rank of each layer: that of the first pattern, else `rank` or all it has room for.

        Raises InputError for a rank that no layer has room for.
        """
        if not paths:
            raise InputError("modules_to_save: it names every layer, so none is left to adapt")
        room = {path: min(affine_map(path, self._layers[path]).size) for path in paths}
        widest = max(paths, key=room.__getitem__)
        if not 1 <= rank <= room[widest]:
            affine_of_rank(widest, self._layers[widest], rank)
        own = self._by_pattern("rank_pattern", pattern, paths)
        return {path: own.get(path, min(rank, room[path])) for path in paths}

    def _by_pattern(
        self, option: str, pattern: Mapping[str, Value], paths: list[str]
    ) -> dict[str, Value]:
        """{path: value of the first regular expression that matches it}."""
        values: dict[str, Value] = {}
        for words, value in pattern.items():
            for path in _search(option, (words,), paths):
                values.setdefault(path, value)
        return values

    def _whole_layers(self, modules_to_save: Iterable[str]) -> dict[str, keras.layers.Layer]:
        """The layers that are trained whole, with the layers inside them, by path."""
        layers = all_layers(self.model)
        named = _search("modules_to_save", _patterns(modules_to_save), layers)
        return {
            path: layer
            for path, layer in layers.items()
            if any(path == other or path.startswith(f"{other}/") for other in named)
        }

    def _whole(
        self, bias: str, adapted: list[str], layers: Mapping[str, keras.layers.Layer]
    ) -> dict[int, np.ndarray]:
        """The weights that are trained whole and what they are now, by position."""
        chosen = {id(weight) for layer in layers.values() for weight in layer._trainable_variables}
        if bias == "all":
            chosen |= {id(weight) for weight in self._weights if weight.name in BIASES}
        if bias == "lora_only":
            biases = [getattr(self._layers[path], "bias", None) for path in adapted]
            chosen |= {id(weight) for weight in biases if weight is not None}
        return {
            index: weight.numpy()
            for index, weight in enumerate(self._weights)
            if id(weight) in chosen
        }

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
            vars(layer)["call"] = inference_call(layer)

    def _batch_normalisations(self) -> list[keras.layers.BatchNormalization]:
        layers = self.model._flatten_layers()
        return [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]

    def _switch(self, name: str | None, merged: bool = False) -> None:
        """Takes the active adapter off the model and puts another on it: beside W, or merged."""
        if name != self._active or merged != self.merged:
            self._check_not_quantised()
        self._take_off()
        self._active = None
        updates = self.update(name) if name is not None and merged else {}
        self._active = name
        self._merged = merged and name is not None
        if name is not None:
            adapter = self._adapters[name]
            self._put_whole(adapter)
            if merged:
                self._merge_into_kernels(updates)
            else:
                self._put_beside_kernels(adapter)
        self._trace_again()

    def _check_not_quantised(self) -> None:
        """Raises InputError where a layer was quantised since: its W is gone."""
        for path, layer in self._layers.items():
            if layer.quantization_mode != self._modes[path]:
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
            adapter = self.adapter()
            for path, factors in adapter.factors.items():
                layer = self._layers[path]
                vars(layer).pop(_call_name(layer), None)
                for variable in factors.trained:
                    layer._untrack_variable(variable)
            for index in adapter.whole:
                self._weights[index].trainable = False
        for index, value in self._originals.items():
            self._weights[index].assign(value)
        self._originals = {}

    def _put_whole(self, adapter: Adapter) -> None:
        """Puts the weights that are trained whole in their places; merged, they stay frozen."""
        for index, value in adapter.whole.items():
            weight = self._weights[index]
            self._originals[index] = weight.numpy()
            weight.assign(value)
            weight.trainable = not self.merged

    def _put_beside_kernels(self, adapter: Adapter) -> None:
        """h = x W + b + s (x A) B in every layer of the adapter."""
        # (Keras itself has its method on each instance)
        self._quantisers = [(part, vars(part)["quantize"]) for part in self._quantisable()]
        for part, _ in self._quantisers:
            vars(part)["quantize"] = _refused_quantisation(self)
        for path, factors in adapter.factors.items():
            layer = self._layers[path]
            # on the instance, not its class: the model's configuration, and so model.save, stays
            # the base's
            make = quantised_call if layer.quantization_mode else adapted_call
            affine = affine_map(path, layer)
            vars(layer)[_call_name(layer)] = make(affine, factors, adapter.dropout)
            layer._tracker.unlock()
            for variable in factors.trained:
                layer._track_variable(variable)
                variable.trainable = True  # also in a layer that the user had frozen
            layer._tracker.lock()

    def _merge_into_kernels(self, updates: dict[str, np.ndarray]) -> None:
        """W <- W + the update (in, out) of every layer of the adapter."""
        for path, update in updates.items():
            affine = affine_map(path, self._layers[path])
            kernel = affine.kernel.numpy()
            self._originals[self._position(affine.kernel)] = kernel
            affine.kernel.assign(kernel + affine.from_matrix(update))

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


def _refused_quantisation(lora: LoRA) -> Callable:
    """What stands in the place of `quantize` while an adapter is beside W."""

    def quantize(*arguments: object, **options: object) -> None:
        raise InputError(
            f"adapter {lora.active} is on, and a quantised layer computes past it; call merge() "
            "first, or activate(None) to quantise the base without it"
        )

    return quantize


def _call_name(layer: keras.layers.Layer) -> str:
    """The method that Keras calls for the layer's output."""
    return "quantized_call" if layer.quantization_mode else "call"


def _patterns(patterns: Iterable[str]) -> tuple[str, ...]:
    """One or several regular expressions as several."""
    return (patterns,) if isinstance(patterns, str) else tuple(patterns)


def _search(option: str, patterns: Iterable[str], paths: Iterable[str]) -> set[str]:
    """The paths that a regular expression matches. Raises InputError where one matches none."""
    paths = list(paths)
    matched: set[str] = set()
    for pattern in patterns:
        try:
            found = {path for path in paths if re.search(pattern, path)}
        except re.error as error:
            raise InputError(f"{option}: {pattern} is no regular expression ({error})") from None
        if not found:
            raise InputError(
                f"{option}: {pattern} matches no layer; the layers are {', '.join(paths)}"
            )
        matched |= found
    return matched


def _form(adapter: Adapter) -> tuple[object, ...]:
    """What two adapters must share so that one can take the variables of the other."""
    shapes = {
        path: [(variable.name, tuple(variable.shape)) for variable in factors.variables]
        for path, factors in adapter.factors.items()
    }
    return shapes, set(adapter.whole), adapter.dropout
