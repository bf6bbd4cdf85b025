"""The split of trajectories by how far their first parameter is from those trained on.

Shape letters: N trajectories, K parameters, V different values of the first parameter.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from common.cli import InputError

INTERPOLATION = 0.2  # of the trajectories inside the trained range, about
VALIDATION = 0.12  # of the same
GAP = 0.12  # of the values inside the trained range, the band around the 55 % rank
EXTRAPOLATION = (0.05, 0.1, 0.15)  # of the values: at least, aimed at, at most
BEYOND = 0.1  # of the trained range, the least distance of the extrapolation part from it
APART = 0.02  # of the range, what a held-out value is away from its neighbours, where possible
DECADE = 10.0  # a positive parameter that spans as much is measured by its logarithm
DIGITS = 9  # of a value's position in the range: values that agree in them are the same
LEAST_VALUES = 12  # of the first parameter, below which there is no gap and no extrapolation
LEAST_INSIDE = 4  # values, below which none can be held out between trained ones


@dataclasses.dataclass(frozen=True)
class Split:
    """Row numbers int64 of six parts, disjoint and together all N; see `split`.

    margin : neither trained on nor scored.
    note : which parts could not be formed and why, or empty.
    """

    train: np.ndarray
    validation: np.ndarray
    interpolation: np.ndarray
    gap: np.ndarray
    extrapolation: np.ndarray
    margin: np.ndarray
    note: str = ""

    @property
    def sizes(self) -> dict[str, int]:
        """How many trajectories each part has; an empty margin is not named."""
        parts = {name: len(rows) for name, rows in vars(self).items() if name != "note"}
        return {name: size for name, size in parts.items() if size or name != "margin"}


class Ranked(NamedTuple):
    """Trajectories in the order of their first parameter, ties broken by the others.

    rows : row numbers (N,). values : the different positions (V,) of the first parameter between
    its least, 0, and its largest, 1. number : which of the values each of `rows` has (N,).
    """

    rows: np.ndarray
    values: np.ndarray
    number: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """How many trajectories have each value (V,)."""
        return np.bincount(self.number, minlength=len(self.values))


def positions(parameters: np.ndarray) -> np.ndarray:
    """Where the first of parameters (N, K) lies in its range, float64 (N,) in [0, 1].

    By its logarithm where it is positive and spans DECADE; 0 where there is none, or it is the
    same everywhere.
    """
    if not parameters.shape[1]:
        return np.zeros(len(parameters))
    first = np.asarray(parameters[:, 0], np.float64)
    if 0 < DECADE * first.min() <= first.max():
        first = np.log(first)
    extent = np.ptp(first)
    return np.round((first - first.min()) / extent, DIGITS) if extent else np.zeros(len(first))


def ranked(parameters: np.ndarray) -> Ranked:
    """The trajectories of parameters (N, K) by the first one."""
    place = positions(parameters)
    rows = np.lexsort((*parameters.T[::-1], place))
    values, number = np.unique(place[rows], return_inverse=True)
    return Ranked(rows, values, number)


def split(parameters: np.ndarray, seed: int) -> Split:
    """Six parts of the trajectories by their first parameter, from parameters (N, K).

    extrapolation : about the highest tenth of the values, at least BEYOND of the trained range
        beyond it.
    margin : what lies between the two; few as the place of the border allows.
    gap : a band of values inside, none of which is trained on.
    interpolation, validation : values inside, drawn at random, such that both neighbouring values
        are trained on, and are APART of the range away where there are enough such values.
        Validation takes an end of the range where no other value is left.
    train : the rest.

    Trajectories of equal value stay together, so that no part has a parameter that is trained on.
    Below LEAST_VALUES different values there is no gap and no extrapolation; below LEAST_INSIDE the
    split is random, and the note says so. The result depends on the values and the seed, not on the
    order of the rows. Raises InputError for N < 4.
    """
    count = len(parameters)
    if count < 4:
        number = "1 trajectory is" if count == 1 else f"{count} trajectories are"
        raise InputError(
            f"{number} too few to be split; at least 4 are needed (2 to train, 1 to choose by, 1 "
            "to score): give a folder of OpenFOAM cases with a parameters.csv, or one file of all"
        )

    # a part for every value, or for every trajectory where there are too few values
    order = ranked(parameters)
    several = len(order.values)
    notes = []
    if several < LEAST_VALUES:
        notes.append(
            f"no gap and no extrapolation part: the first parameter has {several} different "
            f"values, {LEAST_VALUES} are needed"
        )
    if several < LEAST_INSIDE:
        notes.append("the split is random, and scored parameters may be trained ones")
        order = order._replace(values=np.linspace(0, 1, count), number=np.arange(count))
    roles = roles_of(order, seed, blocks=several >= LEAST_VALUES)  # (V,)
    parts = {
        field.name: np.sort(order.rows[roles[order.number] == field.name])
        for field in dataclasses.fields(Split)
        if field.name != "note"
    }
    if len(parts["margin"]):
        notes.append(
            f"margin: {len(parts['margin'])} of {count} trajectories, beyond the trained range by "
            f"less than {BEYOND:.0%} of it, are neither trained on nor scored"
        )
    return Split(**parts, note="; ".join(notes))


def roles_of(order: Ranked, seed: int, blocks: bool) -> np.ndarray:
    """The name of a part for each value (V,); without blocks no gap, extrapolation and margin."""
    counts = order.counts
    roles = np.full(len(order.values), "train", dtype="<U13")
    if blocks:
        inside, first = borders(order.values, counts)
        roles[inside:first] = "margin"
        roles[first:] = "extrapolation"
        width = max(1, round(GAP * inside))
        begin = round(0.55 * inside) - width // 2
        roles[begin : begin + width] = "gap"

    # of the rest some values are held out, so few that validation finds one that is not beside them
    inside_parts = roles == "train"
    rest = counts[inside_parts].sum()
    most = max(1, round(INTERPOLATION * inside_parts.sum()))
    candidates = inner_values(order.values, roles, seed)
    hold_out(roles, counts, candidates, "interpolation", (round(INTERPOLATION * rest), most))
    hold_out(roles, counts, candidates, "validation", (round(VALIDATION * rest), len(roles)))
    if "validation" not in roles:
        beside = np.flatnonzero(roles == "interpolation")
        away = roles == "train"
        away[beside - 1] = False
        away[beside + 1] = False
        roles[np.flatnonzero(away)[-1]] = "validation"
    return roles


def borders(values: np.ndarray, counts: np.ndarray) -> tuple[int, int]:
    """The numbers of the first value of the margin, and of the first one of the extrapolation.

    So that the fewest trajectories lie in between, and then as near as possible to the share of
    EXTRAPOLATION that is aimed at.
    """
    least, aim, most = (share * len(values) for share in EXTRAPOLATION)
    best = (np.inf, np.inf, 0, 0)
    for block in range(max(1, round(least)), max(1, round(most)) + 1):
        first = len(values) - block
        highest = values[first] / (1 + BEYOND)  # the trained range begins at 0
        inside = int(np.searchsorted(values, highest + 10.0**-DIGITS, "right"))
        best = min(best, (int(counts[inside:first].sum()), abs(block - aim), inside, first))
    return best[2], best[3]


def inner_values(values: np.ndarray, roles: np.ndarray, seed: int) -> np.ndarray:
    """Numbers of the values whose neighbours are of the training part too, in random order.

    Those that are APART from both neighbours come first.
    """
    trained = roles == "train"
    inner = np.flatnonzero(trained[:-2] & trained[1:-1] & trained[2:]) + 1
    shuffled = np.random.default_rng((seed, 60)).permutation(inner)
    nearest = np.minimum(
        values[shuffled] - values[shuffled - 1], values[shuffled + 1] - values[shuffled]
    )
    near = nearest < APART
    return np.concatenate([shuffled[~near], shuffled[near]])


def hold_out(
    roles: np.ndarray,
    counts: np.ndarray,
    candidates: np.ndarray,
    part: str,
    limits: tuple[int, int],
) -> None:
    """Gives candidates to a part while both of their neighbours are trained on.

    limits : trajectories (at least one), and values, with which the part is full.
    """
    trajectories, most = limits
    for value in candidates:
        chosen = roles == part
        if counts[chosen].sum() >= max(1, trajectories) or chosen.sum() >= most:
            break
        if (roles[value - 1 : value + 2] == "train").all():
            roles[value] = part


# ------------------------------------------------------------------------------------ distances


def distances(parameters: np.ndarray, parts: Split) -> dict[str, np.ndarray]:
    """How far the first parameter of each trajectory is from the nearest one trained on.

    {part: float64 (n,)} for every part but the training, in % of the trained range of parameters
    (N, K), or of its logarithm (see `positions`). Empty where that range has no extent.
    """
    place = positions(parameters)
    trained = place[parts.train]
    extent = np.ptp(trained)
    if not extent:
        return {}
    found = {}
    for name in parts.sizes:
        rows = getattr(parts, name)
        if name != "train" and len(rows):
            away = np.abs(place[rows, None] - trained).min(1)  # (n,)
            found[name] = 100 * away / extent
    return found


def distances_in_words(parameter: str, found: dict[str, np.ndarray]) -> str:
    """Least and largest distance of every part, in a line; empty where there are none."""
    spans = [f"{name} {values.min():.1f} to {values.max():.1f}" for name, values in found.items()]
    if not spans:
        return ""
    return f"nearest trained {parameter}, in % of the trained range: {', '.join(spans)}"
