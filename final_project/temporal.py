"""Temporal models: the latents of a mesh autoencoder and a flow's parameters -> the next latents.

`Temporal` is Esmati et al. 2024 and what we make of it, with one token per frame and field group;
`patch_temporal.py` has the model with one token per patch. Both are an embedding, the blocks of
`exchange.py` and a head.

Shape letters: B batch, N trajectories, T new frames, G field groups, L latent numbers per group,
K parameters, D width of a stream, n numbers per stream: L or, where all groups share one, G L.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import torch
from einops import rearrange
from torch import Tensor, nn

from common.cli import InputError
from final_project.attention import (
    Attention,
    Cache,
    Context,
    MultiHead,
    rotary_table,
    visible,
)
from final_project.exchange import AttentionOf, Block, Norm, key
from final_project.layers import Layers
from final_project.patches import Geometry
from final_project.principal import principal, whitening
from final_project.stepping import Phase, adams_bashforth
from final_project.temporal_config import TemporalConfig

INITIAL_DEVIATION = 0.02  # of the weights of linear layers (published)
FLOOR = 1e-3  # least deviation of a latent number, as a share of the largest in its group


# ------------------------------------------------------------------------------------- scales


class Scales(nn.Module):
    """Means and deviations of latents and parameters, and the weights of the loss.

    `mean`, `std`, `delta_std` (of the change in a step) and `weights` are (G, L), `theta_mean` and
    `theta_std` (K,). Before `fit` they change nothing.
    """

    mean: Tensor
    std: Tensor
    delta_std: Tensor
    weights: Tensor
    theta_mean: Tensor
    theta_std: Tensor

    def __init__(self, groups: int, latents: int, parameters: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(groups, latents))
        self.register_buffer("std", torch.ones(groups, latents))
        self.register_buffer("delta_std", torch.ones(groups, latents))
        self.register_buffer("weights", torch.ones(groups, latents))
        self.register_buffer("theta_mean", torch.zeros(parameters))
        self.register_buffer("theta_std", torch.ones(parameters))

    @torch.no_grad()
    def fit(self, z: Tensor, theta: Tensor, step: int = 1) -> None:
        """Sets all scales from training latents (N, T, G, L) and parameters (N, K).

        A change is that over `step` frames. The weights make persistence cost 1 in every group, and
        count each latent number by its share of the group's change.
        """
        change = z[:, step:] - z[:, :-step]
        size = change.double().square().mean((0, 1, 3))[:, None]  # (G, 1)
        self.mean.copy_(z.double().mean((0, 1)))
        self.std.copy_(deviation(z))
        self.delta_std.copy_(deviation(change, constant=0.0))  # what never changes stays as it is
        self.weights.copy_(torch.where(size > 0, 1 / size, 1.0).expand_as(self.weights))

        centred = theta.double() - theta.double().mean(0)
        spread = centred.square().mean(0).sqrt()  # (K,); K may be 0
        self.theta_mean.copy_(theta.double().mean(0))
        self.theta_std.copy_(torch.where(spread > 0, spread, 1.0))

    @torch.no_grad()
    def fit_sizes(self, z: Tensor) -> None:
        """Sets one divisor per group, the RMS of its training latents (N, T, G, L).

        The loss is then in those units.
        """
        size = z.double().square().mean((0, 1, 3)).sqrt()[:, None]  # (G, 1)
        size = torch.where(size > 0, size, 1.0)
        self.std.copy_(size.expand_as(self.std))
        self.weights.copy_((1 / size.square()).expand_as(self.weights))

    @torch.no_grad()
    def fit_largest(self, theta: Tensor) -> None:
        """Sets the divisors of the parameters to their largest training values, of theta (N, K)."""
        largest = theta.double().abs().amax(0)  # (K,)
        self.theta_std.copy_(torch.where(largest > 0, largest, 1.0))

    def standardise_parameters(self, theta: Tensor, like: Tensor) -> Tensor:
        """Standardised parameters (B, K) in the dtype of `like`."""
        return (theta.to(like.dtype) - self.theta_mean) / self.theta_std


def deviation(x: Tensor, constant: float = 1.0) -> Tensor:
    """Standard deviations (G, L) of latents (N, T, G, L), with a floor; `constant` without any."""
    spread = x.double().flatten(0, 1).std(0, correction=0)  # (G, L)
    largest = spread.amax(1, keepdim=True)
    return torch.where(largest > 0, spread.clamp(min=FLOOR * largest), constant)


def by_stream(x: Tensor, joint: bool) -> Tensor:
    """Latents (N, T, G, L) -> what each stream holds of them, float64 (streams, N T, n)."""
    layout = "n t g l -> 1 (n t) (g l)" if joint else "n t g l -> g (n t) l"
    return rearrange(x, layout).double()


# ------------------------------------------------------------------------- embedding and head


class Embedding(nn.Module):
    """Standardised latents (B, T, G, L) -> one state (B, T, D) per stream.

    A linear layer per stream; without a width (published) the latents are the states.
    """

    layers: Layers[nn.Linear]

    def __init__(self, config: TemporalConfig, groups: int, latents: int):
        super().__init__()
        self.joint = config.joint
        streams, size = config.stream_shape(groups, latents)
        width = config.width
        self.layers = Layers(nn.Linear(size, width) for _ in range(streams) if width)

    def forward(self, normal: Tensor) -> list[Tensor]:
        """As the class."""
        if self.joint:
            normal = rearrange(normal, "b t g l -> b t 1 (g l)")
        states = list(normal.unbind(2))  # streams of (B, T, n)
        if not self.layers:
            return states
        return [layer(x) for layer, x in zip(self.layers, states, strict=True)]  # (B, T, D)

    @torch.no_grad()
    def start(self, z: Tensor, scales: Scales) -> None:
        """Starts on whitened principal coefficients of training latents (N, T, G, L).

        Principal components are taken in the units of the loss; the weights stay trainable.
        """
        unit = scales.weights.sqrt()  # (G, L)
        states = by_stream((z - scales.mean) * unit, self.joint)
        unit = unit.reshape(len(states), -1).double()  # (streams, n)
        std = scales.std.reshape(len(states), -1).double()  # (streams, n)
        for number, (layer, state) in enumerate(zip(self.layers, states, strict=True)):
            kept = min(layer.out_features, state.shape[1])
            whitened = whitening(*principal(state, kept)).T  # (kept, n)
            layer.weight[:kept] = (whitened * unit[number] * std[number]).float()


class Head(nn.Module):
    """One state (B, T, D) per stream -> standardised latents, or their change, (B, T, G, L).

    Ours: D -> principal coefficients (`layers`) -> latent numbers (`spread`). Without a principal
    start one layer does both; where nothing is asked for (published) the states are the latents.
    """

    layers: Layers[nn.Linear]
    spread: Layers[nn.Linear]

    def __init__(self, config: TemporalConfig, groups: int, latents: int):
        super().__init__()
        self.latents = latents
        self.joint = config.joint
        self.delta = config.delta
        streams, size = config.stream_shape(groups, latents)
        width = config.stream_width(groups, latents)
        projecting = bool(config.width) or config.delta
        self.layers = Layers(nn.Linear(width, size) for _ in range(streams) if projecting)

        # (the layers above are drawn even where they are replaced: committed runs drew them too)
        spreading = config.principal and bool(config.width)
        kept = min(width, size)
        if spreading:
            self.layers = Layers(nn.Linear(width, kept) for _ in range(streams))
        self.spread = Layers(nn.Linear(kept, size, bias=False) for _ in range(streams) if spreading)

    def forward(self, h: list[Tensor]) -> Tensor:
        """As the class."""
        if self.layers:
            h = [layer(x) for layer, x in zip(self.layers, h, strict=True)]
        if self.spread:
            h = [layer(x) for layer, x in zip(self.spread, h, strict=True)]
        stacked = torch.stack(h, dim=2)  # (B, T, streams, n)
        return rearrange(stacked, "b t s (g l) -> b t (s g) l", l=self.latents)  # (B, T, G, L)

    @torch.no_grad()
    def start(self, z: Tensor, scales: Scales) -> None:
        """Starts `spread` on the principal components of the changes of training latents."""
        unit = scales.weights.sqrt()  # (G, L)
        changes = by_stream((z[:, 1:] - z[:, :-1]) * unit, self.joint)
        std = scales.delta_std if self.delta else scales.std
        unit = unit.reshape(len(changes), -1).double()  # (streams, n)
        std = std.reshape(len(changes), -1).double()  # (streams, n)
        for number, (layer, change) in enumerate(zip(self.spread, changes, strict=True)):
            deviations, directions = principal(change, layer.in_features)
            back = directions * deviations  # (n, kept)
            divisor = (unit[number] * std[number])[:, None]
            layer.weight.copy_(back / torch.where(divisor > 0, divisor, torch.inf))


# ------------------------------------------------------------------------------------- models


class TemporalModel(nn.Module):
    """What both temporal models share: scales, blocks, and how latents go through them.

    A kind has `fit` and `advance`. groups, latents, parameters: G, L and K. With one group, or all
    in one stream, there is no exchange.
    """

    blocks: Layers[Block]
    norm: Layers[Norm]

    def __init__(
        self,
        config: TemporalConfig,
        groups: int,
        latents: int,
        parameters: int,
        embedding: nn.Module,
        attention: AttentionOf,
    ):
        super().__init__()
        self.config = config
        self.groups = groups
        self.latents = latents

        streams, _ = config.stream_shape(groups, latents)
        width = config.stream_width(groups, latents)
        self.embedding = embedding
        self.blocks = Layers(
            Block(streams, width, parameters, config, attention) for _ in range(config.blocks)
        )
        self.norm = Layers(
            Norm.of(config, width, parameters) for _ in range(streams) if config.final_norm
        )
        self.scales = Scales(groups, latents, parameters)
        self.phase = Phase(groups, latents, parameters, config.phase) if config.phase else None
        for name, module in self.named_modules():
            if isinstance(module, MultiHead):
                module.name = name

    @property
    def steps_plainly(self) -> bool:
        """Whether the next latents are the present ones plus the predicted change, and no more."""
        return self.config.scheme == "Euler" and self.phase is None

    @property
    def bundle(self) -> int:
        """How many frames a step predicts, k."""
        return self.config.bundle

    @property
    def weights(self) -> Tensor:
        """Weights (G, L) of the squared errors in the loss."""
        return self.scales.weights

    def initialise(self, head: Layers[nn.Linear]) -> None:
        """Draws the weights of linear layers; what must start at zero becomes zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=INITIAL_DEVIATION)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        last = list(head) if self.config.delta else []
        if self.config.small_start:
            last += self._branch_ends()
        for layer in last:
            nn.init.zeros_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def _branch_ends(self) -> list[nn.Linear]:
        """The last layer of every branch and of every AdaLN conditioner."""
        ends = [] if self.phase is None else [self.phase.bend[-1]]
        for module in self.modules():
            if isinstance(module, Norm) and module.conditioner is not None:
                ends.append(module.conditioner[-1])
        for block in self.blocks:
            if block.tipi is not None:
                ends.append(block.tipi[-1])
            for stream in block.streams:
                ends += [stream.attention.get_submodule("out"), stream.mlp[-2]]
                # never gate and branch at once: neither would get a gradient
                if block.exchange != "none" and not block.gates:
                    ends.append(stream.up)
        return [layer for layer in ends if isinstance(layer, nn.Linear)]

    def through_blocks(self, h: list[Tensor], theta: Tensor, context: Context) -> list[Tensor]:
        """States (B, T, D) after all blocks and the last norm."""
        for block in self.blocks:
            h = block(h, theta, context)
        if not self.norm:
            return h
        return [norm(x, theta) for norm, x in zip(self.norm, h, strict=True)]

    def fit_scales(self, z: Tensor, theta: Tensor, step: int = 1) -> None:
        """Sets the scales, and the turning pairs where there are any, as `fit`."""
        self.scales.fit(z, theta, step)
        if self.phase is not None:
            self.phase.fit(z - self.scales.mean, self.scales.standardise_parameters(theta, z))

    def stepped(self, z: Tensor, change: Tensor, theta: Tensor, cache: Cache | None) -> Tensor:
        """The latents (B, T, G, L) after z, by their predicted changes and the turn of their pairs.

        theta : standardised (B, K). The cache, if any, keeps the last change for the next step.
        """
        if self.config.scheme == "Adams-Bashforth":
            before = None if cache is None else cache.change
            if cache is not None:
                cache.change = change[:, -1:]
            change = adams_bashforth(change, before)
        if self.phase is not None:
            z = self.scales.mean + self.phase(z - self.scales.mean, theta)
        return z + change

    def check_latents(self, z: Tensor) -> None:
        """Raises InputError for latents of another shape than the model's."""
        if z.shape[2:] != (self.groups, self.latents):
            raise InputError(
                f"latents of shape {tuple(z.shape[2:])}, the model was made for "
                f"{(self.groups, self.latents)} (groups, numbers)"
            )

    def fit(self, z: Tensor, theta: Tensor, geometry: Geometry | None = None) -> None:
        """Sets the scales from training latents (N, T, G, L) and parameters (N, K), and starts the
        first and last layers on them; nothing to do for raw numbers (published).

        geometry: where the patches are, for models whose tokens they are.
        """
        raise NotImplementedError

    def advance(
        self,
        z: Tensor,
        theta: Tensor,
        cache: Cache | None = None,
        keep: bool = True,
        maps: dict[str, Tensor] | None = None,
    ) -> tuple[Tensor, Cache | None]:
        """The next latents (B, T, G, L) of T new frames z after those in the cache, and the cache
        with them (None unless `keep`).

        maps: an empty dictionary to be filled with attention weights by the attentions' names;
        without a cache only. Raises InputError for latents of another shape than the model's.
        """
        raise NotImplementedError

    def forward(self, z: Tensor, theta: Tensor) -> Tensor:
        """z (B, T, G, L), theta (B, K) -> the next latent at every time (B, T, G, L).

        No output depends on later frames.
        """
        following, _ = self.advance(z, theta, keep=False)
        return following

    def bundled(self, z: Tensor, theta: Tensor) -> Tensor:
        """The k latents (B, T, k, G, L) that a step predicts after each frame of z (B, T, G, L)."""
        return self(z, theta)[:, :, None]

    def step(
        self, z: Tensor, theta: Tensor, cache: Cache | None = None
    ) -> tuple[Tensor, Cache | None]:
        """z (B, G, L) at one time and the cache of all times before (None at the start) -> the next
        latent (B, G, L) and the new cache."""
        following, cache = self.advance(z[:, None], theta, cache)
        return following[:, 0], cache

    @torch.no_grad()
    def exchange_maps(self, z: Tensor, theta: Tensor) -> dict[tuple[int, int, int], Tensor]:
        """Attention weights of z (B, T, G, L) by (block, reading group, group that is read).

        (B, H, T, T) where tokens are frames, (B T, H, Q, Q) where they are Q patches.
        """
        maps: dict[str, Tensor] = {}
        self.advance(z, theta, keep=False, maps=maps)
        crossing = {}
        for number, block in enumerate(self.blocks):
            for reader, source in block.pairs:
                attention = block.cross[key(reader, source)]
                if isinstance(attention, MultiHead):
                    crossing[number, reader, source] = maps[attention.name]
        return crossing


