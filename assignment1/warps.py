"""Turned, scaled and shifted copies of a picture, as further views of the face it shows.

Shape letters: N faces, V copies, P places of a code map, S side of a picture.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch
import torch.nn.functional as F

COPIES = 4  # of each decoded picture
TURN = np.pi / 18  # largest turn, in radians
SCALE = 0.1  # largest logarithm of the scale
SHIFT = 2.5 / 24  # largest shift, in halves of the picture's side
ROWS_AT_ONCE = 512


def warped(pictures: np.ndarray, codes: np.ndarray, copies: int = COPIES) -> np.ndarray:
    """Randomly warped copies uint8 (N, V, S, S) of pictures uint8 (N, S, S).

    The warps of a face are drawn from its codes uint8 (N, P), so that they depend on nothing else:
    the prediction for a face is the same alone and among others. Pixels beyond the edge are
    mirrored.
    """
    draws = warp_draws(codes, copies)  # (N, V, 4)
    result = np.empty((len(pictures), copies, *pictures.shape[1:]), np.uint8)
    for start in range(0, len(pictures), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        pixels = torch.from_numpy(pictures[rows]).float()[:, None]  # (n, 1, S, S)
        for copy in range(copies):
            matrices = torch.from_numpy(affine(draws[rows, copy]))  # (n, 2, 3)
            grid = F.affine_grid(matrices, list(pixels.shape), align_corners=False)
            moved = F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)
            result[rows, copy] = moved[:, 0].round().clamp(0, 255).byte().numpy()
    return result


def warp_draws(codes: np.ndarray, copies: int) -> np.ndarray:
    """Turn, scale and shifts of every copy, uniform in [-1, 1): float32 (N, V, 4)."""
    draws = np.empty((len(codes), copies, 4), np.float32)
    for face, row in enumerate(np.ascontiguousarray(codes)):
        rng = np.random.default_rng(zlib.crc32(row.tobytes()))
        draws[face] = rng.uniform(-1, 1, (copies, 4))
    return draws


def affine(draws: np.ndarray) -> np.ndarray:
    """The matrices float32 (n, 2, 3) of draws (n, 4), from a copy's places to the picture's."""
    angle = TURN * draws[:, 0]
    scale = np.exp(SCALE * draws[:, 1])
    cosine = scale * np.cos(angle)
    sine = scale * np.sin(angle)
    horizontal = SHIFT * draws[:, 2]
    vertical = SHIFT * draws[:, 3]
    rows = [[cosine, -sine, horizontal], [sine, cosine, vertical]]
    return np.array(rows, np.float32).transpose(2, 0, 1)
