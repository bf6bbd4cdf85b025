"""The temporal model whose tokens are patches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from common.cli import InputError
from final_project.autoencoder import Autoencoder
from final_project.patch_temporal import PatchAttention, PatchTemporal
from final_project.patches import geometry_of, patch_table
from final_project.rollout import rollout, teacher_forcing
from tests.final_project.helpers import shaken
from tests.final_project.models import SMALL, latents


@pytest.mark.parametrize("change", [{}, {"exchange": "none", "joint": True}])
def test_patches_begin_as_persistence_and_read_the_present_alone(change):
    config = replace(SMALL, patches=9, final_norm=True, principal=False, **change)
    mesh = np.random.default_rng(0).random((200, 2))
    table = patch_table(mesh, 3, 3)
    autoencoder = Autoencoder(table, ((0, 1), (2,)), 4, 8, 16, 0)
    autoencoder.fit_linear(torch.randn(40, 200, 3, generator=torch.Generator().manual_seed(3)))
    model = PatchTemporal(config, 2, 36, 2)
    z, theta = latents(20, size=36)
    model.fit(z, theta, geometry_of(mesh, table, 3, 3, autoencoder.bases()))
    assert torch.equal(model(z, theta), z)
    assert teacher_forcing(model, z, theta).item() == pytest.approx(1.0, rel=1e-5)
    shaken(model)
    moved = z.clone()
    moved[:, 4] += 1.0
    with torch.no_grad():
        same = torch.isclose(model(z, theta), model(moved, theta), atol=1e-6).all(3).all(2).all(0)
    assert same.tolist() == [time != 4 for time in range(20)]


@pytest.mark.parametrize("change", [{}, {"exchange": "none", "joint": True}])
def test_a_bundle_is_predicted_at_once_and_given_back_frame_by_frame(change):
    config = replace(SMALL, patches=9, principal=False, bundle=3, **change)
    model = shaken(PatchTemporal(config, 2, 36, 2).eval())
    z, theta = latents(20, size=36)
    model.fit_scales(z, theta, config.bundle)
    with torch.no_grad():
        bundles = model.bundled(z[:, :2], theta)  # (N, 2, 3, G, L)
        assert bundles.shape == (3, 2, 3, 2, 36)
        torch.testing.assert_close(model(z[:, :2], theta), bundles[:, :, 0], atol=1e-3, rtol=1e-3)
        frames = rollout(model, z[:, 0], theta, 7)
        torch.testing.assert_close(frames[:, :3], bundles[:, 0], atol=1e-3, rtol=1e-3)
        second = model.bundled(frames[:, 2:3], theta)[:, 0]  # from the last frame of the first
        torch.testing.assert_close(frames[:, 3:6], second, atol=1e-3, rtol=1e-3)
        third = model.bundled(frames[:, 5:6], theta)[:, 0]
        torch.testing.assert_close(frames[:, 6], third[:, 0], atol=1e-3, rtol=1e-3)
        assert not torch.isclose(frames, rollout(model, z[:, 0] + 1, theta, 7)).all()


def test_the_change_of_a_bundle_costs_one_where_the_frame_stays():
    config = replace(SMALL, patches=9, final_norm=True, principal=False, bundle=4)
    z, theta = latents(20, size=36)
    model = PatchTemporal(config, 2, 36, 2)
    model.fit(z, theta)
    last = z[:, 4:] - z[:, :-4]
    assert (model.weights * last.square()).mean().item() == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("change", [{"patches": 0}, {"scheme": "Adams-Bashforth"}, {"phase": 1}])
def test_bundles_are_of_patches_and_plain_steps(change):
    config = replace(SMALL, **{"patches": 9, "bundle": 2} | change)
    with pytest.raises(InputError, match="bundles of 2 frames are of models of patches"):
        config.check(2, 36)


def test_heads_look_at_the_patch_and_its_neighbours_first():
    places = torch.tensor([(column, row) for row in range(3) for column in range(4)]).double()
    attention = PatchAttention(16, 8, 12)
    attention.read_nearby(places)
    first = attention.bias.argmax(2)  # (8, 12): the patch that each head likes best
    inner = 5  # column 1, row 1
    assert first[:5, inner].tolist() == [inner, inner + 1, inner - 1, inner + 4, inner - 4]
    assert (attention.bias.amax(2)[:, inner] == 0).all()
    assert not attention.bias[7].any()  # the last head sees all places alike
