"""The affine maps of a Keras model, and how x W of one of them splits into (x A) B.

Letters: x the layer's input, W its kernel, A (inputs..., r), B (r, outputs...), h = x W before the
bias.
"""

from __future__ import annotations

import abc
import dataclasses
import math
import re
import string
from collections.abc import Callable
from typing import TypeAlias

import keras
import numpy as np
from keras import ops

from common.cli import InputError

DENSE = "...x,xy->...y"  # what Dense computes, as an einsum equation
Tensor: TypeAlias = keras.KerasTensor  # or a variable


@dataclasses.dataclass(frozen=True)
class Affine(abc.ABC):
    """How x W of one layer splits: A takes the kernel's summed axes to r, B takes r to the others.

    `axes` names the axes of W by letters, in order; `summed` are those that x is summed over,
    `made` those of the output. `inputs` and `outputs` are their lengths.
    """

    layer: keras.layers.Layer
    axes: str
    summed: str
    made: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def kernel(self) -> keras.Variable:
        """W."""
        return self.layer.kernel

    @property
    def size(self) -> tuple[int, int]:
        """(in, out) of W as a matrix."""
        return math.prod(self.inputs), math.prod(self.outputs)

    @property
    def outer(self) -> str:
        """The einsum equation of A B in the axis order of W."""
        r = unused(self.axes)
        return f"{self.summed}{r},{r}{self.made}->{self.axes}"

    @abc.abstractmethod
    def plain(self, x: Tensor, kernel: Tensor) -> Tensor:
        """h = x W for a kernel in the place of W."""

    @abc.abstractmethod
    def down(self, x: Tensor, a: Tensor) -> Tensor:
        """x A."""

    @abc.abstractmethod
    def up(self, middle: Tensor, b: Tensor) -> Tensor:
        """(x A) B in the shape of h."""

    @abc.abstractmethod
    def per_output(self, values: Tensor, h: Tensor) -> Tensor:
        """One value for each output unit (outputs...), in a shape that goes with h."""

    def low_rank(self, x: Tensor, a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
        """s (x A) B in the shape of the layer's output."""
        return self.up(scale * self.down(x, a), b)

    def adapted(self, x: Tensor, kernel: Tensor, a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
        """x W + s (x A) B with gradients for x, A and B, and none for W."""
        return self.frozen_and(x, kernel, self.low_rank(x, a, b, scale))

    def frozen_and(self, x: Tensor, kernel: Tensor, low_rank: Tensor) -> Tensor:
        """x W, with no gradient for W, and a low-rank term beside it.

        Not x (W + s A B), whose backward pass would pay for the gradient of a whole kernel.
        """
        # (without stop_gradient a tape records the gradient of W, and eagerly computes it)
        return ops.add(self.plain(x, ops.stop_gradient(kernel)), low_rank)

    def finish(self, h: Tensor) -> Tensor:
        """The layer's bias and activation."""
        if self.layer.bias is not None:
            h = ops.add(h, self.layer.bias)
        return h if self.layer.activation is None else self.layer.activation(h)

    def product(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """A B in the shape of W."""
        return np.einsum(self.outer, a, b)

    def matrix(self, kernel: np.ndarray) -> np.ndarray:
        """A kernel in the shape of W as the matrix (in, out)."""
        return np.einsum(f"{self.axes}->{self.summed}{self.made}", kernel).reshape(self.size)

    def from_matrix(self, matrix: np.ndarray) -> np.ndarray:
        """A matrix (in, out) in the shape of W."""
        split = matrix.reshape(*self.inputs, *self.outputs)
        return np.einsum(f"{self.summed}{self.made}->{self.axes}", split)

    def norms(self, kernel: Tensor) -> Tensor:
        """The Euclidean norm of each output unit's weights (outputs..., in the order of `made`)."""
        rows = tuple(position for position, axis in enumerate(self.axes) if axis in self.summed)
        return ops.sqrt(ops.sum(ops.square(kernel), axis=rows))


@dataclasses.dataclass(frozen=True)
class Product(Affine):
    """Dense and EinsumDense: `equation` is x W as an einsum."""

    equation: str

    @property
    def _middle(self) -> tuple[str, str, str, str]:
        """The axes of x, of x A and of h, and the letter of r."""
        x, _, y = re.split(",|->", self.equation)
        r = unused(self.equation)
        return x, "".join(axis for axis in x if axis not in self.summed) + r, y, r

    def plain(self, x: Tensor, kernel: Tensor) -> Tensor:
        if isinstance(self.layer, keras.layers.Dense):
            return ops.matmul(x, kernel)
        return ops.einsum(self.equation, x, kernel)

    def adapted(self, x: Tensor, kernel: Tensor, a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
        axes, _, y, _ = self._middle
        lengths = _lengths(x.shape[: len(x.shape) - len(self.summed)])
        free = axes.removesuffix(self.summed)
        if (axes, self.axes, y) != (free + self.summed, self.summed + self.made, free + self.made):
            return super().adapted(x, kernel, a, b, scale)
        if lengths is None:
            return super().adapted(x, kernel, a, b, scale)

        # the usual order of axes: matrices with one row for each x
        rows, columns = self.size
        h = merged_product(
            ops.reshape(x, (-1, rows)),
            ops.reshape(ops.stop_gradient(kernel), (rows, columns)),
            ops.reshape(a, (rows, -1)),
            ops.reshape(b, (-1, columns)),
            ops.convert_to_tensor(scale),
        )
        return ops.reshape(h, (*lengths, *self.outputs))

    def down(self, x: Tensor, a: Tensor) -> Tensor:
        axes, middle, _, r = self._middle
        lengths = _lengths(x.shape[: len(x.shape) - len(self.summed)])
        if not axes.endswith(self.summed) or lengths is None:
            return _einsum(f"{axes},{self.summed}{r}->{middle}", x, a)

        # the usual order as a plain product, whose gradient takes 0.6 of an einsum's time
        rows, _ = self.size
        flat = x if len(self.summed) == 1 else ops.reshape(x, (*lengths, rows))
        return ops.matmul(flat, ops.reshape(a, (rows, -1)))

    def up(self, middle: Tensor, b: Tensor) -> Tensor:
        _, axes, y, r = self._middle
        lengths = _lengths(middle.shape[:-1])
        if y != axes[:-1] + self.made or lengths is None:
            return _einsum(f"{axes},{r}{self.made}->{y}", middle, b)
        _, columns = self.size
        h = ops.matmul(middle, ops.reshape(b, (-1, columns)))
        return h if len(self.made) == 1 else ops.reshape(h, (*lengths, *self.outputs))

    def per_output(self, values: Tensor, h: Tensor) -> Tensor:
        *_, y, _ = self._middle
        axes = [axis for axis in y if axis in self.made]
        values = ops.transpose(values, [self.made.index(axis) for axis in axes])

        # 1 for each axis of h that W does not make; an ellipsis may stand for several
        length = dict(zip(self.made, self.outputs, strict=True))
        after = y[y.index("...") + 3 :] if y.startswith("...") else y.replace("...", "")
        shape = [length.get(axis, 1) for axis in after]
        if y.endswith("..."):
            shape += [1] * (len(h.shape) - len(shape))
        return ops.reshape(values, shape)


@dataclasses.dataclass(frozen=True)
class Convolution(Affine):
    """Conv1D, Conv2D and Conv3D: A is a convolution to r channels, B one of kernel size 1."""

    def plain(self, x: Tensor, kernel: Tensor) -> Tensor:
        layer = self.layer
        if layer.padding != "causal":
            return layer.convolution_op(x, kernel)
        padded = ops.pad(x, layer._compute_causal_padding())
        dilation = layer.dilation_rate
        strides = list(layer.strides)
        return ops.conv(padded, kernel, strides, "valid", layer.data_format, dilation)

    def down(self, x: Tensor, a: Tensor) -> Tensor:
        return self.plain(x, a)

    def up(self, middle: Tensor, b: Tensor) -> Tensor:
        if self.layer.data_format == "channels_last":
            return ops.matmul(middle, b)
        return ops.moveaxis(ops.matmul(ops.moveaxis(middle, 1, -1), b), -1, 1)

    def per_output(self, values: Tensor, h: Tensor) -> Tensor:
        spatial = (1,) * self.layer.rank
        last = self.layer.data_format == "channels_last"
        return ops.reshape(values, (*spatial, -1) if last else (-1, *spatial))

    def finish(self, h: Tensor) -> Tensor:
        if self.layer.bias is not None:
            h = ops.add(h, self.per_output(self.layer.bias, h))
        return h if self.layer.activation is None else self.layer.activation(h)


@dataclasses.dataclass(frozen=True)
class Lookup(Affine):
    """Embedding: x is one-hot, so x W takes rows of W."""

    @property
    def kernel(self) -> keras.Variable:
        return self.layer.embeddings

    def plain(self, x: Tensor, kernel: Tensor) -> Tensor:
        return ops.take(kernel, ops.cast(x, "int32"), axis=0)

    def down(self, x: Tensor, a: Tensor) -> Tensor:
        return self.plain(x, a)

    def up(self, middle: Tensor, b: Tensor) -> Tensor:
        return ops.matmul(middle, b)

    def per_output(self, values: Tensor, h: Tensor) -> Tensor:
        return values

    def finish(self, h: Tensor) -> Tensor:
        return h


def merged_product(
    x: Tensor, kernel: Tensor, first: Tensor, second: Tensor, scale: Tensor
) -> Tensor:
    """x (W + s A B) for x (N, in), W (in, out), A (in, r) and B (r, out).

    With h = x W + s (x A) B and its gradient g, those of A and B are x^T (s g B^T) and s (x A)^T g:
    products with r columns, and no gradient of a whole kernel. Forward the one product with
    W + s A B saves the two passes over h that the sum of two terms takes.
    """

    @ops.custom_gradient
    def product(x: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Callable]:
        merged = ops.add(kernel, scale * ops.matmul(a, b))

        def gradient(*arguments: Tensor, upstream: Tensor | None = None) -> tuple[Tensor, ...]:
            (g,) = arguments if upstream is None else (upstream,)
            narrow = ops.matmul(g, ops.transpose(scale * b))  # (N, r)
            of_a = ops.matmul(ops.transpose(x), narrow)
            of_b = ops.matmul(ops.transpose(ops.matmul(x, scale * a)), g)
            return ops.matmul(g, ops.transpose(merged)), of_a, of_b

        return ops.matmul(x, merged), gradient

    return product(x, first, second)


def affine_layers(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """{path: layer} in the order of model.weights; a layer that is met twice is listed once.

    The path holds the names from the model down to the layer. A subclass of one of the kinds that
    computes its output in another way is no affine map and is left out.
    """
    kinds = (
        keras.layers.Dense,
        keras.layers.EinsumDense,
        keras.layers.Conv1D,
        keras.layers.Conv2D,
        keras.layers.Embedding,
    )
    calls = {kind.call for kind in kinds}  # (that of Conv3D is Conv2D's)
    return {
        path: layer
        for path, layer in all_layers(model).items()
        if getattr(type(layer), "call", None) in calls
    }


def all_layers(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """{path: layer} of every layer at any depth, each once, in the order of model.weights."""
    layers: dict[str, keras.layers.Layer] = {}
    seen: set[int] = set()

    def visit(parent: keras.layers.Layer, prefix: str) -> None:
        for layer in parent._layers:
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            path = prefix + layer.name
            # a subclassed model may use a name twice
            unique = path
            while unique in layers:
                unique = f"{path}:{sum(other.startswith(path) for other in layers)}"
            layers[unique] = layer
            visit(layer, f"{path}/")

    visit(model, "")
    return layers


def affine_map(path: str, layer: keras.layers.Layer) -> Affine:
    """Splits the affine map of a built layer.

    Raises InputError for a kernel that is neither plain float32 nor int8, for an einsum equation
    that is no matrix product, and for a convolution in groups.
    """
    if {layer.compute_dtype, layer.variable_dtype} != {"float32"} or (
        layer.quantization_mode not in (None, "int8")
    ):
        raise InputError(
            f"{path} computes in {layer.dtype_policy.name}; LoRA is written for float32 and int8"
        )
    if layer.lora_enabled:
        raise InputError(f"{path} has Keras' own LoRA; build it without lora_rank")

    # an embedding and a convolution
    if isinstance(layer, keras.layers.Embedding):
        return Lookup(layer, "xy", "x", "y", (layer.input_dim,), (layer.output_dim,))
    if not isinstance(layer, (keras.layers.Dense, keras.layers.EinsumDense)):
        *inputs, outputs = layer.kernel.shape
        if layer.groups > 1:
            raise InputError(f"{path} has {layer.groups} groups; LoRA is written for one")
        axes = string.ascii_lowercase[: len(inputs) + 1]
        return Convolution(layer, axes, axes[:-1], axes[-1], tuple(inputs), (outputs,))

    # axes of the kernel: summed over, or made (in the output only)
    equation = layer.equation if isinstance(layer, keras.layers.EinsumDense) else DENSE
    x, kernel, y = re.split(",|->", equation)
    summed = "".join(axis for axis in kernel if axis in x and axis not in y)
    made = "".join(axis for axis in kernel if axis in y and axis not in x)
    if len(summed) + len(made) < len(kernel):
        raise InputError(
            f"{path}: {equation} cannot be split into x A B; an axis of the kernel must be in the "
            "input or in the output, not in both"
        )
    length = dict(zip(kernel, layer.kernel.shape, strict=True))
    inputs = tuple(length[axis] for axis in summed)
    outputs = tuple(length[axis] for axis in made)
    return Product(layer, kernel, summed, made, inputs, outputs, equation)


def affine_of_rank(path: str, layer: keras.layers.Layer, rank: int) -> Affine:
    """The affine map of a layer. Raises InputError where it has no room for the rank."""
    affine = affine_map(path, layer)
    rows, columns = affine.size
    if not 1 <= rank <= min(rows, columns):
        raise InputError(
            f"rank {rank}: {path} is {rows} x {columns}, "
            f"so its rank goes from 1 to {min(rows, columns)}; targets= names other layers, "
            "and rank_pattern= gives single ones another rank"
        )
    return affine


def kernels(model: keras.Model) -> dict[str, np.ndarray]:
    """The matrix (in, out) of every affine map, by path."""
    affines = {path: affine_map(path, layer) for path, layer in affine_layers(model).items()}
    return {path: affine.matrix(affine.kernel.numpy()) for path, affine in affines.items()}


def unused(letters: str) -> str:
    """A letter that does not occur."""
    return next(letter for letter in string.ascii_letters if letter not in letters)


def _lengths(shape: tuple[int | None, ...]) -> tuple[int, ...] | None:
    """A shape for ops.reshape, -1 for an unknown length; None where two are unknown."""
    unknown = sum(length is None for length in shape)
    return None if unknown > 1 else tuple(-1 if each is None else each for each in shape)


def _einsum(equation: str, x: Tensor, factor: Tensor) -> Tensor:
    """ops.einsum with the ellipsis spelt out: TensorFlow's gradient of an ellipsis is slow."""
    free = "".join(letter for letter in string.ascii_letters if letter not in equation)
    axes = len(x.shape) + len("...") - equation.index(",")  # that the ellipsis stands for
    return ops.einsum(equation.replace("...", free[:axes]), x, factor)
