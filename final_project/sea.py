"""The temporal model: one causal Transformer stream for each field group, State-Exchange Attention (SEA) between the streams, and
time-invariant parameter injection (TIPI), after Esmati et al. 2024 (arXiv 2410.15495) and its code; then ours, one option at a time.

Shape letters: B batch, T new frames, S frames seen, G field groups, L latent numbers a group, K parameters, D width of a stream,
E = D / down_ratio width of the exchange, H heads, d numbers a head.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from common.cli import InputError

Exchange = Literal["none", "addition", "sequential", "symmetric"]
ROTARY_BASE = 10000.0
PRINCIPAL_FLOOR = 1e-2  # of the largest deviation: what is added to the others before they are divided by
FLOOR = 1e-3  # no latent number is standardised by less than this share of its group's largest deviation


@dataclasses.dataclass(frozen=True)
class TemporalConfig:
    """What the temporal model is made of; the defaults are ours, `published` is the paper's code."""

    width: int | None = 256
    """width of a stream; None: as wide as the latent, with neither embedding nor head (published)"""
    blocks: int = 2
    heads: int = 8
    mlp_ratio: float = 4.0
    down_ratio: int = 2
    """the exchange works at width / down_ratio"""
    exchange: Exchange = "symmetric"
    """none; addition of the other streams' states; sequential (published: a stream reads those before it after their exchange); symmetric:
    all streams read the states before the exchange"""
    gated: bool = True
    """a gate for each channel, zero at start, on what a stream receives"""
    tipi: bool = True
    adaptive: bool = False
    """AdaLN: every norm's gain and shift depend on the parameters"""
    condition_width: int | None = 64
    """hidden width of an AdaLN conditioner; None: twice the normalised width (published)"""
    delta: bool = True
    """predict the change of the latent, with a head that is zero at start"""
    final_norm: bool = False
    output_projection: bool = False
    """a dense layer without a residual at the end of a block (published)"""
    small_start: bool = True
    """every branch adds nothing at start, and AdaLN has gain 1 (published: gain 2)"""
    principal: bool = True
    """`Temporal.fit` starts the embedding and the last layer from the principal components of latents and of their changes; without a width there is no embedding to start"""
    standardise: bool = True
    """`Temporal.fit` sets the scales of latents, changes, parameters and loss; False: raw numbers (published)"""
    joint: bool = False
    """control: all groups in one stream"""
    window: int | None = None
    """frames that a query sees, its own included; None: all"""
    dropout: float = 0.0

    @classmethod
    def ours(cls) -> TemporalConfig:
        """The symmetric gated exchange with everything beyond the paper switched on."""
        return cls()

    @classmethod
    def published(cls, adaptive: bool = True, exchange: Exchange = "sequential") -> TemporalConfig:
        """The shipped cylinder configuration, or with adaptive=False the multiphase one (87.19 and 201.51 million parameters)."""
        return cls(width=None, blocks=1, mlp_ratio=8.0, exchange=exchange, gated=False, adaptive=adaptive, condition_width=None, delta=False,
                   principal=False, final_norm=True, output_projection=True, small_start=False, standardise=False, dropout=0.1 if adaptive else 0.0)  # fmt: skip


