"""Mesh autoencoders: the fields on a mesh <-> a few latent numbers for each patch and field group.

Shape letters: B frames, P nodes, F fields, G field groups, f fields of a group, Q patches, n nodes of the fullest patch, m = n f numbers of a
padded patch, M principal components, E latent numbers a patch and group, L = Q E latent numbers a group (patch-major), D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from common.cli import InputError

CHUNK = 256  # frames whose second moments are summed at a time
FLOOR = 1e-3  # no coefficient is divided by less than this share of its patch's largest deviation


class MeshAutoencoder(nn.Module):
    """What both kinds share: nodes <-> patches, physical <-> normalised units, and the loss.

    table: int64 (Q, n), node numbers padded with -1, every node once. groups: the field numbers of each group, every field once.
    Buffers `mean` and `std` (F,) are 0 and 1 until `fit_normaliser`. A kind has `encode_patches` (B, Q, n, F) -> (B, G, L) and
    `decode_patches` back, both in normalised units.
    Raises InputError where the table or the groups do not hold every node or field exactly once.
    """

    counts_padding = False
    encode_patches: Callable[[Tensor], Tensor]
    decode_patches: Callable[[Tensor], Tensor]
    index: Tensor
    real: Tensor
    slot: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, table: np.ndarray, groups: tuple[tuple[int, ...], ...]):
        super().__init__()
        nodes, fields = (
            np.sort(table[table >= 0]),
            sorted(field for group in groups for field in group),
        )
        if not len(nodes) or not np.array_equal(nodes, np.arange(len(nodes))):
            raise InputError("patch table: every node must stand in exactly one patch")
        if fields != list(range(len(fields))) or not all(groups):
            raise InputError(f"field groups {groups}: every field must stand in exactly one group")
        self.groups, self.nodes, self.fields = groups, len(nodes), len(fields)
        index = torch.from_numpy(np.asarray(table, dtype=np.int64))
        self.register_buffer("index", index.clamp(min=0), persistent=False)  # (Q, n)
        self.register_buffer("real", index >= 0, persistent=False)  # (Q, n)
        self.register_buffer(
            "slot", torch.argsort(index.flatten())[-self.nodes :], persistent=False
        )  # (P,)
        self.register_buffer("mean", torch.zeros(self.fields))
        self.register_buffer("std", torch.ones(self.fields))

    def patches(self, fields: Tensor) -> Tensor:
        """Physical fields (B, P, F) -> normalised patches (B, Q, n, F), 0 on padding. Raises InputError for another mesh or other fields."""
        if fields.shape[1:] != (self.nodes, self.fields):
            raise InputError(
                f"fields on (nodes, fields) {tuple(fields.shape[1:])}; the autoencoder was made for {(self.nodes, self.fields)}"
            )
        return ((fields - self.mean) / self.std)[:, self.index].masked_fill(
            ~self.real[..., None], 0.0
        )

    def encode(self, fields: Tensor) -> Tensor:
        """Physical fields float (B, P, F) -> latents (B, G, L). Raises InputError as `patches`."""
        return self.encode_patches(self.patches(fields))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, G, L) -> physical fields (B, P, F)."""
        return self.decode_patches(latents).flatten(1, 2)[:, self.slot] * self.std + self.mean

    def reconstruction_loss(self, fields: Tensor) -> Tensor:
        """Mean squared error of fields (B, P, F) in normalised units; over the padded zeros too where the kind counts them (published)."""
        truth = self.patches(fields)
        error = (self.decode_patches(self.encode_patches(truth)) - truth).square()  # (B, Q, n, F)
        return error.mean() if self.counts_padding else error[:, self.real].mean()

    @torch.no_grad()
    def fit_normaliser(self, fields: Tensor) -> None:
        """Mean and standard deviation of each field from training frames (B, P, F); a constant field keeps 1."""
        double = fields.double()
        deviation = double.std((0, 1), correction=0)
        self.mean.copy_(double.mean((0, 1)))
        self.std.copy_(torch.where(deviation > 0, deviation, 1.0))

    def split(self, patches: Tensor) -> list[Tensor]:
        """Patches (B, Q, n, F) -> for each group (B, Q, m)."""
        return [patches[..., list(group)].flatten(2) for group in self.groups]

    def join(self, parts: list[Tensor]) -> Tensor:
        """The inverse of `split`."""
        order = np.argsort([field for group in self.groups for field in group])
        fields = [rearrange(part, "b q (n f) -> b q n f", n=self.real.shape[1]) for part in parts]
        return torch.cat(fields, dim=3)[..., order]


