"""Model files: those of committed runs load under the present names of the networks' parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from common.weights import read_model
from final_project.checkpoint import load_networks, present_names
from final_project.data import Flow

RESULTS = Path(__file__).resolve().parents[2] / "final_project" / "results"


def test_earlier_names_become_present_ones_and_present_ones_stay():
    earlier = {
        "mean": "scales.mean",
        "theta_std": "scales.theta_std",
        "embed.0.weight": "embedding.layers.0.weight",
        "place.1": "embedding.place.1",
        "head.1.bias": "head.layers.1.bias",
        "spread.0": "head.spread.0",
        "blocks.0.streams.1.mlp.0.weight": "blocks.0.streams.1.mlp.0.weight",
    }
    zero = torch.zeros(1)
    assert list(present_names(dict.fromkeys(earlier, zero))) == list(earlier.values())
    assert list(present_names(dict.fromkeys(earlier.values(), zero))) == list(earlier.values())


@pytest.mark.parametrize("name", ["cylinder-core", "lock_exchange-core"])
def test_committed_models_load_and_stay_near_the_truth_for_a_step(name):
    folder = RESULTS / name
    _, about = read_model(folder / "model.safetensors")
    with np.load(folder / "pictures.npz") as pictures, np.load(folder / "mesh.npz") as mesh:
        truth = pictures["fields | truth"] * pictures["scale"] + pictures["mean"]  # (frames, P, F)
        truth = truth.astype(np.float32)
        flow = Flow(
            fields=truth[None],
            coordinates=mesh["coordinates"],
            parameters=np.zeros((1, len(about["parameters"]))),
            time=pictures["time"][pictures["frames"]],
            field_names=tuple(about["fields"]),
            parameter_names=tuple(about["parameters"]),
            triangles=mesh["triangles"],
            provenance={},
        )
    saved = load_networks(folder, flow, "cpu")
    theta = saved.surrogate.temporal.scales.theta_mean.double().numpy()[None]
    first = truth[[len(truth) // 2]]
    following = saved.surrogate.predict(first, theta, 1)[:, 0]
    error = np.square(following - first).sum() / np.square(first).sum()
    assert 0 < error < 0.05  # a small change in a step
    assert saved.step == pytest.approx(about["step"])
