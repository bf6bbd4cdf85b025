"""Mesh autoencoders: the fields on a mesh <-> a few latent values per patch and field group.

Shape letters: B frames, P nodes, F fields, G field groups, f fields of a group, Q patches, n nodes
of the fullest patch, m = n f values of a padded patch, M principal components, E latent values per
patch and group, L = Q E latent values per group (patch-major), D width, H heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from common.cli import InputError
from final_project.units import Units, coarse

CHUNK = 256  # frames whose second moments are summed at a time
NEGLIGIBLE = 1e-6  # of a patch's largest deviation: less is rounding
FLOOR = 1e-3  # least divisor of a coefficient, relative to its patch's largest deviation
PUBLISHED_DEVIATION = 0.02  # of the published Transformer's first weights

Groups = tuple[tuple[int, ...], ...]


class MeshAutoencoder(nn.Module):
    """What both autoencoders share: nodes <-> patches, physical <-> normalised units, the loss.

    table : int64 (Q, n), node numbers padded with -1, every node once.
    groups : the field numbers of each group, every field once.

    Buffers `mean` and `std` float64 (F,) are 0 and 1 until `fit_normaliser`: a pressure may be
    101,325 with a deviation of 1. A field with deviation 0 comes back as its mean. A subclass
    defines `encode_patches` (B, Q, n, F) -> (B, G, L) and `decode_patches` back, in normalised
    units.
    Raises InputError where the table or the groups do not hold every node or field exactly once.
    """

    counts_padding = False  # whether the loss is also over the padded zeros
    encode_patches: Callable[[Tensor], Tensor]
    decode_patches: Callable[[Tensor], Tensor]
    index: Tensor
    real: Tensor
    slot: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, table: np.ndarray, groups: Groups):
        super().__init__()
        nodes = np.sort(table[table >= 0])
        fields = sorted(field for group in groups for field in group)
        if not len(nodes) or not np.array_equal(nodes, np.arange(len(nodes))):
            raise InputError("patch table: every node must stand in exactly one patch")
        if fields != list(range(len(fields))) or not all(groups):
            raise InputError(f"field groups {groups}: every field must stand in exactly one group")
        self.groups = groups
        self.nodes = len(nodes)
        self.fields = len(fields)

        index = torch.from_numpy(np.asarray(table, dtype=np.int64))  # (Q, n)
        slot = torch.argsort(index.flatten())[-self.nodes :]  # (P,)
        self.register_buffer("index", index.clamp(min=0), persistent=False)
        self.register_buffer("real", index >= 0, persistent=False)
        self.register_buffer("slot", slot, persistent=False)
        self.register_buffer("mean", torch.zeros(self.fields, dtype=torch.float64))
        self.register_buffer("std", torch.ones(self.fields, dtype=torch.float64))

    def patches(self, fields: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Physical fields (B, P, F) -> normalised patches (B, Q, n, F), 0 on padding.

        Raises InputError for another mesh or other fields.
        """
        if fields.shape[1:] != (self.nodes, self.fields):
            raise InputError(
                f"fields on (nodes, fields) {tuple(fields.shape[1:])}; "
                f"the autoencoder was made for {(self.nodes, self.fields)}"
            )
        divisor = torch.where(self.std > 0, self.std, torch.inf)
        normalised = (fields - self.mean) / divisor
        is_raw = (self.mean == 0) & (self.std == 1)
        normalised = torch.where(is_raw, normalised, coarse(normalised)).to(dtype)
        patches = normalised[:, self.index]  # (B, Q, n, F)
        return patches.masked_fill(~self.real[..., None], 0.0)

    def encode(self, fields: Tensor) -> Tensor:
        """Physical fields (B, P, F) -> latents (B, G, L). Raises InputError as `patches`."""
        return self.encode_patches(self.patches(fields))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, G, L) -> physical fields float64 (B, P, F)."""
        patches = self.decode_patches(latents)  # (B, Q, n, F)
        nodes = patches.flatten(1, 2)[:, self.slot]  # (B, P, F)
        return nodes * self.std + self.mean

    def reconstruction_loss(self, fields: Tensor) -> Tensor:
        """Mean squared error of fields (B, P, F) in normalised units."""
        truth = self.patches(fields)
        decoded = self.decode_patches(self.encode_patches(truth))
        error = (decoded - truth).square()  # (B, Q, n, F)
        if self.counts_padding:
            return error.mean()
        return error[:, self.real].mean()

    def fit_normaliser(self, fields: Tensor) -> None:
        """Mean and standard deviation of each field of frames (B, P, F); 0 for a constant field."""
        units = Units.of(fields.cpu().numpy())
        self.mean.copy_(torch.from_numpy(units.mean))
        self.std.copy_(torch.from_numpy(units.std))

    @property
    def units(self) -> Units:
        """The units that the fields are normalised to."""
        return Units(self.mean.cpu().numpy(), self.std.cpu().numpy())

    def split(self, patches: Tensor) -> list[Tensor]:
        """Patches (B, Q, n, F) -> (B, Q, m) for each group."""
        return [patches[..., list(group)].flatten(2) for group in self.groups]

    def join(self, parts: Iterable[Tensor]) -> Tensor:
        """The inverse of `split`."""
        nodes = self.real.shape[1]
        fields = [rearrange(part, "b q (n f) -> b q n f", n=nodes) for part in parts]
        order = np.argsort([field for group in self.groups for field in group])
        return torch.cat(fields, dim=3)[..., order]  # (B, Q, n, F)


# ----------------------------------------------------------------------------------------- ours


class Correction(nn.Module):
    """Transformer over the patches of one field group: (B, Q, in) -> (B, Q, out), 0 at first."""

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
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, Q, in) -> (B, Q, out)."""
        x = self.embed(tokens) + self.place  # (B, Q, D)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


