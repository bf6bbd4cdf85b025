"""Procedurally drawn flowers: a built-in sample with ten kinds, at any size."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

OVER = 4  # drawn this much larger, then reduced: smooth edges
# petals, rings, length and breadth of a petal (of the radius), its colour, the centre's colour
KINDS = (
    (5, 1, 1.0, 0.55, (235, 120, 170), (250, 210, 60)),
    (6, 1, 1.0, 0.42, (245, 245, 240), (245, 190, 30)),
    (8, 2, 1.0, 0.34, (250, 200, 40), (120, 70, 20)),
    (12, 2, 1.0, 0.22, (245, 150, 30), (90, 50, 20)),
    (4, 1, 1.0, 0.75, (215, 40, 40), (30, 20, 25)),
    (5, 1, 0.9, 0.65, (110, 100, 220), (240, 240, 220)),
    (16, 3, 1.0, 0.20, (230, 70, 120), (250, 220, 90)),
    (3, 2, 1.0, 0.60, (160, 80, 190), (250, 240, 150)),
    (7, 1, 1.0, 0.40, (120, 170, 240), (250, 250, 250)),
    (10, 3, 1.0, 0.30, (240, 90, 60), (200, 180, 40)),
)


def draw_flowers(count: int, side: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(images uint8 (count, side, side, 3), kinds int64 (count,) in 0..9); image i depends on (seed, i) alone."""
    images, kinds = np.empty((count, side, side, 3), np.uint8), np.arange(count) % len(KINDS)
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        images[number] = np.asarray(_flower(KINDS[kinds[number]], side * OVER, rng).reduce(OVER))
    return images, kinds.astype(np.int64)


def _flower(kind: tuple, size: int, rng: np.random.Generator) -> Image.Image:
    petals, rings, length, breadth, colour, middle = kind
    leaves = np.clip(rng.normal((45, 85, 40), (15, 25, 15)), 0, 255)
    ground = Image.fromarray(
        np.clip(leaves + rng.normal(0, 25, (5, 5, 1)) + rng.normal(0, 8, (5, 5, 3)), 0, 255).astype(
            np.uint8
        )
    ).resize((size, size), Image.Resampling.BICUBIC)
    picture = ImageDraw.Draw(ground)
    for _ in range(rng.integers(3, 8)):  # blades and stems
        x, y, lean = rng.uniform(0, size), rng.uniform(size / 3, size), rng.normal(0, size / 5)
        shade = tuple(int(v) for v in np.clip(leaves + rng.normal(0, 25), 0, 255))
        picture.line(
            [(x, size), (x + lean, y)],
            fill=shade,
            width=max(int(rng.uniform(0.01, 0.04) * size), 1),
        )
    ground = ground.filter(ImageFilter.GaussianBlur(size / 60))
    picture = ImageDraw.Draw(ground)
    centre, radius = rng.normal(size / 2, size / 16, 2), size * rng.uniform(0.28, 0.45)
    squash, tilt, turn = (
        rng.uniform(0.75, 1.0),
        rng.uniform(0, math.pi),
        rng.uniform(0, 2 * math.pi),
    )
    hue = rng.normal(0, 14, 3)

    def place(points: np.ndarray) -> list[tuple[float, float]]:
        """The flower's plane seen from a slant."""
        c, s = math.cos(tilt), math.sin(tilt)
        seen = points @ np.array([[c, -s], [s, c]]).T * (1, squash) @ np.array([[c, s], [-s, c]]).T
        return [(float(x), float(y)) for x, y in seen + centre]

    around = np.linspace(0, 2 * math.pi, 24, endpoint=False)
    for ring in range(rings):
        reach = radius * (1 - 0.28 * ring)
        for petal in range(petals):
            angle = turn + 2 * math.pi * (petal + 0.5 * (ring % 2)) / petals + rng.normal(0, 0.06)
            shade = tuple(
                int(v)
                for v in np.clip(
                    np.array(colour) + hue + rng.normal(0, 10) - 18 * (petal % 2) + 10 * ring,
                    0,
                    255,
                )
            )
            oval = np.stack(
                [
                    reach * (0.5 + 0.5 * length * np.cos(around)),
                    reach * breadth * 0.5 * np.sin(around),
                ],
                1,
            )
            c, s = math.cos(angle), math.sin(angle)
            picture.polygon(place(oval @ np.array([[c, s], [-s, c]])), fill=shade)
    disc = radius * rng.uniform(0.16, 0.24)
    picture.polygon(place(disc * np.stack([np.cos(around), np.sin(around)], 1)), fill=middle)
    return ground
