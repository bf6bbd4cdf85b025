"""The temporal model whose tokens are patches: the next frames from the present one alone.

The exchange then reads the other fields at all places of the frame. This is ours, not the paper's.

Shape letters: B batch, N trajectories, T frames, G field groups, Q patches, E code of a patch,
L = Q E latent numbers per group (patch-major), K parameters, D width of a stream, H heads, d per
head, c numbers of a patch in functions that all patches have in common, C of them kept, k frames
that a step predicts at once (a bundle).
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import replace

import torch
from einops import rearrange
from torch import Tensor, nn

from final_project.attention import Cache, Context, MultiHead
from final_project.layers import Layers
from final_project.patches import Geometry
from final_project.principal import principal, whitening
from final_project.temporal import TemporalModel
from final_project.temporal_config import TemporalConfig

COMMON = 16  # C per field group
# Where heads read first, (columns, rows) away, and how sharply: the patch itself, its four
# neighbours, then ever wider around it.
FIRST_READ = (
    (0, 0, 1.0),
    (1, 0, 1.0),
    (-1, 0, 1.0),
    (0, 1, 1.0),
    (0, -1, 1.0),
    (0, 0, 1 / 4),
    (0, 0, 1 / 16),
    (0, 0, 0.0),
)


class PatchAttention(MultiHead):
    """Multi-head attention among the Q patches of a frame, biased per head and pair of patches."""

    def __init__(self, width: int, heads: int, patches: int):
        super().__init__(width, heads)
        self.bias = nn.Parameter(torch.zeros(heads, patches, patches))

    @torch.no_grad()
    def read_nearby(self, places: Tensor) -> None:
        """Starts every head at a patch near the reading one, as a convolution would be.

        places: columns and rows (Q, 2) of the patches.
        """
        away = (places[None] - places[:, None]).double()  # (Q, Q, 2)
        for head, (column, row, sharpness) in zip(range(self.heads), itertools.cycle(FIRST_READ)):
            distance = (away - away.new_tensor((column, row))).square().sum(2)  # (Q, Q)
            self.bias[head] = -sharpness * distance

    def forward(self, x: Tensor, source: Tensor, context: Context) -> Tensor:
        """What each patch of x (B, Q, D) reads in the patches of `source` (B, Q, D)."""
        q, k, v = self.project(x, source)  # (B, H, Q, d) each
        scores = torch.add(self.bias, q @ k.transpose(2, 3), alpha=q.shape[3] ** -0.5)
        weights = scores.softmax(3)  # (B, H, Q, Q)
        if context.maps is not None:
            context.maps[self.name] = weights
        return self.out((weights @ v).transpose(1, 2).flatten(2))  # (B, Q, D)


class PatchEmbedding(nn.Module):
    """Codes of a frame's patches -> one state (B T, Q, D) per stream, by a matrix per patch."""

    def __init__(self, streams: int, patches: int, codes: int, width: int):
        super().__init__()
        self.layers = nn.ParameterList(
            torch.randn(patches, codes, width) / math.sqrt(codes) for _ in range(streams)
        )
        self.place = nn.ParameterList(0.1 * torch.randn(patches, width) for _ in range(streams))

    def forward(self, codes: list[Tensor]) -> list[Tensor]:
        """Codes (B T, Q, E) of every stream -> states (B T, Q, D)."""
        parts = zip(codes, self.layers, self.place, strict=True)
        return [torch.einsum("nqe,qed->nqd", x, layer) + place for x, layer, place in parts]


class PatchHead(nn.Module):
    """One state (B T, Q, D) per stream -> changes of the codes to each of k frames (B T, k, Q, E).

    `layers` lead to numbers in common functions, `spread` from those to the code of each patch.
    """

    layers: Layers[nn.Linear]

    def __init__(
        self, streams: int, patches: int, codes: int, width: int, common: int, bundle: int
    ):
        super().__init__()
        self.bundle = bundle
        self.layers = Layers(nn.Linear(width, bundle * common) for _ in range(streams))
        self.spread = nn.ParameterList(
            torch.randn(patches, common, codes) / math.sqrt(common) for _ in range(streams)
        )

    def forward(self, h: list[Tensor]) -> list[Tensor]:
        """As the class."""
        changes = []
        for x, layer, spread in zip(h, self.layers, self.spread, strict=True):
            common = rearrange(layer(x), "n q (k c) -> n k q c", k=self.bundle)
            changes.append(torch.einsum("nkqc,qce->nkqe", common, spread))
        return changes