class Correction(nn.Module):
    """Transformer over the patches of one field group: tokens (B, Q, in) -> (B, Q, out), zero before training."""

    def __init__(
        self, patches: int, inputs: int, outputs: int, width: int, layers: int, heads: int
    ):
        super().__init__()
        self.embed = nn.Linear(inputs, width)
        self.place = nn.Parameter(0.02 * torch.randn(patches, width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width,
                heads,
                4 * width,
                dropout=0.0,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(layers)
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, outputs)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """As the class."""
        x = self.embed(tokens) + self.place  # (B, Q, D)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


class GroupCode(nn.Module):
    """The code of one field group: principal components of every patch, and a Transformer that corrects what they leave.

    Patches (B, Q, m) have M coefficients in the basis of their own patch; the first E, corrected, are the latent. Before training this is
    the best linear code of each patch, since both corrections are zero.
    """

    real: Tensor
    spread: Tensor

    def __init__(
        self, real: Tensor, components: int, latent: int, width: int, layers: int, heads: int
    ):
        super().__init__()
        patches, numbers = real.shape
        self.latent = latent
        self.register_buffer("real", real, persistent=False)  # (Q, m), False on padding
        self.centre = nn.Parameter(torch.zeros(patches, numbers))
        self.analysis = nn.Parameter(torch.zeros(patches, numbers, components))
        self.synthesis = nn.Parameter(torch.zeros(patches, numbers, components))
        self.register_buffer(
            "spread", torch.ones(patches, components)
        )  # deviation of the coefficients
        self.encoder = (
            Correction(patches, components, latent, width, layers, heads) if layers else None
        )
        self.decoder = (
            Correction(patches, latent, components, width, layers, heads) if layers else None
        )

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Principal components of training patches x float (B, Q, m), in closed form."""
        mean = x.double().mean(0)  # (Q, m)
        moment = torch.zeros(
            *mean.shape, mean.shape[1], dtype=torch.float64, device=x.device
        )  # (Q, m, m)
        for chunk in x.split(CHUNK):
            centred = rearrange(chunk - mean, "b q m -> q b m")
            moment += centred.transpose(1, 2) @ centred
        variance, vectors = torch.linalg.eigh(moment / len(x))  # ascending
        kept = min(self.analysis.shape[2], x.shape[2])
        basis = vectors.flip(2)[..., :kept] * self.real[..., None]
        spread = variance.flip(1)[:, :kept].clamp(min=0).sqrt()
        largest = spread[:, :1]
        self.centre.copy_(mean)
        for parameter in (self.analysis, self.synthesis):
            parameter.zero_()[..., :kept] = basis.to(parameter.dtype)
        self.spread.copy_(torch.where(largest > 0, FLOOR * largest, 1.0).expand_as(self.spread))
        self.spread[:, :kept] = torch.maximum(self.spread[:, :kept], spread.float())

    def encode(self, x: Tensor) -> Tensor:
        """Patches (B, Q, m) -> (B, Q, E)."""
        coefficients = torch.einsum(
            "bqm,qmk->bqk", (x - self.centre) * self.real, self.analysis
        )  # (B, Q, M)
        code = coefficients[..., : self.latent]
        if self.encoder is None:
            return code
        return torch.addcmul(
            code, self.encoder(coefficients / self.spread), self.spread[:, : self.latent]
        )

    def decode(self, code: Tensor) -> Tensor:
        """(B, Q, E) -> patches (B, Q, m); whatever stands on padding has no meaning."""
        spread = self.spread[:, : self.latent]
        coefficients = F.pad(code, (0, self.spread.shape[1] - self.latent))  # (B, Q, M)
        if self.decoder is not None:
            coefficients = torch.addcmul(coefficients, self.decoder(code / spread), self.spread)
        return self.centre + torch.einsum("bqk,qmk->bqm", coefficients, self.synthesis)


class Autoencoder(MeshAutoencoder):
    """Ours: no weight, norm or attention is shared between field groups, so that only the temporal model can exchange them.

    latent: E. components: M, the part of a patch that the correction sees and can restore. layers: of each correction; 0 leaves the
    linear code alone. Raises InputError as `MeshAutoencoder`, for E below 1 and where heads do not divide the width.
    """

    codes: Any  # a ModuleList of GroupCodes, which torch's stubs cannot say

    def __init__(
        self,
        table: np.ndarray,
        groups: tuple[tuple[int, ...], ...],
        latent: int = 8,
        components: int = 32,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
    ):
        super().__init__(table, groups)
        if latent < 1 or width % heads:
            raise InputError(
                f"latent {latent}, width {width}, heads {heads}: latent must be at least 1 and heads divide the width"
            )
        self.codes = nn.ModuleList(
            GroupCode(
                self.real.repeat_interleave(len(group), dim=1),
                max(latent, components),
                latent,
                width,
                layers,
                heads,
            )
            for group in groups
        )

    def fit_linear(self, fields: Tensor) -> None:
        """Normaliser and principal components from training frames float (B, P, F), physical units; in closed form.

        Raises InputError as `patches`."""
        self.patches(fields[:1])
        self.fit_normaliser(fields)
        for code, group in zip(self.codes, self.groups, strict=True):
            with torch.no_grad():
                x = torch.cat(
                    [
                        self.patches(chunk)[..., list(group)].flatten(2)
                        for chunk in fields.split(CHUNK)
                    ]
                )  # (B, Q, m)
            code.fit(x)

    def bases(self) -> list[tuple[Tensor, Tensor]]:
        """For each group the linear parts of its code, (analysis, synthesis), each (Q, m, E) on the processor, in normalised units."""
        return [
            tuple(
                part.detach()[..., : code.latent].cpu() for part in (code.analysis, code.synthesis)
            )
            for code in self.codes
        ]

    def encode_patches(self, patches: Tensor) -> Tensor:
        """(B, Q, n, F) -> (B, G, L)."""
        parts = [
            code.encode(part) for code, part in zip(self.codes, self.split(patches), strict=True)
        ]
        return rearrange(torch.stack(parts, dim=1), "b g q e -> b g (q e)")

    def decode_patches(self, latents: Tensor) -> Tensor:
        """(B, G, L) -> (B, Q, n, F)."""
        parts = rearrange(latents, "b g (q e) -> b g q e", q=len(self.real)).unbind(1)
        return self.join([code.decode(part) for code, part in zip(self.codes, parts, strict=True)])


class PublishedLayer(nn.Module):
    """Pre-norm attention and MLP over patches, with the published biases."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width),
            nn.LayerNorm(4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, Q, D) -> (B, Q, D)."""
        q, k, v = rearrange(
            self.qkv(self.norm1(x)), "b q (three h d) -> three b h q d", three=3, h=self.heads
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(rearrange(mixed, "b h q d -> b q (h d)"))
        return x + self.mlp(self.norm2(x))


class PublishedAutoencoder(MeshAutoencoder):
    """The paper's: tokens that concatenate all groups go through one Transformer, so that every latent holds the other fields too.

    latent, hidden: E and the MLPs' hidden width, 16 and 480 (cylinder) or 32 and 624 (multiphase). Raw units unless `fit_normaliser` is
    called. Raises InputError as `MeshAutoencoder` and where heads do not divide G E.
    """

    counts_padding = True
    positions: Tensor

    def __init__(
        self,
        table: np.ndarray,
        groups: tuple[tuple[int, ...], ...],
        latent: int = 16,
        hidden: int = 480,
        layers: int = 12,
        heads: int = 8,
    ):
        super().__init__(table, groups)
        patches, nodes = table.shape
        width = latent * len(groups)
        if width % heads:
            raise InputError(
                f"latent {latent} x {len(groups)} groups is not divisible by the {heads} heads"
            )
        numbers = [nodes * len(group) for group in groups]
        self.embed = nn.ModuleList(
            nn.Sequential(nn.Linear(m, hidden, bias=False), nn.GELU(), nn.Linear(hidden, latent))
            for m in numbers
        )
        self.layers = nn.ModuleList(PublishedLayer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.decoders = nn.ModuleList(
            nn.Sequential(nn.Linear(latent, hidden, bias=False), nn.GELU(), nn.Linear(hidden, m))
            for m in numbers
        )
        rates = 10000.0 ** (-torch.arange(0, width, 2) / width)
        angles = torch.arange(patches)[:, None] * rates
        code = torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :width]
        self.register_buffer("positions", code, persistent=False)  # (Q, D)

    def encode_patches(self, patches: Tensor) -> Tensor:
        """(B, Q, n, F) -> (B, G, L)."""
        x = (
            torch.cat(
                [embed(part) for embed, part in zip(self.embed, self.split(patches), strict=True)],
                dim=2,
            )
            + self.positions
        )
        for layer in self.layers:
            x = layer(x)
        return rearrange(self.norm(x), "b q (g e) -> b g (q e)", g=len(self.groups))

    def decode_patches(self, latents: Tensor) -> Tensor:
        """(B, G, L) -> (B, Q, n, F)."""
        parts = rearrange(latents, "b g (q e) -> b g q e", q=len(self.real)).unbind(1)
        return self.join(
            [decoder(part) for decoder, part in zip(self.decoders, parts, strict=True)]
        )
