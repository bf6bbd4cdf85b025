"""Which origins of a user's prices may be scored: not those that the models were made with.

Shape letters: T times, N origins, H horizon, S series, Q quantile levels.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from common.cli import InputError
from common.files import JsonObject
from common.forecasting.history import Prices
from common.forecasting.windows import Windows
from common.run import SavedRun

SAME_PRICE = 1e-4  # relative: a table that was written with five digits is still the same


@dataclasses.dataclass(frozen=True)
class Used:
    """The rows of a history at which training and validation forecast, bool (T,) each."""

    trained: np.ndarray
    stopped: np.ndarray
    told_by: str
    """how the rows were told: by time and price, or by the dates of the run's parts alone"""

    @classmethod
    def by_rows(cls, own: Windows, prices: Prices) -> Used:
        """The rows of `prices` with the time and the prices of a row of the run's own history."""
        place = np.searchsorted(own.prices.times, prices.times)  # (T,): in the run's history
        place = np.minimum(place, len(own.prices.times) - 1)
        same = (own.prices.times[place] == prices.times) & np.isclose(
            own.prices.values[place], prices.values, rtol=SAME_PRICE, atol=0
        ).all(1)
        return cls(
            trained=same & np.isin(place, own.parts.train),
            stopped=same & np.isin(place, own.parts.validation),
            told_by="time and price",
        )

    @classmethod
    def by_dates(cls, run: SavedRun, prices: Prices) -> Used:
        """The rows of `prices` between the dates of the run's parts.

        Raises InputError where run.json holds no such dates.
        """
        used = {}
        for part in ("train", "validation"):
            try:
                dates = run.notes["parts"][part]
                first, last = (np.datetime64(dates[end], "ns") for end in ("first", "last"))
            except (KeyError, TypeError, ValueError):
                raise InputError(
                    f"{run.folder / 'run.json'} does not tell the dates of its {part} part, "
                    "so that new prices cannot be told from those that it was made with"
                ) from None
            used[part] = (prices.times >= first) & (prices.times <= last)
        return cls(used["train"], used["validation"], "date: the run's own prices are not here")


@dataclasses.dataclass(frozen=True)
class GivenOrigins:
    """The origins (N,) of given prices that are scored, and how many are left out and why."""

    scored: np.ndarray
    all: int
    trained: int
    stopped: int
    reaching: int
    """origins beside those parts whose steps ahead reach into them"""
    told_by: str

    @classmethod
    def of(cls, origins: np.ndarray, used: Used, horizon: int) -> GivenOrigins:
        """Leaves out every origin at which the run forecast in training or validation, and those
        with a step ahead that was one of theirs."""
        target = np.zeros(len(used.trained), bool)  # (T,): rows that were forecast then
        for step in range(1, horizon + 1):
            target[step:] |= (used.trained | used.stopped)[:-step]
        ahead = origins[:, None] + np.arange(1, horizon + 1)  # (N, H)

        trained = used.trained[origins]
        stopped = used.stopped[origins] & ~trained
        reaching = target[ahead].any(1) & ~trained & ~stopped
        return cls(
            scored=origins[~(trained | stopped | reaching)],
            all=len(origins),
            trained=int(trained.sum()),
            stopped=int(stopped.sum()),
            reaching=int(reaching.sum()),
            told_by=used.told_by,
        )

    @property
    def left_out(self) -> int:
        """How many are left out."""
        return self.trained + self.stopped + self.reaching

    @property
    def words(self) -> str:
        """What is left out, as one sentence without its stop; empty where nothing is."""
        if not self.left_out:
            return ""
        inside = self.trained + self.stopped
        words = (
            f"{inside:,} of {self.all:,} origins lie in the part that the models were trained "
            f"({self.trained:,}) or stopped ({self.stopped:,}) on and are left out"
        )
        if self.reaching:
            words += f", with {self.reaching:,} more whose steps ahead reach into it"
        return f"{words} (told by {self.told_by})"

    @property
    def facts(self) -> JsonObject:
        """The counts, for the file of scores."""
        return {
            "trained": self.trained,
            "stopped": self.stopped,
            "reaching_into_them": self.reaching,
            "told_by": self.told_by,
        }


@dataclasses.dataclass(frozen=True)
class GivenWindows(Windows):
    """Windows of new prices of which some origins are not scored, yet recalibrate later ones.

    Their outcomes were known by then, so that an origin has the same forecast whether or not
    those before it are scored.
    """

    def before(self, origins: np.ndarray) -> np.ndarray:
        """The origins, and among and before them all others that recalibrate their forecasts."""
        every = self.origins()
        place = np.flatnonzero(np.isin(every, origins))
        reach = self.rolling + self.horizon

        # How many origins each one recalibrates or is:
        changes = np.zeros(len(every) + 1, int)
        np.add.at(changes, np.maximum(place - reach, 0), 1)
        np.add.at(changes, place + 1, -1)
        return every[np.cumsum(changes)[:-1] > 0]