class Temporal(TemporalModel):
    """Causal model of latent trajectories whose tokens are whole frames.

    Raises InputError as `TemporalConfig.check`.
    """

    embedding: Embedding

    def __init__(self, config: TemporalConfig, groups: int, latents: int, parameters: int):
        config.check(groups, latents)
        embedding = Embedding(config, groups, latents)
        attention = functools.partial(Attention, dropout=config.attention_dropout)
        super().__init__(config, groups, latents, parameters, embedding, attention)
        self.head = Head(config, groups, latents)
        self.initialise(self.head.layers)
        self.head_sizes = {m.head_size for m in self.modules() if isinstance(m, MultiHead)}

    def fit(self, z: Tensor, theta: Tensor, geometry: Geometry | None = None) -> None:
        """As `TemporalModel.fit`; there are no patches to place."""
        if not self.config.standardise:
            if self.config.scaled_latents:
                self.scales.fit_sizes(z)
            if self.config.scaled_parameters:
                self.scales.fit_largest(theta)
            return
        self.fit_scales(z, theta)
        if self.head.spread:
            self.embedding.start(z, self.scales)
            self.head.start(z, self.scales)

    def advance(
        self,
        z: Tensor,
        theta: Tensor,
        cache: Cache | None = None,
        keep: bool = True,
        maps: dict[str, Tensor] | None = None,
    ) -> tuple[Tensor, Cache | None]:
        """As `TemporalModel.advance`, with maps (B, H, T, T)."""
        self.check_latents(z)
        if not keep:
            cache = None
        else:  # a copy: the cache that was given stays as it was
            cache = Cache() if cache is None else replace(cache, past=dict(cache.past))
        context = self._context(z, cache, maps)
        theta = self.scales.standardise_parameters(theta, z)

        h = self.embedding((z - self.scales.mean) / self.scales.std)  # streams of (B, T, D)
        h = self.through_blocks(h, theta, context)
        out = self.head(h)  # (B, T, G, L)

        if cache is not None:
            cache.time += z.shape[1]
        if self.config.delta and self.steps_plainly:
            return torch.addcmul(z, out, self.scales.delta_std), cache
        if self.config.delta:
            return self.stepped(z, out * self.scales.delta_std, theta, cache), cache
        return torch.addcmul(self.scales.mean, out, self.scales.std), cache

    def _context(self, z: Tensor, cache: Cache | None, maps: dict[str, Tensor] | None) -> Context:
        """What the attentions need to know of new frames z (B, T, G, L)."""
        new = z.shape[1]
        time = cache.time if cache else 0
        window = self.config.window

        # the frames that each new frame sees; no mask where it sees itself and all before it
        past = time if window is None else min(time, window - 1)
        causal = time == 0 and (window is None or new <= window)
        mask = None
        if not causal and new > 1:
            mask = visible(time, new, new + past, window, z.device)

        # rotary positions, out of one table for many lengths
        enough = 1 << (time + new - 1).bit_length()
        rotations = {}
        for size in self.head_sizes:
            cos, sin = rotary_table(enough, size, z.device)
            rotations[size] = cos[time : time + new], sin[time : time + new]
        return Context(rotations, mask, causal and new > 1, window, cache, maps)
