"""One adapter as a value: its settings, and the factors of each layer with their start."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Literal, TypedDict

import keras
import numpy as np

from assignment4.lora.affine import Affine, Lookup
from common.cli import InputError

Start = Literal["gaussian", "pissa"]
Bias = Literal["none", "all", "lora_only"]


class Options(TypedDict, total=False):
    """What `LoRA.add` takes beside rank and alpha; the meaning is that of Settings."""

    targets: Iterable[str] | None
    rank_stabilised: bool
    seed: int
    rank_pattern: Mapping[str, int] | None
    alpha_pattern: Mapping[str, float] | None
    dropout: float
    dora: bool
    start: Start
    bias: Bias
    modules_to_save: Iterable[str]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How an adapter is made.

    `targets` are regular expressions of the layers' paths (None: all but embeddings);
    `rank_pattern` and `alpha_pattern` {regular expression: value} give layers a rank or alpha of
    their own. `dropout` is the share of x that A does not see in training. `dora` learns the length
    of each output unit's weights beside their direction (Liu et al. 2024). `start` is "gaussian"
    (Hu et al. 2021) or "pissa" (Meng et al. 2024). `bias` says which biases are trained: "none",
    "all", or "lora_only", those of the adapted layers. `modules_to_save` are regular expressions of
    layers that are trained whole, without A and B. Raises InputError for a dropout outside [0, 1)
    and an unknown start or bias.
    """

    rank: int
    alpha: float | None = None
    targets: Iterable[str] | None = None
    rank_stabilised: bool = False
    seed: int = 0
    rank_pattern: Mapping[str, int] | None = None
    alpha_pattern: Mapping[str, float] | None = None
    dropout: float = 0.0
    dora: bool = False
    start: Start = "gaussian"
    bias: Bias = "none"
    modules_to_save: Iterable[str] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout {self.dropout}: it must be at least 0 and below 1")
        for name, value, known in (
            ("start", self.start, ("gaussian", "pissa")),
            ("bias", self.bias, ("none", "all", "lora_only")),
        ):
            if value not in known:
                raise InputError(f"{name} {value}: it is one of {', '.join(known)}")


@dataclasses.dataclass(frozen=True)
class Factors:
    """The variables of one adapted layer.

    A is (inputs..., r), B is (r, outputs...), `scale` is s, not trained. DoRA has a `magnitude`
    (outputs...). PiSSA has the `residual`, which stands in the place of W, and its start s A B as
    A_0 and B_0.
    """

    a: keras.Variable
    b: keras.Variable
    scale: keras.Variable
    magnitude: keras.Variable | None = None
    residual: keras.Variable | None = None
    start: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def rank(self) -> int:
        """r of this layer."""
        return self.b.shape[0]

    @property
    def trained(self) -> list[keras.Variable]:
        """A, B and the magnitude."""
        return [self.a, self.b] + ([] if self.magnitude is None else [self.magnitude])

    @property
    def variables(self) -> list[keras.Variable]:
        """All variables, also those that are not trained."""
        return [*self.trained, self.scale] + ([] if self.residual is None else [self.residual])

    def matrices(self) -> tuple[np.ndarray, np.ndarray]:
        """A (in, r') and B (r', out) in float64 whose s A B is added to W itself, as float64.

        For PiSSA these are [A, A_0] and [B; -B_0]: s A B less what the residual lacks. Their rank
        is 2 r, or min(in, out) if that is smaller.
        """
        rank = self.rank
        a = self.a.numpy().reshape(-1, rank).astype(np.float64)
        b = self.b.numpy().reshape(rank, -1).astype(np.float64)
        if self.start is None:
            return a, b
        first_a, first_b = self.start
        a = np.concatenate([a, first_a.reshape(-1, rank)], axis=1)
        b = np.concatenate([b, -first_b.reshape(rank, -1)])
        room = min(len(a), b.shape[1])
        return (a, b) if 2 * rank <= room else nearest(a @ b, room)