class GroupCode(nn.Module):
    """The code of one field group: principal components per patch, corrected by Transformers.

    A patch (B, Q, m) has M coefficients c = analysis' (x - centre) in its own basis; the latents
    are the first E of them plus a correction of all M. Decoding pads with zeros and corrects again.
    Before training both corrections are zero, so this is the best linear code of each patch.
    """

    real: Tensor
    spread: Tensor

    def __init__(
        self, real: Tensor, components: int, latent: int, width: int, layers: int, heads: int
    ):
        super().__init__()
        patches, values = real.shape
        self.latent = latent
        self.register_buffer("real", real, persistent=False)  # (Q, m), False on padding
        self.centre = nn.Parameter(torch.zeros(patches, values))
        self.analysis = nn.Parameter(torch.zeros(patches, values, components))
        self.synthesis = nn.Parameter(torch.zeros(patches, values, components))
        # standard deviation of the coefficients:
        self.register_buffer("spread", torch.ones(patches, components))
        self.encoder = None
        self.decoder = None
        if layers:
            self.encoder = Correction(patches, components, latent, width, layers, heads)
            self.decoder = Correction(patches, latent, components, width, layers, heads)

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Principal components of training patches x (B, Q, m), in closed form.

        Those that hold nothing but rounding are 0: their directions would be arbitrary.
        """
        values = x.shape[2]
        mean = x.double().mean(0)  # (Q, m)
        moment = torch.zeros(*mean.shape, values, dtype=torch.float64, device=x.device)
        for chunk in x.split(CHUNK):
            centred = rearrange(chunk - mean, "b q m -> q b m")
            moment += centred.transpose(1, 2) @ centred  # (Q, m, m)
        variance, vectors = torch.linalg.eigh(moment / len(x))  # ascending

        count = min(self.analysis.shape[2], values)
        basis = vectors.flip(2)[..., :count] * self.real[..., None]  # (Q, m, count)
        spread = variance.flip(1)[:, :count].clamp(min=0).sqrt()  # (Q, count)
        basis = basis * (spread > NEGLIGIBLE * spread[:, :1])[:, None]
        self.centre.copy_(mean)
        for parameter in (self.analysis, self.synthesis):
            parameter.zero_()[..., :count] = basis.to(parameter.dtype)

        largest = spread[:, :1]
        floor = torch.where(largest > 0, FLOOR * largest, 1.0)
        self.spread.copy_(floor.expand_as(self.spread))
        self.spread[:, :count] = torch.maximum(self.spread[:, :count], spread.float())

    def encode(self, x: Tensor) -> Tensor:
        """Patches (B, Q, m) -> (B, Q, E)."""
        centred = (x - self.centre) * self.real
        coefficients = torch.einsum("bqm,qmk->bqk", centred, self.analysis)  # (B, Q, M)
        code = coefficients[..., : self.latent]
        if self.encoder is None:
            return code
        correction = self.encoder(coefficients / self.spread)
        return torch.addcmul(code, correction, self.spread[:, : self.latent])

    def decode(self, code: Tensor) -> Tensor:
        """(B, Q, E) -> patches (B, Q, m); values on padding have no meaning."""
        spread = self.spread[:, : self.latent]
        coefficients = F.pad(code, (0, self.spread.shape[1] - self.latent))  # (B, Q, M)
        if self.decoder is not None:
            correction = self.decoder(code / spread)
            coefficients = torch.addcmul(coefficients, correction, self.spread)
        return self.centre + torch.einsum("bqk,qmk->bqm", coefficients, self.synthesis)


class Autoencoder(MeshAutoencoder):
    """Ours: field groups share no weight, norm or attention, so only the temporal model mixes them.

    latent : E. components : M, what the correction of a patch sees and can restore.
    layers : of each correction; 0 leaves the linear code alone.
    Raises InputError as `MeshAutoencoder`, for E below 1 and where heads do not divide the width.
    """

    codes: nn.ModuleList

    def __init__(
        self,
        table: np.ndarray,
        groups: Groups,
        latent: int = 8,
        components: int = 32,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
    ):
        super().__init__(table, groups)
        if latent < 1 or width % heads:
            raise InputError(
                f"latent {latent}, width {width}, heads {heads}: "
                "latent must be at least 1 and heads divide the width"
            )
        components = max(latent, components)
        self.codes = nn.ModuleList()
        for group in groups:
            real = self.real.repeat_interleave(len(group), dim=1)  # (Q, m)
            self.codes.append(GroupCode(real, components, latent, width, layers, heads))

    def group_codes(self) -> list[GroupCode]:
        """The codes with their type, which a ModuleList does not say."""
        return [code for code in self.codes if isinstance(code, GroupCode)]

    def fit_linear(self, fields: Tensor) -> None:
        """Normaliser and principal components from frames (B, P, F), physical units.

        In closed form. Raises InputError as `patches`.
        """
        self.patches(fields[:1])
        self.fit_normaliser(fields)
        for code, group in zip(self.group_codes(), self.groups, strict=True):
            with torch.no_grad():
                chunks = [
                    self.patches(chunk, torch.float64)[..., list(group)].flatten(2)
                    for chunk in fields.split(CHUNK)
                ]
                x = torch.cat(chunks)  # (B, Q, m)
            code.fit(x)

    def bases(self) -> list[tuple[Tensor, Tensor]]:
        """For each group the linear parts of its code, (analysis, synthesis), each (Q, m, E).

        On the processor, in normalised units.
        """
        bases = []
        for code in self.group_codes():
            analysis = code.analysis.detach()[..., : code.latent].cpu()
            synthesis = code.synthesis.detach()[..., : code.latent].cpu()
            bases.append((analysis, synthesis))
        return bases

    def encode_patches(self, patches: Tensor) -> Tensor:
        """(B, Q, n, F) -> (B, G, L)."""
        groups = zip(self.group_codes(), self.split(patches), strict=True)
        parts = torch.stack([code.encode(part) for code, part in groups], dim=1)
        return rearrange(parts, "b g q e -> b g (q e)")

    def decode_patches(self, latents: Tensor) -> Tensor:
        """(B, G, L) -> (B, Q, n, F)."""
        parts = rearrange(latents, "b g (q e) -> b g q e", q=len(self.real)).unbind(1)
        groups = zip(self.group_codes(), parts, strict=True)
        return self.join([code.decode(part) for code, part in groups])


# ------------------------------------------------------------------------------------ published


class PublishedLayer(nn.Module):
    """Pre-norm attention and MLP over patches, with the published biases."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, bias=False)
        self.norm2 = nn.LayerNorm(width, bias=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width),
            nn.LayerNorm(4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, Q, D) -> (B, Q, D)."""
        qkv = self.qkv(self.norm1(x))  # (B, Q, 3 D)
        q, k, v = rearrange(qkv, "b q (three h d) -> three b h q d", three=3, h=self.heads)
        mixed = F.scaled_dot_product_attention(q, k, v)  # (B, H, Q, D / H)
        x = x + self.out(rearrange(mixed, "b h q d -> b q (h d)"))
        return x + self.mlp(self.norm2(x))


def perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """The published MLP of a patch's values or latents."""
    return nn.Sequential(
        nn.Linear(inputs, hidden, bias=False), nn.GELU(), nn.Linear(hidden, outputs)
    )


