"""Times assignment 5's training step against diffusers' DiT, a plain DiT and its matrix products alone, and the sampling of 18 images;
where there is a GPU also against the bfloat16 matrix rate."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from assignment5.config import NETWORKS, Config, Sampling
from assignment5.denoiser import build
from assignment5.dit import DiT, noise_embedding, positions
from assignment5.sampling import noise_set, sample
from common.files import write_json
from common.machine import choose_device, git_state, peak_mb, versions
from common.weights import count_parameters

RESULT = Path(__file__).resolve().parent / "results" / "diffusion.json"


class PlainBlock(nn.Module):
    """One adaLN-Zero block as the paper has it (Peebles & Xie 2023, figure 3): fused attention, GELU in its tanh form, a modulation of its own."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = (
            nn.LayerNorm(width, elementwise_affine=False, eps=1e-6) for _ in range(2)
        )
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def attend(self, x: Tensor) -> Tensor:
        """Multi-head self-attention over (B, T, D)."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens (B, T, D) and a condition (B, D) -> (B, T, D)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (
            part[:, None] for part in self.modulation(condition).chunk(6, dim=1)
        )
        x = x + gate1 * self.attend(self.norm1(x) * (1 + scale1) + shift1)
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)


class PlainDiT(nn.Module):
    """The network around those blocks: a convolution cuts the patches, one modulated affine map makes them again."""

    def __init__(self, side: int, patch: int, width: int, depth: int, heads: int):
        super().__init__()
        self.patch, self.embed = patch, nn.Conv2d(3, width, patch, patch)
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
        shift, scale = (part[:, None] for part in self.modulation(condition).chunk(2, dim=1))
        patches = self.head(self.norm(x) * (1 + scale) + shift)
        return rearrange(
            patches,
            "b (r s) (p q c) -> b c (r p) (s q)",
            s=images.shape[3] // self.patch,
            p=self.patch,
            q=self.patch,
        )


def step_of(
    model: nn.Module,
    predict: Callable[[Tensor, Tensor], Tensor],
    config: Config,
    device: str,
    bfloat16: bool,
) -> Callable[[], float]:
    """One training step: absolute error, backward, AdamW."""
    model.to(device).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    images, noises = (noise_set(seed, config.batch, config.side).to(device) for seed in (0, 1))
    variance = torch.rand(config.batch, device=device)

    def step() -> float:
        with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            loss = F.l1_loss(predict(images, variance).float(), noises)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        return loss.item()  # (waits for the device)

    return step


def shapes(config: Config) -> list[tuple[int, int, int, int]]:
    """(how many at once, n, k, m): the products (n, k) @ (k, m) of one forward pass of the DiT with adaLN-Zero and no skips."""
    batch, width, tokens = config.batch, config.width, (config.side // config.patch) ** 2
    flat, heads, patch = batch * tokens, batch * config.heads, 3 * config.patch**2
    block = [
        (1, flat, width, 3 * width),
        (1, flat, width, width),
        (1, flat, width, 4 * width),
        (1, flat, 4 * width, width),
        (1, batch, width, 6 * width),
        (heads, tokens, width // config.heads, tokens),
        (heads, tokens, tokens, width // config.heads),
    ]
    ends = [
        (1, flat, patch, width),
        (1, flat, width, patch),
        (1, batch, 32, width),
        (1, batch, width, width),
        (1, batch, width, 2 * width),
    ]
    return config.depth * block + ends


def products(config: Config, device: str, bfloat16: bool) -> Callable[[], None]:
    """The matrix products of one training step, forward and twice backward, and nothing else."""
    kind = {"dtype": torch.bfloat16 if bfloat16 else torch.float32, "device": device}
    wanted = [
        (many, *sides)
        for many, n, k, m in shapes(config)
        for sides in ((n, k, m), (n, m, k), (k, n, m))
    ]
    pairs = {
        (many, n, k, m): (torch.randn(many, n, k, **kind), torch.randn(many, k, m, **kind))
        for many, n, k, m in set(wanted)
    }

    def run() -> None:
        for key in wanted:
            left, right = pairs[key]
            torch.bmm(left, right) if len(left) > 1 else torch.mm(left[0], right[0])
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def seconds(*steps: Callable[[], Any], rounds: int, each: int = 3) -> list[float]:
    """The least seconds of each step, in turns, so that a machine that slows down slows all."""
    times: list[list[float]] = [[] for _ in steps]
    for step in steps:
        for _ in range(min(rounds, 3)):
            step()
    for _ in range(rounds):
        for number, step in enumerate(steps):
            for _ in range(each):
                start = time.perf_counter()
                step()
                times[number].append(time.perf_counter() - start)
    return [min(found) for found in times]


def training(config: Config, device: str, rounds: int) -> list[dict[str, Any]]:
    """Our step against the others', one precision, one optimiser."""
    bfloat16, size = (
        choose_device(device).bfloat16,
        (config.side, config.patch, config.width, config.depth, config.heads),
    )
    ours, plain = DiT(*size), PlainDiT(*size)
    assert count_parameters(ours) == count_parameters(plain)
    models = {"": (ours, ours), "plain DiT (fused attention, tanh GELU)": (plain, plain)}
    try:
        import diffusers

        theirs = diffusers.DiTTransformer2DModel(
            config.heads,
            config.width // config.heads,
            3,
            num_layers=config.depth,
            sample_size=config.side,
            patch_size=config.patch,
            num_embeds_ada_norm=1,
        )
        labels, name = (
            torch.zeros(config.batch, dtype=torch.long, device=device),
            f"DiTTransformer2DModel of diffusers {diffusers.__version__}",
        )
        models[f"{name} ({count_parameters(theirs):,} weights: an embedding a block)"] = (
            theirs,
            lambda x, variance: theirs(x, timestep=1000 * variance, class_labels=labels).sample,
        )
    except ImportError:
        print(
            "diffusers is not installed, its row is left out: pip install -r requirements-dev.txt",
            file=sys.stderr,
        )
    steps = [
        step_of(model, predict, config, device, bfloat16) for model, predict in models.values()
    ]
    mine, *others = seconds(*steps, products(config, device, bfloat16), rounds=rounds)
    case = (
        f"training step on {device}, {'bfloat16' if bfloat16 else 'float32'}: {count_parameters(ours):,} weights, width {config.width}, depth {config.depth}, "
        f"patch {config.patch}, side {config.side}, batch {config.batch}"
    )
    return [
        row(case, mine, other, its)
        for other, its in zip([*models, "its matrix products alone"][1:], others, strict=True)
    ]


