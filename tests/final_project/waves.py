"""Travelling waves: a flow that is made in no time, for tests of the real entry points."""

from __future__ import annotations

import numpy as np

from final_project.data import Flow


def waves(trajectories: int = 16, frames: int = 30, nodes: int = 200) -> Flow:
    """Waves that travel at a speed set by the first parameter, on a cloud of nodes."""
    rng = np.random.default_rng(0)
    corners = [[0, 0], [4, 0], [0, 1], [4, 1]]
    points = np.concatenate([rng.random((nodes, 2)) * [4, 1], corners])  # (P, 2)
    speed = np.linspace(60, 400, trajectories)
    size = rng.random(trajectories) * 0.1
    time = np.arange(frames) * 0.05

    travelled = (1 + speed / 400)[:, None, None] * time[None, :, None]  # (N, T, 1)
    begin = 6 * rng.random((trajectories, 1, 1))
    phase = 2 * np.pi * (points[None, None, :, 0] - travelled) + begin  # (N, T, P)
    wall = np.sin(np.pi * points[:, 1])
    u = 1 + 0.2 * np.sin(phase) * wall
    v = (0.3 + size[:, None, None]) * np.cos(phase) * wall
    p = 0.1 * np.cos(2 * phase)
    return Flow(
        fields=np.stack([u, v, p], -1).astype(np.float32),
        coordinates=points,
        parameters=np.stack([speed, size], 1),
        time=time,
        field_names=("u", "v", "p"),
        parameter_names=("Re", "size"),
        triangles=np.zeros((0, 3), np.int32),
        provenance={"generator": "waves"},
    )
