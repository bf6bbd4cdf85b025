"""The temporal models: latents of a mesh autoencoder and a flow's parameters -> the latents of the next frame, through the streams of `streams.py`.

`Temporal` is Esmati et al. 2024 and what we make of it, one token a frame and field group; `PatchTemporal` has a token for every patch.

Shape letters: B batch, T new frames, G field groups, L latent numbers a group, Q patches, E code of a patch, K parameters, D width of a
stream, H heads, C common numbers of a patch.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from common.cli import InputError
from final_project.patches import Geometry
from final_project.streams import (
    Attention,
    Block,
    Cache,
    Norm,
    PatchAttention,
    Reading,
    TemporalConfig,
    rotary_table,
    visible,
)

PRINCIPAL_FLOOR = (
    1e-2  # of the largest deviation: what is added to the others before they are divided by
)
FLOOR = 1e-3  # no latent number is standardised by less than this share of its group's largest deviation
COMMON = 16  # functions that all patches of a group have in common


class Temporal(nn.Module):
    """Causal model of latent trajectories: z (B, T, G, L) and parameters (B, K) -> the next latent at every time.

    groups, latents, parameters: G, L and K. Buffers: `mean`, `std`, `delta_std` and the loss's `weights` (G, L), `theta_mean` and
    `theta_std` (K,). With one group, or all in one stream, there is no exchange.
    Raises InputError where the heads do not fit the widths, where the joint control is asked to exchange, and for sizes below one.
    """

    mean: Tensor
    std: Tensor
    delta_std: Tensor
    weights: Tensor
    theta_mean: Tensor
    theta_std: Tensor
    blocks: Any  # a ModuleList of Blocks, which torch's stubs cannot say
    embed: Any  # this and the next three: a module or a parameter for each stream, or None
    norm: Any
    head: Any
    spread: Any

    def __init__(self, config: TemporalConfig, groups: int, latents: int, parameters: int):
        super().__init__()
        self.config, self.groups, self.latents = config, groups, latents
        streams, size = (1, groups * latents) if config.joint else (groups, latents)
        width = config.width or size
        if (
            min(
                groups,
                latents,
                config.blocks,
                config.heads,
                config.down_ratio,
                1 if config.window is None else config.window,
            )
            < 1
        ):
            raise InputError(
                "groups, latents, blocks, heads, down_ratio and window must be at least 1"
            )
        if config.joint and config.exchange != "none":
            raise InputError(
                f'joint streams with exchange "{config.exchange}": one stream has nobody to exchange with; take "none"'
            )
        if width % (2 * config.heads) or (
            config.exchange != "none" and width % (2 * config.heads * config.down_ratio)
        ):
            raise InputError(
                f"width {width} does not fit {config.heads} heads; take a multiple of {2 * config.heads * config.down_ratio}, "
                "so that every head has an even size in streams and exchange"
            )
        self._first(streams, size, width)
        self.blocks = nn.ModuleList(
            Block(streams, width, parameters, config) for _ in range(config.blocks)
        )
        hidden = (config.condition_width or 2 * width) if config.adaptive else None
        self.norm = (
            nn.ModuleList(
                Norm(width, parameters, hidden, config.small_start) for _ in range(streams)
            )
            if config.final_norm
            else None
        )
        self._last(streams, size, width)
        for name in ("std", "delta_std", "weights"):
            self.register_buffer(name, torch.ones(groups, latents))
        self.register_buffer("mean", torch.zeros(groups, latents))
        self.register_buffer("theta_mean", torch.zeros(parameters))
        self.register_buffer("theta_std", torch.ones(parameters))
        for name, module in self.named_modules():
            if isinstance(module, Attention | PatchAttention):
                module.name = name
        self.head_sizes = {
            module.q.out_features // module.heads
            for module in self.modules()
            if isinstance(module, Attention)
        }
        self._initialise()

    def _first(self, streams: int, size: int, width: int) -> None:
        """What leads from `size` latent numbers to streams of `width`."""
        self.embed = (
            nn.ModuleList(nn.Linear(size, width) for _ in range(streams))
            if self.config.width
            else None
        )

    def _last(self, streams: int, size: int, width: int) -> None:
        """What leads back."""
        config = self.config
        self.head = (
            nn.ModuleList(nn.Linear(width, size) for _ in range(streams))
            if config.width or config.delta
            else None
        )
        self.spread = None
        if config.principal and config.width:
            self.head = nn.ModuleList(nn.Linear(width, min(width, size)) for _ in range(streams))
            self.spread = nn.ModuleList(
                nn.Linear(min(width, size), size, bias=False) for _ in range(streams)
            )

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        last: list[Any] = [
            layer for layer in self.head or () if self.config.delta and isinstance(layer, nn.Linear)
        ]
        if self.config.small_start:
            last += [
                module.conditioner[-1]
                for module in self.modules()
                if isinstance(module, Norm) and module.conditioner is not None
            ]
            for block in self.blocks:
                last += [] if block.tipi is None else [block.tipi[-1]]
                for stream in block.streams:
                    last += [stream.attention.out, stream.mlp[-2]]
                    # never gate and branch at once: neither would get a gradient
                    last += [stream.up] if stream.up is not None and not block.gates else []
        for layer in last:
            nn.init.zeros_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    @torch.no_grad()
    def fit(self, z: Tensor, theta: Tensor, geometry: Geometry | None = None) -> None:
        """Sets all scales from training latents (N, T, G, L) and parameters (N, K), and starts the first and last layers; nothing to do for
        raw numbers (published). geometry: where the patches are, for models whose tokens they are.

        The loss's weights make persistence cost 1 in every group, and count each latent number by its share of the group's change.
        """
        if not self.config.standardise:
            return

        def deviation(x: Tensor) -> Tensor:
            spread = x.double().flatten(0, 1).std(0, correction=0)  # (G, L)
            largest = spread.amax(1, keepdim=True)
            return torch.where(largest > 0, spread.clamp(min=FLOOR * largest), 1.0)

        change = z[:, 1:] - z[:, :-1]
        size = change.double().square().mean((0, 1, 3))[:, None]  # (G, 1)
        spread = (
            (theta.double() - theta.double().mean(0)).square().mean(0).sqrt()
        )  # (K,); K may be 0
        self.mean.copy_(z.double().mean((0, 1)))
        self.std.copy_(deviation(z))
        self.delta_std.copy_(deviation(change))
        self.weights.copy_(torch.where(size > 0, 1 / size, 1.0).expand_as(self.weights))
        self._start(z, change, geometry)
        self.theta_mean.copy_(theta.double().mean(0))
        self.theta_std.copy_(torch.where(spread > 0, spread, 1.0))

    def _start(self, z: Tensor, change: Tensor, geometry: Geometry | None) -> None:
        """Embedding: whitened principal coefficients of the latents; last layer: back from those of the changes. Both are trained on."""
        if self.spread is None:
            return

        def streams(x: Tensor) -> Tensor:
            """(N, T, G, L) in the loss's units -> (streams, N T, numbers)."""
            return rearrange(
                x * self.weights.sqrt(),
                "n t g l -> 1 (n t) (g l)" if self.config.joint else "n t g l -> g (n t) l",
            ).double()

        def streamed(buffer: Tensor) -> Tensor:
            return buffer.reshape(len(self.head), -1).double()

        scale = streamed(self.weights.sqrt())
        for number, (state, moved) in enumerate(
            zip(streams(z - self.mean), streams(change), strict=True)
        ):
            kept = min(self.embed[number].out_features, state.shape[1])
            deviation, directions = _principal(state, kept)
            whitened = (
                directions / (deviation + PRINCIPAL_FLOOR * deviation[0]).clamp(min=1e-30)
            ).T  # (kept, numbers)
            self.embed[number].weight[:kept] = (
                whitened * scale[number] * streamed(self.std)[number]
            ).float()
            deviation, directions = _principal(moved, self.spread[number].in_features)
            back = directions * deviation  # (numbers, kept)
            self.spread[number].weight.copy_(
                back
                / (
                    scale[number]
                    * streamed(self.delta_std if self.config.delta else self.std)[number]
                )[:, None]
            )

    def advance(
        self,
        z: Tensor,
        theta: Tensor,
        cache: Cache | None = None,
        keep: bool = True,
        maps: dict[str, Tensor] | None = None,
    ) -> tuple[Tensor, Cache | None]:
        """The next latents (B, T, G, L) of T new frames after those in the cache, and the cache with them (None unless `keep`).

        maps: an empty dictionary to be filled with the attention weights (B, H, T, T) by the attentions' names; without a cache only.
        Raises InputError for latents of another shape than the model's.
        """
        self._check(z)
        cache = (
            (Cache() if cache is None else Cache(cache.time, dict(cache.past))) if keep else None
        )
        time, new, window = cache.time if cache else 0, z.shape[1], self.config.window
        seen = new + (time if window is None else min(time, window - 1))
        causal = time == 0 and (window is None or new <= window)
        mask = None if causal or new == 1 else visible(time, new, seen, window, z.device)
        enough = 1 << (time + new - 1).bit_length()  # one table for many lengths
        tables = {size: rotary_table(enough, size, z.device) for size in self.head_sizes}
        turns = {
            size: (cos[time : time + new], sin[time : time + new])
            for size, (cos, sin) in tables.items()
        }
        reading = Reading(turns, mask, causal and new > 1, window, cache, maps)

        theta = (theta.to(z.dtype) - self.theta_mean) / self.theta_std
        normal = (z - self.mean) / self.std
        if self.config.joint:
            normal = rearrange(normal, "b t g l -> b t 1 (g l)")
        h = list(normal.unbind(2))  # G of (B, T, L)
        if self.embed is not None:
            h = [embed(x) for embed, x in zip(self.embed, h, strict=True)]  # G of (B, T, D)
        for block in self.blocks:
            h = block(h, theta, reading)
        if self.norm is not None:
            h = [norm(x, theta) for norm, x in zip(self.norm, h, strict=True)]
        if self.head is not None:
            h = [head(x) for head, x in zip(self.head, h, strict=True)]  # G of (B, T, L)
        if self.spread is not None:
            h = [spread(x) for spread, x in zip(self.spread, h, strict=True)]
        out = rearrange(
            torch.stack(h, dim=2), "b t s (g l) -> b t (s g) l", l=self.latents
        )  # (B, T, G, L)
        if cache is not None:
            cache.time += new
        return torch.addcmul(z, out, self.delta_std) if self.config.delta else torch.addcmul(
            self.mean, out, self.std
        ), cache

    def _check(self, z: Tensor) -> None:
        if z.shape[2:] != (self.groups, self.latents):
            raise InputError(
                f"latents of shape {tuple(z.shape[2:])}, the model was made for {(self.groups, self.latents)} (groups, numbers)"
            )

    def forward(self, z: Tensor, theta: Tensor) -> Tensor:
        """z (B, T, G, L), theta (B, K) -> the next latent at every time (B, T, G, L); no output depends on later frames."""
        return self.advance(z, theta, keep=False)[0]

    def step(
        self, z: Tensor, theta: Tensor, cache: Cache | None = None
    ) -> tuple[Tensor, Cache | None]:
        """z (B, G, L) at one time and the cache of all before (None at the start) -> the next latent (B, G, L), the new cache."""
        out, cache = self.advance(z[:, None], theta, cache)
        return out[:, 0], cache

    @torch.no_grad()
    def exchange_maps(self, z: Tensor, theta: Tensor) -> dict[tuple[int, int, int], Tensor]:
        """Attention weights (B, H, T, T) of z (B, T, G, L) by (block, reading group, group that is read)."""
        maps: dict[str, Tensor] = {}
        self.advance(z, theta, keep=False, maps=maps)
        crossing: dict[Any, str] = {
            (number, *map(int, pair.split("<"))): attention.name
            for number, block in enumerate(self.blocks)
            for pair, attention in block.cross.items()
        }
        return {key: maps[name] for key, name in crossing.items()}


