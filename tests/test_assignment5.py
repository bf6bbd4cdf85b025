"""Assignment 5: identities of diffusion, the networks, the scores, what comes in, and the real entry points."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import http.server
import io
import json
import math
import os
import shutil
import subprocess
import sys
import tarfile
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file

from assignment5 import data
from assignment5.ablate import BASE, CHANGES, SECOND
from assignment5.config import ASSIGNED, Config, variant
from assignment5.diffusion import Diffusion, Schedule, aim, evaluations, path, separate, snr_weight
from assignment5.dit import Block, DiT, attention, noise_embedding, positions
from assignment5.features import FeatureNet, Inception, turned
from assignment5.models import build, largest_part, load_denoiser
from assignment5.protocols import Judge, baselines, noise_set, sample, sphere
from assignment5.quality import kid, nearest, neighbour_scores
from assignment5.synthetic import draw_flowers
from assignment5.train import train
from assignment5.unet import UNet
from common.cli import InputError, parse
from common.parallel import Follower, World
from common.weights import parameters, save_model
from tests.conftest import ROOT, assert_refused, assert_same_after_kill_9, call, results

TINY = dataclasses.replace(
    Config(), **Config.presets()["smoke"], preset="smoke", source="synthetic", precision="float32"
)
TARGETS = ("noise", "image", "velocity")


# --------------------------------------------------------------------------------------------------------- mathematics


@given(st.floats(0, 1))
def test_signal_and_noise_rates_are_on_the_unit_circle(time):
    signal, noise = Schedule().rates(torch.tensor(time, dtype=torch.float64))
    assert abs(float(signal**2 + noise**2) - 1) < 1e-12


def test_the_schedule_runs_from_095_to_002_signal():
    signal, _ = Schedule().rates(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert torch.allclose(signal, torch.tensor([0.95, 0.02], dtype=torch.float64))


@pytest.mark.parametrize("target", TARGETS)
def test_what_a_network_says_separates_into_image_and_noise(target):
    x0, e = torch.randn(2, 4, 3, 8, 8, dtype=torch.float64)
    signal, noise = (
        rate[:, None, None, None] for rate in Schedule().rates(torch.rand(4, dtype=torch.float64))
    )
    told = separate(
        target, signal * x0 + noise * e, aim(target, x0, e, signal, noise), signal, noise
    )
    assert torch.allclose(told[0], x0)
    assert torch.allclose(told[1], e)


@pytest.mark.parametrize("target", TARGETS)
def test_min_snr_weighs_every_target_as_the_clipped_error_of_the_image(target):
    x0, e, wrong = torch.randn(3, 5, 3, 4, 4, dtype=torch.float64)
    signal, noise = (
        rate[:, None, None, None] for rate in Schedule().rates(torch.rand(5, dtype=torch.float64))
    )
    x = signal * x0 + noise * e
    guess = separate(target, x, wrong, signal, noise)[0]
    mine = snr_weight(target, signal, noise, 5.0) * (wrong - aim(target, x0, e, signal, noise)) ** 2
    assert torch.allclose(mine, ((signal / noise) ** 2).clamp(max=5) * (guess - x0) ** 2)


@pytest.mark.parametrize("sampler", ["ddim", "heun", "dpm++"])
@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("power", [1, 0.6])
def test_with_the_true_noise_every_sampler_gives_the_image_back(sampler, steps, power):
    schedule, (x0, e) = Schedule(), torch.randn(2, 2, 3, 4, 4, dtype=torch.float64)
    calls = []

    def oracle(x, time):
        signal, noise = schedule.rates(torch.tensor(time, dtype=torch.float64))
        calls.append(time)
        assert torch.allclose(x, signal * x0 + noise * e)  # never off the straight way
        return x0, e

    signal, noise = schedule.rates(torch.tensor(1.0, dtype=torch.float64))
    *_, found = path(oracle, schedule, signal * x0 + noise * e, steps, sampler, power=power)
    assert torch.allclose(found, x0)
    assert math.isclose(
        min(calls), (1 / steps) ** power
    )  # the last step is the longer the smaller the power
    assert len(calls) == evaluations(sampler, steps)


def gaussian_error(sampler: str, steps: int, power: float, deviation: float = 0.5) -> float:
    """Error of the x0 predicted at t = (1 / K)^power where the data are N(0, deviation^2) and the denoiser is exact: the flow then has a closed form."""
    schedule, start = Schedule(), torch.tensor([1.0], dtype=torch.float64)

    def spread(time):
        signal, noise = (
            float(rate) for rate in schedule.rates(torch.tensor(time, dtype=torch.float64))
        )
        return signal, noise, math.sqrt(signal**2 * deviation**2 + noise**2)

    def exact(x, time):
        signal, noise, total = spread(time)
        return signal * deviation**2 / total**2 * x, noise / total**2 * x

    *_, found = path(exact, schedule, start, steps, sampler, power=power)
    signal, _, total = spread((1 / steps) ** power)
    return abs(float(found) - signal * deviation**2 / total**2 * total / spread(1.0)[2])


@pytest.mark.parametrize("power", [1, 0.8])
@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("heun", 2), ("dpm++", 2)])
def test_samplers_have_their_order_on_gaussian_data(sampler, order, power):
    rate = math.log2(gaussian_error(sampler, 80, power) / gaussian_error(sampler, 160, power))
    assert rate > order - 0.25
    assert (
        power != 1 or rate < order + 0.6
    )  # (with uneven times DPM-Solver++'s error happens to cross zero near here)


def test_eta_keeps_the_spread_of_gaussian_data_and_zero_is_deterministic():
    schedule, deviation = Schedule(), 0.5

    def exact(x, time):
        signal, noise = (
            float(rate) for rate in schedule.rates(torch.tensor(time, dtype=torch.float64))
        )
        total = signal**2 * deviation**2 + noise**2
        x0 = signal * deviation**2 / total * x
        return x0, (x - signal * x0) / noise

    x = torch.randn(20000, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    draws = {
        eta: [
            list(path(exact, schedule, x, 200, "ddim", eta, torch.Generator().manual_seed(seed)))[
                -1
            ]
            for seed in (1, 1, 2)
        ]
        for eta in (0.0, 1.0)
    }
    assert torch.equal(draws[0.0][0], draws[0.0][2])
    assert torch.equal(draws[1.0][0], draws[1.0][1])
    assert not torch.equal(draws[1.0][0], draws[1.0][2])
    signal, noise = (float(rate) for rate in schedule.rates(torch.tensor(1 / 200)))
    wanted = (
        signal * deviation**2 / math.sqrt(signal**2 * deviation**2 + noise**2)
    )  # spread of the posterior mean
    for eta in (0.0, 1.0):
        assert abs(float(draws[eta][0].std()) / wanted - 1) < 0.03


def test_normalising_is_undone():
    model = Diffusion(
        torch.nn.Identity(),
        Schedule(),
        "noise",
        torch.tensor([0.3, 0.4, 0.5]),
        torch.tensor([0.2, 0.3, 0.1]),
    )
    images = torch.rand(2, 3, 4, 4)
    assert torch.allclose(model.denormalise(model.normalise(images)), images, atol=1e-6)


def test_the_noise_embedding_by_hand():
    found = noise_embedding(torch.tensor([0.3]))
    wanted = [math.sin(2 * math.pi * 0.3 * 1000 ** (k / 15)) for k in range(16)] + [
        math.cos(2 * math.pi * 0.3 * 1000 ** (k / 15)) for k in range(16)
    ]
    assert found.shape == (1, 32)
    assert np.allclose(found[0].numpy(), wanted, atol=2e-3)  # angles of up to 1,900 in float32


# ------------------------------------------------------------------------------------------------------------ networks


def test_parameter_counts():
    width, block = (
        192,
        18 * 192**2 + 15 * 192,
    )  # q k v, projection, feed-forward of 4, modulation of 6, with biases
    ends = 2 * 48 * width + width + 48 + (33 * width + width**2 + width) + 2 * width**2 + 2 * width
    assert parameters(DiT(32, 4, width)) == 8 * block + ends == 5_467_632
    assert parameters(UNet(64)) == parameters(UNet(32))
    assert parameters(UNet(32)) == 1_950_627


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"conditioning": "token"},
        {"skips": True},
        {"ends": "convolution"},
        {"conditioning": "token", "skips": True},
    ],
)
def test_the_transformer_says_nothing_before_training_and_hears_noise_and_image_after(options):
    torch.manual_seed(0)
    model, x, variance = (
        DiT(16, 4, 48, 4, 12, **options),
        torch.randn(2, 3, 16, 16),
        torch.tensor([0.2, 0.9]),
    )
    assert not model(x, variance).any()
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(4):
        optimiser.zero_grad()
        (model(x, variance) - x).square().mean().backward()
        optimiser.step()
    assert all(
        parameter.grad is not None for parameter in model.parameters()
    )  # nothing stands idle, as several processes need
    assert not torch.allclose(model(x, variance), model(x, variance.flip(0)))
    assert not torch.allclose(model(x, variance), model(x.roll(4, 3), variance))


def test_adaln_zero_makes_every_block_the_identity_at_first():
    x, condition = torch.randn(2, 5, 24), torch.randn(2, 24)
    assert torch.equal(Block(24, 12, True, False)(x, condition, None), x)


def test_a_block_treats_tokens_as_a_set():
    torch.manual_seed(0)
    block, x, order = (
        Block(24, 12, False, False),
        torch.randn(2, 5, 24),
        torch.tensor([3, 1, 4, 0, 2]),
    )
    assert torch.allclose(block(x[:, order], None, None), block(x, None, None)[:, order], atol=1e-5)


@pytest.mark.parametrize("tokens", [16, 200])
def test_both_ways_of_attention_agree(tokens):
    q, k, v = torch.randn(3, 2, 4, tokens, 8)
    exact = torch.softmax(q @ k.transpose(2, 3) / 8**0.5, 3) @ v
    assert torch.allclose(attention(q, k, v), exact, atol=1e-5)
    assert torch.allclose(
        attention(q.bfloat16(), k.bfloat16(), v.bfloat16()).float(), exact, atol=0.05
    )


def test_positions_differ_and_rows_are_not_columns():
    codes = positions(8, 192)
    assert codes.shape == (64, 192)
    assert torch.cdist(codes, codes).add(torch.eye(64) * 9).min() > 0.1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 100}, "multiple of 12"),
        ({"patch": 5}, "divisors"),
        ({"side": 20, "unet_widths": (8, 8, 8, 8)}, "multiple of 8"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, words):
    config = dataclasses.replace(TINY, **change)
    with pytest.raises(InputError, match=words):
        for network in ("Transformer", "U-Net"):
            build(config, network)


def test_as_assigned_changes_the_recipe_and_nothing_else():
    plain = variant(TINY, "as assigned")
    changed = {
        field.name
        for field in dataclasses.fields(TINY)
        if getattr(plain, field.name) != getattr(TINY, field.name)
    }
    assert changed <= set(ASSIGNED)
    assert (plain.target, plain.error, plain.flips, plain.lr, plain.weight_decay, plain.batch) == (
        "noise",
        "mae",
        False,
        1e-3,
        1e-4,
        64,
    )
    names = {field.name for field in dataclasses.fields(Config)}
    for change in [BASE, *CHANGES.values(), *(change for _, change in SECOND.values())]:
        assert set(change) <= names


def test_the_tuned_recipe_is_what_readme_and_report_say():
    plain = Config()
    assert (
        plain.target,
        plain.error,
        plain.min_snr,
        plain.conditioning,
        plain.skips,
        plain.ends,
    ) == (
        "noise",
        "mae",
        0,
        "adaln",
        True,
        "linear",
    )
    assert (
        plain.batch,
        plain.lr,
        plain.weight_decay,
        plain.warmup,
        plain.decay,
        plain.flips,
        plain.ema,
    ) == (
        64,
        1e-3,
        1e-4,
        250,
        True,
        True,
        0.999,
    )
    assert (plain.depth, plain.heads, plain.patch, plain.unet_widths, plain.recipes) == (
        8,
        12,
        4,
        (32, 64, 96, 128),
        ("tuned",),
    )
    # it differs from the ablation's best row in nothing that this row set
    best = BASE | SECOND["noise, MAE; long skips"][1]
    assert {name: getattr(plain, name) for name in best} == best
    default, full = (Config.presets()[name] for name in ("default", "full"))
    assert default == {"repeats": 3, "samples": 128, "powers": (1.0,)}
    assert (full["side"], full["epochs"], full["recipes"]) == (64, 50, ("tuned", "as assigned"))


def test_the_benchmarks_plain_network_is_ours_and_the_rows_are_whole(tmp_path, monkeypatch, capsys):
    from benchmarks import diffusion as bench

    torch.manual_seed(0)
    ours, plain = DiT(16, 4, 48, 2, 12), bench.PlainDiT(16, 4, 48, 2, 12)
    for parameter in ours.parameters():  # adaLN-Zero would hide everything
        torch.nn.init.normal_(parameter, std=0.1)
    names = {"projection": "out", "up": "mlp.0", "down": "mlp.2", "modulation": "modulation.1"}
    state = {
        ".".join(names.get(word, word) for word in key.split(".")): value
        for key, value in ours.state_dict().items()
    }
    state["embed.weight"] = state["embed.weight"].reshape(48, 4, 4, 3).permute(0, 3, 1, 2)
    plain.load_state_dict(state | {"positions": ours.positions})
    x, variance = torch.randn(2, 3, 16, 16), torch.tensor([0.2, 0.9])
    assert torch.allclose(
        ours(x, variance), plain(x, variance), atol=0.02
    )  # their GELU is the tanh form
    monkeypatch.setitem(sys.modules, "diffusers", None)  # as where it is not installed
    rows = bench.main(
        {"side": 16, "width": 48, "depth": 1, "batch": 4, "unet_widths": (8, 16)},
        1,
        tmp_path / "d.json",
    )
    assert "diffusers is not installed" in capsys.readouterr().err
    assert json.loads((tmp_path / "d.json").read_text())["rows"] == rows
    assert all(
        row["ratio"] > 0
        and set(row) == {"case", "ours_seconds", "other", "other_seconds", "ratio", "peak_mb"}
        for row in rows
    )


def test_the_benchmark_counts_every_product():
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from benchmarks import diffusion as bench

    config = dataclasses.replace(TINY, skips=False)
    model = DiT(config.side, config.patch, config.width, config.depth, config.heads)
    with (
        FlopCounterMode(display=False) as counted,
        sdpa_kernel(SDPBackend.MATH),
        torch.no_grad(),
    ):  # (the fused one is not counted)
        model(torch.randn(config.batch, 3, config.side, config.side), torch.rand(config.batch))
    assert (
        sum(2 * many * n * k * m for many, n, k, m in bench.shapes(config))
        == counted.get_total_flops()
    )


# ------------------------------------------------------------------------------------------------------------- scores


def test_kid_by_its_definition():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 3)), rng.normal(1, 1, size=(4, 3))

    def k(x, y):
        return (x @ y / 3 + 1) ** 3

    wanted = sum(k(a[i], a[j]) for i in range(5) for j in range(5) if i != j) / 20
    wanted += sum(k(b[i], b[j]) for i in range(4) for j in range(4) if i != j) / 12
    wanted -= 2 * sum(k(x, y) for x in a for y in b) / 20
    assert abs(kid(a, b) - wanted) < 1e-10


def test_kid_is_unbiased_and_grows_with_the_distance():
    rng = np.random.default_rng(1)
    same = [kid(rng.normal(size=(20, 4)), rng.normal(size=(20, 4))) for _ in range(300)]
    assert abs(np.mean(same)) < 4 * np.std(same) / 300**0.5
    near, far = (
        np.mean(
            [kid(rng.normal(size=(50, 4)), rng.normal(shift, 1, size=(50, 4))) for _ in range(20)]
        )
        for shift in (0.3, 1.0)
    )
    assert 0 < near < far


def test_neighbour_scores_of_the_same_and_of_far_images():
    rng = np.random.default_rng(2)
    real = rng.normal(size=(60, 3))
    assert neighbour_scores(real, real + 1e-9) == pytest.approx(
        {"precision": 1, "recall": 1, "density": 1, "coverage": 1}, abs=0.25
    )
    assert neighbour_scores(real, real + 100) == {
        "precision": 0,
        "recall": 0,
        "density": 0,
        "coverage": 0,
    }
    one = neighbour_scores(
        real, real[:1] + 0.01 * rng.normal(size=(60, 3))
    )  # a single mode: precise, and nothing else
    assert one["precision"] > 0.9
    assert one["recall"] < 0.2
    assert one["coverage"] < 0.5


def test_copies_are_found():
    images, _ = draw_flowers(40, 16, 0)
    judge = Judge(
        "pixels",
        lambda pixels: pixels.reshape(len(pixels), -1) / 255.0,
        images[:20],
        images[20:],
        "test",
    )
    assert judge.scores(images[:20])["copies"] == 1
    assert judge.scores(images[:20])["nearest_ratio"] == 0
    assert judge.scores(images[20:])["nearest_ratio"] == 1
    rows, away = nearest(np.array([[0.0], [5.0]]), np.array([[4.0], [1.0]]))
    assert (rows.tolist(), away.tolist()) == ([1, 0], [1, 1])


def test_the_gaussian_baseline_has_the_training_images_moments():
    images, _ = draw_flowers(300, 8, 0)
    seen = {}

    class Spy:
        def rows(self, sets, model, variant):
            seen[model] = sets
            return []

    baselines(Spy(), images, 2000, 1)
    drawn, real = (
        seen["Gaussian"][0].reshape(2000, -1).astype(float),
        images.reshape(300, -1).astype(float),
    )
    assert np.abs(drawn.mean(0) - real.mean(0)).mean() < 3
    assert np.corrcoef(np.cov(drawn.T).ravel(), np.cov(real.T).ravel())[0, 1] > 0.95


def test_interpolation_stays_on_the_sphere():
    a, b = noise_set(0, 2, 8)
    way = sphere(a, b, 5)
    assert torch.allclose(way[0], a, atol=1e-5)
    assert torch.allclose(way[-1], b, atol=1e-5)
    norms = way.flatten(1).norm(dim=1)
    assert norms.max() / norms.min() < 1.1  # a straight line would fall to 0.71


def test_samples_are_a_function_of_the_noise_whatever_the_batch():
    model = build(TINY, "Transformer")
    torch.nn.init.normal_(
        model.network.tail[-1].weight
        if model.network.tail is not None
        else model.network.head.weight,
        std=0.02,
    )
    noises = noise_set(3, 6, 16)
    assert (
        np.abs(sample(model, noises, 3).astype(int) - sample(model, noises, 3, batch=4)).max() <= 1
    )


def test_inception_without_its_package_is_one_line():
    if "torch_fidelity" not in sys.modules:
        with pytest.raises(InputError, match="torch-fidelity"):
            Inception("cpu")


def test_the_feature_network_has_as_many_features_as_it_says():
    assert FeatureNet(5, 4, 16).eval().describe(draw_flowers(3, 16, 0)[0]).shape == (3, 32)
    image = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    assert np.array_equal(turned(image, np.array([2]))[0], image[0, ::-1, ::-1])


# ------------------------------------------------------------------------------------------------- steps and processes


def test_a_step_sees_what_its_number_says_and_a_pass_sees_every_image_once():
    rows, mirrored, times, noises = data.draws(0, 7, 10, 25, 8, "cpu")
    again = data.draws(0, 7, 10, 25, 8, "cpu")
    assert all(
        np.array_equal(a, b) for a, b in zip((rows, mirrored, times, noises), again, strict=True)
    )
    assert not torch.equal(noises, data.draws(0, 8, 10, 25, 8, "cpu")[3])
    one_pass = np.concatenate([data.draws(0, step, 10, 25, 8, "cpu")[0] for step in range(5)])
    assert sorted(one_pass[:25]) == sorted(one_pass[25:]) == list(range(25))


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5))
@settings(max_examples=30)
def test_processes_share_a_batch_without_gap_or_overlap(size, accumulate, part):
    batch = size * accumulate * part
    rows = [
        row
        for rank in range(size)
        for piece in World(rank, size).share(batch, accumulate)
        for row in range(batch)[piece]
    ]
    assert rows == list(range(batch))


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(InputError, match="--batch 10"):
        World(0, 2).share(10, 3)


class Silent(Follower):
    """A run that keeps nothing."""

    def load(self, name):
        return None


def trained(config, network="Transformer", **options):
    pixels, _ = draw_flowers(40, config.side, 0)
    return train(config, Silent("."), "x", network, pixels, pixels[:6], "cpu", False, **options)[
        "weights"
    ]


def test_accumulated_parts_train_the_same_network():
    whole, parts = trained(TINY), trained(dataclasses.replace(TINY, accumulate=4))
    assert all(torch.allclose(whole[name], parts[name], atol=2e-3) for name in whole)
    assert any(
        value.abs().sum() > 0 for name, value in whole.items() if "head" in name or "tail" in name
    )


def test_two_processes_have_the_gradients_of_one(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(
        "import sys, torch\nfrom safetensors.torch import save_file\nfrom assignment5 import data\nfrom assignment5.models import build\n"
        "from common.parallel import World\nfrom tests.test_assignment5 import TINY, loss_of\n"
        "world = World.join('cpu')\ntorch.manual_seed(0)\nmodel = build(TINY, 'Transformer')\n"
        "learner = torch.nn.parallel.DistributedDataParallel(model) if world.size > 1 else model\n"
        "parts = world.share(TINY.batch, 1)\nloss_of(learner, parts[0]).backward()\n"
        "if world.rank == 0:\n    save_file({n: p.grad for n, p in model.named_parameters()}, sys.argv[1])\nworld.leave()\n"
    )
    for processes, name in ((1, "one"), (2, "two")):
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc_per_node={processes}",
            str(script),
            str(tmp_path / name),
        ]
        done = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
    one, two = load_file(tmp_path / "one"), load_file(tmp_path / "two")
    assert all(torch.allclose(one[name], two[name], rtol=1e-4, atol=1e-7) for name in one)
    assert sum(float(value.abs().sum()) for value in one.values()) > 0


def loss_of(learner, part):
    """Mean loss of one process's rows in the first step of TINY."""
    rows, _, times, noises = data.draws(TINY.seed, 0, TINY.batch, 40, TINY.side, "cpu")
    images = (
        torch.from_numpy(draw_flowers(40, TINY.side, 0)[0][rows]).permute(0, 3, 1, 2).float() / 255
    )
    return learner(images[part], noises[part], times[part], "mse").mean()


