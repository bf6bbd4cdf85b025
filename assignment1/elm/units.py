"""The hidden layer: random units of one kind or of several, all drawn from one seed.

Shape letters: b rows of a block, p inputs, L hidden units.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np
from scipy.special import expit
from sklearn.utils import check_random_state
from sklearn.utils.extmath import row_norms

Weights: TypeAlias = Literal["gaussian", "binary"]
Activation: TypeAlias = str | tuple[str, ...]
Matrix: TypeAlias = Any  # a numpy array or a scipy sparse array

# what each kind of unit makes of z = x W + b, in place
ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "tanh": lambda z: np.tanh(z, out=z),
    "relu": lambda z: np.maximum(z, 0, out=z),
    "sigmoid": lambda z: expit(z, out=z),
    "sign": lambda z: np.sign(z, out=z),
}
RBF = "rbf"
KINDS = (*ACTIVATIONS, RBF)


@dataclasses.dataclass
class HiddenLayer:
    """Untrained units: weights W (p, L), already times `scale`, biases b (L,), their kinds.

    Units of several kinds stand side by side, in shares that differ by at most one. A unit of kind
    "rbf" is exp(-|b| |s x - w|^2): its weights w are the centre in the scaled inputs, which
    are as many standard deviations away as for inputs of N(0, 1), and |b| is its inverse width.
    """

    weight: np.ndarray
    bias: np.ndarray
    scale: float
    kinds: tuple[str, ...]

    @classmethod
    def draw(
        cls,
        shape: tuple[int, int],
        seed: int,
        weights: Weights,
        activation: Activation,
        scale: float,
    ) -> HiddenLayer:
        """Draws W of a shape (p, L) and b from the seed, which stands for them in a file."""
        weight, bias = random_layer(weights, *shape, seed)
        if scale != 1:
            weight = weight * np.float32(scale)
        return cls(weight, bias, scale, kinds_of(activation))

    def activations(self, inputs: Matrix, room: np.ndarray | None = None) -> np.ndarray:
        """Activations (b, L) of inputs (b, p), written into `room` (at least b, L) if given."""
        weight = self.weight.astype(inputs.dtype, copy=False)
        if isinstance(inputs, np.ndarray):
            out = None if room is None else room[: len(inputs)]
            hidden = np.matmul(inputs, weight, out=out)  # (b, L)
        else:
            hidden = inputs @ weight  # (b, L)
        for kind, units in zip(self.kinds, self._shares(), strict=True):
            part = hidden[:, units]
            if kind == RBF:
                self._radial(inputs, part, units)
            else:
                part += self.bias[units]
                ACTIVATIONS[kind](part)
        return hidden

    def _shares(self) -> list[slice]:
        """The columns of each kind."""
        ends = np.linspace(0, len(self.bias), len(self.kinds) + 1).round().astype(int)
        return [slice(first, last) for first, last in itertools.pairwise(ends)]

    def _radial(self, inputs: Matrix, product: np.ndarray, units: slice) -> None:
        """Turns x W (b, U) of radial units into exp(-|b| |s x - w|^2), in place."""
        kind = product.dtype
        rows = self.scale**2 * row_norms(inputs, squared=True)  # (b,)
        centres = np.square(self.weight[:, units]).sum(0)  # (U,)
        product *= kind.type(-2 * self.scale)
        product += rows[:, None].astype(kind)
        product += centres.astype(kind)
        np.maximum(product, 0, out=product)  # rounding may have put a row at its centre below zero
        product *= -np.abs(self.bias[units]).astype(kind)
        np.exp(product, out=product)

    # -- files

    def digest(self) -> str:
        """Sixteen hexadecimal digits that tell two layers apart."""
        return hashlib.sha256(self.weight.tobytes() + self.bias.tobytes()).hexdigest()[:16]

    def bits(self) -> np.ndarray:
        """The signs of a binary layer packed into bytes, W row by row and then b."""
        return np.packbits(np.concatenate([self.weight.ravel(), self.bias]) > 0)

    def take_bits(self, bits: np.ndarray) -> None:
        """Takes a binary layer from what `bits` returned."""
        inputs, units = self.weight.shape
        signs = np.unpackbits(bits)[: (inputs + 1) * units]
        signs = np.where(signs, np.float32(1), np.float32(-1))
        scale = np.abs(self.weight).max(initial=0)
        self.weight = signs[:-units].reshape(inputs, units) * scale
        self.bias = signs[-units:]


def kinds_of(activation: Activation) -> tuple[str, ...]:
    """The kinds of units that an `activation` names."""
    return tuple(activation) if isinstance(activation, tuple | list) else (activation,)


def random_layer(kind: str, inputs: int, units: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """W float32 (p, L) and b (L,), from N(0, 1) or {-1, +1}, drawn from the seed's PCG64 stream."""
    rng = np.random.default_rng(seed)
    if kind == "gaussian":
        weight = rng.standard_normal((inputs, units), dtype=np.float32)
        return weight, rng.standard_normal(units, dtype=np.float32)
    count = (inputs + 1) * units
    drawn = np.frombuffer(rng.bytes((count + 7) // 8), np.uint8)
    bits = np.unpackbits(drawn)[:count]
    signs = np.where(bits, np.float32(1), np.float32(-1)).reshape(inputs + 1, units)
    return signs[:-1], signs[-1]


def integer_seed(random_state: int | np.random.RandomState | None) -> int:
    """scikit-learn's random_state as one integer."""
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))
