"""A Vision Transformer that denoises (Peebles & Xie 2023, "DiT").

Patches -> blocks of attention -> patches.
Shape letters: B batch, C channels, S side of an image, P side of a patch, T = (S / P)^2 tokens,
D width, H heads, d = D / H width of a head, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from assignment5.config import Conditioning, Ends, Positions

FREQUENCIES = 16  # the example's sinusoid has 32 numbers: a sine and a cosine of each
MAX_FREQUENCY = 1000.0
ROTARY_BASE = 100.0  # of the turns, for grids of tens of tokens (Heo et al. 2024, section 3.1)
SHARE = 0.5  # of the first block's values in a later one, before training


def noise_embedding(variance: Tensor) -> Tensor:
    """Sines and cosines (B, 32) of the noise variance float (B,), as in Keras' DDIM example.

    Its 16 frequencies run from 1 to 1000.
    """
    last = torch.log10(torch.tensor(MAX_FREQUENCY))
    frequencies = torch.logspace(0, last, FREQUENCIES, device=variance.device)
    angles = 2 * torch.pi * variance.float()[:, None] * frequencies  # (B, 16)
    return torch.cat([angles.sin(), angles.cos()], dim=1)  # (B, 32)


def positions(grid: int, width: int) -> Tensor:
    """Fixed sine-cosine codes (T, D) of the rows and columns of a grid of T = grid^2 tokens."""
    quarter = -(-width // 4)
    rates = 10000.0 ** (-torch.arange(quarter) / quarter)
    angles = torch.arange(grid)[:, None] * rates  # (grid, quarter)
    line = torch.cat([angles.sin(), angles.cos()], dim=1)  # (grid, 2 quarter)
    rows = line[:, None].expand(-1, grid, -1)
    columns = line[None].expand(grid, -1, -1)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)[:, :width]  # (T, D)


def turns(grid: int, width: int) -> Tensor:
    """Angles (T, d / 2) of rotary positions on a grid of T = grid^2 tokens, for heads of width d.

    Half of a head's pairs of channels turn with the row, half with the column (axial RoPE, Heo et
    al. 2024, eq. 8).
    """
    quarter = width // 4
    rates = ROTARY_BASE ** (-torch.arange(quarter) / quarter)
    line = torch.arange(grid)[:, None] * rates  # (grid, d / 4)
    rows = line[:, None].expand(-1, grid, -1)
    columns = line[None].expand(grid, -1, -1)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)  # (T, d / 2)


def turned(x: Tensor, angles: Tensor) -> Tensor:
    """Queries or keys (B, H, T, d) whose channels i and i + d / 2 are turned by angles (T, d / 2).

    The product of a turned query and a turned key depends on the difference of their angles (Su et
    al. 2021, eq. 16).
    """
    first, second = x.float().chunk(2, dim=3)  # each (B, H, T, d / 2)
    cosine, sine = angles.cos(), angles.sin()
    pairs = (first * cosine - second * sine, first * sine + second * cosine)
    return torch.cat(pairs, dim=3).to(x.dtype)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k' / sqrt(d)) v over (B, H, T, d): torch's fused kernel where it is the fastest.

    On a CPU the fused kernel's backward pass in bfloat16 takes ten times as long as two batched
    products on few tokens, and twice as long as itself in float32 on many (torch 2.13, d = 16).
    """
    if q.device.type == "cuda" or q.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q, k, v)
    if q.shape[2] > 128:
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float()).to(q.dtype)
    weights = torch.softmax(q * q.shape[3] ** -0.5 @ k.transpose(2, 3), dim=3)  # (B, H, T, T)
    return weights @ v


class ClassEmbedding(nn.Module):
    """A vector (D,) for each of K classes, and one for "no class", whose label is -1."""

    def __init__(self, classes: int, width: int):
        super().__init__()
        self.table = nn.Embedding(classes + 1, width)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, labels: Tensor | None, like: Tensor) -> Tensor:
        """The vectors (B, D) of labels int64 (B,); of "no class" for each of `like` (B, ...)."""
        if labels is None:
            labels = torch.full((len(like),), -1, device=like.device)
        return self.table(labels % self.table.num_embeddings)


