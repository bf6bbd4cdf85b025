"""Times assignment 5: a training step, and the sampling of 18 images.

    python benchmarks/diffusion.py            writes benchmarks/results/diffusion.json

The step is compared with diffusers' DiT, a plain DiT and its matrix products alone, on a GPU
also with the rate of one large bfloat16 product.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from assignment5.config import NETWORKS, Config, Sampling
from assignment5.denoiser import build
from assignment5.dit import DiT, noise_embedding, positions
from assignment5.sampling import noise_set, sample
from benchmarks.measure import RESULTS, Comparison, Work, write
from benchmarks.measure import seconds_in_turns as seconds
from common.machine import Device, choose_device
from common.weights import count_parameters

RESULT = RESULTS / "diffusion.json"
Predict = Callable[[Tensor, Tensor], Tensor]  # (noisy images, noise variances) -> noises
EACH, WARM_UP = 3, 3


class PlainBlock(nn.Module):
    """One adaLN-Zero block as in the paper (Peebles & Xie 2023, figure 3).

    Fused attention, GELU in its tanh form, a modulation of its own.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def attend(self, x: Tensor) -> Tensor:
        """Multi-head self-attention over (B, T, D)."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v)  # (B, H, T, D / H)
        return self.out(attended.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens (B, T, D) and a condition (B, D) -> (B, T, D)."""
        modulation = self.modulation(condition)[:, None]  # (B, 1, 6 D)
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6, dim=2)
        x = x + gate1 * self.attend(self.norm1(x) * (1 + scale1) + shift1)
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)


