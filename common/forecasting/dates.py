"""Dates in the orders and languages that people write, as ISO 8601 text that pandas reads fast.

Cells are rewritten by regular expressions over the whole column. Each order that the cells allow
is one reading; where two differ, the one that is in order without long holes is taken, else none.
"""

from __future__ import annotations

import re
import warnings
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from common.cli import InputError
from common.forecasting.history import DAY, one_line

EXAMPLE = "2024-01-31T13:00:00Z"
LETTER = "[A-Za-zÀ-ÿ]"
YEAR_FIRST = r"\d{4}[-/.]\d{1,2}(?:[-/.]\d{1,2})?(?:\D.*)?"
YEAR_LAST = r"\d{1,2}[-/.]\d{1,2}[-/.]\d{4}(?:\D.*)?"
TWO_DIGITS = r"\d{1,2}[-/.]\d{1,2}[-/.]\d{2}(?:\D.*)?"
COMPACT = r"(?:19|20)\d{2}[01]\d[0-3]\d(?:[ T]?\d{4}(?:\d{2})?)?"
# the beginnings of the months' names in English, German, French, Spanish, Portuguese, Italian,
# Dutch and Swedish
MONTHS = (
    "jan|ene|gen",
    "feb|fev|fév",
    "mar|mär|mrz|maa|mrt",
    "apr|abr|avr",
    "may|mai|mag|mei|maj",
    "jun|juin|giu",
    "jul|juil|lug",
    "aug|ago|aoû",
    "sep|set",
    "oct|okt|out|ott",
    "nov",
    "dec|dez|déc|dic",
)
GAP = "[-/., ]+"
# years of two digits that are of this century: prices of later years do not exist yet
PAST = "|".join(f"{year:02d}" for year in range(datetime.now(UTC).year % 100 + 2))
# how dates with a month's name, here M01 to M12, become ISO 8601
WITH_MONTH = (
    (rf"^M(\d\d){GAP}(\d{{1,2}}) (\d\d:\d\d:\d\d) (\d{{4}})$", r"\4-\1-\2 \3"),
    (rf"^(\d{{1,2}})(?:{GAP})?M(\d\d)(?:{GAP})?(\d{{4}})", r"\3-\2-\1"),
    (rf"^(\d{{1,2}}){GAP}M(\d\d){GAP}({PAST})(\D|$)", r"20\3-\2-\1\4"),
    (rf"^(\d{{1,2}}){GAP}M(\d\d){GAP}(\d\d)(\D|$)", r"19\3-\2-\1\4"),
    (rf"^M(\d\d){GAP}(\d{{1,2}}){GAP}(\d{{4}})", r"\3-\1-\2"),
    (rf"^(\d{{4}}){GAP}M(\d\d){GAP}(\d{{1,2}})", r"\1-\2-\3"),
    (rf"^M(\d\d){GAP}(\d{{4}})", r"\2-\1-01"),
)
MONTH = rf"(?:{'|'.join(MONTHS)}){LETTER}*\.?"
WEEKDAY = r"(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*[,.]?\s+"
WORDED = (
    rf"(?i)(?:{WEEKDAY})?"
    rf"(?:\d{{1,4}}{GAP}{MONTH}{GAP}\d{{1,4}}|\d{{1,2}}{MONTH}\d{{4}}|{MONTH}{GAP}\d{{1,4}})"
    r"(?:\D.*)?"
)
# other forms of dates with the year first, as year-month-day
YEAR_FORMS = (
    (r"^(\d{4})年\s*(\d{1,2})月\s*(\d{1,2})日", r"\1-\2-\3"),
    (r"^(\d{4})[-/.] +(\d{1,2})[-/.] +(\d{1,2})", r"\1-\2-\3"),
    (r"^(\d{4})(\d\d)(\d\d)[ T]+(\d{1,2}:.*)$", r"\1-\2-\3 \4"),
    (r"^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)(Z|[+-]\d\d:?\d\d)$", r"\1-\2-\3T\4:\5:\6\7"),
)
CENTURIES = ((rf"^%({PAST})", r"20\1"), (r"^%(\d)", r"19\1"))
OFFSET = r"(?:Z|[+-]\d{2}(?::?\d{2})?)$"
AFTER_TIME = r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}[ T].*\d"
# a reading of the dates is not regular with a hole of more usual steps, or with longer steps
LONGEST_HOLE = 10
LONGEST_STEP = 31 * DAY

Readings = dict[str, pd.Series]  # ISO 8601 text by the order that is read, as "day/month/year"


def is_date(cell: str) -> bool:
    """Whether a cell begins with a date."""
    forms = (YEAR_FIRST, YEAR_LAST, TWO_DIGITS, COMPACT, WORDED)
    cell = re.sub(r"(?i)\s+del?\s+", " ", cell.strip())
    for pattern, instead in YEAR_FORMS:
        cell = re.sub(pattern, instead, cell)
    return any(re.fullmatch(form, cell) for form in forms)