def test_out_of_memory_says_which_part_would_fit(monkeypatch):
    def forward(self, images, *_):
        if len(images) > 4:
            raise torch.OutOfMemoryError("full")
        return self.network(images, torch.zeros(len(images))).mean((1, 2, 3))

    monkeypatch.setattr(Diffusion, "forward", forward)
    with pytest.raises(InputError, match=r"--batch 16.*--accumulate 4"):
        trained(TINY)
    assert largest_part(functools.partial(forward, build(TINY, "U-Net")), 1) == 0


def test_sampling_takes_smaller_parts_where_the_memory_is_too_small(monkeypatch):
    whole = sample(build(TINY, "U-Net"), noise_set(0, 6, 16), 2)
    real, sizes, limit = Diffusion.sample, [], [2]

    def small(self, noises, *words):
        sizes.append(len(noises))
        if len(noises) > limit[0]:
            raise torch.OutOfMemoryError("full")
        return real(self, noises, *words)

    monkeypatch.setattr(Diffusion, "sample", small)
    assert (
        np.abs(sample(build(TINY, "U-Net"), noise_set(0, 6, 16), 2).astype(int) - whole).max() <= 1
    )
    assert sizes == [6, 3, 1, 1, 1, 1, 1, 1]
    limit[0] = 0
    with pytest.raises(InputError, match="not enough memory to sample even one image"):
        sample(build(TINY, "U-Net"), noise_set(0, 6, 16), 2)


