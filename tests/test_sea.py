"""The final project's models: published parameter counts, causality, the cache, the exchange's symmetry, the linear code, the losses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from common.cli import InputError
from final_project.autoencoder import Autoencoder, PublishedAutoencoder
from final_project.patches import geometry_of, patch_table
from final_project.rollout import after_own_steps, pushforward, rollout, teacher_forcing, unrolled
from final_project.sea import PatchTemporal, Temporal, build, count, matched, unused_parameters
from final_project.streams import Norm, PatchAttention, TemporalConfig, rotary, rotate
from final_project.training import optimisers_of

PUBLISHED = TemporalConfig.published
PATCHES = TemporalConfig(width=64, patches=64, final_norm=True, principal=False)
SMALL = dataclasses.replace(TemporalConfig.ours(), width=32, heads=2, mlp_ratio=2.0)
GROUPS = ((0, 1), (2,))
EXCHANGES = ("none", "addition", "sequential", "symmetric")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def shaken(model: nn.Module, size: float = 0.3, seed: int = 0) -> nn.Module:
    """The model with every parameter moved, so that no zero at start hides a fault."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def small(groups: int = 2, latents: int = 6, parameters: int = 2, **changes) -> Temporal:
    """A shaken model with scales that are not 1."""
    model = shaken(build(dataclasses.replace(SMALL, **changes), groups, latents, parameters), 0.1)
    generator = torch.Generator().manual_seed(1)
    model.fit(
        torch.randn(5, 9, groups, latents, generator=generator).cumsum(1),
        torch.randn(5, parameters, generator=generator),
    )
    return model