def date_times(text: pd.Series, order: str, place: str, notes: list[str]) -> pd.DatetimeIndex:
    """The times of cells that begin with a date.

    `order` is day-first, month-first, year-first or "" (told by the cells). Raises InputError for
    a cell that is no date, and for dates that can be read in two ways.
    """
    shown, text = text, without_words(text)
    readings = readings_of(text, order)
    if not readings:
        raise other_form(shown, text, place)
    parsed = {}
    reasons = []
    for words, cells in readings.items():
        times, reason = read_iso(cells, shown, notes)
        if times is not None:
            parsed[words] = times
        reasons.append(reason.replace("no time", f"no {words}") if len(readings) > 1 else reason)
    if not parsed:
        raise InputError(
            f"{place}: {'; '.join(dict.fromkeys(reasons))}; one form and zone are needed, "
            f"such as {EXAMPLE}, or --date-format"
        )
    words = next(iter(parsed)) if len(parsed) == 1 else chosen(parsed, shown, place)
    if len(readings) > 1:
        notes.append(f"dates are {words}")
    return parsed[words]


def other_form(shown: pd.Series, text: pd.Series, place: str) -> InputError:
    """The refusal of cells in no known form, or in several: it names the first odd one.

    `text` are the cells `shown` without words.
    """
    forms = [form for form in (YEAR_FIRST, YEAR_LAST, TWO_DIGITS) if text.str.fullmatch(form).any()]
    row = 0
    if forms:
        first = next((form for form in forms if text.iloc[:1].str.fullmatch(form).all()), forms[0])
        row = int(np.flatnonzero(~text.str.fullmatch(first))[0])
    return InputError(
        f"{place} holds {shown.iloc[row]!r} in row {row + 1}; one form and zone are needed, "
        f"such as {EXAMPLE}, or --date-format"
    )


# ---------------------------------------------------------------------------------- rewriting


def without_words(text: pd.Series) -> pd.Series:
    """The cells with months' names, UTC, GMT+0100 and the like as numbers, and no weekdays."""
    for pattern, instead in YEAR_FORMS:
        text = rewritten(text, pattern, instead)
    if not text.str.contains(r"[A-SU-Ya-zÀ-ÿ]").any():
        return text
    for pattern, instead in (
        (r"(?i)\s+del?\s+", " "),
        (r"([+-]\d\d:?\d\d|Z)\[\w+(?:/\w+)*\]$", r"\1"),
        (r"\s*\([^)]*\)$", ""),
        (rf"(?i)^{WEEKDAY}", ""),
        (r"\s*(?:UTC|GMT)\s*([+-]\d{2}):?(\d{2})$", r"\1:\2"),
        (r"\s*([+-]\d{2}):?(\d{2})\s*(?:UTC|GMT)$", r"\1:\2"),
        (r"(:\d{2}(?:\.\d+)?)\s*(?:UTC|GMT)$", r"\1Z"),
        (r"\s+(?:UTC|GMT)$", ""),
        (r"[\s-]*([AaPp])\.?[Mm]\.?$", r" \1m"),
    ):
        text = rewritten(text, pattern, instead)
    if not text.str.contains(rf"{LETTER}{LETTER}{LETTER}").any():
        return text
    for number, names in enumerate(MONTHS, 1):
        pattern = rf"(?i)(^|[-/., ]|\d)(?:{names}){LETTER}*\.?"
        text = rewritten(text, pattern, rf"\1M{number:02d}")
    for pattern, instead in WITH_MONTH:
        text = rewritten(text, pattern, instead)
    return text


def rewritten(text: pd.Series, pattern: str, instead: str) -> pd.Series:
    """The cells with what matches replaced; asking first is ten times faster where none does."""
    without_groups = re.sub(r"(?<!\\)\((?!\?)", "(?:", pattern)  # pandas warns of groups
    if not text.str.contains(without_groups).any():
        return text
    return text.str.replace(pattern, instead, regex=True)


def readings_of(text: pd.Series, order: str) -> Readings:
    """The readings that the cells' form allows, of one order if that is given; {} for no form."""
    if text.str.fullmatch(COMPACT).all():
        return {"year/month/day": text}
    if text.str.fullmatch(YEAR_FIRST).all():
        return {"year/month/day": rewritten(text, r"^(\d+)[/.](\d+)[/.]", r"\1-\2-")}
    start = r"^(\d{1,2})[-/.](\d{1,2})[-/.]"
    if text.str.fullmatch(YEAR_LAST).all():
        patterns = {
            "day/month/year": (rf"{start}(\d{{4}})", r"\3-\2-\1"),
            "month/day/year": (rf"{start}(\d{{4}})", r"\3-\1-\2"),
        }
    elif text.str.fullmatch(TWO_DIGITS).all():
        patterns = {
            "day/month/year": (rf"{start}(\d\d)", r"%\3-\2-\1"),
            "month/day/year": (rf"{start}(\d\d)", r"%\3-\1-\2"),
            "year/month/day": (rf"{start}(\d\d)", r"%\1-\2-\3"),
        }
    else:
        return {}
    readings: Readings = {}
    for words, (pattern, instead) in patterns.items():
        if order and not words.startswith(order.removesuffix("-first")):
            continue
        cells = text.str.replace(pattern, instead, regex=True)
        for two_digits, year in CENTURIES:
            cells = rewritten(cells, two_digits, year)
        readings[words] = cells
    return readings


