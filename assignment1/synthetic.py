"""The built-in sample: grey 48 x 48 faces drawn from parameters, seven expressions, deterministic from a seed.

Each expression is a mean setting of brows, eyes and mouth (after the action units of Ekman & Friesen 1978, much
simplified); every face departs from it, and pose, light, skin, hair and noise vary independently of the label.
"""

from __future__ import annotations

import numpy as np

SIDE = 48
# One row an expression, in FER-2013's order. Columns: brow height, brow slope (inner end down > 0), eye opening,
# mouth curvature (corners up > 0), mouth opening, mouth width, nose wrinkle.
EXPRESSIONS = np.array(
    [
        [-0.5, 1.0, -0.1, -0.4, 0.1, -0.2, 0.3],  # angry
        [-0.3, 0.5, -0.5, -0.6, 0.2, 0.0, 1.0],  # disgust
        [0.6, -0.7, 0.7, -0.3, 0.5, 0.2, 0.0],  # fear
        [0.1, 0.0, -0.2, 1.0, 0.4, 0.6, 0.2],  # happy
        [0.1, -0.8, -0.4, -0.8, 0.0, -0.1, 0.0],  # sad
        [0.9, 0.0, 0.9, 0.0, 1.0, -0.5, 0.0],  # surprise
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],  # neutral
    ],
    dtype=np.float32,
)
SHARES = np.array(
    [0.14, 0.06, 0.14, 0.22, 0.16, 0.12, 0.16]
)  # unequal, as in FER-2013, but no class is tiny
SPREAD = (
    0.34  # standard deviation of a face about its expression: sets how well a linear model can do
)


def draw_faces(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws n faces; the first k of n and of a larger n are not the same faces.

    Returns images uint8 (n, 48, 48) and labels int64 (n,) in 0..6.
    """
    rng = np.random.default_rng(seed)
    labels = rng.choice(len(EXPRESSIONS), size=n, p=SHARES)
    images = np.empty((n, SIDE, SIDE), np.uint8)
    for start in range(0, n, 500):
        block = labels[start : start + 500]
        images[start : start + 500] = _render(block, rng)
    return images, labels.astype(np.int64)


def _render(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    n = len(labels)

    def column(scale: float, centre: float = 0.0) -> np.ndarray:
        return (centre + scale * rng.standard_normal((n, 1, 1))).astype(np.float32)

    action = EXPRESSIONS[labels] + SPREAD * rng.standard_normal((n, EXPRESSIONS.shape[1])).astype(
        np.float32
    )
    brow, slope, eye, curve, opening, width, wrinkle = (
        action[:, k, None, None] for k in range(action.shape[1])
    )

    # face coordinates: x to the right, y down, the face about 1 wide; each head is shifted, turned and scaled
    grid = (np.arange(SIDE, dtype=np.float32) - (SIDE - 1) / 2) / (SIDE / 2)
    x, y = np.broadcast_to(grid, (n, SIDE, SIDE)), np.broadcast_to(grid[:, None], (n, SIDE, SIDE))
    angle, scale = column(0.06), column(0.04, 1.0).clip(0.8, 1.2)
    x, y = x - column(0.035), y - column(0.035)
    x, y = (
        (np.cos(angle) * x + np.sin(angle) * y) / scale,
        (np.cos(angle) * y - np.sin(angle) * x) / scale,
    )
    x = x + column(0.05) * (1 - x * x)  # a small turn of the head to the side

    def stroke(
        distance: np.ndarray, half_width: np.ndarray | float, soft: float = 0.035
    ) -> np.ndarray:
        return 1 / (1 + np.exp(((np.abs(distance) - half_width) / soft).clip(-30, 30)))

    skin, hair, backdrop = column(0.10, 0.66), column(0.10, 0.25), column(0.15, 0.5)
    jaw = column(0.05, 0.72)
    head = stroke(np.sqrt((x / jaw) ** 2 + ((y - 0.02) / 0.95) ** 2), 1.0, 0.03)
    image = backdrop + head * (skin - backdrop)
    image = image + stroke(y + 1.05, column(0.05, 0.35), 0.04) * head * (hair - image)

    for side in (-1.0, 1.0):
        u = x * side - 0.30  # away from the nose, from the centre of this eye
        tilt = column(0.06)
        v = y + 0.22
        lid = (0.085 + 0.045 * eye).clip(0.015, 0.2)
        white = stroke(np.sqrt((u / 0.15) ** 2 + (v / lid) ** 2), 1.0, 0.12)
        image = image + white * (0.9 - image)
        iris = white * stroke(np.sqrt((u - column(0.015)) ** 2 + v**2), 0.065, 0.02)
        image = image + iris * (0.12 - image)
        image = image - 0.35 * stroke(
            v + lid * np.sqrt((1 - (u / 0.17) ** 2).clip(0)), 0.012
        ) * stroke(u, 0.16, 0.02)
        line = y + 0.42 + 0.09 * brow + 0.05 * tilt - 0.22 * slope * (0.10 - u) + 0.5 * u * u
        image = image - column(0.08, 0.42) * stroke(line, column(0.006, 0.03)) * stroke(
            u - 0.01, 0.17, 0.02
        )

    image = image - 0.22 * stroke(y - 0.22, 0.025) * stroke(x, 0.09, 0.02)  # nostrils
    image = image - 0.10 * stroke(x, 0.03) * stroke(y - 0.02, 0.2, 0.03)
    fold = stroke(np.abs(x) - 0.22 - 0.25 * (y - 0.2), 0.02) * stroke(y - 0.25, 0.13, 0.03)
    image = image - (0.10 * wrinkle).clip(-0.05, 0.3) * fold
    half = (0.26 + 0.06 * width).clip(0.12, 0.42)
    bend = (x / half) ** 2
    middle = y - 0.52 + 0.09 * curve * (bend - 0.5)
    gap = (0.018 + 0.09 * opening).clip(0.006, 0.25) * np.sqrt((1 - bend).clip(0))
    inside = stroke(x, half, 0.02)
    image = image - 0.30 * inside * stroke(middle, gap + 0.045)  # lips
    image = image - 0.30 * inside * stroke(middle, gap, 0.02) * (gap > 0.03)  # open mouth
    image = image + 0.35 * inside * stroke(middle + 0.5 * gap, 0.3 * gap, 0.015) * (
        gap > 0.06
    )  # teeth

    light = column(0.12) * x + column(0.10) * y
    image = column(0.10, 0.95) * image + light * (0.4 + image) + column(0.05)
    image = image + column(0.01, 0.03).clip(0.005) * rng.standard_normal((n, SIDE, SIDE)).astype(
        np.float32
    )
    return (255 * image.clip(0, 1)).astype(np.uint8)