def sampling(config: Config, rounds: int, count: int = 18, steps: int = 20) -> dict[str, Any]:
    """DDIM on the CPU by the tuned Transformer, beside the U-Net."""
    bfloat16, noises = choose_device("cpu").bfloat16, noise_set(0, count, config.side)
    models = [build(config.denoiser(network)) for network in NETWORKS]
    found = seconds(
        *(
            lambda model=model: sample(model, noises, Sampling("ddim", steps), bfloat16)
            for model in models
        ),
        rounds=rounds,
        each=1,
    )
    return row(
        f"{count} images, {steps} DDIM steps, side {config.side}, on cpu",
        found[0],
        "U-Net",
        found[1],
    )


def matrix_rate(config: Config, rounds: int, edge: int = 8192) -> dict[str, Any]:
    """A compiled training step on the GPU against the time that its products take at the rate of one large bfloat16 product."""
    model = DiT(config.side, config.patch, config.width, config.depth, config.heads)
    step = step_of(model, torch.compile(model), config, "cuda", True)
    left, right = (torch.randn(edge, edge, device="cuda", dtype=torch.bfloat16) for _ in range(2))

    def product() -> None:
        torch.mm(left, right)
        torch.cuda.synchronize()

    mine, large = seconds(step, product, rounds=rounds)
    rate = 2 * edge**3 / large
    ideal = sum(6 * many * n * k * m for many, n, k, m in shapes(config)) / rate
    case = (
        f"training step on {torch.cuda.get_device_name()}, bfloat16, compiled, no skips: width {config.width}, side {config.side}, batch {config.batch}: "
        f"{ideal / mine:.1%} of the matrix rate"
    )
    return row(
        case,
        mine,
        f"its products at {rate / 1e12:.0f} TFLOP/s, the rate of a product of {edge}",
        ideal,
    )


def row(case: str, ours: float, other: str, its: float) -> dict[str, Any]:
    """One line of the result."""
    return {
        "case": case,
        "ours_seconds": round(ours, 5),
        "other": other,
        "other_seconds": round(its, 5),
        "ratio": round(ours / its, 4),
        "peak_mb": peak_mb(),
    }


def main(
    changes: dict[str, Any] | None = None, rounds: int = 7, result: Path = RESULT
) -> list[dict[str, Any]]:
    """Measures at the defaults of assignment 5 with `changes`, prints the rows and writes them to `result`."""
    torch.manual_seed(0)
    config, cuda = dataclasses.replace(Config(), **(changes or {})), torch.cuda.is_available()
    rows = [
        found for device in ("cpu", *["cuda"] * cuda) for found in training(config, device, rounds)
    ]
    rows.append(sampling(config, rounds))
    if cuda:
        full = dataclasses.replace(config, side=64, width=384)
        rows += [
            matrix_rate(dataclasses.replace(full, batch=batch), rounds)
            for batch in (config.batch, 8 * config.batch)
        ]
    for found in rows:
        print(" | ".join(f"{key} {value}" for key, value in found.items()))
    machine = {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": sys.version.split()[0],
        **versions(),
    }
    write_json(result, {"machine": machine, "commit": git_state()["commit"], "rows": rows})
    return rows


if __name__ == "__main__":
    main()