# ------------------------------------------------------------------------------------ reading


def read_iso(
    text: pd.Series, shown: pd.Series, notes: list[str]
) -> tuple[pd.DatetimeIndex | None, str]:
    """The times of cells, rewritten as ISO 8601 and as `shown` in the file, or None and why."""
    text = rewritten(text, r"^(\d+-\d+-\d+)(?:,\s*|\s\s+)", r"\1 ")
    text = rewritten(text, r"(:\d\d),(\d{1,9})", r"\1.\2")
    half_days = text.str.contains(r"(?i) [ap]m$")
    if half_days.any():
        colons = ":%M:%S"[: 3 * text.iloc[0].count(":")]
        return read_form(text, shown, f"%Y-%m-%d %I{colons} %p", notes)
    return read_form(text, shown, "ISO8601", notes)


def read_form(
    text: pd.Series, shown: pd.Series, form: str, notes: list[str]
) -> tuple[pd.DatetimeIndex | None, str]:
    """The times of cells in a strptime form, or None and the reason, which quotes the cell `shown`.

    Cells of several zones, as local times with summer time have, become UTC, or where they are
    days the local dates.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas warns of what it refuses anyway
        try:
            return pd.DatetimeIndex(pd.to_datetime(text, format=form)).as_unit("ns"), ""
        except (ValueError, OverflowError) as error:
            if "Mixed timezones" in str(error):
                return several_zones(text, form, notes)
            reason = one_line(error).split(". ")[0]
        readable = pd.to_datetime(text, format=form, errors="coerce", utc=True)
    for row in np.flatnonzero(readable.isna())[:1]:
        reason = f"{shown.iloc[row]!r} in row {row + 1} is no time"
    return None, reason


def several_zones(
    text: pd.Series, form: str, notes: list[str]
) -> tuple[pd.DatetimeIndex | None, str]:
    """Times whose offsets differ, in UTC, or the local dates where they are days."""
    named = text.str.contains(OFFSET) & text.str.contains(":|T")
    for row in np.flatnonzero(named != named.iloc[0])[:1]:
        return None, f"row {row + 1} names {'a' if named.iloc[row] else 'no'} zone, unlike row 1"
    utc = pd.DatetimeIndex(pd.to_datetime(text, format=form, utc=True)).as_unit("ns")
    if form == "ISO8601":
        local = pd.DatetimeIndex(pd.to_datetime(text.str.replace(OFFSET, "", regex=True)))
        if len(set(local - local.normalize())) == 1:
            notes.append("days of several time zones are the local dates")
            return local.as_unit("ns"), ""
    notes.append("times of several zones (summer time) are turned into UTC")
    return utc, ""


# ------------------------------------------------------------------------------------- choice


def chosen(parsed: dict[str, pd.DatetimeIndex], text: pd.Series, place: str) -> str:
    """The one of several readings that is right.

    Raises InputError with two of them where several may be.
    """
    first, *others = parsed
    if all(parsed[first].equals(parsed[other]) for other in others):
        return first
    regular = [words for words in parsed if is_regular(parsed[words])]
    if len(regular) == 1:
        return regular[0]
    if text.str.contains(r"^\d+\.\d+\.").all() and "day/month/year" in parsed:
        return "day/month/year"  # nobody writes dots between month and day
    one, another = (regular if len(regular) > 1 else list(parsed))[:2]
    row = int(np.flatnonzero(parsed[one] != parsed[another])[0])
    raise InputError(
        f"{place}: {text.iloc[row]!r} in row {row + 1} may be {parsed[one][row].date()} ({one}) or "
        f"{parsed[another][row].date()} ({another}); --date-format {one.split('/')[0]}-first or "
        f"{another.split('/')[0]}-first says which"
    )


def is_regular(times: pd.DatetimeIndex) -> bool:
    """Whether times are in order, forwards or backwards, without a long hole.

    Of times that stand several times, as in a long table, the first ones count.
    """
    steps = np.diff(times.unique().asi8)
    if len(steps) == 0 or not ((steps > 0).all() or (steps < 0).all()):
        return False
    usual = max(np.median(np.abs(steps)), DAY // np.timedelta64(1, "ns") if len(steps) < 3 else 0)
    longest = LONGEST_STEP / np.timedelta64(1, "ns")
    return bool(usual <= longest and np.abs(steps).max() <= LONGEST_HOLE * usual)
