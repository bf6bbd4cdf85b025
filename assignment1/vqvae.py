"""VQ-VAE with an EMA codebook: 48 x 48 grey faces <-> 12 x 12 code indices.

van den Oord et al. 2017, "Neural discrete representation learning", arXiv 1711.00937.

Shape letters: N images, B batch, H W image side, h w = H/4 W/4 code side, d code dimension,
m codebook size, P = B h w vectors. Pixels are floats in [0, 1]; inside the networks they are
standardised by the training part's mean and deviation.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from common.cli import InputError
from common.files import atomic_path
from common.run import progress
from common.weights import count_parameters

IMAGES_AT_ONCE = 256


class ResidualBlock(nn.Module):
    """x + W2 relu(W1 relu(x)), 3 x 3 convolutions.

    W2 starts at zero, so a deep stack starts as the identity.
    """

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class Codebook(nn.Module):
    """m vectors of d numbers, moved by exponential averages of the vectors they stand for.

    N_i <- gamma N_i + (1 - gamma) n_i,  s_i <- gamma s_i + (1 - gamma) sum_j z_ij,  e_i = s_i / N_i
    (paper, appendix A.1, eq. 6-8). A code whose average count N_i falls below `dead_below` starts
    again at a vector of the batch.
    """

    vectors: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, m: int, d: int, decay: float = 0.99, dead_below: float = 0.5):
        super().__init__()
        self.decay = decay
        self.dead_below = dead_below
        self.register_buffer("vectors", torch.zeros(m, d))
        self.register_buffer("counts", torch.zeros(m))
        self.register_buffer("sums", torch.zeros(m, d))

    def nearest(self, z: Tensor) -> Tensor:
        """Index of the closest code (Euclidean) of each row of z (P, d): int64 (P,) (eq. 1)."""
        return (self.vectors.square().sum(1) - 2 * z @ self.vectors.T).argmin(1)

    @torch.no_grad()
    def start(self, z: Tensor, rng: np.random.Generator, rounds: int = 10) -> None:
        """Places the codes by a few rounds of k-means on z (P, d)."""
        self.vectors.copy_(z[self._draw(len(z), len(self.vectors), rng)])
        for _ in range(rounds):
            counts, sums = self._gather(z, self.nearest(z))
            empty = counts == 0
            self.vectors.copy_(sums / counts.clamp(min=1)[:, None])
            self.vectors[empty] = z[self._draw(len(z), int(empty.sum()), rng)]
        self.counts.fill_(len(z) / len(self.vectors))
        self.sums.copy_(self.vectors * self.counts[:, None])

    @torch.no_grad()
    def update(self, z: Tensor, indices: Tensor, rng: np.random.Generator) -> None:
        """One step of the averages with a batch z (P, d) and its codes (P,); revives dead codes."""
        counts, sums = self._gather(z, indices)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)

        dead = self.counts < self.dead_below
        number = int(dead.sum())
        if number:
            expected = len(z) / len(self.vectors)
            self.counts[dead] = expected
            self.sums[dead] = expected * z[self._draw(len(z), number, rng)]
        self.vectors.copy_(self.sums / self.counts[:, None])

    def _gather(self, z: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """How many rows of z each code stands for (m,), and their sums (m, d)."""
        counts = torch.bincount(indices, minlength=len(self.vectors)).to(z.dtype)
        sums = torch.zeros_like(self.sums).index_add_(0, indices, z)
        return counts, sums

    def _draw(self, rows: int, number: int, rng: np.random.Generator) -> Tensor:
        """`number` random row indices, with replacement."""
        return torch.from_numpy(rng.integers(rows, size=number)).to(self.vectors.device)


class Reconstruction(NamedTuple):
    """A batch of standardised pixels (B, 1, H, W), what the codes say of it, and what they cost.

    decoded float32 (B, 1, H, W); quantised (B, d, h, w), with the straight-through gradient;
    commitment (), the mean squared distance from the codes.
    """

    pixels: Tensor
    decoded: Tensor
    quantised: Tensor
    commitment: Tensor


class VQVAE(nn.Module):
    """Convolutional encoder and decoder around a codebook.

    Sub-pixel resampling keeps most of the work at 12 x 12.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        codes: int = 256,
        code_dim: int = 128,
        width: int = 96,
        fine_width: int = 32,
        encoder_blocks: int = 2,
        decoder_blocks: int = 3,
    ):
        super().__init__()
        self.sizes = {
            "codes": codes,
            "code_dim": code_dim,
            "width": width,
            "fine_width": fine_width,
            "encoder_blocks": encoder_blocks,
            "decoder_blocks": decoder_blocks,
        }
        self.register_buffer("mean", torch.tensor(0.5))
        self.register_buffer("std", torch.tensor(0.25))
        self.codebook = Codebook(codes, code_dim)
        self.encoder = nn.Sequential(  # (B, 1, H, W)
            nn.PixelUnshuffle(2),  # (B, 4, H/2, W/2)
            nn.Conv2d(4, fine_width, 3, padding=1),
            ResidualBlock(fine_width),
            nn.ReLU(),
            nn.Conv2d(fine_width, width, 4, stride=2, padding=1),  # (B, width, h, w)
            *(ResidualBlock(width) for _ in range(encoder_blocks)),
            nn.ReLU(),
            nn.Conv2d(width, code_dim, 1),  # (B, d, h, w)
        )
        self.decoder = nn.Sequential(  # (B, d, h, w)
            nn.Conv2d(code_dim, width, 3, padding=1),
            *(ResidualBlock(width) for _ in range(decoder_blocks)),
            nn.ReLU(),
            nn.Conv2d(width, 4 * fine_width, 3, padding=1),
            nn.PixelShuffle(2),  # (B, fine_width, H/2, W/2)
            ResidualBlock(fine_width),
            nn.ReLU(),
            nn.Conv2d(fine_width, 4, 3, padding=1),
            nn.PixelShuffle(2),  # (B, 1, H, W)
        )

    @property
    def parameters_and_codes(self) -> int:
        """How many numbers were learned: by gradient descent, and the codebook."""
        return count_parameters(self) + self.codebook.vectors.numel()

    def losses(
        self, pixels: Tensor, rng: np.random.Generator, quantise: bool, autocast: torch.autocast
    ) -> tuple[Tensor, Tensor]:
        """Reconstruction and commitment terms of a batch (B, 1, H, W), both means (eq. 3).

        As `reconstruct` it moves the codebook.
        """
        batch = self.reconstruct(pixels, rng, quantise, autocast)
        return F.mse_loss(batch.decoded, batch.pixels), batch.commitment

    def reconstruct(
        self, pixels: Tensor, rng: np.random.Generator, quantise: bool, autocast: torch.autocast
    ) -> Reconstruction:
        """A batch (B, 1, H, W) in 0..1 through encoder, codebook and decoder, for any objective.

        Moves the codebook. With quantise=False the codes are skipped: a short warm-up as a plain
        autoencoder gives k-means something to start from.
        """
        x = (pixels - self.mean) / self.std
        with autocast:
            z = self.encoder(x)  # (B, d, h, w)
        h, w = z.shape[2:]
        z = rearrange(z.float(), "b d h w -> (b h w) d")  # (P, d)

        q = z
        commitment = z.new_zeros(())
        if quantise:
            if not self.codebook.counts.any():
                self.codebook.start(z.detach(), rng)
            indices = self.codebook.nearest(z.detach())  # (P,)
            nearest = self.codebook.vectors[indices]  # (P, d)
            commitment = F.mse_loss(z, nearest)
            q = z + (nearest - z).detach()  # straight-through gradient
            self.codebook.update(z.detach(), indices, rng)

        q = rearrange(q, "(b h w) d -> b d h w", h=h, w=w)
        with autocast:
            y = self.decoder(q)  # (B, 1, H, W)
        return Reconstruction(x, y.float(), q, commitment)

    @torch.no_grad()
    def encode(self, images: np.ndarray) -> np.ndarray:
        """Faces uint8 (N, H, W) -> code indices uint8 (N, h, w).

        In float32, whatever the training precision was.
        """
        maps = []
        for start in progress(range(0, len(images), IMAGES_AT_ONCE), "encoding"):
            block = np.ascontiguousarray(images[start : start + IMAGES_AT_ONCE])
            pixels = torch.from_numpy(block).to(self.mean.device)[:, None] / 255  # (B, 1, H, W)
            z = self.encoder((pixels - self.mean) / self.std)  # (B, d, h, w)
            h, w = z.shape[2:]
            indices = self.codebook.nearest(rearrange(z, "b d h w -> (b h w) d"))  # (P,)
            indices = rearrange(indices, "(b h w) -> b h w", h=h, w=w)
            maps.append(indices.to(torch.uint8).cpu().numpy())
        return np.concatenate(maps)

    @torch.no_grad()
    def decode(self, codemaps: np.ndarray) -> np.ndarray:
        """Code indices uint8 (N, h, w) -> faces float32 (N, H, W) in [0, 1]."""
        images = []
        for start in progress(range(0, len(codemaps), IMAGES_AT_ONCE), "decoding"):
            block = codemaps[start : start + IMAGES_AT_ONCE].astype(np.int64)
            indices = torch.from_numpy(block).to(self.mean.device)
            vectors = self.codebook.vectors[indices]  # (B, h, w, d)
            y = self.decoder(rearrange(vectors, "b h w d -> b d h w"))  # (B, 1, H, W)
            pixels = (y * self.std + self.mean).clamp(0, 1)
            images.append(pixels[:, 0].cpu().numpy())
        return np.concatenate(images)

    def save(self, path: Path) -> None:
        """Weights, codebook and sizes as one safetensors file."""
        tensors = {
            name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()
        }
        metadata = {name: str(size) for name, size in self.sizes.items()}
        with atomic_path(path) as temporary:
            temporary.write_bytes(save(tensors, metadata=metadata))


def load_vqvae(path: Path, device: str = "cpu") -> VQVAE:
    """Reads what VQVAE.save wrote. Raises InputError when it is missing or something else."""
    try:
        with safe_open(path, framework="pt", device=device) as file:
            sizes = {name: int(size) for name, size in (file.metadata() or {}).items()}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        model = VQVAE(**sizes).to(device)
        model.load_state_dict(weights)
    except Exception as error:
        raise InputError(f"{path}: not a VQ-VAE that assignment1 saved ({error})") from None
    return model.eval()


def psnr(images: np.ndarray, reconstructions: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio of each image in dB, 10 log10(1 / MSE).

    Images are uint8 (N, H, W), reconstructions floats in [0, 1].
    """
    error = (images / np.float32(255) - reconstructions).reshape(len(images), -1)
    mse = np.square(error, dtype=np.float64).mean(1)  # (N,)
    return -10 * np.log10(np.maximum(mse, 1e-10))
