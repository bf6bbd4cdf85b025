"""Several files of prices as one table: one per ticker, or one after the other in time.

Shape letters: T times, S series.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from common.cli import InputError
from common.forecasting.history import DAY, check_order


def joined(
    frames: Sequence[pd.DataFrame], stems: Sequence[str], where: object, notes: list[str]
) -> pd.DataFrame:
    """The frames of several files side by side (T, S), NaN where a series has no price.

    A series in several files is put together where these follow each other in time. Where all
    files have one series of the same name they are named after the files. Raises InputError for a
    series that stands in two files at the same times.
    """
    if len(frames) == 1:
        return frames[0]
    frames = [comparable(frame) for frame in frames]
    for frame, stem in zip(frames, stems, strict=True):
        check_order(frame.index, f"{where}, {stem}")
    pieces: dict[str, list[int]] = {}
    for place, frame in enumerate(frames):
        for name in frame:
            pieces.setdefault(str(name), []).append(place)
    if len(pieces) == 1 and not follow([frame.iloc[:, 0] for frame in frames]):
        named = [frame.set_axis([stem], axis=1) for frame, stem in zip(frames, stems, strict=True)]
        if len(set(stems)) == len(stems):
            return pd.concat(named, axis=1).sort_index()

    columns = {}
    for name, places in pieces.items():
        parts = sorted((frames[place][name] for place in places), key=lambda part: part.index[0])
        if not follow(parts):
            files = " and ".join(stems[place] for place in places[:2])
            raise InputError(f"{where}: {name} stands in {files} at the same times; remove one")
        if len(parts) > 1:
            notes.append(f"{name} is put together from {len(parts)} files")
        columns[name] = pd.concat(parts) if len(parts) > 1 else parts[0]
    return pd.concat(columns, axis=1).sort_index()


def comparable(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with times that those of other files can be compared with.

    Days are their local dates, other times are in UTC.
    """
    index = frame.index
    if len(index) > 1 and np.median(np.diff(index.asi8)) >= DAY / np.timedelta64(1, "ns"):
        local = index if str(index.tz) == "UTC" else index.tz_localize(None)
        dates = local.normalize()
        if str(index.tz) != "UTC" and dates.is_unique:
            index = dates
    index = index.tz_localize("UTC") if index.tz is None else index.tz_convert("UTC")
    return frame.set_axis(index)


def follow(parts: Sequence[pd.Series]) -> bool:
    """Whether the times of no part overlap those of another."""
    spans = sorted((part.index[0], part.index[-1]) for part in parts if len(part))
    return all(end < start for (_, end), (start, _) in itertools.pairwise(spans))
