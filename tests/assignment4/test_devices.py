"""Devices of assignments 3 and 4: several are as good as one, and a missing GPU is refused."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import assignment3.evaluate
import assignment3.exchange
import assignment3.predict
import assignment4.evaluate
import assignment4.predict
import assignment4.train
from assignment3.backend import tf
from assignment3.config import ExchangeConfig
from assignment3.devices import choose_strategy
from common.cli import InputError
from tests.conftest import ROOT, Main, assert_refused

MAINS: list[tuple[Main, type]] = [
    (assignment3.evaluate.main, assignment3.evaluate.EvaluateConfig),
    (assignment3.predict.main, assignment3.predict.PredictConfig),
    (assignment3.exchange.main, ExchangeConfig),
    (assignment4.train.main, assignment4.train.Config),
    (assignment4.evaluate.main, assignment4.evaluate.EvaluateConfig),
    (assignment4.predict.main, assignment4.predict.PredictConfig),
]


def test_two_devices_train_the_networks_of_one(tmp_path):
    """Also where the batch cannot be divided evenly, and where one device has no window at all."""
    command = [sys.executable, "-m", "tests.assignment4.copies", str(tmp_path / "found.npz")]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "found.npz", allow_pickle=False) as found:
        names = {name.removeprefix("one.") for name in found.files if name.startswith("one.")}
        assert len(names) == 2 + 2 * 2
        for name in names:
            one, two = found[f"one.{name}"], found[f"two.{name}"]
            np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-5, err_msg=name)
        assert np.ptp(found["two.losses"]) > 0.01  # (they are no constant)


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="there is a GPU")
@pytest.mark.parametrize(("main", "config"), MAINS)
def test_a_gpu_that_is_asked_for_and_missing_ends_in_one_line(main, config, tmp_path):
    message = "--device cuda: TensorFlow finds no GPU"
    assert_refused(main, config, ["--device", "cuda"], message, tmp_path)


@pytest.fixture
def hidden(monkeypatch):
    """Two GPUs as TensorFlow lists them, and what is asked of it."""
    asked: list[tuple[str, object]] = []
    gpus = ["first", "second"]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
    monkeypatch.setattr(
        tf.config, "set_visible_devices", lambda devices, kind: asked.append((kind, devices))
    )
    monkeypatch.setattr(
        tf.config.experimental, "set_memory_growth", lambda gpu, on: asked.append((gpu, on))
    )
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda devices: devices)
    return asked


@pytest.mark.parametrize("wanted", ["auto", "cuda"])
def test_all_gpus_of_the_machine_train_together(hidden, wanted):
    assert choose_strategy(wanted) == ["GPU:0", "GPU:1"]
    assert hidden == [("first", True), ("second", True)]


def test_gpus_are_hidden_where_the_processor_is_asked_for(hidden):
    assert choose_strategy("cpu").num_replicas_in_sync == 1
    assert hidden == [("GPU", [])]


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    with pytest.raises(InputError, match=r"finds no GPU .* use cpu or auto, or install"):
        choose_strategy("cuda")
    assert choose_strategy("auto").num_replicas_in_sync == 1