def latents(
    frames: int = 12, groups: int = 2, size: int = 6, parameters: int = 2
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(3, frames, groups, size, generator=generator), torch.randn(
        3, parameters, generator=generator
    )


# ------------------------------------------------------------------------------------------------------------ counts


@pytest.mark.parametrize(
    ("adaptive", "exchange", "width", "total", "unused"),
    [
        (
            True,
            "sequential",
            1024,
            87_189_536,
            11_559_936,
        ),  # sea.md: 87.19 M, of which 11.56 M are never used
        (True, "none", 1024, 78_783_520, 9_459_712),  # 78.78 M
        (True, "addition", 1024, 82_989_088, 9_459_712),  # 82.99 M
        (False, "sequential", 2048, 201_505_824, 8_403_968),  # 201.51 M, 8.40 M
        (False, "none", 2048, 176_319_520, 9_216),  # 176.32 M
        (False, "addition", 2048, 184_716_320, 9_216),  # 184.72 M
    ],
)
def test_used_and_unused_parameters_are_the_published_totals(
    adaptive, exchange, width, total, unused
):
    config = PUBLISHED(adaptive, exchange)
    assert unused_parameters(config, 2, width, 1) == unused
    assert count(config, 2, width, 1) + unused == total


@pytest.mark.parametrize(
    ("adaptive", "parameters", "nodes", "latent", "hidden", "total"),
    [
        (True, 6, 115, 16, 480, 87_850_025),
        (False, 1, 156, 32, 624, 202_774_068),
    ],  # the public re-run gave the cylinder six inputs
)
def test_both_stages_together_are_the_published_totals(
    adaptive, parameters, nodes, latent, hidden, total
):
    table = np.arange(64 * nodes).reshape(64, nodes)
    autoencoder = PublishedAutoencoder(table, GROUPS, latent, hidden)
    config, width = PUBLISHED(adaptive), 64 * latent
    temporal = count(config, 2, width, parameters) + unused_parameters(config, 2, width, parameters)
    assert temporal + sum(parameter.numel() for parameter in autoencoder.parameters()) == total


def test_counting_without_building_counts_what_is_built():
    assert count(SMALL, 2, 6, 2) == sum(
        parameter.numel() for parameter in Temporal(SMALL, 2, 6, 2).parameters()
    )


def test_ours_is_below_five_million_parameters():
    assert count(TemporalConfig.ours(), 2, 512, 3) == 4_383_232


@pytest.mark.parametrize(
    ("config", "change"),
    [
        (TemporalConfig.ours(), {"exchange": "none"}),
        (TemporalConfig.ours(), {"exchange": "none", "joint": True}),
        (TemporalConfig.ours(), {"exchange": "addition"}),
        (TemporalConfig.ours(), {"exchange": "none", "tipi": False}),
        (PATCHES, {"exchange": "none"}),
        (PATCHES, {"exchange": "none", "joint": True}),
        (PUBLISHED(), {"exchange": "none"}),
        (PUBLISHED(), {"exchange": "addition"}),
    ],
)
def test_controls_match_the_parameters_within_one_percent(config, change):
    like = count(config, 2, 512, 3)
    assert (
        abs(
            count(matched(dataclasses.replace(config, **change), config, 2, 512, 3), 2, 512, 3)
            / like
            - 1
        )
        < 0.01
    )


def test_a_control_that_cannot_match_is_refused():
    with pytest.raises(InputError, match="no MLP width brings"):
        matched(dataclasses.replace(SMALL, width=256), SMALL, 2, 6, 2)


# ------------------------------------------------------------------------------------------------ causality and cache


def variants() -> list[dict]:
    return [{"exchange": exchange} for exchange in EXCHANGES] + [
        {"exchange": "none", "joint": True},
        {"adaptive": True},
        {"patches": 2},
        {"patches": 4, "exchange": "none", "joint": True, "final_norm": True},
        {
            "width": None,
            "heads": 1,
            "delta": False,
            "final_norm": True,
            "output_projection": True,
            "small_start": False,
            "gated": False,
        },
    ]


def names(change: dict) -> str:
    return "-".join(f"{value}" for value in change.values())[:30]


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("change", variants(), ids=names)
def test_no_output_depends_on_a_later_frame(change, window):
    model = small(latents=8, window=window, **change)
    z, theta = latents(size=8)
    poisoned = z.clone()
    poisoned[:, 7:] = 1e6
    with torch.no_grad():
        clean, other = model(z, theta), model(poisoned, theta)
    assert torch.equal(clean[:, :7], other[:, :7])
    assert not torch.allclose(clean[:, 7], other[:, 7])


@pytest.mark.parametrize("window", [None, 1, 4])
@pytest.mark.parametrize("change", variants(), ids=names)
def test_cached_steps_equal_the_full_forward(change, window):
    model = small(latents=8, window=window, **change)
    z, theta = latents(size=8)
    with torch.no_grad():
        whole, cache = model(z, theta), None
        for time in range(z.shape[1]):
            following, cache = model.step(z[:, time], theta, cache)
            assert torch.allclose(following, whole[:, time], atol=1e-5)
        chunks, cache = [], None
        for chunk in z.split(5, dim=1):
            following, cache = model.advance(chunk, theta, cache)
            chunks.append(following)
        assert torch.allclose(torch.cat(chunks, 1), whole, atol=1e-5)
    assert cache.time == 12
    assert all(
        keys.shape[2] == (12 if window is None else window - 1) for keys, _ in cache.past.values()
    )


def test_a_step_leaves_the_cache_it_was_given_as_it_was():
    model = small()
    z, theta = latents()
    with torch.no_grad():
        _, cache = model.step(z[:, 0], theta)
        first, second = (model.step(z[:, 1], theta, cache)[0] for _ in range(2))
    assert cache.time == 1
    assert torch.equal(first, second)


def test_a_window_hides_what_lies_before_it():
    model = small(window=3, blocks=1)
    z, theta = latents()
    moved = z.clone()
    moved[:, 0] += 1.0
    with torch.no_grad():
        same = (
            torch.isclose(model(z, theta), model(moved, theta), atol=0.0, rtol=0.0)
            .all(3)
            .all(2)
            .all(0)
        )
    # one block reads twice: own past, then the other's states which have read theirs
    assert same.tolist() == [False] * 5 + [True] * 7


def test_rotary_products_depend_on_differences_only():
    q, k = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0))
    products = [
        (rotate(q, rotary(torch.tensor([i]), 8)) * rotate(k, rotary(torch.tensor([j]), 8))).sum()
        for i, j in ((5, 2), (1005, 1002))
    ]
    assert torch.isclose(*products, atol=1e-5)
    assert torch.equal(rotate(q, rotary(torch.tensor([0]), 8)), q)
    quarter = rotate(torch.tensor([[[[1.0, 0.0]]]]), rotary(torch.tensor([1]), 2))
    assert torch.allclose(
        quarter.flatten(), torch.tensor([np.cos(1.0), np.sin(1.0)], dtype=torch.float32)
    )