@dataclasses.dataclass
class Cache:
    """Rotated keys and values (B, H, S, d) of every attention by its name, after `time` frames."""

    time: int = 0
    past: dict[str, tuple[Tensor, Tensor]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Reading:
    """What all attentions share in one pass over T new frames: rotary cosines and signed sines (T, d) by d, mask (T, S), cache."""

    rotation: dict[int, tuple[Tensor, Tensor]]
    mask: Tensor | None
    causal: bool
    window: int | None
    cache: Cache | None
    maps: dict[str, Tensor] | None = None


def rotary(positions: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines (T, d) of integer positions (T,) for heads of d = `size` numbers (Su et al. 2021)."""
    rates = ROTARY_BASE ** (-torch.arange(0, size, 2, device=positions.device, dtype=torch.float64) / size)
    angles = positions.double()[:, None] * rates  # (T, d / 2)
    cos, sin = angles.cos().float(), angles.sin().float()
    return torch.cat([cos, cos], dim=1), torch.cat([-sin, sin], dim=1)


@functools.lru_cache(maxsize=16)
def rotary_table(length: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """`rotary` of the positions 0 to length - 1: a rollout asks for one position a step."""
    with torch.inference_mode(False):
        return rotary(torch.arange(length, device=device), size)


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turns the pairs (i, i + d / 2) of x (B, H, T, d), so that products of two vectors depend on the difference of their positions only."""
    cos, sin = rotation
    return torch.addcmul(x * cos, x.roll(x.shape[3] // 2, 3), sin).to(x.dtype)


def visible(time: int, new: int, seen: int, window: int | None, device: torch.device) -> Tensor:
    """Boolean (T, S): which of the last S frames each of T new frames may read, `time` frames being past."""
    query = torch.arange(time, time + new, device=device)[:, None]
    key = torch.arange(time + new - seen, time + new, device=device)
    mask = key <= query
    return mask if window is None else mask & (key > query - window)


class Attention(nn.Module):
    """Causal multi-head attention with rotary positions: queries from one sequence, keys and values from it or from another."""

    name: str

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q, self.kv = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, source: Tensor, reading: Reading) -> Tensor:
        """(B, T, D) of what each of the T new frames of x reads in the new and cached frames of `source` (B, T, D)."""
        q = self.q(x).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, H, T, d)
        k, v = self.kv(source).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, H, T, d) each
        q, k = (rotate(each, reading.rotation[q.shape[3]]) for each in (q, k))
        if reading.cache is not None:
            if self.name in reading.cache.past:
                k, v = (torch.cat(pair, dim=2) for pair in zip(reading.cache.past[self.name], (k, v), strict=True))  # (B, H, S, d)
            first = 0 if reading.window is None else max(0, k.shape[2] - reading.window + 1)
            reading.cache.past[self.name] = k[:, :, first:], v[:, :, first:]
        if reading.maps is not None:
            scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])
            hidden = ~visible(0, q.shape[2], k.shape[2], reading.window, q.device)
            reading.maps[self.name] = scores.masked_fill(hidden, -torch.inf).softmax(3)  # (B, H, T, S)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=reading.mask, is_causal=reading.causal)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Norm(nn.Module):
    """LayerNorm without bias; with a conditioner AdaLN: gain w + 1 + s and shift b + t, where (s, t) depend on the K parameters."""

    def __init__(self, width: int, parameters: int, hidden: int | None, small_start: bool):
        super().__init__()
        adaptive = hidden is not None and parameters > 0
        self.weight = nn.Parameter(torch.zeros(width) if adaptive and small_start else torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if adaptive else None
        self.conditioner = nn.Sequential(nn.Linear(parameters, hidden), nn.SiLU(), nn.Linear(hidden, 2 * width)) if adaptive else None

    def gain(self, theta: Tensor) -> tuple[Tensor, Tensor | None]:
        """Gain and shift, each (B, 1, D) for parameters (B, K); plain: (D,) and None."""
        if self.conditioner is None:
            return self.weight, None
        scale, shift = self.conditioner(theta)[:, None].chunk(2, dim=2)
        return self.weight + 1 + scale, self.bias + shift

    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        """x (B, T, D), parameters (B, K) -> (B, T, D)."""
        gain, shift = self.gain(theta)
        if shift is None:
            return F.layer_norm(x, x.shape[-1:], gain)
        return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]), gain)


