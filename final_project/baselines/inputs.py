"""What all baselines share: checks of what they are given.

Every baseline has `fit(fields, theta, validation)` and `rollout(first, theta, steps)`, in physical
units and in the type of the start frames; inside they work in units of the training fields. All
choices are made on validation.

Shape letters: N trajectories, T frames, P nodes, F fields, K parameters, S steps.
"""

from __future__ import annotations

import numpy as np

from common.cli import InputError

Flows = tuple[np.ndarray, np.ndarray]  # fields float (N, T, P, F) and parameters float (N, K)


def checked(fields: np.ndarray, theta: np.ndarray) -> Flows:
    """Fields and parameters (float64) to fit on.

    Raises InputError for shapes that do not match, one frame, or values that are not finite.
    """
    fields = np.asarray(fields)
    theta = np.asarray(theta, np.float64)
    matching = fields.ndim == 4 and theta.ndim == 2 and len(theta) == len(fields)
    if not matching or not len(fields):
        raise InputError(
            f"fields {fields.shape} and parameters {theta.shape}: (trajectory, time, node, field) "
            "and (trajectory, parameter) are needed"
        )
    if fields.shape[1] < 2:
        raise InputError("trajectories of one frame: at least 2 are needed to fit a step")
    if not (np.isfinite(fields).all() and np.isfinite(theta).all()):
        raise InputError("fields or parameters to fit on hold NaN or inf")
    return fields, theta


def checked_start(
    first: np.ndarray, theta: np.ndarray, steps: int, nodes: tuple[int, int], parameters: int
) -> Flows:
    """Start frames (N, P, F) and parameters (N, K, float64) of a rollout.

    nodes: (P, F) that was fitted. Raises InputError where they do not match what was fitted, or
    steps < 1.
    """
    first = np.asarray(first)
    theta = np.asarray(theta, np.float64)
    if steps < 1:
        raise InputError(f"a rollout of {steps} steps: at least one is needed")
    if first.shape[1:] != nodes or theta.shape != (len(first), parameters):
        raise InputError(
            f"start frames {first.shape} and parameters {theta.shape}: fitted on "
            f"(N, {nodes[0]}, {nodes[1]}) and (N, {parameters})"
        )
    return first, theta