# ---------------------------------------------------------------------------------------------------------------- data


def picture(side=40, mode="RGB", seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side + 9, 4), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, "PNG")
    return stream.getvalue()


def test_grey_and_transparent_images_become_rgb(tmp_path):
    for number, mode in enumerate(("RGB", "L", "RGBA", "P", "1")):
        (tmp_path / f"{mode}.png").write_bytes(picture(mode=mode, seed=number))
    images = data.read(tmp_path, 16)
    assert images.pixels.shape == (5, 16, 16, 3)
    assert images.provenance["modes"] == {"RGB": 1, "L": 1, "RGBA": 1, "P": 1, "1": 1}
    assert images.labels is None
    grey = images.pixels[images.names.index("L.png")]
    assert (grey[..., 0] == grey[..., 2]).all()
    Image.new("RGBA", (20, 20), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (data.read_image((tmp_path / "clear.png").read_bytes(), "x", 16)[0] == 255).all()


def test_the_centre_square_is_cut_and_reduced(tmp_path):
    wide = np.zeros((32, 64, 3), np.uint8)
    wide[:, 16:48] = 200
    stream = io.BytesIO()
    Image.fromarray(wide).save(stream, "PNG")
    assert (data.read_image(stream.getvalue(), "x", 16)[0] == 200).all()


def test_folders_and_labels(tmp_path):
    for kind in ("daisy", "rose"):
        (tmp_path / kind).mkdir()
        for number in range(2):
            (tmp_path / kind / f"{number}.png").write_bytes(
                picture(seed=number + (kind == "rose") * 9)
            )
    assert data.read(tmp_path, 16).labels.tolist() == [0, 0, 1, 1]
    (tmp_path / "labels.csv").write_text("file,label\n0.png,7\n1.png,9\n")
    assert data.read(tmp_path, 16).labels.tolist() == [0, 1, 0, 1]
    (tmp_path / "labels.csv").write_text("file,label\n0.png,7\n")
    with pytest.raises(InputError, match=r"no label for daisy/1.png"):
        data.read(tmp_path, 16)
    (tmp_path / "labels.csv").write_text("name,label\n0.png,7\n")
    with pytest.raises(InputError, match="columns file, label"):
        data.read(tmp_path, 16)


def test_duplicates_are_left_out_and_a_tar_reads_as_its_folder(tmp_path):
    place = tmp_path / "images"
    place.mkdir()
    for name, seed in (("a", 0), ("b", 1), ("c", 0)):
        (place / f"{name}.png").write_bytes(picture(seed=seed))
    with tarfile.open(tmp_path / "images.tar.gz", "w:gz") as archive:
        archive.add(place, "images")
    folder, tar = data.read(place, 16), data.read(tmp_path / "images.tar.gz", 16)
    assert folder.names == ["a.png", "b.png"]
    assert folder.provenance["duplicates_left_out"] == 1
    assert np.array_equal(folder.pixels, tar.pixels)


def tar_with(path, name, kind=tarfile.REGTYPE):
    with tarfile.open(path, "w") as archive:
        member, content = tarfile.TarInfo(name), picture()
        member.size, member.type, member.linkname = (
            len(content) if kind == tarfile.REGTYPE else 0,
            kind,
            "/etc/passwd",
        )
        archive.addfile(member, io.BytesIO(content))
    return path


def test_bad_images_and_archives_are_one_line(tmp_path):
    empty, tiny, broken = (tmp_path / name for name in ("empty", "tiny", "broken"))
    for place in (empty, tiny, broken):
        place.mkdir()
    (empty / "readme.txt").write_text("no image")
    (tiny / "t.png").write_bytes(picture(8))
    (broken / "b.jpg").write_bytes(picture()[:60])
    for place, words in (
        (empty, "holds no image"),
        (tiny, r"t.png has 17 x 8 pixels; at least 16"),
        (broken, r"b.jpg cannot be read"),
    ):
        with pytest.raises(InputError, match=words):
            data.read(place, 16)
    for name in ("../out.png", "/abs.png"):
        with pytest.raises(InputError, match="points out of the archive"):
            data.read(tar_with(tmp_path / "bad.tar", name), 16)
    with pytest.raises(InputError, match="points out of the archive"):
        data.read(tar_with(tmp_path / "link.tar", "link.png", tarfile.SYMTYPE), 16)
    (tmp_path / "cut.tar").write_bytes(tar_with(tmp_path / "whole.tar", "a.png").read_bytes()[:700])
    with pytest.raises(InputError, match=r"cut.tar"):
        data.read(tmp_path / "cut.tar", 16)
    with pytest.raises(InputError, match="does not exist"):
        data.load("folder", tmp_path / "nowhere", 16)
    with pytest.raises(InputError, match="--data"):
        data.load("folder", None, 16)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_broken_download_is_refused_and_not_kept(tmp_path, monkeypatch):
    served = tmp_path / "served"
    served.mkdir()
    for name in data.ARCHIVES:
        (served / name).write_bytes(b"not the archive")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=served)
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    monkeypatch.setenv("ADL_DATA_DIR", str(tmp_path / "data"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(InputError, match="checksum"):
            data.download(f"http://127.0.0.1:{server.server_port}/")
        server.shutdown()
    with pytest.raises(InputError, match="cannot be fetched"):
        data.download("http://127.0.0.1:9/")
    assert not [file for file in (tmp_path / "data").rglob("*") if file.is_file()]


def test_drawn_flowers_depend_on_seed_and_number_alone():
    few, kinds = draw_flowers(12, 16, 0)
    assert np.array_equal(draw_flowers(5, 16, 0)[0], few[:5])
    assert kinds.tolist() == [*range(10), 0, 1]
    assert not np.array_equal(draw_flowers(5, 16, 1)[0], few[:5])


def test_the_split_is_disjoint_and_whole():
    parts = data.split(101, 0)
    assert sorted([*parts.train, *parts.validation, *parts.test]) == list(range(101))
    assert (len(parts.train), len(parts.validation)) == (80, 10)
    assert not np.array_equal(data.split(101, 1).train, parts.train)


@pytest.mark.realdata
@pytest.mark.skipif(not os.environ.get("ADL_DATA_DIR"), reason="ADL_DATA_DIR names no data folder")
def test_the_real_flowers():
    images = data.load("flowers", None, 32)
    assert len(images) == 7182
    assert len(np.unique(images.labels)) == 102
    assert 60 < images.pixels.mean() < 160


# -------------------------------------------------------------------------------------------------------- entry points


def test_a_run_leaves_everything_that_the_readme_promises(smoke5):
    for name in (
        "run.json",
        "metrics.csv",
        "metrics.json",
        "report.pdf",
        "pictures.npz",
        "distances.npz",
        "features.safetensors",
        "model.Transformer.safetensors",
        "model.U-Net.safetensors",
        "samples.png",
        "steps.png",
        "interpolation.png",
        "trajectory.gif",
        "kid_by_evaluations.png",
        "learning_curves.png",
        "nearest_training_image.png",
    ):
        assert (smoke5 / name).stat().st_size > 0, name
    found = results(smoke5)["rows"]
    assert {row["model"] for row in found} >= {
        "Transformer",
        "U-Net",
        "training images",
        "Gaussian",
    }
    assert {row["metric"] for row in found} >= {
        "kid",
        "precision",
        "recall",
        "density",
        "coverage",
        "nearest_ratio",
        "copies",
        "noise_error",
    }
    assert all(math.isfinite(row["value"]) for row in found)
    assert "not photographs" in json.loads((smoke5 / "run.json").read_text())["data"]["notice"]


def test_kill_9_in_training_and_resume_gives_the_same_metrics(smoke5, tmp_path):
    assert_same_after_kill_9(
        smoke5, "assignment5", "synthetic", tmp_path, "done-Transformer, tuned.safetensors"
    )


def test_a_training_goes_on_from_its_checkpoint_as_if_unbroken(tmp_path):
    class Kept(Silent):
        state = None

        def save(self, name, state):
            Kept.state = state

    pixels, _ = draw_flowers(40, TINY.side, 0)

    class Cut(Silent):
        def load(self, name):
            return json_like(Cut.state) if Cut.state else None

        def save(self, name, state):
            Cut.state = state

        @contextlib.contextmanager
        def stoppable(self, save):
            def check(step, loss):
                if Cut.first:
                    Cut.first = False
                    save()
                    raise KeyboardInterrupt

            yield check

    Cut.state, Cut.first = None, True
    longer = dataclasses.replace(TINY, epochs=2)
    whole = train(longer, Kept("."), "x", "Transformer", pixels, pixels[:6], "cpu", False)[
        "weights"
    ]
    with pytest.raises(KeyboardInterrupt):
        train(longer, Cut("."), "x", "Transformer", pixels, pixels[:6], "cpu", False)
    again = train(longer, Cut("."), "x", "Transformer", pixels, pixels[:6], "cpu", False)["weights"]
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def json_like(state):
    """A state as it comes back from disk: arrays in place of tensors."""
    if isinstance(state, dict):
        return {key: json_like(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [json_like(value) for value in state]
    return state.detach().clone().numpy() if hasattr(state, "detach") else state


@pytest.mark.parametrize(
    "words",
    [
        "batch 0",
        "batch -4",
        "accumulate 0",
        "epochs 0",
        "repeats 0",
        "seeds 0",
        "seed -1",
        "samples 5",
        "steps 0",
        "steps 5 -20",
        "sweep 0",
        "patch 0",
        "heads 0",
        "depth 0",
        "width 0",
        "side 4",
        "feature-epochs 0",
        "warmup -1",
        "lr -1",
        "lr nan",
        "ema 1.5",
        "min-signal 0",
        "max-signal 1",
        "unet-widths 0 8",
    ],
)
def test_numbers_that_make_no_run_are_refused_before_anything_is_done(words):
    name, *values = words.split()
    with pytest.raises(InputError, match=rf"^--{name} \S+: allowed are "):
        parse(Config, [f"--{name}", *values])
    dataclasses.replace(
        Config(), min_snr=0.0, warmup=0, ema=0.0, samples=6, seeds=1
    )  # the edges are allowed
    with pytest.raises(
        InputError, match=r"--min-signal 0.96: allowed is less than --max-signal 0.95"
    ):
        Config(min_signal=0.96)
    with pytest.raises(InputError, match="--recipes: at least one"):
        Config(recipes=())


def test_too_few_images_to_judge_by_are_refused_before_training(tmp_path):
    (tmp_path / "few").mkdir()
    for number, image in enumerate(draw_flowers(50, 16, 0)[0]):
        Image.fromarray(image).save(tmp_path / "few" / f"{number:02d}.png")
    words = ["--preset", "smoke", "--source", "folder", "--data", tmp_path / "few"]
    assert_refused("assignment5/train.py", words, "50 images leave 5 to judge by", tmp_path)


def test_predict_writes_the_same_images_for_the_same_seed(smoke5, tmp_path):
    for name in ("a", "b"):
        done = call(
            "assignment5/predict.py",
            "--run",
            smoke5,
            "--n",
            3,
            "--steps",
            2,
            "--out",
            tmp_path / name,
        )
        assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == [
        "0000.png",
        "0001.png",
        "0002.png",
        "grid.png",
    ]
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
    assert np.asarray(Image.open(tmp_path / "a" / "0000.png")).shape == (16, 16, 3)


def test_evaluate_scores_new_images(smoke5, tmp_path):
    (tmp_path / "new").mkdir()
    for number, image in enumerate(draw_flowers(12, 16, 5)[0]):
        Image.fromarray(image).save(tmp_path / "new" / f"{number}.png")
    done = call(
        "assignment5/evaluate.py",
        "--run",
        smoke5,
        "--data",
        tmp_path / "new",
        "--samples",
        12,
        "--seeds",
        2,
        "--steps",
        2,
        "--out",
        tmp_path / "e.json",
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "e.json").read_text())["rows"]
    assert {(row["model"], row["horizon"]) for row in rows} == {("Transformer", 2), ("U-Net", 2)}
    assert (tmp_path / "e.png").stat().st_size > 0


def test_evaluate_scores_every_sampler_on_the_validation_part_and_draws_all_again(smoke5, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(smoke5, copy)
    drawn = (
        "samples.png",
        "steps.png",
        "interpolation.png",
        "trajectory.gif",
        "kid_by_evaluations.png",
        "learning_curves.png",
        "nearest_training_image.png",
        "report.pdf",
    )
    for name in drawn:
        (copy / name).unlink()
    words = [
        "--run",
        copy,
        "--part",
        "validation",
        "--sampler",
        "ddim",
        "heun",
        "dpm++",
        "--steps",
        2,
        3,
        "--samples",
        8,
        "--seeds",
        2,
    ]
    found = evaluate([str(word) for word in words])["rows"]
    assert {row["split"] for row in found} == {"validation"}
    assert {
        (row["variant"].split(", ")[1], row["horizon"]) for row in found if row["model"] == "U-Net"
    } == {
        ("DDIM", 2),
        ("DDIM", 3),
        ("Heun", 3),
        ("Heun", 5),
        ("DPM-Solver++(2M)", 2),
        ("DPM-Solver++(2M)", 3),
    }
    for name in (*drawn, "evaluation-validation.json", "evaluation-validation.png"):
        assert (copy / name).stat().st_size > 0, name
    with Image.open(copy / "trajectory.gif") as film:
        assert film.n_frames > 5
        film.seek(film.n_frames - 1)
        assert film.info["duration"] > 1000  # the last frame stays


def test_bad_input_of_evaluate(smoke5, tmp_path):
    for words, message in (
        (["--steps", "0"], "--steps 0"),
        (["--samples", "5"], "--samples 5"),
        (["--seeds", "0"], "--seeds 0"),
        (["--data", str(tmp_path / "nowhere")], "does not exist"),
        (["--out", str(tmp_path / "no" / "e.json")], "the folder .* does not exist"),
        (["--run", str(tmp_path)], "holds no run.json"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate(
                ["--run", str(smoke5), "--samples", "6", "--seeds", "1", "--steps", "1", *words]
            )
    few = tmp_path / "few"
    few.mkdir()
    for number in range(5):
        (few / f"{number}.png").write_bytes(picture(seed=number))
    with pytest.raises(InputError, match="few holds 5 images"):
        evaluate(["--run", str(smoke5), "--data", str(few), "--out", str(tmp_path / "e.json")])
    broken = tmp_path / "broken"
    shutil.copytree(smoke5, broken)
    whole = (broken / "features.safetensors").read_bytes()
    (broken / "features.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"features.safetensors is not a whole model file"):
        evaluate(["--run", str(broken)])
    (broken / "pictures.npz").unlink()
    with pytest.raises(InputError, match=r"holds no pictures.npz"):
        evaluate(["--run", str(broken)])


def evaluate(words):
    from assignment5 import evaluate as script

    return script.main(parse(script.Config, words))


def test_bad_input_of_the_scripts(smoke5, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    for number in range(3):
        (few / f"{number}.png").write_bytes(picture(seed=number))
    assert_refused(
        "assignment5/train.py",
        ["--preset", "smoke", "--source", "folder", "--data", few],
        "fewer than --batch 16",
        tmp_path,
    )
    assert_refused(
        "assignment5/train.py",
        ["--preset", "smoke", "--source", "synthetic", "--width", "50"],
        "multiple of 12",
        tmp_path,
    )
    assert_refused(
        "assignment5/train.py",
        ["--preset", "smoke", "--batch", "0"],
        "--batch 0: allowed are 1 and more",
        tmp_path,
    )
    assert_refused(
        "assignment5/predict.py",
        ["--run", smoke5, "--steps", "0"],
        "--steps 0: allowed are 1 and more",
        tmp_path,
    )
    for words, message in (
        (["--steps", "0"], "--steps 0"),
        (["--steps", "-3"], "--steps -3"),
        (["--seed", "-1"], "--seed -1"),
        (["--eta", "2"], "--eta 2"),
        (["--eta", "1", "--sampler", "heun"], "deterministic"),
        (["--n", "0"], "--n 0"),
    ):
        with pytest.raises(InputError, match=message):
            predict(["--run", str(smoke5), "--out", str(tmp_path / "x"), *words])
    broken = tmp_path / "broken"
    shutil.copytree(smoke5, broken)
    whole = (broken / "model.Transformer.safetensors").read_bytes()
    (broken / "model.Transformer.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="not a whole model file"):
        predict(["--run", str(broken)])
    _, about = load_denoiser(smoke5 / "model.Transformer.safetensors", "cpu")
    about["config"]["width"] = 96
    save_model(
        broken / "model.Transformer.safetensors",
        load_file(smoke5 / "model.Transformer.safetensors"),
        about,
    )
    with pytest.raises(InputError, match="another shape"):
        predict(["--run", str(broken)])
    with pytest.raises(InputError, match="does not exist"):
        predict(["--run", str(tmp_path)])


def predict(words):
    from assignment5 import predict as script

    return script.main(parse(script.Config, words))


def test_a_loss_that_is_not_finite_stops_in_one_line(tmp_path):
    done = call(
        "assignment5/train.py",
        "--preset",
        "smoke",
        "--source",
        "synthetic",
        "--out",
        tmp_path / "run",
        "--lr",
        "1e30",
        "--warmup",
        "1",
        "--repeats",
        "3",
    )
    assert done.returncode == 2, done.stderr
    assert "the loss is nan" in done.stderr.splitlines()[-1]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"
