"""Optimisers, the objective, and the draws of the second stage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from final_project.config import MODELS, Config, Recipe
from final_project.data import groups_of, split
from final_project.factory import architecture, build_autoencoder, build_temporal, sizes_of
from final_project.fit import Windows, optimisers_of
from final_project.rollout import weighted_error
from final_project.surrogate import Surrogate, encode
from final_project.temporal import Temporal
from final_project.train import StepError
from tests.final_project.models import SMALL
from tests.final_project.waves import waves

SMOKE = Config(**Config.presets()["smoke"])


def coded(flow) -> tuple:
    """An autoencoder with its linear code, a fresh SEA on it, and the flow's latents."""
    groups = groups_of(flow.field_names)
    autoencoder = build_autoencoder(SMOKE, "own", flow.coordinates, groups)
    autoencoder.fit_linear(torch.from_numpy(flow.fields.reshape(-1, *flow.fields.shape[2:])))
    sizes = sizes_of(SMOKE, MODELS["SEA"], flow.coordinates, groups, flow.parameters.shape[1])
    torch.manual_seed(0)
    model = build_temporal(architecture(SMOKE, "SEA", sizes), sizes)
    return autoencoder, model, encode(autoencoder, flow.fields)


def test_muon_takes_the_matrices_inside_blocks_and_adamw_all_others():
    model = Temporal(SMALL, 2, 6, 2)
    names = {id(weight): name for name, weight in model.named_parameters()}
    adamw, muon = (
        [names[id(weight)] for group in optimiser.param_groups for weight in group["params"]]
        for optimiser in optimisers_of(model, Recipe(batch=1, lr=1e-3))
    )
    assert sorted(adamw + muon) == sorted(names.values())
    assert all(name.startswith("blocks.") and name.endswith("weight") for name in muon)
    others = {"embedding.layers.0.weight", "head.layers.0.weight", "blocks.0.gates.0<1"}
    assert others <= set(adamw)
    published = Recipe(batch=1, lr=1e-3, constant=True)
    assert len(optimisers_of(model, published)) == 1  # AdamW alone


def test_the_objective_is_teacher_forcing_without_tricks_and_grows_by_each():
    flow = waves(6, 14)
    _, model, z = coded(flow)
    theta = torch.from_numpy(flow.parameters).float()
    model.fit(z, theta)
    none = torch.zeros_like(z[:, :-1])
    plain = StepError(model, (), 3)(z, theta, none, False)
    persistence = weighted_error(model, z[:, :-1], z[:, 1:])
    assert torch.allclose(plain, persistence)  # it starts as persistence,
    assert plain.item() == pytest.approx(1, rel=1e-4)  # which costs 1
    pushed = StepError(model, ("pushforward",), 3)(z, theta, none, False)
    rolled = StepError(model, ("pushforward",), 3)(z, theta, none, True)
    assert plain < pushed < rolled


@pytest.mark.parametrize("name", ["SEA", "patch SEA"])
def test_windows_begin_at_the_first_frame_as_often_as_asked(name):
    generator = torch.Generator().manual_seed(5)
    z = torch.randn(6, 40, 2, 4, generator=generator)
    theta = torch.zeros(6, 1)
    recipe = SMOKE.temporal_recipe(MODELS[name])

    def begin(share: float) -> torch.Tensor:
        """Whether each of many windows begins with a trajectory's first frame."""
        windows = Windows(
            z,
            theta,
            replace(recipe, first_share=share),
            seeds=(0, 0),
            noise=None,
            delta_std=torch.ones(2, 4),
            share=slice(None),
        )
        firsts = torch.cat([windows.draw(step).z[:, 0] for step in range(200)])
        return (firsts[:, None] == z[:, 0]).all(3).all(2).any(1)

    assert begin(1.0).all()
    assert 0 < begin(0.0).float().mean() < 0.1  # one of 28 starts


def test_unrolls_grow_to_their_full_length_and_no_draw_is_longer():
    z = torch.randn(6, 40, 2, 4, generator=torch.Generator().manual_seed(5))
    recipe = Recipe(batch=2, lr=1e-3, steps=400, window=12, unroll=8, growth=0.5)
    windows = Windows(z, torch.zeros(6, 1), recipe, (0, 0), None, torch.ones(2, 4), slice(None))
    assert [windows.most_ahead(step) for step in (0, 25, 100, 200, 399)] == [0, 1, 4, 8, 8]
    drawn = {windows.draw(step).ahead for step in range(200, 400)}
    assert drawn == set(range(9))
    assert {windows.draw(step).ahead for step in range(12)} == {0}
    at_once = replace(windows, recipe=replace(recipe, growth=0.0))
    assert at_once.most_ahead(0) == 8


def test_processes_share_a_batch_and_draw_it_alike():
    z = torch.randn(6, 20, 2, 4, generator=torch.Generator().manual_seed(6))
    recipe = Recipe(batch=4, lr=1e-3, window=5, first_share=0.25)

    def windows(share: slice) -> Windows:
        return Windows(z, torch.zeros(6, 1), recipe, (0, 1), 0.2, torch.ones(2, 4), share)

    whole = windows(slice(None)).draw(3)
    parts = [windows(share).draw(3) for share in (slice(0, 2), slice(2, 4))]
    assert torch.equal(torch.cat([part.z for part in parts]), whole.z)
    assert torch.equal(torch.cat([part.noise for part in parts]), whole.noise)
    assert whole.z.shape == (4, 6, 2, 4)
    assert parts[0].ahead == parts[1].ahead == whole.ahead


def test_poisoned_test_trajectories_change_neither_codes_nor_scales():
    flow = waves()
    parts = split(flow.parameters, 0)
    poisoned = flow.fields.copy()
    for part in (parts.interpolation, parts.gap, parts.extrapolation):
        poisoned[part] = 1e6
    groups = groups_of(flow.field_names)
    states = []
    for fields in (flow.fields, poisoned):
        model = build_autoencoder(SMOKE, "own", flow.coordinates, groups)
        frames = fields[parts.train].reshape(-1, *fields.shape[2:])
        model.fit_linear(torch.from_numpy(frames))
        states.append(model.state_dict())
    fitted = [
        name
        for name in states[0]
        if "centre" in name or "analysis" in name or name in ("mean", "std")
    ]
    assert len(fitted) > 2
    assert all(torch.equal(states[0][name], states[1][name]) for name in fitted)


def test_an_untrained_model_is_persistence_of_the_code():
    flow = waves(4)
    autoencoder, model, _ = coded(flow)
    rollout = Surrogate(autoencoder, model).predict(flow.fields[:, 0], flow.parameters, 5)
    np.testing.assert_allclose(rollout, np.repeat(rollout[:, :1], 5, 1), atol=1e-6)
