"""Weighted sums of adapters as a new one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from assignment4.lora.adapter import Adapter, Bias, Factors, make_factors, nearest
from assignment4.lora.affine import Affine
from common.cli import InputError


def mix(
    shares: Mapping[str, float],
    adapters: Mapping[str, Adapter],
    affines: Mapping[str, Affine],
    base: Mapping[int, np.ndarray],
    rank: int | None = None,
) -> Adapter:
    """The adapter whose update is the sum of w_i s_i A_i B_i over `shares` {name: w}.

    `rank` None is exact: A = [A_1, A_2, ...] and B = [w_1 s_1 B_1; w_2 s_2 B_2; ...], whose rank is
    the sum of the ranks, or min(in, out) where that is smaller. With a rank it is the nearest
    matrix of that rank (Eckart and Young 1936). Weights that are trained whole are mixed as their
    changes from `base` {position: value}. Raises InputError for DoRA, whose update is of full rank,
    for a share that is not finite, and for a rank below 1.
    """
    if not shares or not all(np.isfinite(share) for share in shares.values()):
        raise InputError(f"shares {dict(shares)}: at least one, each a finite number")
    if rank is not None and rank < 1:
        raise InputError(f"rank {rank}: it must be at least 1")
    for name in shares:
        if adapters[name].dora:
            raise InputError(f"adapter {name} is DoRA, so that it is no sum of products to mix")

    # the factors of each layer that one of the adapters has
    factors: dict[str, Factors] = {}
    for path, affine in affines.items():
        parts = [
            (share * adapters[name].scale_of(path), adapters[name].factors[path])
            for name, share in shares.items()
            if path in adapters[name].factors
        ]
        if parts:
            a, b = _mixed(parts, min(affine.size), rank)
            factors[path] = make_factors(affine, a, b, dora=False)

    # the scale is in B already: alpha is the adapter's rank
    whole = {index: value.astype(np.float64) for index, value in base.items()}
    for name, share in shares.items():
        for index, value in adapters[name].whole.items():
            whole[index] += share * (value.astype(np.float64) - base[index])
    own_rank = max(each.rank for each in factors.values())
    patterns = [pattern for name in shares for pattern in adapters[name].modules_to_save]
    return Adapter(
        own_rank,
        float(own_rank),
        False,
        factors,
        bias=_bias([adapters[name] for name in shares]),
        modules_to_save=tuple(dict.fromkeys(patterns)),
        whole={index: value.astype(np.float32) for index, value in whole.items()},
    )


def _mixed(
    parts: list[tuple[float, Factors]], room: int, rank: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """A (in, r) and B (r, out) of the sum of w s A B."""
    pairs = [(weight, *factors.matrices()) for weight, factors in parts]
    a = np.concatenate([first for _, first, _ in pairs], axis=1)
    b = np.concatenate([weight * second for weight, _, second in pairs])
    if rank is None and len(b) <= room:
        return a, b
    return nearest(a @ b, room if rank is None else min(rank, room))


def _bias(adapters: list[Adapter]) -> Bias:
    """The widest of the adapters' choices."""
    return max((each.bias for each in adapters), key=("none", "lora_only", "all").index)
