"""Training is the same in one piece, in parts, over processes, and after an interruption."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from assignment5 import data
from assignment5.denoiser import build
from assignment5.diffusion import Diffusion
from assignment5.memory import backward_in_parts, largest_part
from assignment5.train import learning_rate, optimisers_of, shift, shifted, update_average
from common.cli import InputError, Interrupted
from common.world import ALONE, World
from tests.assignment5 import gradients
from tests.assignment5.helpers import TINY, same_weights, train_tiny
from tests.conftest import ROOT

SHORT = dataclasses.replace(TINY, batch=10, side=8, patch=2)


def test_a_step_is_a_function_of_its_number_and_a_pass_has_every_image_once():
    one, again = data.draw(SHORT, 7, 25, "cpu"), data.draw(SHORT, 7, 25, "cpu")
    assert torch.equal(one.rows, again.rows)
    assert torch.equal(one.mirrored, again.mirrored)
    assert torch.equal(one.times, again.times)
    assert torch.equal(one.noises, again.noises)
    assert not torch.equal(one.noises, data.draw(SHORT, 8, 25, "cpu").noises)
    rows = np.concatenate([data.rows_of_step(0, step, 10, 25) for step in range(5)])
    assert sorted(rows[:25]) == sorted(rows[25:]) == list(range(25))


def test_the_learning_rate_warms_up_and_falls_to_zero():
    config = dataclasses.replace(TINY, lr=1e-3, warmup=10, decay=True)
    rates = [learning_rate(config, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(1e-4)
    assert max(rates) == max(rates[8:11])
    assert rates[50] == pytest.approx(5e-4)
    assert rates[99] < 1e-6
    constant = dataclasses.replace(config, warmup=0, decay=False)
    assert {learning_rate(constant, step, 100) for step in range(100)} == {1e-3}


def test_the_average_moves_towards_the_network():
    model, average = (build(TINY.denoiser("U-Net")) for _ in range(2))
    before = average.network.stem.weight.detach().clone()
    update_average(average, model, 0.9)
    wanted = 0.9 * before + 0.1 * model.network.stem.weight.detach()
    assert torch.allclose(average.network.stem.weight, wanted, atol=1e-7)


def test_muon_takes_the_matrices_inside_blocks_and_adamw_all_others():
    config = dataclasses.replace(TINY, optimiser="muon")
    model = build(config.denoiser("Transformer"))
    adamw, muon = optimisers_of(model, config)
    names = {id(weight): name for name, weight in model.named_parameters()}
    taken = [names[id(weight)] for weight in muon.param_groups[0]["params"]]
    left = [names[id(weight)] for weight in adamw.param_groups[0]["params"]]
    assert sorted(taken + left) == sorted(names.values())
    assert all(name.startswith("network.blocks.") for name in taken)
    assert not any(name.startswith("network.blocks.") and name.endswith("weight") for name in left)
    assert len(optimisers_of(build(config.denoiser("U-Net")), config)) == 1
    assert len(optimisers_of(model, TINY)) == 1


def test_shifting_by_hand_and_back():
    x = torch.arange(1.0, 10).view(1, 1, 3, 3).expand(2, 1, 3, 3)
    moved = shift(x, torch.tensor([[1, 0], [-1, 2]]))
    assert moved[0, 0].tolist() == [[0, 0, 0], [1, 2, 3], [4, 5, 6]]
    assert moved[1, 0].tolist() == [[0, 0, 4], [0, 0, 7], [0, 0, 0]]
    assert torch.equal(shift(x, torch.zeros(2, 2, dtype=torch.int64)), x)


def test_shifted_parts_make_the_shifted_noisy_image():
    """ScoreAug moves the noisy image, which is the same as moving both parts of it."""
    model = build(TINY.denoiser("U-Net"))
    model.mean.copy_(torch.tensor([0.3, 0.4, 0.5]))
    images, noises = torch.rand(3, 3, 16, 16), torch.randn(3, 3, 16, 16)
    shifts = torch.tensor([[1, -2], [0, 0], [-2, 2]])
    moved, drowned = shifted(images, noises, shifts, model.mean)
    noisy = 0.6 * model.normalise(images) + 0.8 * noises
    again = 0.6 * model.normalise(moved) + 0.8 * drowned
    assert torch.allclose(again, shift(noisy, shifts), atol=1e-6)


def test_half_of_the_images_are_shifted_by_at_most_an_eighth():
    draws = [data.draw(dataclasses.replace(TINY, side=32), step, 40, "cpu") for step in range(50)]
    shifts = torch.cat([drawn.shifts for drawn in draws])
    assert shifts.min() == -4
    assert shifts.max() == 4
    assert 0.4 < (shifts == 0).all(1).float().mean() < 0.6
    assert 0.05 < torch.cat([drawn.unnamed for drawn in draws]).float().mean() < 0.15


# ---------------------------------------------------------------------------- parts and processes


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5))
@settings(max_examples=30)
def test_processes_share_a_batch_without_gap_or_overlap(size, accumulate, part):
    batch = size * accumulate * part
    rows: list[int] = []
    for rank in range(size):
        for piece in World(rank, size).share(batch, accumulate):
            rows += range(batch)[piece]
    assert rows == list(range(batch))


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(InputError, match="--batch 10"):
        World(0, 2).share(10, 3)


def test_accumulated_parts_train_the_same_network(tmp_path):
    whole = train_tiny(TINY, tmp_path / "whole").weights
    parts = train_tiny(dataclasses.replace(TINY, accumulate=4), tmp_path / "parts").weights
    assert all(torch.allclose(whole[name], parts[name], atol=2e-3) for name in whole)
    assert whole["network.head.weight"].any()


def test_two_processes_have_the_gradients_of_one(tmp_path):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        gradients.__file__,
        str(tmp_path / "two"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env=environment
    )
    assert process.returncode == 0, process.stderr
    two = load_file(tmp_path / "two")
    one = gradients.gradients(ALONE)
    assert one.keys() == two.keys()
    assert all(torch.allclose(one[name], two[name], rtol=1e-4, atol=1e-7) for name in one)
    assert sum(float(value.abs().sum()) for value in one.values()) > 0


# ----------------------------------------------------------------------------------------- memory


def test_out_of_memory_says_which_part_would_fit(monkeypatch, tmp_path):
    def forward(self, images, *_):
        if len(images) > 4:
            raise torch.OutOfMemoryError("full")
        return self.network(images, torch.zeros(len(images))).mean((1, 2, 3))

    monkeypatch.setattr(Diffusion, "forward", forward)
    with pytest.raises(InputError, match=r"--batch 16.* for 16 images at once.*--accumulate 4"):
        train_tiny(TINY, tmp_path / "whole")
    halves = dataclasses.replace(TINY, accumulate=2)
    with pytest.raises(InputError, match=r"--batch 16.* for 8 images at once.*--accumulate 4"):
        train_tiny(halves, tmp_path / "halves")


def test_a_memory_for_no_image_at_all_is_said():
    def objective(draws):
        raise torch.OutOfMemoryError("full")

    draws = data.draw(TINY, 0, 40, "cpu")
    assert largest_part(objective, draws, 1) == 0
    with pytest.raises(InputError, match="not even one image fits"):
        backward_in_parts(torch.nn.Identity(), objective, draws, [slice(0, 16)])


# ----------------------------------------------------------------------------------- interruption


@pytest.mark.parametrize("options", [{}, {"optimiser": "muon", "scoreaug": True}])
def test_a_training_continues_from_its_checkpoint_as_if_unbroken(tmp_path, monkeypatch, options):
    longer = dataclasses.replace(TINY, epochs=4, **options)  # 20 steps
    whole = train_tiny(longer, tmp_path / "whole").weights
    draw = data.draw

    def draw_and_interrupt(config, step, count, device):
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return draw(config, step, count, device)

    monkeypatch.setattr(data, "draw", draw_and_interrupt)
    with pytest.raises(Interrupted):
        train_tiny(longer, tmp_path / "cut")
    monkeypatch.undo()
    steps = []

    def draw_and_note(config, step, count, device):
        steps.append(step)
        return draw(config, step, count, device)

    monkeypatch.setattr(data, "draw", draw_and_note)
    resumed = train_tiny(dataclasses.replace(longer, resume=True), tmp_path / "cut").weights
    assert steps == list(range(10, 20))
    assert same_weights(whole, resumed)