class PlainDiT(nn.Module):
    """The network around those blocks: a convolution cuts patches, an affine map joins them."""

    def __init__(self, side: int, patch: int, width: int, depth: int, heads: int):
        super().__init__()
        self.patch = patch
        self.embed = nn.Conv2d(3, width, patch, patch)
        self.register_buffer("positions", positions(side // patch, width))
        self.noise = nn.Sequential(nn.Linear(32, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(PlainBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.head = nn.Linear(width, 3 * patch**2)

    def forward(self, images: Tensor, variance: Tensor) -> Tensor:
        """Images (B, 3, S, S) and noise variances (B,) -> (B, 3, S, S)."""
        x = self.embed(images).flatten(2).transpose(1, 2) + self.positions
        condition = self.noise(noise_embedding(variance))
        for block in self.blocks:
            x = block(x, condition)
        shift, scale = self.modulation(condition)[:, None].chunk(2, dim=2)
        patches = self.head(self.norm(x) * (1 + scale) + shift)
        return rearrange(
            patches,
            "b (r s) (p q c) -> b c (r p) (s q)",
            s=images.shape[3] // self.patch,
            p=self.patch,
            q=self.patch,
        )


# --------------------------------------------------------------------------------------- works


def training_step(model: nn.Module, predict: Predict, config: Config, device: Device) -> Work:
    """One training step: absolute error, backward, AdamW."""
    model.to(device.name).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    images = noise_set(0, config.batch, config.side).to(device.name)
    noises = noise_set(1, config.batch, config.side).to(device.name)
    variance = torch.rand(config.batch, device=device.name)

    def step() -> float:
        with torch.autocast(device.name, torch.bfloat16, enabled=device.bfloat16):
            loss = F.l1_loss(predict(images, variance).float(), noises)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        return loss.item()  # (waits for the device)

    return step


def shapes(config: Config) -> list[tuple[int, int, int, int]]:
    """The products (n, k) @ (k, m) of one forward pass, as (how many at once, n, k, m).

    They are those of the DiT with adaLN-Zero and without skips.
    """
    batch, width = config.batch, config.width
    tokens = (config.side // config.patch) ** 2
    flat, heads = batch * tokens, batch * config.heads
    head_width, pixels = width // config.heads, 3 * config.patch**2
    block = [
        (1, flat, width, 3 * width),
        (1, flat, width, width),
        (1, flat, width, 4 * width),
        (1, flat, 4 * width, width),
        (1, batch, width, 6 * width),
        (heads, tokens, head_width, tokens),
        (heads, tokens, tokens, head_width),
    ]
    ends = [
        (1, flat, pixels, width),
        (1, flat, width, pixels),
        (1, batch, 32, width),
        (1, batch, width, width),
        (1, batch, width, 2 * width),
    ]
    return config.depth * block + ends


def matrix_products(config: Config, device: Device) -> Work:
    """The matrix products of one training step, forward and twice backward, and nothing else."""
    dtype = torch.bfloat16 if device.bfloat16 else torch.float32
    wanted = []
    for count, n, k, m in shapes(config):
        wanted += [(count, n, k, m), (count, n, m, k), (count, k, n, m)]
    pairs = {}
    for count, n, k, m in set(wanted):
        left = torch.randn(count, n, k, dtype=dtype, device=device.name)
        right = torch.randn(count, k, m, dtype=dtype, device=device.name)
        pairs[count, n, k, m] = left, right

    def run() -> None:
        for key in wanted:
            left, right = pairs[key]
            if len(left) > 1:
                torch.bmm(left, right)
            else:
                torch.mm(left[0], right[0])
        if device.name == "cuda":
            torch.cuda.synchronize()

    return run


# -------------------------------------------------------------------------------- comparisons


def dit_of_diffusers(config: Config, device: Device) -> tuple[str, nn.Module, Predict] | None:
    """The DiT of diffusers at our sizes, or None where it is not installed."""
    try:
        import diffusers
    except ImportError:
        advice = "pip install -r requirements-dev.txt"
        print(f"diffusers is not installed, its row is left out: {advice}", file=sys.stderr)
        return None
    model = diffusers.DiTTransformer2DModel(
        config.heads,
        config.width // config.heads,
        3,
        num_layers=config.depth,
        sample_size=config.side,
        patch_size=config.patch,
        num_embeds_ada_norm=1,
    )
    labels = torch.zeros(config.batch, dtype=torch.long, device=device.name)

    def predict(images: Tensor, variance: Tensor) -> Tensor:
        return model(images, timestep=1000 * variance, class_labels=labels).sample

    weights = f"{count_parameters(model):,} weights: one embedding per block"
    name = f"DiTTransformer2DModel of diffusers {diffusers.__version__} ({weights})"
    return name, model, predict


def compare_training(config: Config, device_name: str, rounds: int) -> list[Comparison]:
    """Our step against the others', in one precision with one optimiser."""
    device = choose_device(device_name)
    sizes = (config.side, config.patch, config.width, config.depth, config.heads)
    ours, plain = DiT(*sizes), PlainDiT(*sizes)
    assert count_parameters(ours) == count_parameters(plain)
    others: list[tuple[str, nn.Module, Predict]] = [
        ("plain DiT (fused attention, tanh GELU)", plain, plain)
    ]
    peer = dit_of_diffusers(config, device)
    if peer is not None:
        others.append(peer)

    our_seconds, *other_seconds = seconds(
        training_step(ours, ours, config, device),
        *(training_step(model, predict, config, device) for _, model, predict in others),
        matrix_products(config, device),
        rounds=rounds,
        each=EACH,
        warm_up=min(rounds, WARM_UP),
        pick=min,
    )
    arithmetic = "bfloat16" if device.bfloat16 else "float32"
    case = (
        f"training step on {device.name}, {arithmetic}: {count_parameters(ours):,} weights, "
        f"width {config.width}, depth {config.depth}, patch {config.patch}, side {config.side}, "
        f"batch {config.batch}"
    )
    names = [*(name for name, _, _ in others), "its matrix products alone"]
    return [
        Comparison.of(case, our_seconds, name, taken)
        for name, taken in zip(names, other_seconds, strict=True)
    ]


def compare_sampling(config: Config, rounds: int, count: int = 18, steps: int = 20) -> Comparison:
    """DDIM on the CPU by the tuned Transformer, beside the U-Net."""
    bfloat16 = choose_device("cpu").bfloat16
    noises = noise_set(0, count, config.side)
    works = []
    for network in NETWORKS:
        model = build(config.denoiser(network))
        works.append(partial(sample, model, noises, Sampling("ddim", steps), bfloat16))
    warm_up = min(rounds, WARM_UP)
    transformer, unet = seconds(*works, rounds=rounds, warm_up=warm_up, pick=min)
    case = f"{count} images, {steps} DDIM steps, side {config.side}, on cpu"
    return Comparison.of(case, transformer, "U-Net", unet)


def compare_matrix_rate(config: Config, rounds: int, edge: int = 8192) -> Comparison:
    """A compiled step on the GPU against its products at the rate of one large bfloat16 product."""
    model = DiT(config.side, config.patch, config.width, config.depth, config.heads)
    step = training_step(model, torch.compile(model), config, Device("cuda", True))
    left = torch.randn(edge, edge, device="cuda", dtype=torch.bfloat16)
    right = torch.randn(edge, edge, device="cuda", dtype=torch.bfloat16)

    def product() -> None:
        torch.mm(left, right)
        torch.cuda.synchronize()

    ours, large = seconds(step, product, rounds=rounds, each=EACH, warm_up=WARM_UP, pick=min)
    rate = 2 * edge**3 / large
    bound = sum(6 * count * n * k * m for count, n, k, m in shapes(config)) / rate
    case = (
        f"training step on {torch.cuda.get_device_name()}, bfloat16, compiled, no skips: "
        f"width {config.width}, side {config.side}, batch {config.batch}: "
        f"{bound / ours:.1%} of the matrix rate"
    )
    other = f"its products at {rate / 1e12:.0f} TFLOP/s, the rate of a product of {edge}"
    return Comparison.of(case, ours, other, bound)


def main(config: Config | None = None, rounds: int = 7, result: Path = RESULT) -> list[Comparison]:
    """Measures at the defaults of assignment 5, or at `config`, and writes the rows to `result`."""
    torch.manual_seed(0)
    config = config or Config()
    rows = compare_training(config, "cpu", rounds)
    if torch.cuda.is_available():
        rows += compare_training(config, "cuda", rounds)
    rows.append(compare_sampling(config, rounds))
    if torch.cuda.is_available():
        for batch in (config.batch, 8 * config.batch):
            full = dataclasses.replace(config, side=64, width=384, batch=batch)
            rows.append(compare_matrix_rate(full, rounds))
    write(result, rows)
    return rows


if __name__ == "__main__":
    main()
