"""Small flows, meshes and models that several tests of the final project share."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial import Delaunay
from torch import nn

from common.cli import InputError
from final_project.data import Flow, load_flow

ARRAYS = ("fields", "coordinates", "parameters", "time", "triangles")
SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.4, 0.5]])
FANS = np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]], np.int32)
GROUPS = ((0, 1), (2,))


def example(seed: int = 0, **changes) -> Flow:
    """Three trajectories of four frames of u, v, p on five nodes."""
    random = np.random.default_rng(seed)
    flow = Flow(
        random.normal(size=(3, 4, 5, 3)).astype(np.float32),
        SQUARE,
        random.normal(size=(3, 2)),
        np.array([0.0, 0.1, 0.2, 0.3]),
        ("u", "v", "p"),
        ("Re", "offset"),
        FANS,
        {"generator": "here", "viscosity": 1e-3},
    )
    return dataclasses.replace(flow, **changes)


def raw(flow: Flow) -> dict:
    """The arrays of a flow as somebody's own script writes them."""
    names = {key: np.array(getattr(flow, key)) for key in ("field_names", "parameter_names")}
    return {key: getattr(flow, key) for key in ARRAYS} | names


def refused(path: Path, message: str, **options) -> None:
    with pytest.raises(InputError) as caught:
        load_flow(path, **options)
    text = str(caught.value)
    assert message in text
    assert str(path) in text
    assert "\n" not in text


def at(array: np.ndarray, place, value) -> np.ndarray:
    """A copy with another value at a place."""
    array = array.copy()
    array[place] = value
    return array


def areas(coordinates: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Signed areas, positive counter-clockwise."""
    a, b, c = (coordinates[triangles[:, corner]] for corner in range(3))
    return (
        (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    ) / 2


def mesh(rows: int, columns: int, width: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Nodes (P, 2) of a regular grid, row by row from below, of height 1, and its triangles."""
    x, y = np.meshgrid(np.linspace(0, width, columns), np.linspace(0, 1, rows))
    nodes = np.stack([x.ravel(), y.ravel()], 1)
    return nodes, Delaunay(nodes).simplices


def wave(phase: np.ndarray, nodes: np.ndarray, amplitude: float = 1.0) -> np.ndarray:
    """u, v of a travelling wave at phases (T,): (T, P, 2)."""
    angle = 2 * nodes[:, 0] - np.asarray(phase)[:, None]
    return amplitude * np.stack([np.cos(angle), np.sin(angle) * (1 + nodes[:, 1])], -1)


def scattered() -> tuple[np.ndarray, np.ndarray]:
    nodes = np.concatenate(
        [mesh(3, 4)[0], np.random.default_rng(3).uniform((0.05, 0.05), (2.95, 0.95), (40, 2))]
    )
    return nodes, Delaunay(nodes).simplices


def cloud(nodes: int = 60, seed: int = 0) -> np.ndarray:
    """Nodes in a ring: the boxes in the middle are empty."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, nodes)
    return np.stack([2 * np.cos(angle), np.sin(angle)], axis=1) * rng.uniform(0.8, 1.0, (nodes, 1))


def shaken(model: nn.Module, size: float = 0.3, seed: int = 0) -> nn.Module:
    """The model with every parameter moved, so that no zero at start hides a fault."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return model.eval()
