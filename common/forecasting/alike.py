"""Series that are not alike: late listings, delistings, holidays and holes in one table.

The rule: a series with a price in fewer than 90 % of the table's times is left out and named; then
times at which a series that stays has no price are left out and counted, at most 10 % of them.
`--fill forward` closes the holes inside a series' life first; `--columns` takes series as they
are, at the times that they share. Nothing is filled or cut in silence.

Shape letters: T times, S series.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from common.cli import InputError
from common.forecasting.history import words_of
from common.forecasting.names import listed

LEAST_SHARE = 0.9  # of a table's times, for a series that stays
LARGEST_LOSS = 0.1  # of the times, for series that stay
LONGEST_JUMP = 20.0  # times the price before; told, as a wrong decimal mark or tick is one
NAMED = 8  # series in a message
HELP = "--columns chooses series, --fill forward carries the last price over holes"


def alike(
    frame: pd.DataFrame, asked: bool, fill: str, where: object, notes: list[str]
) -> tuple[pd.DataFrame, int]:
    """The frame (T, S) without missing prices, and how many times are not in every series.

    `asked` says that the series were named and are all kept. Raises InputError for series of
    different steps, and where the rule leaves too little.
    """
    if not len(frame):
        return frame, 0
    check_steps(frame, where)
    empty = frame.isna().all(axis=1).to_numpy()
    if empty.any():
        count = int(empty.sum())
        notes.append(f"{count:,} row{'s' if count > 1 else ''} without any price left out")
        frame = frame[~empty]
    if not len(frame):
        raise InputError(f"{where}: no row holds a price; numbers are needed")
    ragged = int(frame.isna().any(axis=1).sum())
    if fill == "forward":
        filled = frame.ffill().where(frame.bfill().notna())  # within each series' life
        count = int((filled.notna() & frame.isna()).to_numpy().sum())
        if count:
            notes.append(f"{count:,} missing prices filled with the last one before")
        frame = filled
    if not asked:
        frame = without_short(frame, where, notes)
    return shared(frame, asked, where, notes), ragged


def check_steps(frame: pd.DataFrame, where: object) -> None:
    """Raises InputError for series whose usual steps differ by a factor of two or more."""
    known = {}
    for name in frame:
        times = frame.index[frame[name].notna()].asi8
        if len(times) > 2:
            steps = np.sort(np.diff(times))  # (a third: where holes and weekends are many)
            known[str(name)] = np.timedelta64(int(steps[len(steps) // 3]), "ns")
    if not known:
        return
    short, long = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
    if known[long] >= 2 * known[short] and known[short] > np.timedelta64(0):
        raise InputError(
            f"{where}: the steps of {short} are {words_of(known[short])}, those of {long} "
            f"{words_of(known[long])}; series of one step are needed: choose them with --columns"
        )


def without_short(frame: pd.DataFrame, where: object, notes: list[str]) -> pd.DataFrame:
    """The series with a price in 90 % of the times; the others are noted.

    Raises InputError where none is left.
    """
    share = frame.notna().mean()
    short = [name for name in frame if share[name] < LEAST_SHARE]
    if not short:
        return frame
    lives = [life_of(frame[name], share[name]) for name in short[:NAMED]]
    more = f" and {len(short) - NAMED} more" if len(short) > NAMED else ""
    told = "; ".join(lives) + more
    if len(short) == frame.shape[1]:
        raise InputError(
            f"{where}: no series has a price at {LEAST_SHARE:.0%} of the {len(frame):,} times "
            f"({told}); {HELP}"
        )
    notes.append(f"left out, with a price at fewer than {LEAST_SHARE:.0%} of the times: {told}")
    return frame.drop(columns=short)


def life_of(column: pd.Series, share: float) -> str:
    """A series' name, its share of the times, and its first and last one."""
    times = column.index[column.notna()]
    if not len(times):
        return f"{column.name} (no price)"
    first, last = moment(times[0]), moment(times[-1])
    return f"{column.name} ({share:.0%}, {first} to {last})"


def moment(time: pd.Timestamp) -> str:
    """A time to the minute; a midnight as its date."""
    midnight = time == time.normalize()
    return time.strftime("%Y-%m-%d" if midnight else "%Y-%m-%dT%H:%M")


def shared(frame: pd.DataFrame, asked: bool, where: object, notes: list[str]) -> pd.DataFrame:
    """The times at which every series has a price; how many others there are is noted.

    Raises InputError where none is left, or where more than 10 % go that nobody asked for.
    """
    whole = frame.notna().all(axis=1).to_numpy()
    lost = int((~whole).sum())
    if not lost:
        return frame
    if not whole.any():
        raise InputError(f"{where}: its series ({', '.join(frame)}) share no time; {HELP}")
    if lost > LARGEST_LOSS * len(frame) and not asked:
        share = frame.notna().mean().sort_values()
        worst = ", ".join(f"{name} {share[name]:.1%}" for name in share.index[:NAMED])
        raise InputError(
            f"{where}: {lost:,} of {len(frame):,} times are not in every series, more than "
            f"{LARGEST_LOSS:.0%} (with a price: {worst}); {HELP}"
        )
    notes.append(f"{lost:,} of {len(frame):,} times are not in every series and left out")
    return frame[whole]


# ----------------------------------------------------------------------------- odd prices


def constants_of(values: np.ndarray, names: Sequence[str]) -> str:
    """The series whose price never moves in words, or ""."""
    still = [name for name, span in zip(names, np.ptp(values, axis=0), strict=True) if span == 0]
    verb = "moves" if len(still) == 1 else "move"
    return f"{listed(still)} never {verb}" if still else ""


def jumps_of(values: np.ndarray, names: Sequence[str], times: pd.DatetimeIndex) -> str:
    """The largest jump of more than 20 times between neighbouring prices in words, or ""."""
    before, after = values[:-1], values[1:]  # (T - 1, S)
    with np.errstate(all="ignore"):
        ratio = np.where((before > 0) & (after > 0), np.maximum(after / before, before / after), 1)
    if not ratio.size or not (ratio > LONGEST_JUMP).any():
        return ""
    row, column = divmod(int(np.argmax(ratio)), ratio.shape[1])
    count = int((ratio > LONGEST_JUMP).sum())
    more = f" (and {count - 1} more such jumps)" if count > 1 else ""
    return (
        f"{names[column]} jumps from {before[row, column]:g} to {after[row, column]:g} at "
        f"{moment(times[row + 1])}{more}"
    )
