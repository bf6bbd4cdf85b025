"""The affine maps of a Keras model, and how x W of one of them splits into (x A) B."""

from __future__ import annotations

import dataclasses
import math
import re
import string

import keras
import numpy as np
from keras import ops

from common.cli import InputError

DENSE = "...x,xy->...y"  # what Dense computes, as an einsum equation


@dataclasses.dataclass(frozen=True)
class Affine:
    """How x W of one layer splits: A takes the kernel's summed axes to r, B takes r to the others.

    `down`, `up` and `outer` are the einsum equations of x A, of (x A) B, and of A B in the axis
    order of W; A is (inputs..., r) and B is (r, outputs...).
    """

    down: str
    up: str
    outer: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def size(self) -> tuple[int, int]:
        """(in, out) of W as a matrix."""
        return math.prod(self.inputs), math.prod(self.outputs)

    def low_rank(
        self, x: keras.KerasTensor, a: keras.Variable, b: keras.Variable, scale: float
    ) -> keras.KerasTensor:
        """s (x A) B in the shape of the layer's output."""
        return _einsum(self.up, scale * _einsum(self.down, x, a), b)

    def product(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """A B in the shape of W."""
        return np.einsum(self.outer, a, b)


def affine_layers(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """{path: layer} in the order of model.weights; a layer that is met twice is listed once.

    The path holds the names from the model down to the layer. A subclass of Dense or EinsumDense
    that computes its output in another way is no affine map and is left out.
    """
    layers: dict[str, keras.layers.Layer] = {}
    seen: set[int] = set()
    affine_calls = (keras.layers.Dense.call, keras.layers.EinsumDense.call)

    def visit(parent: keras.layers.Layer, prefix: str) -> None:
        for layer in parent._layers:
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            path = prefix + layer.name
            if getattr(type(layer), "call", None) in affine_calls:
                # a subclassed model may use a name twice
                unique = f"{path}:{len(layers)}" if path in layers else path
                layers[unique] = layer
            visit(layer, f"{path}/")

    visit(model, "")
    return layers


def affine_map(path: str, layer: keras.layers.Layer) -> Affine:
    """Splits the affine map of a built layer.

    Raises InputError for a kernel that is not plain float32 and for an einsum equation that is no
    matrix product.
    """
    if layer.quantization_mode or {layer.compute_dtype, layer.variable_dtype} != {"float32"}:
        raise InputError(
            f"{path} computes in {layer.dtype_policy.name}; LoRA is written for float32"
        )
    if layer.lora_enabled:
        raise InputError(f"{path} has Keras' own LoRA; build it without lora_rank")

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

    # the same equation by way of a new axis r
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


def kernels(model: keras.Model) -> dict[str, np.ndarray]:
    """The matrix (in, out) of every affine map, by path."""
    return {
        path: layer.kernel.numpy().reshape(affine_map(path, layer).size)
        for path, layer in affine_layers(model).items()
    }


def _einsum(equation: str, x: keras.KerasTensor, factor: keras.Variable) -> keras.KerasTensor:
    """ops.einsum with the ellipsis spelt out: TensorFlow's gradient of an ellipsis is slow."""
    unused = "".join(letter for letter in string.ascii_letters if letter not in equation)
    axes = len(x.shape) + len("...") - equation.index(",")  # that the ellipsis stands for
    return ops.einsum(equation.replace("...", unused[:axes]), x, factor)
