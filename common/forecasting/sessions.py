"""When a market is open: the times of the week at which it usually has a price.

A coin is traded all the time, so every missing step is a gap. A currency rests over the weekend
and a stock every night: there a closure is no gap, a window steps over it, and a forecast lands in
open hours. Summer time moves those hours in UTC, and exchanges change theirs, so what counts are
the weeks around a step, and before an origin those before it alone.

Shape letters: T times, N origins, H horizon, W weeks, K times of the week that ever had a price.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

HOUR = np.timedelta64(1, "h")
DAY = np.timedelta64(1, "D")
WEEK = np.timedelta64(7, "D")
MONDAY = np.datetime64("1970-01-05", "ns")
LEAST_WEEKS = 2  # before which a closure cannot be told from a hole
CLOSED_SHARE = 0.05  # of the weeks: a time of the week with fewer prices is closed
HOLIDAY = 20 * HOUR  # a shorter hole in open hours is a gap
LONGEST_CLOSURE = 5 * DAY  # a weekend with holidays
WEEKS_AROUND = 4  # before and after a step, that say which times it misses
REMEMBERED_WEEKS = 8  # before an origin, that say which days are open next
REMEMBERED_DAYS = 3  # of those, the last open ones of a weekday that say at which times


@dataclasses.dataclass(frozen=True)
class Sessions:
    """The times of the week of a history with steps of at most a day, week by week.

    `first` is the number of the first week, `offsets` timedelta64 (K,) are ascending distances
    from Monday 00:00 in UTC, `present` bool (W, K) says when there was a price, and `exposed`
    bool (W, K) when there could have been one: in the weeks that have any, between first and last.
    """

    step: np.timedelta64
    first: int
    offsets: np.ndarray
    present: np.ndarray
    exposed: np.ndarray

    @classmethod
    def of(cls, times: np.ndarray, step: np.timedelta64) -> Sessions:
        """The sessions of times (T,) with the usual step."""
        weeks: np.ndarray = week_of(times)
        first = int(weeks[0])
        of_times: np.ndarray = offset_of(times)
        offsets = np.unique(of_times)  # (K,)
        present = np.zeros((int(weeks[-1]) - first + 1, len(offsets)), bool)  # (W, K)
        present[weeks - first, np.searchsorted(offsets, of_times)] = True
        exposed = np.repeat(np.any(present, axis=1)[:, None], len(offsets), 1)
        exposed[0] &= offsets >= of_times[0]
        exposed[-1] &= offsets <= of_times[-1]
        return cls(step, first, offsets, present, exposed)

    @functools.cached_property
    def closes(self) -> bool:
        """Whether there are times of the week that regularly have no price."""
        weeks = self.exposed.sum(0)  # (K,)
        if weeks.min() < LEAST_WEEKS:
            return False
        open_times = self.present.sum(0) > CLOSED_SHARE * weeks
        return bool(open_times.sum() < WEEK // self.step)

    @functools.cached_property
    def open_per_week(self) -> int:
        """At how many times of a usual week the market has a price."""
        return int(np.median(self.present.sum(1)[self.present.any(1)]))

    # -- steps of the past

    def steps_over(self, times: np.ndarray) -> np.ndarray:
        """Whether the market was closed between each of times (T,) and the next, bool (T - 1,).

        So it was where the weeks around have no price between the two either, where it closed
        regularly and misses no more than a usual day beside that, or for a whole holiday; five
        days are the most.
        """
        lengths = np.diff(times)
        over = np.zeros(len(lengths), bool)
        if not self.closes:
            return over
        longer = np.flatnonzero((lengths > self.step) & (lengths <= LONGEST_CLOSURE))
        between = -(-lengths[longer] // self.step) - 1  # usual times that lie between the two
        owner = np.repeat(np.arange(len(longer)), between)
        number = np.arange(len(owner)) - np.repeat(np.cumsum(between) - between, between)
        missing = times[longer][owner] + (number + 1) * self.step

        expected = self._usual_around(missing)
        missed = np.bincount(owner, expected, len(longer))
        closed = between - missed
        a_day = -(-self.open_per_week // 5)
        closure = (missed == 0) | ((closed > 0) & (missed <= a_day))
        over[longer] = closure | (lengths[longer] >= HOLIDAY)
        return over

    def _usual_around(self, times: np.ndarray) -> np.ndarray:
        """Whether most of the weeks around, without its own, have a price at each time's offset."""
        week = week_of(times) - self.first
        column = np.minimum(np.searchsorted(self.offsets, offset_of(times)), len(self.offsets) - 1)
        start = np.maximum(week - WEEKS_AROUND, 0)
        end = np.minimum(week + WEEKS_AROUND + 1, len(self.present))
        with_price, possible = (
            summed[end, column] - summed[start, column] - matrix[week, column]
            for matrix, summed in (
                (self.present, running(self.present)),
                (self.exposed, running(self.exposed)),
            )
        )
        return (self.offsets[column] == offset_of(times)) & (2 * with_price > possible)

    # -- times of the future

    @functools.cached_property
    def _recent(self) -> tuple[np.ndarray, np.ndarray]:
        """For each week the weeks before it that count: from the first to before the last (W,).

        They are counted among the weeks that have a price.
        """
        alive = self.present.any(1)
        end: np.ndarray = np.cumsum(alive) - alive
        return np.maximum(end - REMEMBERED_WEEKS, 0), end

    @functools.cached_property
    def _open(self) -> np.ndarray:
        """Which times of the week are open in and after each week by what was known before it.

        Bool (W, K). A weekday is open that had a price in at least half of the last eight weeks; of
        its times those are open that had one on at least half of its last three days, so that
        summer time and new hours are soon learnt and a holiday is forgotten.
        """
        alive = self.present.any(1)
        start, end = self._recent
        day = (self.offsets // DAY).astype(int)  # (K,)
        is_open = np.zeros_like(self.present)
        for weekday in np.unique(day):
            columns = np.flatnonzero(day == weekday)
            with_price: np.ndarray = np.any(self.present[:, columns], axis=1)  # (W,)
            exposed: np.ndarray = np.any(self.exposed[alive][:, columns], axis=1)
            possible = running(exposed)
            prices = running(with_price[alive])
            possible = possible[end] - possible[start]  # (W,): of the last eight weeks
            prices = prices[end] - prices[start]
            open_day = (possible > 0) & (2 * prices >= possible)

            # the weekday's last three days with a price before each week:
            before: np.ndarray = np.cumsum(with_price) - with_price  # (W,)
            last = np.maximum(before - REMEMBERED_DAYS, 0)
            seen = running(self.present[with_price][:, columns])
            seen = seen[before] - seen[last]  # (W, columns)
            often = 2 * seen >= (before - last)[:, None]
            is_open[:, columns] = open_day[:, None] & often
        return is_open

    @functools.cached_property
    def _closes_by_week(self) -> np.ndarray:
        """Whether the weeks before each week lack some time of the week, bool (W,)."""
        start, end = self._recent
        prices = running(self.present[self.present.any(1)])
        seen = (prices[end] - prices[start] > 0).sum(1)  # (W,)
        return (end >= LEAST_WEEKS) & (seen < WEEK // self.step)

    @functools.cached_property
    def _opening(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The open times of every week as since 1970, and where a week's begin and how many."""
        week, column = np.nonzero(self._open)
        openings = MONDAY + (self.first + week) * WEEK + self.offsets[column]
        count = self._open.sum(1)
        return openings, np.cumsum(count) - count, count

    def ahead(self, origins: np.ndarray, horizon: int) -> tuple[np.ndarray, np.ndarray]:
        """The next times (N, H) at which the market will be open after times (N,) of the history.

        With them whether they are known, bool (N,): they are not where the market does not close or
        the weeks before are too few. Nothing in or after an origin's week is used.
        """
        week = week_of(origins) - self.first
        openings, starts, counts = self._opening
        known = self._closes_by_week[week] & (counts[week] > 0)
        week = week[known]
        count = counts[week][:, None]
        start = starts[week][:, None]
        passed = np.searchsorted(openings, origins[known], side="right")[:, None] - start
        coming = passed + np.arange(horizon)  # (N, H): number among the week's and later ones
        times = np.empty((len(origins), horizon), origins.dtype)
        times[known] = openings[start + coming % count] + coming // count * WEEK
        return times, known


def running(matrix: np.ndarray) -> np.ndarray:
    """The sums of the first 0, 1, ... rows of bool (W, ...): int32 (W + 1, ...)."""
    return np.concatenate(
        [np.zeros((1, *matrix.shape[1:]), np.int32), np.cumsum(matrix, 0, np.int32)]
    )


def week_of(times: np.ndarray) -> np.ndarray:
    """The number of each time's week, from Monday to Sunday in UTC."""
    return (times - MONDAY) // WEEK


def offset_of(times: np.ndarray) -> np.ndarray:
    """Each time's distance from its week's Monday, timedelta64."""
    return (times - MONDAY) % WEEK
