"""When a market is open: the times of the week at which it usually has a price.

A coin is traded all the time, so every missing step is a gap. A currency rests over the weekend
and a stock every night: there a closure is no gap, a window steps over it, and a forecast lands in
open hours. Summer time moves those hours in UTC, so what counts are the weeks around.

Shape letters: T times, N origins, H horizon, W weeks, K steps of a week.
"""

from __future__ import annotations

import dataclasses

import numpy as np

HOUR = np.timedelta64(1, "h")
DAY = np.timedelta64(1, "D")
WEEK = np.timedelta64(7, "D")
MONDAY = np.datetime64("1970-01-05", "ns")
LEAST_WEEKS = 3  # fewer do not tell a closure from a hole
OPEN_SHARE = 0.9  # of the weeks: a time of the week that is open all the year round
CLOSED_SHARE = 0.05  # of the weeks: one that is closed
HOLIDAY = 20 * HOUR  # a shorter hole in open hours is one
LONGEST_CLOSURE = 5 * DAY  # a weekend with holidays
REMEMBERED_WEEKS = 8  # that say which hours are open next


@dataclasses.dataclass(frozen=True)
class Sessions:
    """The times of the week of a market with steps below a day.

    `open` and `closed` are offsets timedelta64 from Monday 00:00 in UTC, ascending; those that
    summer time moves are in neither.
    """

    open: np.ndarray
    closed: np.ndarray

    @classmethod
    def of(cls, times: np.ndarray, step: np.timedelta64) -> Sessions | None:
        """The sessions of times (T,); None where the market never closes, or too little is known.

        Only whole weeks count.
        """
        weeks = week_of(times)
        if step >= DAY or not len(times) or weeks[-1] - weeks[0] - 1 < LEAST_WEEKS:
            return None
        whole = (weeks > weeks[0]) & (weeks < weeks[-1])
        offsets, counts = np.unique(offset_of(times[whole]), return_counts=True)
        share = counts / (weeks[-1] - weeks[0] - 1)
        often = offsets[share > CLOSED_SHARE]
        if not len(often):
            return None
        grid = (often[0] % step) + step * np.arange(WEEK // step)  # (K,): every step of a week
        closed = np.setdiff1d(grid, often)
        if not len(closed):
            return None
        return cls(offsets[share >= OPEN_SHARE], closed)

    def steps_over(self, times: np.ndarray) -> np.ndarray:
        """Whether the market was regularly closed between each time and the next, bool (T - 1,).

        So it is where it crosses closed times of the week and misses no more than a day's open
        ones, or where it is a whole holiday; five days are the most.
        """
        before = times[:-1]
        after = times[1:]
        length = after - before
        crossed = counted(self.closed, after) - counted(self.closed, before)
        missed = counted(self.open, after, "left") - counted(self.open, before)
        a_day = -(-len(self.open) // 5)
        closure = (crossed > 0) & (missed <= a_day)
        return (length <= LONGEST_CLOSURE) & (closure | (length >= HOLIDAY))


def week_of(times: np.ndarray) -> np.ndarray:
    """The number of each time's week, from Monday to Sunday in UTC."""
    return (times - MONDAY) // WEEK


def offset_of(times: np.ndarray) -> np.ndarray:
    """Each time's distance from its week's Monday, timedelta64."""
    return (times - MONDAY) % WEEK


def counted(offsets: np.ndarray, times: np.ndarray, side: str = "right") -> np.ndarray:
    """How many of these times of the week lie up to each time since 1970, int64.

    With `side` "left" the time itself is left out.
    """
    within = np.searchsorted(offsets, offset_of(times), side=side)  # type: ignore[call-overload]
    return week_of(times) * len(offsets) + within


def open_times_ahead(times: np.ndarray, origins: np.ndarray, horizon: int) -> np.ndarray:
    """The next `horizon` times (N, H) at which a market that closes will be open.

    Open are the times of the week that had a price in at least half of the eight weeks before the
    origin's, or in its own where the history is shorter; nothing after an origin is used.
    """
    weeks = week_of(times)
    offsets = np.unique(offset_of(times))  # (K,)
    first = weeks[0]
    present = np.zeros((int(weeks[-1] - first) + 1, len(offsets)), bool)  # (W, K)
    present[weeks - first, np.searchsorted(offsets, offset_of(times))] = True

    ahead = np.empty((len(origins), horizon), times.dtype)
    of_origins = weeks[origins] - first
    for week in np.unique(of_origins):
        start = max(week - REMEMBERED_WEEKS, 0)
        remembered = present[start:week]
        rows = np.flatnonzero(of_origins == week)
        if not len(remembered):  # the first week: what it had up to each origin
            for row in rows:
                ahead[row] = repeated(times, origins[row], horizon)
            continue
        open_offsets = offsets[2 * remembered.sum(0) >= len(remembered)]
        if not len(open_offsets):
            open_offsets = offsets[remembered.any(0)]
        if not len(open_offsets):  # weeks without a price
            for row in rows:
                ahead[row] = repeated(times, origins[row], horizon)
            continue
        needed = 2 + horizon // len(open_offsets)
        mondays = MONDAY + (first + week + np.arange(needed)) * WEEK
        coming = (mondays[:, None] + open_offsets).ravel()  # ascending
        place = np.searchsorted(coming, times[origins[rows]], side="right")
        ahead[rows] = coming[place[:, None] + np.arange(horizon)]
    return ahead


def repeated(times: np.ndarray, origin: int, horizon: int) -> np.ndarray:
    """The times after an origin by its last step alone (H,)."""
    step = times[origin] - times[max(origin - 1, 0)]
    return times[origin] + max(step, np.timedelta64(1, "m")) * np.arange(1, horizon + 1)
