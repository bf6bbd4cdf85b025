"""The blocks of a temporal model: one Transformer stream for each field group, State-Exchange Attention (SEA) between the streams, and
time-invariant parameter injection (TIPI), after Esmati et al. 2024 (arXiv 2410.15495) and its code; then ours, one option at a time.

Tokens are frames (attention is causal in time) or the patches of one frame (attention is over places).

Shape letters: B batch, T new frames, S frames seen, Q patches, G field groups, L latent numbers a group, K parameters, D width of a stream,
E = D / down_ratio width of the exchange, H heads, d numbers a head.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Exchange = Literal["none", "addition", "sequential", "symmetric"]
ROTARY_BASE = 10000.0
# Where heads look at first, (columns, rows) away, and how sharply: the patch itself, its four neighbours, then ever wider around it.
LOOKS = (
    (0, 0, 1.0),
    (1, 0, 1.0),
    (-1, 0, 1.0),
    (0, 1, 1.0),
    (0, -1, 1.0),
    (0, 0, 1 / 4),
    (0, 0, 1 / 16),
    (0, 0, 0.0),
)


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
    patches: int = 0
    """patches of a frame, each a token of its own, in place of time; 0: a frame is one token"""
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
        return cls(
            width=None,
            blocks=1,
            mlp_ratio=8.0,
            exchange=exchange,
            gated=False,
            adaptive=adaptive,
            condition_width=None,
            delta=False,
            principal=False,
            final_norm=True,
            output_projection=True,
            small_start=False,
            standardise=False,
            dropout=0.1 if adaptive else 0.0,
        )


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
    rates = ROTARY_BASE ** (
        -torch.arange(0, size, 2, device=positions.device, dtype=torch.float64) / size
    )
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
        k, v = (
            self.kv(source).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )  # (B, H, T, d) each
        q, k = (rotate(each, reading.rotation[q.shape[3]]) for each in (q, k))
        if reading.cache is not None:
            if self.name in reading.cache.past:
                k, v = (
                    torch.cat(pair, dim=2)
                    for pair in zip(reading.cache.past[self.name], (k, v), strict=True)
                )  # (B, H, S, d)
            first = 0 if reading.window is None else max(0, k.shape[2] - reading.window + 1)
            reading.cache.past[self.name] = k[:, :, first:], v[:, :, first:]
        if reading.maps is not None:
            scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])
            hidden = ~visible(0, q.shape[2], k.shape[2], reading.window, q.device)
            reading.maps[self.name] = scores.masked_fill(hidden, -torch.inf).softmax(
                3
            )  # (B, H, T, S)
        mixed = F.scaled_dot_product_attention(
            q, k, v, attn_mask=reading.mask, is_causal=reading.causal
        )
        return self.out(mixed.transpose(1, 2).flatten(2))


class PatchAttention(nn.Module):
    """Multi-head attention among the Q patches of a frame, with a learned bias for each head and pair of patches."""

    name: str

    def __init__(self, width: int, heads: int, patches: int):
        super().__init__()
        self.heads = heads
        self.q, self.kv = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width, bias=False)
        self.bias = nn.Parameter(torch.zeros(heads, patches, patches))

    @torch.no_grad()
    def look_nearby(self, places: Tensor) -> None:
        """Starts every head at a patch near the reading one (LOOKS), as a convolution does; places (Q, 2) in columns and rows."""
        away = (places[None] - places[:, None]).double()  # (Q, Q, 2)
        for head, (column, row, sharpness) in zip(range(self.heads), itertools.cycle(LOOKS)):
            self.bias[head] = -sharpness * (away - away.new_tensor((column, row))).square().sum(2)

    def forward(self, x: Tensor, source: Tensor, reading: Reading) -> Tensor:
        """(B, Q, D) of what each patch of x reads in the patches of `source` (B, Q, D)."""
        q = self.q(x).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, H, Q, d)
        k, v = (
            self.kv(source).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )  # (B, H, Q, d) each
        weights = torch.add(self.bias, q @ k.transpose(2, 3), alpha=q.shape[3] ** -0.5).softmax(
            3
        )  # (B, H, Q, Q)
        if reading.maps is not None:
            reading.maps[self.name] = weights
        return self.out((weights @ v).transpose(1, 2).flatten(2))


class Norm(nn.Module):
    """LayerNorm without bias; with a conditioner AdaLN: gain w + 1 + s and shift b + t, where (s, t) depend on the K parameters."""

    def __init__(self, width: int, parameters: int, hidden: int | None, small_start: bool):
        super().__init__()
        adaptive = hidden is not None and parameters > 0
        self.weight = nn.Parameter(
            torch.zeros(width) if adaptive and small_start else torch.ones(width)
        )
        self.bias = nn.Parameter(torch.zeros(width)) if adaptive else None
        self.conditioner: nn.Sequential | None = None
        if hidden is not None and adaptive:
            self.conditioner = nn.Sequential(
                nn.Linear(parameters, hidden), nn.SiLU(), nn.Linear(hidden, 2 * width)
            )

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
    return nn.Sequential(
        nn.Linear(width, hidden),
        nn.LayerNorm(hidden),
        nn.GELU(),
        nn.Linear(hidden, width),
        nn.Dropout(dropout),
    )


Attending = Callable[[int, int], nn.Module]  # (width, heads) -> attention


class Stream(nn.Module):
    """The weights of one field group in one block."""

    down: Any  # a layer, None without an exchange; so are the next two
    norm_low: Any
    up: Any

    def __init__(
        self,
        width: int,
        parameters: int,
        config: TemporalConfig,
        exchanging: bool,
        attention: Attending,
    ):
        super().__init__()
        low = width // config.down_ratio

        def norm(size: int) -> Norm:
            return Norm(
                size,
                parameters,
                (config.condition_width or 2 * size) if config.adaptive else None,
                config.small_start,
            )

        self.norm1, self.attention = norm(width), attention(width, config.heads)
        self.norm2, self.mlp = (
            norm(width),
            mlp(width, round(config.mlp_ratio * width), config.dropout),
        )
        self.down = nn.Linear(width, low) if exchanging else None
        self.norm_low = norm(low) if exchanging else None
        self.up = nn.Linear(low, width) if exchanging else None
        self.projection = nn.Linear(width, width) if config.output_projection else None

    def lower(self, h: Tensor, theta: Tensor) -> Tensor:
        """The state (B, T, D) as the exchange sees it (B, T, E)."""
        return self.norm_low(self.down(h), theta)


class Block(nn.Module):
    """Self-attention, exchange, parameter injection and MLP of G streams; each stage is finished in every stream before the next."""

    streams: Any  # a ModuleList of Streams, which torch's stubs cannot say

    def __init__(self, streams: int, width: int, parameters: int, config: TemporalConfig):
        super().__init__()
        attention: Attending = (
            functools.partial(PatchAttention, patches=config.patches)
            if config.patches
            else Attention
        )
        self.exchange: Exchange = config.exchange if streams > 1 else "none"
        exchanging, low = self.exchange != "none", width // config.down_ratio
        self.streams = nn.ModuleList(
            Stream(width, parameters, config, exchanging, attention) for _ in range(streams)
        )
        pairs = [f"{i}<{j}" for i in range(streams) for j in range(streams) if i != j]
        self.cross = nn.ModuleDict(
            {
                pair: attention(low, config.heads)
                for pair in pairs
                if self.exchange in ("sequential", "symmetric")
            }
        )
        receivers = pairs if self.cross else [str(i) for i in range(streams)]
        self.gates = nn.ParameterDict(
            {name: torch.zeros(width) for name in receivers if exchanging and config.gated}
        )
        self.tipi: nn.Sequential | None = None
        if config.tipi and parameters:
            # LayerNorm erases the size of the only parameter; with standardised parameters it is left out
            hidden = max(8 * parameters, width // 4) if config.standardise else 8 * parameters
            inner = nn.Identity() if config.standardise else nn.LayerNorm(hidden)
            self.tipi = nn.Sequential(
                nn.Linear(parameters, hidden), inner, nn.GELU(), nn.Linear(hidden, width)
            )

    def received(self, i: int, lowered: list[Tensor], reading: Reading) -> Tensor:
        """What stream i takes from the others' lowered states (B, T, E) -> (B, T, D)."""
        others = [j for j in range(len(lowered)) if j != i]
        if self.exchange == "addition":
            parts: dict[str, Any] = {str(i): sum(lowered[j] for j in others)}
        else:
            parts = {
                f"{i}<{j}": self.cross[f"{i}<{j}"](lowered[i], lowered[j], reading) for j in others
            }
        lifted = {name: self.streams[i].up(F.gelu(part)) for name, part in parts.items()}
        return sum(part * self.gates[name] if self.gates else part for name, part in lifted.items())

    def forward(self, h: list[Tensor], theta: Tensor, reading: Reading) -> list[Tensor]:
        """G states (B, T, D) and parameters (B, K) -> G states."""
        normed = [stream.norm1(x, theta) for stream, x in zip(self.streams, h, strict=True)]
        h = [
            x + stream.attention(y, y, reading)
            for stream, x, y in zip(self.streams, h, normed, strict=True)
        ]
        if self.exchange != "none":
            lowered = [stream.lower(x, theta) for stream, x in zip(self.streams, h, strict=True)]
            for i, stream in enumerate(self.streams):
                h[i] = h[i] + self.received(i, lowered, reading)
                if self.exchange == "sequential" and i + 1 < len(
                    h
                ):  # Gauss-Seidel: the next streams read what this one has become
                    lowered[i] = stream.lower(h[i], theta)
        if self.tipi is not None:
            told = self.tipi(theta)[:, None]  # (B, 1, D)
            h = [x + told for x in h]
        h = [
            x + stream.mlp(stream.norm2(x, theta))
            for stream, x in zip(self.streams, h, strict=True)
        ]
        return [
            x if stream.projection is None else stream.projection(x)
            for stream, x in zip(self.streams, h, strict=True)
        ]
