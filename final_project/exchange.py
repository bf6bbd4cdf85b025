"""State-Exchange Attention (SEA), the block of Esmati et al. 2024 (arXiv 2410.15495).

Every field group (velocity; pressure; ...) has its own Transformer stream. In each block, after its
self-attention, stream i receives from every other stream j what cross-attention reads there:

    h_i  <-  h_i + sum_{j != i} g_ij * Up_i( GELU( Attention_ij( y_i, y_j ) ) ),
    y_i   =  Norm_i( Down_i( h_i ) ),

with queries from y_i, keys and values from y_j, and Down and Up between the width D of a stream
and the width E of the exchange. `Block.received` is the sum. As published g_ij = 1, and y_j of an
earlier stream (j < i) is computed after that stream's own exchange; ours learns a gate g_ij per
channel and exchanges all streams at once. The order of Norm and Down, and the GELU, are those of
the published code; the paper's figure has the norm first and no GELU.

Shape letters: B batch, T tokens (the frames of a window, or the patches of one frame), K parameters
of the flow, D width of a stream, E = D / down_ratio width of the exchange.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from final_project.attention import Context
from final_project.layers import Layers
from final_project.temporal_config import Exchange, TemporalConfig

AttentionOf = Callable[[int, int], nn.Module]  # (width, heads) -> attention


class Norm(nn.Module):
    """LayerNorm without bias; with a conditioner AdaLN.

    AdaLN has gain w + 1 + s and shift b + t, where (s, t) is a function of the K parameters.
    """

    def __init__(self, width: int, parameters: int, hidden: int | None, small_start: bool):
        super().__init__()
        adaptive = hidden is not None and parameters > 0
        start = torch.zeros if adaptive and small_start else torch.ones
        self.weight = nn.Parameter(start(width))
        self.bias = nn.Parameter(torch.zeros(width)) if adaptive else None
        self.conditioner: nn.Sequential | None = None
        if hidden is not None and adaptive:
            self.conditioner = nn.Sequential(
                nn.Linear(parameters, hidden), nn.SiLU(), nn.Linear(hidden, 2 * width)
            )

    @classmethod
    def of(cls, config: TemporalConfig, width: int, parameters: int) -> Norm:
        """The norm that a configuration asks for."""
        hidden = (config.condition_width or 2 * width) if config.adaptive else None
        return cls(width, parameters, hidden, config.small_start)

    def gain(self, theta: Tensor) -> tuple[Tensor, Tensor | None]:
        """Gain and shift, each (B, 1, D) for parameters (B, K); plain: (D,) and None."""
        if self.conditioner is None:
            return self.weight, None
        scale, shift = self.conditioner(theta)[:, None].chunk(2, dim=2)  # (B, 1, D) each
        return self.weight + 1 + scale, self.bias + shift

    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        """x (B, T, D), parameters (B, K) -> (B, T, D)."""
        gain, shift = self.gain(theta)
        if shift is None:
            return F.layer_norm(x, x.shape[-1:], gain)
        return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]), gain)


class Stream(nn.Module):
    """The weights of one field group in one block."""

    down: nn.Linear  # this and the next two exist only where streams exchange
    norm_low: Norm
    up: nn.Linear

    def __init__(
        self,
        width: int,
        parameters: int,
        config: TemporalConfig,
        attention: AttentionOf,
        exchanging: bool,
    ):
        super().__init__()
        hidden = round(config.mlp_ratio * width)
        low = width // config.down_ratio

        self.norm1 = Norm.of(config, width, parameters)
        self.attention = attention(width, config.heads)
        self.norm2 = Norm.of(config, width, parameters)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Linear(hidden, width),
            nn.Dropout(config.dropout),
        )
        if exchanging:
            self.down = nn.Linear(width, low)
            self.norm_low = Norm.of(config, low, parameters)
            self.up = nn.Linear(low, width)
        self.projection = nn.Linear(width, width) if config.output_projection else nn.Identity()

    def lowered(self, h: Tensor, theta: Tensor) -> Tensor:
        """The state (B, T, D) as the exchange sees it, y (B, T, E)."""
        return self.norm_low(self.down(h), theta)


class Block(nn.Module):
    """Self-attention, exchange, parameter injection and MLP of all streams.

    Each stage is finished in every stream before the next begins.
    """

    streams: Layers[Stream]

    def __init__(
        self,
        streams: int,
        width: int,
        parameters: int,
        config: TemporalConfig,
        attention: AttentionOf,
    ):
        super().__init__()
        self.exchange: Exchange = config.exchange if streams > 1 else "none"
        exchanging = self.exchange != "none"
        self.streams = Layers(
            Stream(width, parameters, config, attention, exchanging) for _ in range(streams)
        )

        # cross-attention of every ordered pair: stream i reads stream j
        numbers = range(streams)
        self.pairs: list[tuple[int, int]] = []
        if self.exchange in ("sequential", "symmetric"):
            self.pairs = [(i, j) for i in numbers for j in numbers if i != j]
        low = width // config.down_ratio
        self.cross = nn.ModuleDict({key(i, j): attention(low, config.heads) for i, j in self.pairs})

        # a gate per channel for everything that a stream receives
        gates = [key(i, j) for i, j in self.pairs] or [str(i) for i in numbers]
        if not (exchanging and config.gated):
            gates = []
        self.gates = nn.ParameterDict({name: torch.zeros(width) for name in gates})

        self.tipi = tipi(width, parameters, config) if config.tipi and parameters else None
        self.tipi_dropout = config.tipi_dropout

    def received(
        self, i: int, stream: Stream, lowered: Sequence[Tensor], context: Context
    ) -> Tensor:
        """What stream i receives from the other streams' y (B, T, E): (B, T, D).

        sum_{j != i} g_ij * Up_i(GELU(Attention_ij(y_i, y_j))); with "addition"
        g_i * Up_i(GELU(sum_{j != i} y_j)).
        """
        others = [j for j in range(len(lowered)) if j != i]
        if self.exchange == "addition":
            return self._lifted(stream, str(i), total([lowered[j] for j in others]))

        parts = []
        for j in others:
            read = self.cross[key(i, j)](lowered[i], lowered[j], context)  # (B, T, E)
            parts.append(self._lifted(stream, key(i, j), read))  # (B, T, D)
        return total(parts)

    def _lifted(self, stream: Stream, gate: str, read: Tensor) -> Tensor:
        """g * Up(GELU(read)) of a stream: (B, T, E) -> (B, T, D)."""
        lifted = stream.up(F.gelu(read))
        return lifted * self.gates[gate] if self.gates else lifted

    def exchanged(self, h: list[Tensor], theta: Tensor, context: Context) -> list[Tensor]:
        """States (B, T, D) of all streams after the exchange."""
        states = list(h)
        lowered = [s.lowered(x, theta) for s, x in zip(self.streams, states, strict=True)]
        for i, stream in enumerate(self.streams):
            states[i] = states[i] + self.received(i, stream, lowered, context)
            if self.exchange == "sequential" and i + 1 < len(states):
                # as in Gauss-Seidel, the next streams read what this one has become
                lowered[i] = stream.lowered(states[i], theta)
        return states

    def _dropped(self, injected: Tensor, x: Tensor) -> Tensor:
        """What TIPI adds (B, 1, D) to a stream (B, T, D), in training after its dropout."""
        if not (self.training and self.tipi_dropout):
            return injected
        return F.dropout(injected.expand_as(x), self.tipi_dropout)

    def forward(self, h: list[Tensor], theta: Tensor, context: Context) -> list[Tensor]:
        """A state (B, T, D) per stream and parameters (B, K) -> a state (B, T, D) per stream."""
        # self-attention:
        normed = [s.norm1(x, theta) for s, x in zip(self.streams, h, strict=True)]
        h = [
            x + s.attention(y, y, context) for s, x, y in zip(self.streams, h, normed, strict=True)
        ]

        # state exchange:
        if self.exchange != "none":
            h = self.exchanged(h, theta, context)

        # time-invariant parameter injection (TIPI), the same for all streams:
        if self.tipi is not None:
            injected = self.tipi(theta)[:, None]  # (B, 1, D)
            h = [x + self._dropped(injected, x) for x in h]

        # MLP:
        h = [x + s.mlp(s.norm2(x, theta)) for s, x in zip(self.streams, h, strict=True)]
        return [s.projection(x) for s, x in zip(self.streams, h, strict=True)]


def key(i: int, j: int) -> str:
    """Name of what stream i reads in stream j."""
    return f"{i}<{j}"


def tipi(width: int, parameters: int, config: TemporalConfig) -> nn.Sequential:
    """Time-invariant parameter injection: parameters (B, K) -> (B, D)."""
    hidden = 8 * parameters
    if not config.standardise:
        return nn.Sequential(
            nn.Linear(parameters, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Linear(hidden, width),
        )

    # LayerNorm erases the size of a single parameter: with standardised ones it is left out
    hidden = max(hidden, width // 4)
    return nn.Sequential(
        nn.Linear(parameters, hidden), nn.Identity(), nn.GELU(), nn.Linear(hidden, width)
    )


def total(parts: Sequence[Tensor]) -> Tensor:
    """Sum of tensors of one shape."""
    return sum(parts, start=torch.zeros((), device=parts[0].device))
