"""What was read, in a sentence or two, for the terminal, run.json and reports."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from common.forecasting.history import Prices

NAMED = 8  # series in the sentence


def with_read(prices: Prices, notes: Sequence[str] = ()) -> Prices:
    """The prices with "read" in their provenance: series, times, gaps, and the notes."""
    sentences = [told(prices), *dict.fromkeys(notes)]
    provenance = {**prices.provenance, "read": "; ".join(sentences)}
    return dataclasses.replace(prices, provenance=provenance)


def told(prices: Prices) -> str:
    """Place, series, number of times, first and last one and gaps of a history."""
    names = ", ".join(prices.series[:NAMED])
    more = ", ..." if len(prices.series) > NAMED else ""
    count = len(prices.series)
    first, last = prices.moment(0), prices.moment(-1)
    return (
        f"{prices.place}: {count} series ({names}{more}), {len(prices.times):,} "
        f"{unit_of(prices)} from {first} to {last}, {gaps_in_words(prices)}"
    )


def unit_of(prices: Prices) -> str:
    """What a row is: hours, days, or steps of another length."""
    step = str(prices.provenance.get("step", "1 hour" if prices.hourly else "1 day"))
    number, _, unit = step.partition(" ")
    return f"{unit}s" if number == "1" else f"steps of {step}"


def gaps_in_words(prices: Prices) -> str:
    """How many gaps a history has, and how many steps they miss."""
    gaps = prices.provenance.get("gaps", {})
    count = int(gaps.get("count", 0))
    if not count:
        return "no gap"
    missing = {name: value for name, value in gaps.items() if name.startswith("missing_")}
    words = ", ".join(
        f"{value:,} {name.removeprefix('missing_')}" for name, value in missing.items()
    )
    return f"{count:,} gap{'s' if count > 1 else ''}{f' ({words})' if words else ''}"