@pytest.mark.parametrize(
    "change",
    [{}, {"window": 3}, {"exchange": "sequential"}, {"exchange": "none", "joint": True}],
    ids=names,
)
def test_a_cached_rollout_is_the_recomputed_one(change):
    model = small(**change).train()
    z, theta = latents()
    fast, slow = (rollout(model, z[:, 0], theta, 9, cached=cached) for cached in (True, False))
    assert fast.shape == (3, 9, 2, 6)
    assert torch.allclose(fast, slow, atol=1e-5)
    assert model.training
    assert not fast.requires_grad


# ----------------------------------------------------------------------------------------------- exchange and start


def test_ours_begins_as_persistence():
    model = Temporal(SMALL, 2, 6, 2)
    z, theta = latents()
    model.fit(z, theta)
    assert torch.equal(model(z, theta), z)
    assert teacher_forcing(model, z, theta).item() == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("change", [{}, {"exchange": "none", "joint": True}])
def test_patches_begin_as_persistence_and_read_the_present_alone(change):
    config = dataclasses.replace(SMALL, patches=9, final_norm=True, principal=False, **change)
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


def test_heads_look_at_the_patch_and_its_neighbours_first():
    places = torch.tensor([(column, row) for row in range(3) for column in range(4)]).double()
    attention = PatchAttention(16, 8, 12)
    attention.look_nearby(places)
    first = attention.bias.argmax(2)  # (8, 12): the patch that each head likes best
    inner = 5  # column 1, row 1
    assert first[:5, inner].tolist() == [inner, inner + 1, inner - 1, inner + 4, inner - 4]
    assert (attention.bias.amax(2)[:, inner] == 0).all()
    assert not attention.bias[7].any()  # the last head sees all places alike


@pytest.mark.parametrize("joint", [False, True])
def test_the_principal_start_embeds_whitened_coefficients_and_spans_the_changes(joint):
    config = dataclasses.replace(SMALL, joint=joint, exchange="none" if joint else "symmetric")
    z, theta = latents(40)
    z = (
        z.cumsum(1) * torch.tensor([1.0, 5.0])[:, None]
    )  # changes are not as large as states, nor one group as the other
    model = Temporal(config, 2, 6, 2)
    model.fit(z, theta)
    h = (z - model.mean) / model.std
    h = [h.flatten(2)] if joint else list(h.unbind(2))
    for embed, x in zip(model.embed, h, strict=True):
        kept = x.shape[2]
        code = embed(x)[..., :kept].flatten(
            0, 1
        )  # (N T, kept): variance lambda / (sqrt(lambda) + floor)^2, no correlation
        covariance = code.T @ code / len(code)
        assert torch.allclose(covariance, torch.diag(covariance.diag()), atol=1e-4)
        assert covariance.diag()[0].item() == pytest.approx(1 / 1.01**2, rel=1e-3)
        assert (covariance.diag().diff() < 1e-6).all()
    # coefficients of unit variance come back with the energy of the changes, in the loss's units
    change = (z[:, 1:] - z[:, :-1]) * model.weights.sqrt()
    scale = (model.delta_std * model.weights.sqrt()).reshape(len(model.spread), -1)
    for number, spread in enumerate(model.spread):
        back = spread.weight * scale[number][:, None]
        numbers = change.flatten(2) if joint else change[:, :, number]
        second = (
            numbers.flatten(0, 1).T @ numbers.flatten(0, 1) / (change.shape[0] * change.shape[1])
        )
        assert torch.allclose(back @ back.T, second, rtol=1e-3, atol=1e-4)