@dataclasses.dataclass
class Adapter:
    """One set of trained factors by layer path, and the weights that are trained whole.

    `alphas` holds those that are not `alpha`, by path; `whole` {position in model.weights: value}
    is up to date while the adapter is off. Raises InputError for an alpha that is not a finite
    number above 0.
    """

    rank: int
    alpha: float
    rank_stabilised: bool
    factors: dict[str, Factors]
    alphas: dict[str, float] = dataclasses.field(default_factory=dict)
    dropout: float = 0.0
    bias: Bias = "none"
    modules_to_save: tuple[str, ...] = ()
    whole: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for alpha in (self.alpha, *self.alphas.values()):
            if not (alpha > 0 and math.isfinite(alpha)):
                raise InputError(
                    f"alpha {alpha}: the adapter's scale must be a finite number above 0"
                )
        for path, factors in self.factors.items():
            factors.scale.assign(self.scale_of(path))

    @property
    def scale(self) -> float:
        """s = alpha / r (Hu et al. 2021, section 4.1), or alpha / sqrt(r) (rsLoRA, Kalajdzievski
        2023, theorem 3.2)."""
        return self.alpha / self._divisor

    def scale_of(self, path: str) -> float:
        """s of a layer: its own alpha over the adapter's rank, whatever rank the layer has."""
        return self.alphas.get(path, self.alpha) / self._divisor

    @property
    def _divisor(self) -> float:
        return math.sqrt(self.rank) if self.rank_stabilised else self.rank

    @property
    def variables(self) -> list[keras.Variable]:
        """A, B and the magnitude of each layer in turn."""
        return [variable for factors in self.factors.values() for variable in factors.trained]

    @property
    def dora(self) -> bool:
        """Whether its layers have a magnitude."""
        return any(factors.magnitude is not None for factors in self.factors.values())

    @property
    def count(self) -> int:
        """How many weights are trained."""
        factors = sum(math.prod(variable.shape) for variable in self.variables)
        return factors + sum(value.size for value in self.whole.values())


def first_factors(
    affine: Affine, rank: int, scale: float, settings: Settings, generator: np.random.Generator
) -> Factors:
    """A, B and what belongs to them before training: the layer computes what it did."""
    if settings.start == "pissa":
        return principal_factors(affine, rank, scale, settings.dora)
    rows, _ = affine.size
    if isinstance(affine, Lookup):
        # a row that no index names stays what it was, as A starts at 0 instead of B
        a = np.zeros((*affine.inputs, rank))
        b = generator.normal(0, rank**-0.5, (rank, *affine.outputs))
    else:
        a = generator.normal(0, rows**-0.5, (*affine.inputs, rank))
        b = np.zeros((rank, *affine.outputs))
    return make_factors(affine, a, b, settings.dora)


def principal_factors(affine: Affine, rank: int, scale: float, dora: bool) -> Factors:
    """PiSSA (Meng et al. 2024, equations 2 to 4): s A B is W's best approximation of rank r.

    W = U S V^T; A = U_r (S_r / s)^(1/2), B = (S_r / s)^(1/2) V_r^T, and W - s A B stands in W's
    place.
    """
    kernel = affine.kernel.numpy().astype(np.float64)
    a, b = nearest(affine.matrix(kernel), rank)
    a = (a / math.sqrt(scale)).astype(np.float32).reshape(*affine.inputs, rank)
    b = (b / math.sqrt(scale)).astype(np.float32).reshape(rank, *affine.outputs)
    product = affine.product(a.astype(np.float64), b.astype(np.float64))
    factors = make_factors(affine, a, b, dora)
    residual = variable(kernel - scale * product, "lora_residual", trainable=False)
    return dataclasses.replace(factors, residual=residual, start=(a, b))


def make_factors(
    affine: Affine, a: np.ndarray, b: np.ndarray, dora: bool, magnitude: np.ndarray | None = None
) -> Factors:
    """Variables of a layer; a new magnitude is the norm of each output unit of W (DoRA, Liu et al.
    2024, section 4.1)."""
    a = a.reshape(*affine.inputs, -1)
    b = b.reshape(-1, *affine.outputs)
    lengths = affine.norms(affine.kernel).numpy() if magnitude is None else magnitude
    return Factors(
        variable(a, "lora_a"),
        variable(b, "lora_b"),
        variable(np.ones(()), "lora_scale", trainable=False),
        variable(lengths.reshape(affine.outputs), "lora_magnitude") if dora else None,
    )


def nearest(matrix: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """A (in, r) and B (r, out) whose product is the best approximation of rank r (Eckart and Young
    1936), with singular values shared equally."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    roots = np.sqrt(values[:rank])
    return left[:, :rank] * roots, roots[:, None] * right[:rank]


def variable(value: np.ndarray, name: str, trainable: bool = True) -> keras.Variable:
    """A float32 variable."""
    return keras.Variable(value, dtype="float32", name=name, trainable=trainable)
