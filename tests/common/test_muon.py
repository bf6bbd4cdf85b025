"""Muon against torch's own and against the singular value decomposition."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from common.muon import Muon, orthogonalised


@pytest.mark.parametrize("shape", [(12, 12), (8, 20), (20, 8)])
def test_singular_vectors_stay_and_singular_values_become_about_one(shape):
    torch.manual_seed(0)
    matrices = torch.randn(3, *shape)
    found = orthogonalised(matrices)
    for before, after in zip(matrices, found, strict=True):
        left, values, right = torch.linalg.svd(before, full_matrices=False)
        diagonal = left.T @ after @ right.T
        off = diagonal - torch.diag(diagonal.diagonal())
        assert off.abs().max() < 1e-4
        large = values > 0.1 * values[0]
        assert ((diagonal.diagonal()[large] - 1).abs() < 0.35).all()


def test_steps_are_those_of_torch_but_for_its_bfloat16():
    torch.manual_seed(1)
    start = [torch.randn(6, 10), torch.randn(6, 10), torch.randn(9, 4)]
    ours = [nn.Parameter(each.clone()) for each in start]
    theirs = [nn.Parameter(each.clone()) for each in start]
    options = {"lr": 0.01, "weight_decay": 0.1}
    one = Muon(ours, **options)
    other = torch.optim.Muon(theirs, adjust_lr_fn="match_rms_adamw", **options)
    for _ in range(5):
        for mine, its in zip(ours, theirs, strict=True):
            gradient = torch.randn_like(mine)
            mine.grad = gradient
            its.grad = gradient.clone()
        one.step()
        other.step()
    for begun, mine, its in zip(start, ours, theirs, strict=True):
        assert (mine - its).norm() < 0.03 * (its - begun).norm()


def test_matrices_of_one_shape_do_not_meet():
    torch.manual_seed(2)
    pair = torch.randn(2, 5, 7)
    alone = torch.cat([orthogonalised(pair[:1]), orthogonalised(pair[1:])])
    assert torch.allclose(orthogonalised(pair), alone, atol=1e-6)


def test_a_vector_is_refused():
    with pytest.raises(ValueError, match=r"shape \(3,\) is no matrix"):
        Muon([nn.Parameter(torch.zeros(3))], lr=0.1)