class Overlap(nn.Module):
    """Joins patches of side 2 P, a token's own and half a patch around it, to images.

    They are averaged with the weights sin^2, which fall to zero at a patch's edge and sum to one,
    so that no seam lies between tokens. P must be even (config.validate).
    """

    weights: Tensor
    total: Tensor

    def __init__(self, side: int, patch: int):
        super().__init__()
        self.side = side
        self.patch = patch
        places = (torch.arange(2 * patch) + 0.5) / (2 * patch)
        ramp = torch.sin(torch.pi * places) ** 2  # (2 P,)
        weights = (ramp[:, None] * ramp).flatten()  # (4 P P,)
        tokens = (side // patch) ** 2
        total = self.add_up(weights[None, :, None].expand(-1, -1, tokens))  # (1, 1, S, S)
        self.register_buffer("weights", weights, persistent=False)
        self.register_buffer("total", total, persistent=False)  # one, and less near the border

    def add_up(self, patches: Tensor) -> Tensor:
        """Sums overlapping patches (B, C 4 P P, T) to (B, C, S, S); what lies outside is lost."""
        return F.fold(
            patches,
            output_size=(self.side, self.side),
            kernel_size=2 * self.patch,
            padding=self.patch // 2,
            stride=self.patch,
        )

    def forward(self, patches: Tensor) -> Tensor:
        """(B, T, 4 P P C) -> (B, C, S, S)."""
        split = rearrange(patches, "b t (pixels c) -> b t c pixels", pixels=len(self.weights))
        weighted = split.float() * self.weights  # (B, T, C, 4 P P)
        summed = self.add_up(rearrange(weighted, "b t c pixels -> b (c pixels) t"))
        return (summed / self.total).to(patches.dtype)


@dataclass
class Shared:
    """What the blocks share in one pass: the angles of the tokens, and the first block's values."""

    angles: Tensor | None = None  # (T, d / 2)
    values: Tensor | None = None  # (B, H, T, d)


class Block(nn.Module):
    """Pre-norm attention and feed-forward, joined to their input by residual connections.

    adaptive : adaLN-Zero, where the condition sets shift, scale and gate of both branches.
    skip : the block also takes the tokens of a long skip.
    qk_norm : queries and keys have a root mean square of one times a trained gain, so that the
        logits of attention stay bounded (Dehghani et al. 2023, section 2.1).
    takes_values : a trained share of the values are those of the first block (Zhou et al. 2024,
        eq. 5).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        adaptive: bool,
        skip: bool,
        qk_norm: bool = False,
        takes_values: bool = False,
    ):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, elementwise_affine=not adaptive)
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=not adaptive)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.modulation = nn.Linear(width, 6 * width) if adaptive else None
        self.merge = nn.Linear(2 * width, width) if skip else None
        self.norm_q = nn.RMSNorm(width // heads) if qk_norm else None
        self.norm_k = nn.RMSNorm(width // heads) if qk_norm else None
        self.share = nn.Parameter(torch.tensor(SHARE)) if takes_values else None
        if self.modulation is not None:  # every block begins as the identity
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)

    def attend(self, x: Tensor, shared: Shared) -> Tensor:
        """Multi-head self-attention over tokens (B, T, D)."""
        q, k, v = rearrange(self.qkv(x), "b t (three h d) -> three b h t d", three=3, h=self.heads)
        if self.norm_q is not None and self.norm_k is not None:
            q = self.norm_q(q.float()).to(v.dtype)
            k = self.norm_k(k.float()).to(v.dtype)
        if shared.angles is not None:
            q = turned(q, shared.angles)
            k = turned(k, shared.angles)
        if shared.values is None:
            shared.values = v
        elif self.share is not None:
            v = v + self.share.to(v.dtype) * (shared.values - v)
        mixed = attention(q, k, v)  # (B, H, T, d)
        return self.projection(rearrange(mixed, "b h t d -> b t (h d)"))

    def feed(self, x: Tensor) -> Tensor:
        """Two affine maps with a GELU between them.

        The GELU is exact: its tanh form is three times as slow in bfloat16 on a CPU.
        """
        return self.down(F.gelu(self.up(x)))

    def forward(
        self,
        x: Tensor,
        condition: Tensor | None,
        skipped: Tensor | None,
        shared: Shared | None = None,
    ) -> Tensor:
        """Tokens (B, T, D), condition (B, D) of adaLN, tokens of a long skip -> (B, T, D)."""
        shared = shared or Shared()
        if self.merge is not None and skipped is not None:
            x = self.merge(torch.cat([x, skipped], dim=2))
        if self.modulation is None:
            x = x + self.attend(self.norm1(x), shared)
            return x + self.feed(self.norm2(x))
        parts = self.modulation(condition)[:, None].chunk(6, dim=2)  # each (B, 1, D)
        shift1, scale1, gate1, shift2, scale2, gate2 = parts
        seen = torch.addcmul(shift1, self.norm1(x), 1 + scale1)
        x = torch.addcmul(x, gate1, self.attend(seen, shared))
        seen = torch.addcmul(shift2, self.norm2(x), 1 + scale2)
        return torch.addcmul(x, gate2, self.feed(seen))


class DiT(nn.Module):
    """Transformer denoiser of images (B, 3, S, S) with noise variances (B,).

    Its prediction (B, 3, S, S) is zero before training.

    conditioning : "adaln" (adaLN-Zero) | "token" (the noise variance is one more token, as in
        U-ViT).
    skips : long skips from the first half of the blocks to the second (Bao et al. 2023, U-ViT).
    ends : "linear" patches as in DiT; "convolution": 3 x 3 convolutions before and after, joined
        by a skip at full size; "overlap": linear patches, of which the written ones overlap.
    placing : codes "sincos" of the places are added to the tokens, or queries and keys are turned
        by them ("rotary"), or "both", as in JiT (Li & He 2025).
    qk_norm, value_residual : see Block.
    classes : number of classes whose embedding is added to that of the noise; 0: none.

    The heads must divide the width, and the patches the side (config.validate).
    """

    positions: Tensor
    angles: Tensor

    def __init__(
        self,
        side: int = 32,
        patch: int = 4,
        width: int = 192,
        depth: int = 8,
        heads: int = 12,
        conditioning: Conditioning = "adaln",
        skips: bool = False,
        ends: Ends = "linear",
        channels: int = 3,
        stem: int = 32,
        placing: Positions = "sincos",
        qk_norm: bool = False,
        value_residual: bool = False,
        classes: int = 0,
    ):
        super().__init__()
        self.patch = patch
        self.adaptive = conditioning == "adaln"
        inner = stem if ends == "convolution" else channels

        # patches, places and noise level -> tokens and condition
        self.stem = nn.Conv2d(channels, stem, 3, padding=1) if ends == "convolution" else None
        self.embed = nn.Linear(inner * patch**2, width)
        self._place(side // patch, width, width // heads, placing)
        self.noise = nn.Sequential(
            nn.Linear(2 * FREQUENCIES, width),
            nn.SiLU(),
            nn.Linear(width, width),
        )
        self.classes = ClassEmbedding(classes, width) if classes else None

        # blocks, of which the second half may take long skips
        first_joined = (depth + 1) // 2
        self.blocks = nn.ModuleList(
            Block(
                width,
                heads,
                self.adaptive,
                skip=skips and number >= first_joined,
                qk_norm=qk_norm,
                takes_values=value_residual and number > 0,
            )
            for number in range(depth)
        )

        self._end(side, width, channels, inner, ends)

    def _place(self, grid: int, width: int, head_width: int, placing: Positions) -> None:
        """The codes of the places (T, D), and the angles (T, d / 2) of queries and keys."""
        codes = positions(grid, width)
        angles = turns(grid, head_width)
        if not self.adaptive:  # the token of the noise level has no place
            angles = F.pad(angles, (0, 0, 1, 0))  # (1 + T, d / 2)
        self.register_buffer(
            "positions", torch.zeros(()) if placing == "rotary" else codes, persistent=False
        )
        self.register_buffer("angles", angles if placing != "sincos" else None, persistent=False)

    def _end(self, side: int, width: int, channels: int, inner: int, ends: Ends) -> None:
        """The layers from tokens to images, and the first values of all weights."""
        written = 2 * self.patch if ends == "overlap" else self.patch
        self.norm = nn.LayerNorm(width, elementwise_affine=not self.adaptive)
        self.modulation = nn.Linear(width, 2 * width) if self.adaptive else None
        self.head = nn.Linear(width, inner * written**2)
        self.overlap = Overlap(side, self.patch) if ends == "overlap" else None
        last: nn.Linear | nn.Conv2d = self.head
        self.tail: nn.Sequential | None = None
        if ends == "convolution":
            first = nn.Conv2d(2 * inner, inner, 3, padding=1)
            last = nn.Conv2d(inner, channels, 3, padding=1)
            self.tail = nn.Sequential(first, nn.SiLU(), last)
        self._initialise(last)

    def _initialise(self, last: nn.Linear | nn.Conv2d) -> None:
        """Xavier's weights, no biases, and zero where adaLN-Zero and the output begin at zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                if module.weight.any():  # not the zeros of adaLN
                    nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(last.weight)
        if last.bias is not None:
            nn.init.zeros_(last.bias)

    def forward(self, images: Tensor, variance: Tensor, labels: Tensor | None = None) -> Tensor:
        """Predicts from noisy images float (B, 3, S, S) and their noise variances float (B,).

        Labels int64 (B,) are those of classes, -1 for none; without them all are of none.
        """
        # images -> tokens
        full = images if self.stem is None else self.stem(images)  # (B, C, S, S)
        patches = rearrange(
            full, "b c (r p) (s q) -> b (r s) (p q c)", p=self.patch, q=self.patch
        )  # (B, T, P P C)
        x = self.embed(patches) + self.positions  # (B, T, D)

        # noise level -> condition, or one more token
        condition = self.noise(noise_embedding(variance))  # (B, D)
        if self.classes is not None:
            condition = condition + self.classes(labels, images)
        if not self.adaptive:
            x = torch.cat([condition[:, None].to(x.dtype), x], dim=1)  # (B, 1 + T, D)
        condition = F.silu(condition)

        # blocks: the first half leaves its tokens for the second to take, last in first out
        left: list[Tensor] = []
        shared = Shared(self.angles)
        for block in self.blocks:
            x = block(x, condition, left.pop() if block.merge is not None else None, shared)
            if block.merge is None and len(left) < len(self.blocks) // 2:
                left.append(x)

        # tokens -> images
        x = self.norm(x)
        if self.modulation is None:
            x = x[:, 1:]  # (B, T, D)
        else:
            shift, scale = self.modulation(condition)[:, None].chunk(2, dim=2)
            x = torch.addcmul(shift, x, 1 + scale)
        out = self._image(self.head(x), grid=images.shape[-1] // self.patch)  # (B, C, S, S)
        if self.tail is None:
            return out
        return self.tail(torch.cat([out, full], dim=1))

    def _image(self, patches: Tensor, grid: int) -> Tensor:
        """Patches (B, T, P P C), or overlapping ones, -> (B, C, S, S)."""
        if self.overlap is not None:
            return self.overlap(patches)
        return rearrange(
            patches, "b (r s) (p q c) -> b c (r p) (s q)", r=grid, p=self.patch, q=self.patch
        )