class PublishedAutoencoder(MeshAutoencoder):
    """The paper's: one Transformer over tokens that concatenate all groups.

    Every latent therefore holds the other fields too.
    latent, hidden : E and the MLPs' hidden width, 16 and 480 (cylinder) or 32 and 624 (multiphase).
    Raw units unless `fit_normaliser` is called. Raises InputError as `MeshAutoencoder` and where
    heads do not divide G E.
    official_start : the Transformer's matrices from N(0, 0.02) and its biases 0, as in the
    published code, which makes the MLPs of the patches too late to reach them; else all by torch.
    """

    counts_padding = True
    positions: Tensor

    def __init__(
        self,
        table: np.ndarray,
        groups: Groups,
        latent: int = 16,
        hidden: int = 480,
        layers: int = 12,
        heads: int = 8,
        official_start: bool = False,
    ):
        super().__init__(table, groups)
        patches, nodes = table.shape
        width = latent * len(groups)
        if width % heads:
            raise InputError(
                f"latent {latent} x {len(groups)} groups is not divisible by the {heads} heads"
            )
        values = [nodes * len(group) for group in groups]
        self.embed = nn.ModuleList(perceptron(m, hidden, latent) for m in values)
        self.layers = nn.ModuleList(PublishedLayer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.decoders = nn.ModuleList(perceptron(latent, hidden, m) for m in values)
        self.register_buffer("positions", sinusoids(patches, width), persistent=False)  # (Q, D)
        if official_start:
            self.layers.apply(published_start)

    def encode_patches(self, patches: Tensor) -> Tensor:
        """(B, Q, n, F) -> (B, G, L)."""
        groups = zip(self.embed, self.split(patches), strict=True)
        x = torch.cat([embed(part) for embed, part in groups], dim=2) + self.positions  # (B, Q, D)
        for layer in self.layers:
            x = layer(x)
        return rearrange(self.norm(x), "b q (g e) -> b g (q e)", g=len(self.groups))

    def decode_patches(self, latents: Tensor) -> Tensor:
        """(B, G, L) -> (B, Q, n, F)."""
        parts = rearrange(latents, "b g (q e) -> b g q e", q=len(self.real)).unbind(1)
        groups = zip(self.decoders, parts, strict=True)
        return self.join([decoder(part) for decoder, part in groups])


def published_start(module: nn.Module) -> None:
    """Draws a linear layer's weights as the published code does."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=PUBLISHED_DEVIATION)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def sinusoids(count: int, width: int) -> Tensor:
    """Position codes (count, width): sines and cosines in turn (Vaswani et al. 2017)."""
    rates = 10000.0 ** (-torch.arange(0, width, 2) / width)
    angles = torch.arange(count)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :width]