class PatchTemporal(TemporalModel):
    """Model of single frames whose tokens are patches.

    Every patch has its own matrices to and from a stream. They start from functions that all
    patches have in common (`Geometry`): what a block learns in one place then holds in all. Raises
    InputError as `TemporalConfig.check`.
    """

    embedding: PatchEmbedding

    def __init__(self, config: TemporalConfig, groups: int, latents: int, parameters: int):
        config.check(groups, latents)
        streams, size = config.stream_shape(groups, latents)
        width = config.stream_width(groups, latents)
        patches = config.patches
        codes = size // patches

        embedding = PatchEmbedding(streams, patches, codes, width)
        attention = functools.partial(PatchAttention, patches=patches)
        super().__init__(config, groups, latents, parameters, embedding, attention)
        common = COMMON * (groups // streams)
        self.head = PatchHead(streams, patches, codes, width, common, config.bundle)
        self.initialise(self.head.layers)

    def codes(self, z: Tensor) -> list[Tensor]:
        """Latents (B, T, G, L) -> the codes of the patches in every stream (B T, Q, E)."""
        joint = "b t g (q e) -> 1 (b t) q (g e)"
        apart = "b t g (q e) -> g (b t) q e"
        layout = joint if self.config.joint else apart
        return list(rearrange(z, layout, q=self.config.patches).unbind(0))

    def fit(self, z: Tensor, theta: Tensor, geometry: Geometry | None = None) -> None:
        """As `TemporalModel.fit`; without a geometry the first and last layers stay random."""
        if not self.config.standardise:
            return
        self.fit_scales(z, theta, self.config.bundle)
        if geometry is not None:
            self.start(z, geometry)

    @torch.no_grad()
    def start(self, z: Tensor, geometry: Geometry) -> None:
        """Reads every code through, and writes it by, principal components in common functions."""
        for module in self.modules():
            if isinstance(module, PatchAttention):
                module.read_nearby(geometry.places)

        # codes in the units of the loss, and their common functions
        unit = self.weights.sqrt()  # (G, L)
        states = self.codes((z - self.scales.mean) * unit)
        bundle = self.config.bundle
        changes = self.codes((z[:, bundle:] - z[:, :-bundle]) * unit)
        analyses = geometry.analysis  # of (Q, E, c)
        syntheses = geometry.synthesis  # of (Q, c, E)
        if self.config.joint:
            analyses = [block_diagonal(analyses)]
            syntheses = [block_diagonal(syntheses)]

        for number, (analysis, synthesis) in enumerate(zip(analyses, syntheses, strict=True)):
            layer = self.embedding.layers[number]
            spread = self.head.spread[number]
            kept = min(spread.shape[1], analysis.shape[2])

            # first layer: whitened components of the states, mixed at random
            whitened = whitening(*principal(in_common(states[number], analysis), kept))  # (c, C)
            mixing = torch.randn(kept, layer.shape[2], dtype=torch.float64) / math.sqrt(kept)
            layer.copy_(analysis @ whitened @ mixing)  # (Q, E, D)

            # last layer: back from the components of the changes
            deviations, directions = principal(in_common(changes[number], analysis), kept)
            spread.zero_()[:, :kept] = (directions * deviations).T @ synthesis  # (Q, C, E)

    def advance(
        self,
        z: Tensor,
        theta: Tensor,
        cache: Cache | None = None,
        keep: bool = True,
        maps: dict[str, Tensor] | None = None,
    ) -> tuple[Tensor, Cache | None]:
        """As `TemporalModel.advance`; no earlier frame is read, and maps are (B T, H, Q, Q).

        The frames of a bundle after its first wait in the cache, and are given back as they are.
        """
        self.check_latents(z)
        cache = Cache() if cache is None else replace(cache)
        cache.time += z.shape[1]
        if cache.waiting:
            following, *cache.waiting = cache.waiting
            return following, cache if keep else None

        theta = self.scales.standardise_parameters(theta, z)
        change = self.changes(z, theta, maps)  # (B, T, k, G, L)
        if self.steps_plainly:
            future = z[:, :, None] + change  # (B, T, k, G, L)
            following = future[:, :, 0]
            cache.waiting = list(future[:, -1:, 1:].unbind(2))
        else:
            following = self.stepped(z, change[:, :, 0], theta, cache)
        return following, cache if keep else None

    def bundled(self, z: Tensor, theta: Tensor) -> Tensor:
        """The k latents (B, T, k, G, L) after each frame of z (B, T, G, L), at theta (B, K)."""
        if not self.steps_plainly:
            return self(z, theta)[:, :, None]
        self.check_latents(z)
        theta = self.scales.standardise_parameters(theta, z)
        return z[:, :, None] + self.changes(z, theta)

    def changes(self, z: Tensor, theta: Tensor, maps: dict[str, Tensor] | None = None) -> Tensor:
        """Predicted changes (B, T, k, G, L) from z (B, T, G, L), at standardised theta (B, K)."""
        batch, new = z.shape[:2]
        per_frame = theta.repeat_interleave(new, 0)  # (B T, K)

        unit = self.weights.rsqrt()  # (G, L): size of a group's change
        h = self.embedding(self.codes((z - self.scales.mean) / unit))  # streams of (B T, Q, D)
        h = self.through_blocks(h, per_frame, Context(maps=maps))
        change = torch.stack(self.head(h))  # (streams, B T, k, Q, E)

        joint = "1 (b t) k q (g e) -> b t k g (q e)"
        apart = "g (b t) k q e -> b t k g (q e)"
        layout = joint if self.config.joint else apart
        return rearrange(change, layout, b=batch, t=new, g=self.groups) * unit


def in_common(codes: Tensor, analysis: Tensor) -> Tensor:
    """Codes (N, Q, E) in common functions by matrices (Q, E, c): float64 (N Q, c)."""
    return torch.einsum("nqe,qec->nqc", codes.double().cpu(), analysis).flatten(0, 1)


def block_diagonal(parts: list[Tensor]) -> Tensor:
    """Matrices (Q, m, n) of several groups as one block-diagonal matrix per patch."""
    return torch.stack([torch.block_diag(*each) for each in zip(*parts, strict=True)])
