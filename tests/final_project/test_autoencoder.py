"""Mesh autoencoders: the linear code, groups, padding, shapes, files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from common.cli import InputError
from final_project.autoencoder import Autoencoder, PublishedAutoencoder
from final_project.patches import patch_table
from tests.final_project.helpers import GROUPS, cloud, shaken


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def frames(count: int = 40, nodes: int = 60) -> torch.Tensor:
    return (
        torch.randn(count, nodes, 3, generator=torch.Generator().manual_seed(4))
        * torch.tensor([1.0, 5.0, 100.0])
        + 7.0
    )


def ours(**changes) -> Autoencoder:
    model = Autoencoder(
        patch_table(cloud(), 5, 5),
        GROUPS,
        **{"latent": 2, "components": 4, "width": 16, "heads": 2, **changes},
    )
    model.fit_linear(frames())
    return model.eval()


def test_before_training_ours_is_the_principal_components_of_each_patch():
    model, x = ours(), frames().double().numpy()
    table = patch_table(cloud(), 5, 5)
    normal = (x - x.mean((0, 1))) / x.std((0, 1))
    with torch.no_grad():
        found = ((model.decode(model.encode(frames())).double().numpy()) - x.mean((0, 1))) / x.std(
            (0, 1)
        )
    for row in table:
        nodes = row[row >= 0]
        for group in GROUPS:
            flat = normal[:, nodes][:, :, group].reshape(len(x), -1)
            centre = flat.mean(0)
            axes = np.linalg.svd(flat - centre, full_matrices=False)[2][:2]
            expected = centre + (flat - centre) @ axes.T @ axes
            assert np.allclose(
                found[:, nodes][:, :, group].reshape(len(x), -1), expected, atol=1e-4
            )


def test_enough_numbers_make_the_code_exact():
    fullest = patch_table(cloud(), 5, 5).shape[1]
    model = ours(latent=2 * fullest)
    with torch.no_grad():
        decoded = model.decode(model.encode(frames())).float()
        assert torch.allclose(decoded, frames(), atol=1e-2, rtol=1e-4)
        assert model.reconstruction_loss(frames()).item() < 1e-8


def test_more_numbers_never_make_the_linear_code_worse():
    with torch.no_grad():
        errors = [
            ours(latent=latent, layers=0).reconstruction_loss(frames()).item()
            for latent in (1, 2, 4, 6)
        ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] < 1.0


def test_shapes_on_an_irregular_cloud_with_empty_boxes():
    table = patch_table(cloud(), 5, 5, keep_empty=True)
    for model in (
        Autoencoder(table, GROUPS, latent=3, width=16),
        PublishedAutoencoder(table, GROUPS, latent=8, hidden=16, layers=1),
    ):
        latent = model.encode(frames(4))
        assert latent.shape == (4, 2, 25 * (3 if isinstance(model, Autoencoder) else 8))
        assert model.decode(latent).shape == (4, 60, 3)
        assert torch.isfinite(model.reconstruction_loss(frames(4)))


def test_groups_mix_in_the_published_autoencoder_and_not_in_ours():
    published = PublishedAutoencoder(
        patch_table(cloud(), 5, 5), GROUPS, latent=8, hidden=16, layers=2
    ).eval()
    changed = frames(4)
    changed[..., 2] = changed[..., 2].flip(0)
    with torch.no_grad():
        for model, leaks in ((shaken(ours()), False), (published, True)):
            before, after = model.encode(frames(4)), model.encode(changed)
            assert torch.equal(before[:, 0], after[:, 0]) != leaks
            assert not torch.equal(before[:, 1], after[:, 1])
            swapped = torch.stack([before[:, 0], after[:, 1]], dim=1)
            assert torch.equal(model.decode(before)[..., :2], model.decode(swapped)[..., :2])


def test_patches_are_laid_out_by_patch_then_number():
    model = ours(layers=0)
    latent = torch.zeros(1, 2, len(model.real) * 2)
    latent[0, 1, 3 * 2 : 4 * 2] = 1.0  # patch 3, p
    with torch.no_grad():
        moved = (model.decode(latent) - model.decode(torch.zeros_like(latent)))[0].abs() > 1e-4
    row = patch_table(cloud(), 5, 5)[3]
    assert set(moved[:, 2].nonzero().flatten().tolist()) == set(row[row >= 0].tolist())
    assert not moved[:, :2].any()


def test_padding_does_not_matter():
    model = shaken(ours())
    with torch.no_grad():
        before = (
            model.encode(frames(4)),
            model.decode(model.encode(frames(4))),
            model.reconstruction_loss(frames(4)),
        )
        for code in model.codes:
            for parameter in (code.centre, code.analysis, code.synthesis):
                parameter[~code.real] = 1e9
        after = (
            model.encode(frames(4)),
            model.decode(model.encode(frames(4))),
            model.reconstruction_loss(frames(4)),
        )
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_the_published_loss_counts_padding():
    model = PublishedAutoencoder(patch_table(cloud(), 5, 5), GROUPS, latent=8, hidden=16, layers=1)
    with torch.no_grad():
        for decoder in model.decoders:
            decoder[2].weight.zero_()
            decoder[2].bias.zero_()
    expected = frames(4).square().sum() / (
        4 * model.real.numel() * 3
    )  # everything is decoded as 0, and padding is 0
    assert model.reconstruction_loss(frames(4)).item() == pytest.approx(expected.item(), rel=1e-5)


def test_group_order_may_differ_from_field_order():
    groups = ((2, 0), (1,))
    model = Autoencoder(patch_table(cloud(), 5, 5), groups, latent=30, width=16)
    model.fit_linear(frames())
    with torch.no_grad():
        decoded = model.decode(model.encode(frames())).float()
        assert torch.allclose(decoded, frames(), atol=1e-2, rtol=1e-4)


def test_training_lowers_the_error_of_the_linear_code():
    x = torch.linspace(0, 6, 40)[:, None, None] + torch.from_numpy(cloud()).float() @ torch.randn(
        2, 3
    )
    model = Autoencoder(
        patch_table(cloud(), 3, 3), GROUPS, latent=1, components=8, width=16, layers=1, heads=2
    )
    model.fit_linear(x.sin())
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = model.reconstruction_loss(x.sin())
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_an_autoencoder_survives_its_file(tmp_path):
    table = patch_table(cloud(), 5, 5)
    for model, again in (
        (shaken(ours()), Autoencoder(table, GROUPS, latent=2, components=4, width=16, heads=2)),
        (
            PublishedAutoencoder(table, GROUPS, 8, 16, 1),
            PublishedAutoencoder(table, GROUPS, 8, 16, 1),
        ),
    ):
        model.fit_normaliser(frames())
        save_file(model.state_dict(), tmp_path / "autoencoder.safetensors")
        again.load_state_dict(load_file(tmp_path / "autoencoder.safetensors"))
        with torch.no_grad():
            assert torch.equal(model.eval().encode(frames(4)), again.eval().encode(frames(4)))
            assert torch.equal(
                model.decode(model.encode(frames(4))), again.decode(again.encode(frames(4)))
            )


def test_another_mesh_and_unknown_groups_are_refused():
    table = patch_table(cloud(), 5, 5)
    with pytest.raises(InputError, match="made for"):
        ours().encode(frames(4, nodes=61))
    with pytest.raises(InputError, match="every field must stand in exactly one group"):
        Autoencoder(table, ((0, 1), (1, 2)))
    with pytest.raises(InputError, match="every node must stand in exactly one patch"):
        Autoencoder(table[1:], GROUPS)
    with pytest.raises(InputError, match="heads divide the width"):
        Autoencoder(table, GROUPS, width=30, heads=4)
    with pytest.raises(InputError, match="not divisible by the 8 heads"):
        PublishedAutoencoder(table, GROUPS, latent=3)