def mlp(width: int, hidden: int, dropout: float) -> nn.Sequential:
    """Linear - LayerNorm - GELU - Linear, as published."""
    return nn.Sequential(nn.Linear(width, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Linear(hidden, width), nn.Dropout(dropout))


class Stream(nn.Module):
    """The weights of one field group in one block."""

    def __init__(self, width: int, parameters: int, config: TemporalConfig, exchanging: bool):
        super().__init__()
        low = width // config.down_ratio

        def norm(size: int) -> Norm:
            return Norm(size, parameters, (config.condition_width or 2 * size) if config.adaptive else None, config.small_start)

        self.norm1, self.attention = norm(width), Attention(width, config.heads)
        self.norm2, self.mlp = norm(width), mlp(width, round(config.mlp_ratio * width), config.dropout)
        self.down = nn.Linear(width, low) if exchanging else None
        self.norm_low = norm(low) if exchanging else None
        self.up = nn.Linear(low, width) if exchanging else None
        self.projection = nn.Linear(width, width) if config.output_projection else None

    def lower(self, h: Tensor, theta: Tensor) -> Tensor:
        """The state (B, T, D) as the exchange sees it (B, T, E)."""
        return self.norm_low(self.down(h), theta)


class Block(nn.Module):
    """Self-attention, exchange, parameter injection and MLP of G streams; each stage is finished in every stream before the next."""

    def __init__(self, streams: int, width: int, parameters: int, config: TemporalConfig):
        super().__init__()
        self.exchange: Exchange = config.exchange if streams > 1 else "none"
        exchanging, low = self.exchange != "none", width // config.down_ratio
        self.streams = nn.ModuleList(Stream(width, parameters, config, exchanging) for _ in range(streams))
        pairs = [f"{i}<{j}" for i in range(streams) for j in range(streams) if i != j]
        self.cross = nn.ModuleDict({pair: Attention(low, config.heads) for pair in pairs if self.exchange in ("sequential", "symmetric")})
        receivers = pairs if self.cross else [str(i) for i in range(streams)]
        self.gates = nn.ParameterDict({name: torch.zeros(width) for name in receivers if exchanging and config.gated})
        self.tipi: nn.Sequential | None = None
        if config.tipi and parameters:
            # LayerNorm erases the size of the only parameter; with standardised parameters it is left out
            hidden = max(8 * parameters, width // 4) if config.standardise else 8 * parameters
            inner = nn.Identity() if config.standardise else nn.LayerNorm(hidden)
            self.tipi = nn.Sequential(nn.Linear(parameters, hidden), inner, nn.GELU(), nn.Linear(hidden, width))

    def received(self, i: int, lowered: list[Tensor], reading: Reading) -> Tensor:
        """What stream i takes from the others' lowered states (B, T, E) -> (B, T, D)."""
        others = [j for j in range(len(lowered)) if j != i]
        if self.exchange == "addition":
            parts = {str(i): sum(lowered[j] for j in others)}
        else:
            parts = {f"{i}<{j}": self.cross[f"{i}<{j}"](lowered[i], lowered[j], reading) for j in others}
        lifted = {name: self.streams[i].up(F.gelu(part)) for name, part in parts.items()}
        return sum(part * self.gates[name] if self.gates else part for name, part in lifted.items())

    def forward(self, h: list[Tensor], theta: Tensor, reading: Reading) -> list[Tensor]:
        """G states (B, T, D) and parameters (B, K) -> G states."""
        normed = [stream.norm1(x, theta) for stream, x in zip(self.streams, h, strict=True)]
        h = [x + stream.attention(y, y, reading) for stream, x, y in zip(self.streams, h, normed, strict=True)]
        if self.exchange != "none":
            lowered = [stream.lower(x, theta) for stream, x in zip(self.streams, h, strict=True)]
            for i, stream in enumerate(self.streams):
                h[i] = h[i] + self.received(i, lowered, reading)
                if self.exchange == "sequential" and i + 1 < len(h):  # Gauss-Seidel: the next streams read what this one has become
                    lowered[i] = stream.lower(h[i], theta)
        if self.tipi is not None:
            told = self.tipi(theta)[:, None]  # (B, 1, D)
            h = [x + told for x in h]
        h = [x + stream.mlp(stream.norm2(x, theta)) for stream, x in zip(self.streams, h, strict=True)]
        return [x if stream.projection is None else stream.projection(x) for stream, x in zip(self.streams, h, strict=True)]


class Temporal(nn.Module):
    """Causal model of latent trajectories: z (B, T, G, L) and parameters (B, K) -> the next latent at every time.

    groups, latents, parameters: G, L and K. Buffers: `mean`, `std`, `delta_std` and the loss's `weights` (G, L), `theta_mean` and
    `theta_std` (K,). With one group, or all in one stream, there is no exchange.
    Raises InputError where the heads do not fit the widths, where the joint control is asked to exchange, and for sizes below one.
    """

    def __init__(self, config: TemporalConfig, groups: int, latents: int, parameters: int):
        super().__init__()
        self.config, self.groups, self.latents = config, groups, latents
        streams, size = (1, groups * latents) if config.joint else (groups, latents)
        width = config.width or size
        if min(groups, latents, config.blocks, config.heads, config.down_ratio, 1 if config.window is None else config.window) < 1:
            raise InputError("groups, latents, blocks, heads, down_ratio and window must be at least 1")
        if config.joint and config.exchange != "none":
            raise InputError(f'joint streams with exchange "{config.exchange}": one stream has nobody to exchange with; take "none"')
        if width % (2 * config.heads) or (config.exchange != "none" and width % (2 * config.heads * config.down_ratio)):
            raise InputError(
                f"width {width} does not fit {config.heads} heads; take a multiple of {2 * config.heads * config.down_ratio}, "
                "so that every head has an even size in streams and exchange"
            )
        self.embed = nn.ModuleList(nn.Linear(size, width) for _ in range(streams)) if config.width else None
        self.blocks = nn.ModuleList(Block(streams, width, parameters, config) for _ in range(config.blocks))
        hidden = (config.condition_width or 2 * width) if config.adaptive else None
        self.norm = (
            nn.ModuleList(Norm(width, parameters, hidden, config.small_start) for _ in range(streams)) if config.final_norm else None
        )
        self.head = nn.ModuleList(nn.Linear(width, size) for _ in range(streams)) if config.width or config.delta else None
        self.spread = None
        if config.principal and config.width:
            self.head = nn.ModuleList(nn.Linear(width, min(width, size)) for _ in range(streams))
            self.spread = nn.ModuleList(nn.Linear(min(width, size), size, bias=False) for _ in range(streams))
        for name in ("std", "delta_std", "weights"):
            self.register_buffer(name, torch.ones(groups, latents))
        self.register_buffer("mean", torch.zeros(groups, latents))
        self.register_buffer("theta_mean", torch.zeros(parameters))
        self.register_buffer("theta_std", torch.ones(parameters))
        for name, module in self.named_modules():
            if isinstance(module, Attention):
                module.name = name
        self.head_sizes = {module.q.out_features // module.heads for module in self.modules() if isinstance(module, Attention)}
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        last: list[nn.Linear] = list(self.head) if self.config.delta else []
        if self.config.small_start:
            last += [module.conditioner[-1] for module in self.modules() if isinstance(module, Norm) and module.conditioner is not None]
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
    def fit(self, z: Tensor, theta: Tensor) -> None:
        """Sets all scales from training latents (N, T, G, L) and parameters (N, K); nothing to do for raw numbers (published).

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
        spread = (theta.double() - theta.double().mean(0)).square().mean(0).sqrt()  # (K,); K may be 0
        self.mean.copy_(z.double().mean((0, 1)))
        self.std.copy_(deviation(z))
        self.delta_std.copy_(deviation(change))
        self.weights.copy_(torch.where(size > 0, 1 / size, 1.0).expand_as(self.weights))
        if self.spread is not None:
            self._principal_start(z, change)
        self.theta_mean.copy_(theta.double().mean(0))
        self.theta_std.copy_(torch.where(spread > 0, spread, 1.0))

    def _principal_start(self, z: Tensor, change: Tensor) -> None:
        """Embedding: whitened principal coefficients of the latents; last layer: back from those of the changes. Both are trained on."""

        def streams(x: Tensor) -> Tensor:
            """(N, T, G, L) in the loss's units -> (streams, N T, numbers)."""
            return rearrange(x * self.weights.sqrt(), "n t g l -> 1 (n t) (g l)" if self.config.joint else "n t g l -> g (n t) l").double()

        def principal(x: Tensor) -> tuple[Tensor, Tensor]:
            """Deviations (components,) and directions (numbers, components) of x (N T, numbers), the largest first."""
            variance, directions = torch.linalg.eigh(x.T @ x / len(x))
            return variance.flip(0).clamp(min=0).sqrt(), directions.flip(1)

        def streamed(buffer: Tensor) -> Tensor:
            return buffer.reshape(len(self.head), -1).double()

        scale = streamed(self.weights.sqrt())
        for number, (state, moved) in enumerate(zip(streams(z - self.mean), streams(change), strict=True)):
            deviation, directions = principal(state)
            kept = min(self.embed[number].out_features, len(deviation))
            whitened = (directions / (deviation + PRINCIPAL_FLOOR * deviation[0]).clamp(min=1e-30))[:, :kept].T  # (kept, numbers)
            self.embed[number].weight[:kept] = (whitened * scale[number] * streamed(self.std)[number]).float()
            deviation, directions = principal(moved)
            back = (directions * deviation)[:, : self.spread[number].in_features]  # (numbers, kept)
            self.spread[number].weight.copy_(
                back / (scale[number] * streamed(self.delta_std if self.config.delta else self.std)[number])[:, None]
            )

    def advance(self, z: Tensor, theta: Tensor, cache: Cache | None = None, keep: bool = True,
                maps: dict[str, Tensor] | None = None) -> tuple[Tensor, Cache | None]:  # fmt: skip
        """The next latents (B, T, G, L) of T new frames after those in the cache, and the cache with them (None unless `keep`).

        maps: an empty dictionary to be filled with the attention weights (B, H, T, T) by the attentions' names; without a cache only.
        Raises InputError for latents of another shape than the model's.
        """
        if z.shape[2:] != (self.groups, self.latents):
            raise InputError(
                f"latents of shape {tuple(z.shape[2:])}, the model was made for {(self.groups, self.latents)} (groups, numbers)"
            )
        cache = (Cache() if cache is None else Cache(cache.time, dict(cache.past))) if keep else None
        time, new, window = cache.time if cache else 0, z.shape[1], self.config.window
        seen = new + (time if window is None else min(time, window - 1))
        causal = time == 0 and (window is None or new <= window)
        mask = None if causal or new == 1 else visible(time, new, seen, window, z.device)
        enough = 1 << (time + new - 1).bit_length()  # one table for many lengths
        turns = {size: tuple(part[time : time + new] for part in rotary_table(enough, size, z.device)) for size in self.head_sizes}
        reading = Reading(turns, mask, causal and new > 1, window, cache, maps)

        theta = (theta.to(z.dtype) - self.theta_mean) / self.theta_std
        h = (z - self.mean) / self.std
        if self.config.joint:
            h = rearrange(h, "b t g l -> b t 1 (g l)")
        h = list(h.unbind(2))  # G of (B, T, L)
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
        out = rearrange(torch.stack(h, dim=2), "b t s (g l) -> b t (s g) l", l=self.latents)  # (B, T, G, L)
        if cache is not None:
            cache.time += new
        return torch.addcmul(z, out, self.delta_std) if self.config.delta else torch.addcmul(self.mean, out, self.std), cache

    def forward(self, z: Tensor, theta: Tensor) -> Tensor:
        """z (B, T, G, L), theta (B, K) -> the next latent at every time (B, T, G, L); no output depends on later frames."""
        return self.advance(z, theta, keep=False)[0]

    def step(self, z: Tensor, theta: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """z (B, G, L) at one time and the cache of all before (None at the start) -> the next latent (B, G, L), the new cache."""
        out, cache = self.advance(z[:, None], theta, cache)
        return out[:, 0], cache

    @torch.no_grad()
    def exchange_maps(self, z: Tensor, theta: Tensor) -> dict[tuple[int, int, int], Tensor]:
        """Attention weights (B, H, T, T) of z (B, T, G, L) by (block, reading group, group that is read)."""
        maps: dict[str, Tensor] = {}
        self.advance(z, theta, keep=False, maps=maps)
        crossing = {(number, *map(int, pair.split("<"))): attention.name for number, block in enumerate(self.blocks)
                    for pair, attention in block.cross.items()}  # fmt: skip
        return {key: maps[name] for key, name in crossing.items()}


def count(config: TemporalConfig, groups: int, latents: int, parameters: int) -> int:
    """Number of trained numbers of a model that is not built. Raises InputError as `Temporal`."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Temporal(config, groups, latents, parameters).parameters())


def matched(config: TemporalConfig, like: TemporalConfig, groups: int, latents: int, parameters: int) -> TemporalConfig:
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
        raise InputError(f"no MLP width brings {found} parameters within 1 % of {target}; take another width")
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

    diagonal = groups * (4 * low**2 + 3 * low) if config.exchange in ("sequential", "symmetric") else 0
    return config.blocks * (groups * norm(width) + norm(low) + diagonal + width * (parameters + 1))