class PatchTemporal(Temporal):
    """The next frame from the present one: a stream's tokens are the patches of a frame, and the exchange reads the other fields at all places.

    Latents are patch-major, L = Q E. Every patch has its own matrices to and from a stream, which start from `Geometry`'s common ones: what a
    block learns in one place then holds in all. C = COMMON numbers a group. Raises InputError as `Temporal`.
    """

    def _first(self, streams: int, size: int, width: int) -> None:
        patches = self.config.patches
        if size % patches:
            raise InputError(
                f"{size} latent numbers in a stream cannot be shared by {patches} patches"
            )
        codes = size // patches
        self.embed = nn.ParameterList(
            torch.randn(patches, codes, width) / math.sqrt(codes) for _ in range(streams)
        )
        self.place = nn.ParameterList(0.1 * torch.randn(patches, width) for _ in range(streams))

    def _last(self, streams: int, size: int, width: int) -> None:
        patches, common = self.config.patches, COMMON * (self.groups // streams)
        codes = size // patches
        self.head = nn.ModuleList(nn.Linear(width, common) for _ in range(streams))
        self.spread = nn.ParameterList(
            torch.randn(patches, common, codes) / math.sqrt(common) for _ in range(streams)
        )

    def _codes(self, z: Tensor) -> list[Tensor]:
        """Latents (B, T, G, L) -> for each stream the codes of its patches (B T, Q, E)."""
        layout = (
            "b t g (q e) -> 1 (b t) q (g e)" if self.config.joint else "b t g (q e) -> g (b t) q e"
        )
        return list(rearrange(z, layout, q=self.config.patches).unbind(0))

    def _start(self, z: Tensor, change: Tensor, geometry: Geometry | None) -> None:
        """Every patch's code is read through, and written by, the principal components of what all patches hold in common functions."""
        if geometry is None:
            return
        for module in self.modules():
            if isinstance(module, PatchAttention):
                module.look_nearby(geometry.places)
        states, changes = (
            self._codes(x * self.weights.sqrt()) for x in (z - self.mean, change)
        )  # in the loss's units
        ends = (
            [_diagonal(part)] if self.config.joint else part
            for part in (geometry.analysis, geometry.synthesis)
        )
        for number, (state, moved, analysis, synthesis) in enumerate(
            zip(states, changes, *ends, strict=True)
        ):
            seen, stepped = (
                torch.einsum("nqe,qec->nqc", x.double().cpu(), analysis).flatten(0, 1)
                for x in (state, moved)
            )
            kept = min(self.head[number].out_features, analysis.shape[2])
            deviation, directions = _principal(seen, kept)
            whitened = directions / (deviation + PRINCIPAL_FLOOR * deviation[0]).clamp(
                min=1e-30
            )  # (c, C)
            mixing = torch.randn(
                kept, self.embed[number].shape[2], dtype=torch.float64
            ) / math.sqrt(kept)
            self.embed[number].copy_(analysis @ whitened @ mixing)
            deviation, directions = _principal(stepped, kept)
            self.spread[number].zero_()[:, :kept] = (directions * deviation).T @ synthesis

    def advance(
        self,
        z: Tensor,
        theta: Tensor,
        cache: Cache | None = None,
        keep: bool = True,
        maps: dict[str, Tensor] | None = None,
    ) -> tuple[Tensor, Cache | None]:
        """As `Temporal.advance`; nothing of earlier frames is read, and maps are attention weights (B T, H, Q, Q)."""
        self._check(z)
        batch, new, time = *z.shape[:2], cache.time if cache else 0
        reading = Reading({}, None, False, None, None, maps)
        told = ((theta.to(z.dtype) - self.theta_mean) / self.theta_std).repeat_interleave(
            new, 0
        )  # (B T, K)
        unit = self.weights.rsqrt()  # (G, L): size of a group's change
        parts = zip(self._codes((z - self.mean) / unit), self.embed, self.place, strict=True)
        h = [
            torch.einsum("nqe,qed->nqd", x, embed) + place for x, embed, place in parts
        ]  # streams of (B T, Q, D)
        for block in self.blocks:
            h = block(h, told, reading)
        if self.norm is not None:
            h = [norm(x, told) for norm, x in zip(self.norm, h, strict=True)]
        out = [
            torch.einsum("nqc,qce->nqe", head(x), spread)
            for x, head, spread in zip(h, self.head, self.spread, strict=True)
        ]
        layout = (
            "1 (b t) q (g e) -> b t g (q e)" if self.config.joint else "g (b t) q e -> b t g (q e)"
        )
        step = rearrange(torch.stack(out), layout, b=batch, t=new, g=self.groups)
        return torch.addcmul(z, step, unit), Cache(time + new) if keep else None


def _principal(x: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """Deviations (kept,) and directions (numbers, kept) of x (N, numbers), the largest first."""
    variance, directions = torch.linalg.eigh(x.T @ x / len(x))
    return variance.flip(0)[:kept].clamp(min=0).sqrt(), directions.flip(1)[:, :kept]


def _diagonal(parts: list[Tensor]) -> Tensor:
    """Matrices (Q, m, n) of several groups as one block-diagonal matrix a patch."""
    return torch.stack([torch.block_diag(*each) for each in zip(*parts, strict=True)])


def build(config: TemporalConfig, groups: int, latents: int, parameters: int) -> Temporal:
    """The model that a configuration describes. Raises InputError as `Temporal`."""
    return (PatchTemporal if config.patches else Temporal)(config, groups, latents, parameters)


def count(config: TemporalConfig, groups: int, latents: int, parameters: int) -> int:
    """Number of trained numbers of a model that is not built. Raises InputError as `Temporal`."""
    with torch.device("meta"):
        return sum(
            parameter.numel()
            for parameter in build(config, groups, latents, parameters).parameters()
        )


def matched(
    config: TemporalConfig, like: TemporalConfig, groups: int, latents: int, parameters: int
) -> TemporalConfig:
    """`config` with the MLP width that brings its number of parameters as near to that of `like` as it can.

    Raises InputError where even the narrowest MLP leaves it more than 1 % larger.
    """
    target = count(like, groups, latents, parameters)
    width = config.width or (groups * latents if config.joint else latents)

    def wide(hidden: int) -> TemporalConfig:
        return dataclasses.replace(config, mlp_ratio=hidden / width)

    least, following = (count(wide(hidden), groups, latents, parameters) for hidden in (1, 2))
    hidden = max(1, 1 + round((target - least) / (following - least)))
    found = count(wide(hidden), groups, latents, parameters)
    if abs(found - target) > 0.01 * target:
        raise InputError(
            f"no MLP width brings {found} parameters within 1 % of {target}; take another width"
        )
    return wide(hidden)


def unused_parameters(config: TemporalConfig, groups: int, latents: int, parameters: int) -> int:
    """Parameters that the official code builds for a published configuration and never calls.

    In every block: a further norm of each stream, one more norm in the exchange, the cross-attention of each stream with itself, and the
    residual projection (K -> D) inside TIPI's MLP.
    """
    width, low = latents, latents // config.down_ratio
    adaptive = config.adaptive and parameters > 0

    def norm(size: int) -> int:
        hidden = 2 * size
        return 2 * size + hidden * (parameters + 1) + 2 * size * (hidden + 1) if adaptive else size

    diagonal = (
        groups * (4 * low**2 + 3 * low) if config.exchange in ("sequential", "symmetric") else 0
    )
    return config.blocks * (groups * norm(width) + norm(low) + diagonal + width * (parameters + 1))
