"""The built-in sample: grey 48 x 48 faces drawn from parameters, deterministic from a seed.

Each of seven expressions is a mean setting of brows, eyes and mouth (after the action units of
Ekman & Friesen 1978, much simplified); every face departs from it, and pose, light, skin, hair and
noise vary independently of the label.

Shape letters: n faces, S = 48 pixels a side. Face coordinates: x to the right, y down, the face
about 1 wide; an image is float32 (n, S, S) with 0 black and 1 white.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SIDE = 48
BLOCK = 500  # faces rendered at once
# One row per expression, in FER-2013's order. Columns: brow height, brow slope (inner end down
# > 0), eye opening, mouth curvature (corners up > 0), mouth opening, mouth width, nose wrinkle.
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
# unequal, as in FER-2013, but no class is tiny
SHARES = np.array([0.14, 0.06, 0.14, 0.22, 0.16, 0.12, 0.16])
# standard deviation of a face about its expression: sets how well a linear model can do
SPREAD = 0.34


def draw_faces(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws n faces; the first k of n and of a larger n are not the same faces.

    Returns images uint8 (n, S, S) and labels int64 (n,) in 0..6.
    """
    rng = np.random.default_rng(seed)
    labels = rng.choice(len(EXPRESSIONS), size=n, p=SHARES)
    images = np.empty((n, SIDE, SIDE), np.uint8)
    for start in range(0, n, BLOCK):
        rows = slice(start, start + BLOCK)
        images[rows] = render(labels[rows], rng)
    return images, labels.astype(np.int64)


@dataclass(frozen=True)
class Variation:
    """Draws what varies from face to face."""

    n: int
    rng: np.random.Generator

    def vary(self, spread: float, centre: float = 0.0) -> np.ndarray:
        """One normal number per face: float32 (n, 1, 1)."""
        drawn = self.rng.standard_normal((self.n, 1, 1))
        return (centre + spread * drawn).astype(np.float32)


def stroke(distance: np.ndarray, half_width: np.ndarray | float, soft: float = 0.035) -> np.ndarray:
    """1 where |distance| is below the half width, 0 beyond it, with a soft edge."""
    beyond = np.abs(distance) - half_width
    return 1 / (1 + np.exp((beyond / soft).clip(-30, 30)))


