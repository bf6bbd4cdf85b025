"""Transolver: slices of a mesh's nodes that attend to each other."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from final_project import metrics
from final_project.baselines.grid import Nodes
from final_project.baselines.onestep import OneStep
from final_project.baselines.transolver import PhysicsAttention, Transolver
from final_project.config import OneStepRecipe
from tests.final_project.helpers import mesh, wave

torch.set_num_threads(1)

SLICES = partial(Transolver, width=16, layers=2, heads=2, slices=4)
TINY = OneStepRecipe(steps=25, batch=8, lr=1e-2, noise=0.01, checks=2)


def test_the_size_of_the_network_on_nodes():
    made = Transolver(7, 3, 1555)
    assert sum(parameter.numel() for parameter in made.parameters()) == 162_743
    assert not made(torch.randn(2, 7, 40)).any()


def attention(seed: int = 0, width: int = 8, heads: int = 2, slices: int = 3) -> PhysicsAttention:
    torch.manual_seed(seed)
    return PhysicsAttention(width, heads, slices).double()


def test_a_node_belongs_to_slices_by_weights_that_sum_to_one():
    made = attention()
    weights = made.weights(torch.randn(2, 5, 8, dtype=torch.float64))
    assert weights.shape == (2, 2, 5, 3)
    assert torch.allclose(weights.sum(3), torch.ones(2, 2, 5, dtype=torch.float64))
    assert (weights > 0).all()
    made.temperature.data.fill_(1e-3)
    sharp = made.weights(torch.randn(2, 5, 8, dtype=torch.float64))
    assert sharp.amax(3).min() > 0.99  # each node in one slice


def test_the_order_of_nodes_does_not_matter():
    torch.manual_seed(0)
    made = SLICES(5, 2, 9).double()
    torch.nn.init.normal_(made.head[-1].weight)
    x = torch.randn(3, 5, 9, dtype=torch.float64)
    order = torch.randperm(9)
    assert torch.allclose(made(x[:, :, order]), made(x)[:, :, order], atol=1e-10)
    # but every node reads all others
    moved = x.clone()
    moved[:, :, 4] += 1
    assert ((made(moved) - made(x)).abs().amax((0, 1)) > 1e-6).all()


def test_attention_between_two_slices_by_hand():
    made = attention(width=2, heads=1, slices=2)
    identity = torch.eye(2, dtype=torch.float64)
    for layer in (made.place, made.state, made.out, made.slice):
        layer.weight.data.copy_(identity)
        layer.bias.data.zero_()
    made.qkv.weight.data.copy_(torch.cat([identity] * 3))
    made.temperature.data.fill_(0.5)
    x = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]]], dtype=torch.float64)

    # weights: softmax of (2, 0), (0, 2) and (4, 4)
    a = 1 / (1 + np.exp(-2))
    weights = np.array([[a, 1 - a], [1 - a, a], [0.5, 0.5]])
    nodes = x[0].numpy()
    slices = (weights.T @ nodes) / weights.sum(0)[:, None]  # both have the mass 1.5
    assert weights.sum(0) == pytest.approx([1.5, 1.5])
    assert slices[0] == pytest.approx([(a + 1) / 1.5, (1 - a + 1) / 1.5])
    scores = slices @ slices.T / np.sqrt(2)
    mixed = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    by_hand = weights @ (mixed @ slices)
    assert made(x)[0].detach().numpy() == pytest.approx(by_hand)


def test_the_network_on_nodes_starts_as_persistence_and_learns_a_tiny_trajectory_by_heart():
    nodes, triangles = mesh(5, 9)
    fields = wave(0.4 * np.arange(6), nodes)[None].astype(np.float32)
    theta = np.zeros((1, 0))
    layout = Nodes(nodes, triangles)
    still = replace(TINY, steps=1, lr=0.0)
    found = OneStep(SLICES, layout, still).fit(fields, theta).rollout(fields[:, 0], theta, 5)
    assert found == pytest.approx(np.repeat(fields[:, :1], 5, 1), abs=1e-5)
    frozen = metrics.squared_relative_l2(found, fields[:, 1:]).mean()

    long = replace(TINY, steps=150, noise=0.0, pushforward=2)
    found = OneStep(SLICES, layout, long).fit(fields, theta).rollout(fields[:, 0], theta, 5)
    assert metrics.squared_relative_l2(found, fields[:, 1:]).mean() < 0.03 * frozen
