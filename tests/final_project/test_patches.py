"""An unstructured mesh cut into patches, and codes in functions that all patches have in common."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from common.cli import InputError
from final_project.autoencoder import Autoencoder
from final_project.patches import geometry_of, patch_table, polynomials
from tests.final_project.helpers import cloud


def test_a_patch_table_holds_every_node_once_and_drops_empty_boxes():
    for keep_empty in (False, True):
        table = patch_table(cloud(), 5, 5, keep_empty)
        assert np.array_equal(np.sort(table[table >= 0]), np.arange(60))
        assert (len(table) == 25) == keep_empty
        assert (table >= 0).sum(1).all() != keep_empty
        filled = [row[row >= 0] for row in table]
        assert all((np.diff(row) > 0).all() for row in filled)  # mesh order
        assert max(map(len, filled)) == table.shape[1]


def test_a_patch_table_by_hand():
    square = np.array([[0.0, 0], [4, 4], [1, 0], [2, 0], [0, 4]])  # (2, 0) lies on the inner edge
    assert patch_table(square, 2, 2).tolist() == [[0, 2], [3, -1], [4, -1], [1, -1]]


def test_the_published_multiphase_mesh_has_156_nodes_in_its_fullest_patch():
    x, y = np.meshgrid(np.linspace(0, 5, 201), np.linspace(0, 1, 41))
    assert patch_table(np.stack([x.ravel(), y.ravel()], axis=1), keep_empty=True).shape == (64, 156)


@pytest.mark.parametrize(
    ("coordinates", "columns", "message"),
    [
        (np.zeros((4, 3)), 2, "shape (4, 3)"),
        (np.full((4, 2), np.nan), 2, "finite"),
        (np.stack([np.arange(4), np.zeros(4)], axis=1), 2, "on one line"),
        (np.eye(2), 0, "at least one column"),
    ],
)
def test_meshes_that_cannot_be_cut_are_refused(coordinates, columns, message):
    with pytest.raises(InputError) as caught:
        patch_table(coordinates, columns, 2)
    assert message in str(caught.value)


def test_codes_of_all_patches_are_read_and_written_in_the_same_functions():
    mesh = np.random.default_rng(1).random((900, 2)) * (2, 1)
    table = patch_table(mesh, 4, 2)
    fields, weights = (
        [],
        np.random.default_rng(2).standard_normal((60, 8, 2, 10)),
    )  # frames, patches, fields, terms up to degree 3
    for patch in range(8):
        nodes = table[patch][table[patch] >= 0]
        local = (
            2 * ((mesh[nodes] - mesh.min(0)) / (np.ptp(mesh, 0) / (4, 2)) - (patch % 4, patch // 4))
            - 1
        )
        fields.append(np.einsum("nt,bft->bnf", polynomials(local, 3), weights[:, patch]))
    whole = np.zeros((60, 900, 2))
    for patch in range(8):
        whole[:, table[patch][table[patch] >= 0]] = fields[patch]
    autoencoder = Autoencoder(table, ((0, 1),), 20, 20, 16, 0)
    autoencoder.fit_linear(torch.from_numpy(whole).float())
    geometry = geometry_of(mesh, table, 4, 2, autoencoder.bases())
    assert geometry.places.tolist() == [[patch % 4, patch // 4] for patch in range(8)]
    with torch.no_grad():
        code = autoencoder.encode(torch.from_numpy(whole).float()).reshape(60, 8, 20).double()
    change = code[1:] - code[:-1]  # (a code stands for what differs from a patch's mean)
    seen = torch.einsum("bqe,qec->bqc", change, geometry.analysis[0]).reshape(59, 8, 10, 2)
    truth = torch.from_numpy(np.diff(weights, axis=0)).transpose(2, 3) / autoencoder.std.double()
    assert torch.allclose(seen, truth, rtol=0.03, atol=0.05)  # (the ridge of 1e-3)
    written = torch.einsum("bqc,qce->bqe", seen.flatten(2), geometry.synthesis[0])
    assert torch.allclose(written, change, atol=0.03 * change.abs().max().item())