def test_muon_takes_the_matrices_inside_blocks_and_adamw_all_others():
    model = Temporal(SMALL, 2, 6, 2)
    names = {id(weight): name for name, weight in model.named_parameters()}
    adamw, muon = (
        [names[id(weight)] for group in each.param_groups for weight in group["params"]]
        for each in optimisers_of(model, 1e-3, 0.0, muon=True)
    )
    assert sorted(adamw + muon) == sorted(names.values())
    assert all(name.startswith("blocks.") and name.endswith("weight") for name in muon)
    assert {"embed.0.weight", "head.0.weight", "blocks.0.gates.0<1"} <= set(adamw)
    assert len(optimisers_of(model, 1e-3, 0.0, muon=False)) == 1  # published: AdamW alone


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


def test_every_parameter_of_ours_learns_within_three_steps():
    model = Temporal(SMALL, 2, 6, 2)
    z, theta = latents()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(4):
        optimiser.zero_grad()
        teacher_forcing(model, z, theta).backward()
        optimiser.step()
    assert [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ] == []


def tie(model: Temporal) -> Temporal:
    """Both streams with the weights of the first."""
    state = model.state_dict()
    for name in state:
        for first, second in (
            ("streams.0.", "streams.1."),
            ("0<1", "1<0"),
            ("embed.0.", "embed.1."),
            ("head.0.", "head.1."),
            ("spread.0.", "spread.1."),
            ("gates.0", "gates.1"),
        ):
            if first in name and (first != "gates.0" or name.endswith("gates.0")):
                state[name.replace(first, second)] = state[name]
    for name in ("mean", "std", "delta_std", "weights"):
        state[name][1] = state[name][0]
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
            dataclasses.replace(PUBLISHED(), small_start=small_start, heads=1), 2, 4, 1
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
    told = Temporal(PUBLISHED(), 2, 64, 1).blocks[0].tipi
    with torch.no_grad():
        raw, scaled = (
            torch.dist(told(torch.tensor([a])), told(torch.tensor([b])))
            for a, b in (([300.0], [1000.0]), ([0.3], [1.0]))
        )
    assert raw < 1e-3 * scaled


def test_no_parameters_and_raw_scales():
    for config in (
        dataclasses.replace(SMALL, adaptive=True),
        dataclasses.replace(PUBLISHED(), heads=1),
    ):
        model = Temporal(config, 2, 8, 0)
        z, _ = latents(size=8)
        model.fit(z, torch.zeros(3, 0))
        assert model(z, torch.zeros(3, 0)).shape == z.shape
    assert torch.equal(model.std, torch.ones(2, 8))


def test_a_constant_latent_and_a_constant_parameter_keep_their_scale():
    model = Temporal(SMALL, 2, 6, 2)
    z, theta = latents()
    z[:, :, 0] = 3.0
    theta[:, 1] = 7.0
    model.fit(z, theta)
    assert torch.equal(model.std[0], torch.ones(6))
    assert model.theta_std[1] == 1.0
    assert torch.isfinite(model(z, theta)).all()