def radius(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distance from the centre."""
    return np.sqrt(x**2 + y**2)


def paint(image: np.ndarray, mask: np.ndarray, tone: np.ndarray | float) -> np.ndarray:
    """The image with a tone where the mask is 1."""
    return image + mask * (tone - image)


def render(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Images uint8 (n, S, S) of expressions (n,)."""
    faces = Variation(len(labels), rng)
    departures = rng.standard_normal((len(labels), EXPRESSIONS.shape[1]))
    action = EXPRESSIONS[labels] + SPREAD * departures.astype(np.float32)  # (n, 7)
    brow, slope, eye, curve, opening, width, wrinkle = action.T[:, :, None, None]  # (n, 1, 1) each

    x, y = pose(faces)
    image = head(faces, x, y)
    for side in (-1.0, 1.0):
        outward = x * side - 0.30  # away from the nose, from the centre of this eye
        tilt = faces.vary(0.06)
        image = draw_eye(faces, image, outward, y, eye)
        line = brow_line(outward, y, brow, slope, tilt)
        image = draw_brow(faces, image, outward, line)
    image = draw_nose(image, x, y, wrinkle)
    image = draw_mouth(image, x, y, curve, opening, width)
    image = photograph(faces, image, x, y)
    return (255 * image.clip(0, 1)).astype(np.uint8)


def pose(faces: Variation) -> tuple[np.ndarray, np.ndarray]:
    """Face coordinates x and y of every pixel: each head is shifted, turned and scaled."""
    grid = np.arange(SIDE, dtype=np.float32) - (SIDE - 1) / 2
    grid = grid / (SIDE / 2)
    shape = (faces.n, SIDE, SIDE)
    x = np.broadcast_to(grid, shape)
    y = np.broadcast_to(grid[:, None], shape)

    angle = faces.vary(0.06)
    scale = faces.vary(0.04, 1.0).clip(0.8, 1.2)
    x = x - faces.vary(0.035)
    y = y - faces.vary(0.035)
    cosine = np.cos(angle)
    sine = np.sin(angle)
    turned_x = (cosine * x + sine * y) / scale
    turned_y = (cosine * y - sine * x) / scale

    # a small turn of the head to the side
    turned_x = turned_x + faces.vary(0.05) * (1 - turned_x * turned_x)
    return turned_x, turned_y


def head(faces: Variation, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Backdrop, skin and hair."""
    skin = faces.vary(0.10, 0.66)
    hair = faces.vary(0.10, 0.25)
    backdrop = faces.vary(0.15, 0.5)
    jaw = faces.vary(0.05, 0.72)
    hairline = faces.vary(0.05, 0.35)
    inside = stroke(radius(x / jaw, (y - 0.02) / 0.95), 1.0, 0.03)
    image = paint(backdrop, inside, skin)
    return paint(image, stroke(y + 1.05, hairline, 0.04) * inside, hair)


def draw_eye(
    faces: Variation, image: np.ndarray, u: np.ndarray, y: np.ndarray, opening: np.ndarray
) -> np.ndarray:
    """The white, the iris and the upper lid's line; u is x from the eye's centre outwards."""
    v = y + 0.22
    lid = (0.085 + 0.045 * opening).clip(0.015, 0.2)
    white = stroke(radius(u / 0.15, v / lid), 1.0, 0.12)
    image = paint(image, white, 0.9)

    gaze = faces.vary(0.015)
    iris = white * stroke(radius(u - gaze, v), 0.065, 0.02)
    image = paint(image, iris, 0.12)

    arch = lid * np.sqrt((1 - (u / 0.17) ** 2).clip(0))
    return image - 0.35 * stroke(v + arch, 0.012) * stroke(u, 0.16, 0.02)


def brow_line(
    u: np.ndarray, y: np.ndarray, height: np.ndarray, slope: np.ndarray, tilt: np.ndarray
) -> np.ndarray:
    """Distance below a brow, u being x from the eye's centre outwards."""
    line = y + 0.42 + 0.09 * height + 0.05 * tilt
    line = line - 0.22 * slope * (0.10 - u)
    return line + 0.5 * u * u


def draw_brow(faces: Variation, image: np.ndarray, u: np.ndarray, line: np.ndarray) -> np.ndarray:
    """The brow, along `line`."""
    dark = faces.vary(0.08, 0.42)
    thick = faces.vary(0.006, 0.03)
    return image - dark * stroke(line, thick) * stroke(u - 0.01, 0.17, 0.02)


def draw_nose(image: np.ndarray, x: np.ndarray, y: np.ndarray, wrinkle: np.ndarray) -> np.ndarray:
    """Nostrils, the bridge, and the folds of a wrinkled nose."""
    image = image - 0.22 * stroke(y - 0.22, 0.025) * stroke(x, 0.09, 0.02)
    image = image - 0.10 * stroke(x, 0.03) * stroke(y - 0.02, 0.2, 0.03)
    side = np.abs(x) - 0.22 - 0.25 * (y - 0.2)
    fold = stroke(side, 0.02) * stroke(y - 0.25, 0.13, 0.03)
    return image - (0.10 * wrinkle).clip(-0.05, 0.3) * fold


def draw_mouth(
    image: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    curve: np.ndarray,
    opening: np.ndarray,
    width: np.ndarray,
) -> np.ndarray:
    """Lips, the open mouth and the teeth in it."""
    half = (0.26 + 0.06 * width).clip(0.12, 0.42)
    bend = (x / half) ** 2
    middle = y - 0.52 + 0.09 * curve * (bend - 0.5)
    gap = (0.018 + 0.09 * opening).clip(0.006, 0.25)
    gap = gap * np.sqrt((1 - bend).clip(0))
    inside = stroke(x, half, 0.02)

    lips = stroke(middle, gap + 0.045)
    open_mouth = stroke(middle, gap, 0.02)
    teeth = stroke(middle + 0.5 * gap, 0.3 * gap, 0.015)
    image = image - 0.30 * inside * lips
    image = image - 0.30 * inside * open_mouth * (gap > 0.03)
    return image + 0.35 * inside * teeth * (gap > 0.06)


def photograph(faces: Variation, image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Light from one side, contrast, brightness and noise."""
    across = faces.vary(0.12)
    down = faces.vary(0.10)
    light = across * x + down * y
    contrast = faces.vary(0.10, 0.95)
    brightness = faces.vary(0.05)
    image = contrast * image + light * (0.4 + image) + brightness
    grain = faces.vary(0.01, 0.03).clip(0.005)
    noise = faces.rng.standard_normal(image.shape).astype(np.float32)
    return image + grain * noise
