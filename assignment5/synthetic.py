"""Procedurally drawn flowers: a built-in sample with ten kinds, at any size."""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Colour: TypeAlias = tuple[int, int, int]  # red, green, blue in 0..255
OVERSAMPLING = 4  # drawn this much larger, then reduced: smooth edges
OUTLINE = np.linspace(0, 2 * math.pi, 24, endpoint=False)  # angles around a petal or disc


class Kind(NamedTuple):
    """What the flowers of one kind have in common; lengths as shares of the radius."""

    petals: int
    rings: int
    length: float
    breadth: float
    colour: Colour
    centre: Colour


KINDS = (
    Kind(5, 1, 1.0, 0.55, (235, 120, 170), (250, 210, 60)),
    Kind(6, 1, 1.0, 0.42, (245, 245, 240), (245, 190, 30)),
    Kind(8, 2, 1.0, 0.34, (250, 200, 40), (120, 70, 20)),
    Kind(12, 2, 1.0, 0.22, (245, 150, 30), (90, 50, 20)),
    Kind(4, 1, 1.0, 0.75, (215, 40, 40), (30, 20, 25)),
    Kind(5, 1, 0.9, 0.65, (110, 100, 220), (240, 240, 220)),
    Kind(16, 3, 1.0, 0.20, (230, 70, 120), (250, 220, 90)),
    Kind(3, 2, 1.0, 0.60, (160, 80, 190), (250, 240, 150)),
    Kind(7, 1, 1.0, 0.40, (120, 170, 240), (250, 250, 250)),
    Kind(10, 3, 1.0, 0.30, (240, 90, 60), (200, 180, 40)),
)


def draw_flowers(count: int, side: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(images uint8 (count, side, side, 3), kinds int64 (count,) in 0..9).

    Image i depends on (seed, i) alone.
    """
    images = np.empty((count, side, side, 3), np.uint8)
    kinds = np.arange(count) % len(KINDS)
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        large = draw_flower(KINDS[kinds[number]], side * OVERSAMPLING, rng)
        images[number] = np.asarray(large.reduce(OVERSAMPLING))
    return images, kinds.astype(np.int64)


def draw_flower(kind: Kind, size: int, rng: np.random.Generator) -> Image.Image:
    """One flower of a kind before leaves and stems: RGB, size x size."""
    picture = draw_leaves(size, rng)
    canvas = ImageDraw.Draw(picture)
    centre = rng.normal(size / 2, size / 16, 2)
    radius = size * rng.uniform(0.28, 0.45)
    squash = rng.uniform(0.75, 1.0)
    tilt = rng.uniform(0, math.pi)
    turn = rng.uniform(0, 2 * math.pi)
    hue = rng.normal(0, 14, 3)

    def polygon(outline: np.ndarray, fill: Colour) -> None:
        """Fills an outline (P, 2) in the flower's plane, which is seen from a slant."""
        seen = outline @ rotation(tilt) * (1, squash) @ rotation(-tilt)
        canvas.polygon([(float(x), float(y)) for x, y in seen + centre], fill=fill)

    # petals, ring by ring
    for ring in range(kind.rings):
        oval = petal_outline(kind, radius * (1 - 0.28 * ring))
        for petal in range(kind.petals):
            place = petal + 0.5 * (ring % 2)  # every other ring between the petals of the last
            angle = turn + 2 * math.pi * place / kind.petals + rng.normal(0, 0.06)
            shade = np.array(kind.colour) + hue + rng.normal(0, 10) - 18 * (petal % 2) + 10 * ring
            polygon(oval @ rotation(angle), to_colour(shade))

    # the disc in the middle
    disc = radius * rng.uniform(0.16, 0.24)
    polygon(disc * np.stack([np.cos(OUTLINE), np.sin(OUTLINE)], 1), kind.centre)
    return picture


def draw_leaves(size: int, rng: np.random.Generator) -> Image.Image:
    """The ground: blurred green patches, blades and stems."""
    leaves = np.clip(rng.normal((45, 85, 40), (15, 25, 15)), 0, 255)  # mean colour
    patches = leaves + rng.normal(0, 25, (5, 5, 1)) + rng.normal(0, 8, (5, 5, 3))
    small = Image.fromarray(np.clip(patches, 0, 255).astype(np.uint8))
    ground = small.resize((size, size), Image.Resampling.BICUBIC)
    canvas = ImageDraw.Draw(ground)
    for _ in range(rng.integers(3, 8)):
        x = rng.uniform(0, size)
        top = rng.uniform(size / 3, size)
        lean = rng.normal(0, size / 5)
        shade = to_colour(leaves + rng.normal(0, 25))
        width = max(int(rng.uniform(0.01, 0.04) * size), 1)
        canvas.line([(x, size), (x + lean, top)], fill=shade, width=width)
    return ground.filter(ImageFilter.GaussianBlur(size / 60))


def petal_outline(kind: Kind, reach: float) -> np.ndarray:
    """Outline (24, 2) of a petal along the first axis, from the centre to `reach`."""
    along = reach * (0.5 + 0.5 * kind.length * np.cos(OUTLINE))
    across = reach * kind.breadth * 0.5 * np.sin(OUTLINE)
    return np.stack([along, across], 1)


def rotation(angle: float) -> np.ndarray:
    """Matrix (2, 2) that turns row vectors by an angle in radians."""
    cosine = math.cos(angle)
    sine = math.sin(angle)
    return np.array([[cosine, sine], [-sine, cosine]])


def to_colour(values: np.ndarray) -> Colour:
    """Three numbers clipped to 0..255 and rounded down."""
    red, green, blue = (int(value) for value in np.clip(values, 0, 255))
    return red, green, blue
