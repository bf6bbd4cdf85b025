"""The course's protocol: one window, trained and scored on itself, and the steps after it.

Shape letters: T steps of the window, H horizon, S series.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from common.results import Row

Window = Literal["trained", "next"]  # the end of the trained window, or the steps after it
WINDOWS: dict[Window, str] = {"trained": "trained window", "next": "next steps"}


def window_label(variant: str, window: Window) -> str:
    """The variant of a row: how the model was used, and on which window it was scored."""
    return f"{variant}, {WINDOWS[window]}" if variant else WINDOWS[window]


@dataclasses.dataclass(frozen=True)
class CourseForecast:
    """Prices (H, S) that a model of `params` trained weights forecast.

    `window` says whether they are forecasts of the end of the trained window or of the steps
    after it; `variant` (may be empty) how the model was used.
    """

    model: str
    variant: str
    window: Window
    values: np.ndarray
    params: int

    @property
    def label(self) -> str:
        """The variant of the forecast's row."""
        return window_label(self.variant, self.window)


@dataclasses.dataclass(frozen=True)
class CourseWindow:
    """The window's prices (T, S), the prices that came after it (H, S) and their forecasts."""

    seen: np.ndarray
    coming: np.ndarray
    forecasts: Sequence[CourseForecast]

    @property
    def horizon(self) -> int:
        """Steps forecast ahead."""
        return len(self.coming)

    def truth(self, window: Window) -> np.ndarray:
        """The prices (H, S) that forecasts of a window are scored against."""
        return self.coming if window == "next" else self.seen[-self.horizon :]

    def no_change(self, window: Window) -> np.ndarray:
        """The last price before those of `truth`, repeated (H, S)."""
        last = self.seen[-1] if window == "next" else self.seen[-self.horizon - 1]  # (S,)
        return np.tile(last, (self.horizon, 1))


def assigned_rows(course: CourseWindow) -> list[Row]:
    """The course's score, mean squared error in prices, of every forecast and of no change."""
    no_changes = [
        CourseForecast("no change", "", window, course.no_change(window), 0) for window in WINDOWS
    ]
    return [
        Row(
            protocol="as-assigned",
            split="test" if forecast.window == "next" else "train",
            model=forecast.model,
            variant=forecast.label,
            metric="mse",
            value=float(((forecast.values - course.truth(forecast.window)) ** 2).mean()),
            n_seeds=1,
            params=forecast.params,
        )
        for forecast in [*course.forecasts, *no_changes]
    ]


def course_arrays(course: CourseWindow) -> dict[str, np.ndarray]:
    """The prices of the window and of every forecast, under their names in predictions.npz.

    A name has the model where there is more than one: "assigned | Transformer, log, next steps".
    """
    arrays = {"assigned | seen": course.seen, "assigned | coming": course.coming}
    several = len({forecast.model for forecast in course.forecasts}) > 1
    for forecast in course.forecasts:
        name = f"{forecast.model}, {forecast.label}" if several else forecast.label
        arrays[f"assigned | {name}"] = forecast.values
    return arrays
