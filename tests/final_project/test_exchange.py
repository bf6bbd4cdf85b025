"""The exchange of states: the paper's sum by hand, its symmetry, its gates, and its norms."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from final_project.attention import Attention, Context, rotary
from final_project.exchange import Block, Norm
from final_project.temporal import Temporal
from final_project.temporal_config import TemporalConfig
from tests.final_project.helpers import shaken
from tests.final_project.models import EXCHANGES, SMALL, latents, small


@pytest.mark.parametrize(("exchange", "gated"), [("symmetric", True), ("sequential", False)])
def test_a_stream_receives_the_sum_of_the_papers_equation(exchange, gated):
    config = replace(SMALL, exchange=exchange, gated=gated)
    block = shaken(Block(3, 32, 2, config, Attention))
    for name, module in block.cross.items():
        module.name = name
    generator = torch.Generator().manual_seed(4)
    h = [torch.randn(2, 5, 32, generator=generator) for _ in range(3)]
    theta = torch.randn(2, 2, generator=generator)
    context = Context(rotations={8: rotary(torch.arange(5), 8)}, causal=True)
    stream, second, _ = block.streams

    # h_0 <- h_0 + sum_j g_0j * Up_0(GELU(Attention_0j(y_0, y_j))), y = Norm(Down(h))
    y = [s.norm_low(s.down(x), theta) for s, x in zip(block.streams, h, strict=True)]
    expected = h[0].clone()
    for j in (1, 2):
        read = block.cross[f"0<{j}"](y[0], y[j], context)
        gate = block.gates[f"0<{j}"] if gated else 1.0
        expected += gate * stream.up(F.gelu(read))
    with torch.no_grad():
        states = block.exchanged(h, theta, context)
    assert torch.allclose(states[0], expected, atol=1e-6)

    # stream 1 reads stream 0 before its exchange, or after it (published)
    if exchange == "sequential":
        y[0] = stream.norm_low(stream.down(states[0]), theta)
    received = block.received(1, second, y, context)
    assert torch.allclose(states[1], h[1] + received, atol=1e-6)


def test_zero_gates_are_no_exchange():
    alone = small(exchange="none")
    exchanging = small()
    for block in exchanging.blocks:
        for gate in block.gates.values():
            gate.data.zero_()
    missing, unexpected = exchanging.load_state_dict(alone.state_dict(), strict=False)
    assert missing
    assert not unexpected
    z, theta = latents()
    with torch.no_grad():
        assert torch.allclose(exchanging(z, theta), alone(z, theta), atol=1e-6)
        exchanging.blocks[0].gates["0<1"].fill_(1.0)
        assert not torch.allclose(exchanging(z, theta), alone(z, theta), atol=1e-3)


def tie(model: Temporal) -> Temporal:
    """Both streams with the weights of the first."""
    state = model.state_dict()
    for name in state:
        second = name.replace("streams.0.", "streams.1.").replace("0<1", "1<0")
        second = re.sub(r"(layers|spread)\.0\.", r"\1.1.", second)
        second = re.sub(r"gates\.0$", "gates.1", second)
        if second != name:
            state[second] = state[name]
    for name in ("mean", "std", "delta_std", "weights"):
        state[f"scales.{name}"][1] = state[f"scales.{name}"][0]
    model.load_state_dict(state)
    return model


@pytest.mark.parametrize(
    ("exchange", "symmetric"),
    [("none", True), ("addition", True), ("symmetric", True), ("sequential", False)],
)
def test_only_the_sequential_exchange_depends_on_the_order_of_tied_streams(exchange, symmetric):
    model = tie(small(exchange=exchange))
    z, theta = latents()
    with torch.no_grad():
        swapped = model(z.flip(2), theta).flip(2)
        assert torch.allclose(swapped, model(z, theta), atol=1e-5) == symmetric


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_streams_reach_each_other_only_through_the_exchange(exchange):
    model = small(exchange=exchange)
    z, theta = latents()
    moved = z.clone()
    moved[:, :, 1] += 1.0
    with torch.no_grad():
        assert torch.equal(model(z, theta)[:, :, 0], model(moved, theta)[:, :, 0]) == (
            exchange == "none"
        )


def test_three_streams_and_one():
    for groups, exchange in (
        (3, "symmetric"),
        (3, "sequential"),
        (3, "addition"),
        (1, "symmetric"),
    ):
        model = small(groups=groups, exchange=exchange)
        z, theta = latents(groups=groups)
        assert model(z, theta).shape == z.shape
        assert model.blocks[0].exchange == (exchange if groups > 1 else "none")


def test_exchange_maps_are_causal_distributions():
    model = small(window=4)
    z, theta = latents()
    maps = model.exchange_maps(z, theta)
    assert sorted(maps) == [(0, 0, 1), (0, 1, 0), (1, 0, 1), (1, 1, 0)]
    for each in maps.values():
        assert each.shape == (3, 2, 12, 12)
        assert torch.allclose(each.sum(3), torch.ones(3, 2, 12))
        assert not each.triu(1).any()
        assert not each.tril(-4).any()


def test_adaln_starts_with_gain_two_as_published_and_one_in_ours():
    theta = torch.zeros(3, 1)
    for small_start, gain in ((False, 2.0), (True, 1.0)):
        model = Temporal(
            replace(TemporalConfig.published(), small_start=small_start, heads=1),
            2,
            4,
            1,
        )
        norm = model.blocks[0].streams[0].norm1
        scale, shift = norm.gain(theta)
        assert torch.equal(scale, torch.full((3, 1, 4), gain))
        assert not shift.any()


def test_adaln_by_hand():
    norm = shaken(Norm(2, 1, 2, True))
    x = torch.tensor([[[1.0, 3.0]]])  # normalised: -1, 1
    s, t = norm.conditioner(torch.tensor([[0.5]]))[0].split(2)
    by_hand = torch.tensor([-1.0, 1.0]) * (norm.weight + 1 + s) + norm.bias + t
    assert torch.allclose(norm(x, torch.tensor([[0.5]]))[0, 0], by_hand, atol=1e-4)


def test_raw_parameters_saturate_the_published_injection():
    told = Temporal(TemporalConfig.published(), 2, 64, 1).blocks[0].tipi
    with torch.no_grad():
        raw, scaled = (
            torch.dist(told(torch.tensor([a])), told(torch.tensor([b])))
            for a, b in (([300.0], [1000.0]), ([0.3], [1.0]))
        )
    assert raw < 1e-3 * scaled