def test_a_temporal_model_survives_its_file(tmp_path):
    model = small(adaptive=True)
    save_file(model.state_dict(), tmp_path / "temporal.safetensors")
    again = Temporal(model.config, 2, 6, 2).eval()
    again.load_state_dict(load_file(tmp_path / "temporal.safetensors"))
    z, theta = latents()
    with torch.no_grad():
        assert torch.equal(again(z, theta), model(z, theta))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 36, "heads": 4}, "take a multiple of 16"),
        ({"joint": True}, "one stream has nobody to exchange with"),
        ({"blocks": 0}, "must be at least 1"),
        ({"window": 0}, "must be at least 1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        Temporal(dataclasses.replace(SMALL, **changes), 2, 6, 2)


def test_latents_of_another_model_are_refused():
    z, theta = latents(size=5)
    with pytest.raises(
        InputError, match=r"latents of shape \(2, 5\), the model was made for \(2, 6\)"
    ):
        small()(z, theta)


# ------------------------------------------------------------------------------------------------------------- losses


class Exact(nn.Module):
    """Knows the rule z_(t+1) = z_t + theta, as a cached model."""

    def __init__(self):
        super().__init__()
        self.register_buffer("weights", torch.ones(2, 6))
        self.bend = nn.Parameter(torch.zeros(()))

    def forward(self, z, theta):
        return z + theta[:, None, None, :1] + self.bend

    def advance(self, z, theta, cache=None):
        return self(z, theta), cache

    def step(self, z, theta, cache=None):
        return z + theta[:, None, :1] + self.bend, cache


def straight() -> tuple[torch.Tensor, torch.Tensor]:
    z, theta = latents()
    return z[:, :1] + torch.arange(12.0)[:, None, None] * theta[:, None, None, :1], theta


def test_a_perfect_model_costs_nothing():
    z, theta = straight()
    model = Exact()
    for loss in (
        teacher_forcing(model, z, theta),
        pushforward(model, z, theta),
        pushforward(model, z, theta, 3),
        unrolled(model, z, theta, 4, 2),
        *(
            after_own_steps(model, z, theta, torch.zeros_like(z[:, :-1]), ahead)
            for ahead in (0, 1, 3)
        ),
    ):
        assert loss.item() == pytest.approx(0.0, abs=1e-10)


def test_errors_add_up_over_passes_and_steps():
    z, theta = straight()
    model = Exact()
    model.bend.data.fill_(0.1)  # every step is 0.1 too high
    assert teacher_forcing(model, z, theta).item() == pytest.approx(0.01, rel=1e-3)
    # frame 0 is true: the first of 11 predictions is off by 0.1, the others by 0.2
    loss = pushforward(model, z, theta)
    assert loss.item() == pytest.approx((0.01 + 10 * 0.04) / 11, rel=1e-3)
    loss.backward()
    assert model.bend.grad.item() == pytest.approx(
        2 * (0.1 + 10 * 0.2) / 11, rel=1e-3
    )  # the last pass only
    model.bend.grad = None
    loss = unrolled(model, z, theta, 3)
    assert loss.item() == pytest.approx((0.01 + 0.04 + 0.09) / 3, rel=1e-3)
    loss.backward()
    assert model.bend.grad.item() == pytest.approx(
        2 * (0.1 + 2 * 0.2 + 3 * 0.3) / 3, rel=1e-3
    )  # through all steps
    model.bend.grad = None
    loss = after_own_steps(model, z, theta, torch.zeros_like(z[:, :-1]), 2)
    assert loss.item() == pytest.approx(0.09, rel=1e-3)  # two own steps and the one that learns
    loss.backward()
    assert model.bend.grad.item() == pytest.approx(2 * 0.3, rel=1e-3)


def test_noise_on_the_input_is_taken_back_out_by_the_target():
    z, theta = latents()
    model = Temporal(SMALL, 2, 6, 2)
    model.fit(z, theta)
    noise = torch.rand(2, 6) * torch.randn(3, 11, 2, 6, generator=torch.Generator().manual_seed(3))
    # the head is zero: the change it should have predicted is z_(t+1) - (z_t + noise)
    by_hand = (model.weights * (z[:, 1:] - (z[:, :-1] + noise)) ** 2).mean()
    assert teacher_forcing(model, z, theta, noise).item() == pytest.approx(by_hand.item(), rel=1e-5)
    assert after_own_steps(model, z, theta, noise, 0).item() == pytest.approx(
        by_hand.item(), rel=1e-5
    )


def test_unrolled_with_the_whole_trajectory_is_a_rollout():
    model = small()
    z, theta = latents()
    by_hand = (model.weights * (rollout(model, z[:, 0], theta, 11) - z[:, 1:]) ** 2).mean()
    assert unrolled(model, z, theta, 11).item() == pytest.approx(by_hand.item(), rel=1e-4)


def test_rollouts_that_do_not_fit_are_refused():
    model = small()
    z, theta = latents()
    with pytest.raises(InputError, match="at least one"):
        rollout(model, z[:, 0], theta, 0)
    with pytest.raises(InputError, match="there are 12"):
        unrolled(model, z, theta, 12)
