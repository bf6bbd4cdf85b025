"""A damaged or hostile run folder is one line, builds nothing large and runs nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from common.cli import InputError
from common.weights import read_model
from final_project import evaluate, predict
from final_project.checkpoint import load_networks, save_mesh, save_networks
from final_project.config import EvaluateConfig, PredictConfig
from final_project.data import Flow, split, write_flow
from final_project.figures import draw_figures
from final_project.seen import SEEN, save_seen, seen_rows
from tests.conftest import run_main
from tests.final_project.test_units import GROUPS, small_surrogate
from tests.final_project.waves import waves


@pytest.fixture(scope="module")
def flow() -> Flow:
    return waves(trajectories=5, frames=12, nodes=60)


@pytest.fixture
def run(flow, tmp_path) -> Path:
    """What evaluate.py and predict.py need of a run, untrained."""
    folder = tmp_path / "run"
    folder.mkdir()
    config, surrogate = small_surrogate(flow)
    save_networks(folder, flow, GROUPS, config, "SEA", surrogate)
    save_mesh(folder, flow.coordinates, flow.triangles)
    record = {
        "config": {"seed": 0, "grid": [12, 24], "models": ["SEA"], "seeds": 1, "frames": 10},
        "data": {"path": "waves.h5", "sha256": "0"},
        "notes": {},
        "source": "waves",
        "started": "",
    }
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "metrics.json").write_text('{"rows": []}')
    write_flow(tmp_path / "flow.h5", flow)
    return folder


def test_the_run_as_it_is_can_be_used(run, tmp_path):
    words = ["--run", run, "--data", tmp_path / "flow.h5", "--steps", 2]
    assert run_main(evaluate.main, EvaluateConfig, *words)["run"]["seen"] is None
    run_main(predict.main, PredictConfig, *words)


@pytest.mark.parametrize("name", ["metrics.csv", "pictures.npz", "anything"])
def test_a_pipe_or_a_device_in_a_run_folder_is_one_line(run, tmp_path, name):
    """(A reader of a pipe waits for ever, and /dev/zero fills the memory.)"""
    os.mkfifo(run / name)
    words = ["--run", run, "--data", tmp_path / "flow.h5", "--steps", 2]
    for script, config in ((evaluate, EvaluateConfig), (predict, PredictConfig)):
        with pytest.raises(InputError, match=f"{name} is a device or a pipe"):
            run_main(script.main, config, *words)


def changed(run: Path, change: Callable[[dict], object]) -> None:
    """Rewrites the metadata of the model file."""
    weights, about = read_model(run / "model.safetensors")
    about = change(about) or about
    save_file(weights, run / "model.safetensors", {"about": json.dumps(about)})


ABOUTS: dict[str, Callable[[dict], object]] = {
    "empty": lambda about: about.clear(),
    "list": lambda about: [1],
    "unknown option": lambda about: about["config"].update(evil=1),
    "step is text": lambda about: about.update(step="x"),
    "step is not finite": lambda about: about.update(step=float("nan")),
    "no step": lambda about: about.update(step=0),
    "boxes of terabytes": lambda about: about["config"].update(boxes=[10**6, 10**6]),
    "boxes are text": lambda about: about["config"].update(boxes=["a", "b"]),
    "huge shape": lambda about: about.update(shape=[10**9, 10**9]),
    "huge width": lambda about: about["temporal"].update(width=10**9),
    "endless blocks": lambda about: about["temporal"].update(blocks=10**9),
    "endless layers": lambda about: about["config"].update(autoencoder_layers=10**9),
    "other width": lambda about: about["temporal"].update(width=48),
    "groups": lambda about: about.update(groups=[[0, 7]]),
    "groups are text": lambda about: about.update(groups="abc"),
    "fields": lambda about: about.update(fields=5),
    "mlp": lambda about: about["temporal"].update(mlp_ratio=1e300),
}


@pytest.mark.parametrize("name", ABOUTS)
def test_what_a_model_file_says_of_itself(run, tmp_path, name):
    changed(run, ABOUTS[name])
    for main, config in ((evaluate.main, EvaluateConfig), (predict.main, PredictConfig)):
        with pytest.raises(InputError) as caught:
            run_main(main, config, "--run", run, "--data", tmp_path / "flow.h5", "--steps", 1)
        assert "model.safetensors" in str(caught.value)


def test_weights_that_are_not_finite(run, flow):
    weights, about = read_model(run / "model.safetensors")
    weights["autoencoder.std"] = torch.full_like(weights["autoencoder.std"], torch.nan)
    save_file(weights, run / "model.safetensors", {"about": json.dumps(about)})
    with pytest.raises(InputError, match=r"autoencoder\.std holds numbers that are not finite"):
        load_networks(run, flow, "cpu")


def pickled(path: Path) -> None:
    np.savez(path, coordinates=np.array([{}], dtype=object), frames=np.array([{}], dtype=object))


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(b"PK"),
        lambda path: path.write_bytes(pickle.dumps({"coordinates": 1})),
        pickled,
        lambda path: np.savez(path, coordinates=np.zeros(3)),
        lambda path: np.savez(path, other=np.zeros((3, 2))),
    ],
)
def test_a_damaged_mesh(run, tmp_path, harm):
    harm(run / "mesh.npz")
    with pytest.raises(InputError, match=r"mesh\.npz (is damaged|cannot be read)"):
        run_main(predict.main, PredictConfig, "--run", run, "--data", tmp_path / "flow.h5")


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        '{"config": {}, "data": {}, "notes": {}, "source": "", "started": ""}',
        '{"config": {"seed": 0, "grid": [100000, 100000]}, "data": {}, "notes": {}, "source": "", '
        '"started": ""}',
        '{"config": {"seed": "0", "grid": [12, 24]}, "data": {}, "notes": {}, "source": "", '
        '"started": ""}',
        "\udcff",
    ],
)
def test_a_damaged_run_json(run, tmp_path, text):
    (run / "run.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    for main, config in ((evaluate.main, EvaluateConfig), (predict.main, PredictConfig)):
        with pytest.raises(InputError, match=r"run\.json"):
            run_main(main, config, "--run", run, "--data", tmp_path / "flow.h5", "--steps", 1)


def test_a_run_that_names_no_data(run):
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"data": {}}))
    with pytest.raises(InputError, match="names no data; give them with --data"):
        run_main(evaluate.main, EvaluateConfig, "--run", run)


def test_damaged_digests_and_pictures(run, tmp_path, flow):
    pickled(run / SEEN)
    with pytest.raises(InputError, match=r"seen\.npz cannot be read"):
        run_main(evaluate.main, EvaluateConfig, "--run", run, "--data", tmp_path / "flow.h5")
    with pytest.raises(InputError, match=r"metrics\.json cannot be read"):
        draw_figures(run)
    row = {"metric": "relative_l2_squared", "model": "SEA"}
    (run / "metrics.json").write_text(json.dumps({"rows": [row]}))
    pickled(run / "pictures.npz")
    with pytest.raises(InputError, match=r"pictures\.npz cannot be read"):
        draw_figures(run)


def test_a_run_folder_that_cannot_be_written_is_refused_before_the_work(run, tmp_path, monkeypatch):
    def refuse(option: str, folder: Path) -> None:
        raise InputError(f"{option} {folder} cannot be written")

    monkeypatch.setattr(evaluate, "check_writable", refuse)
    monkeypatch.setattr(evaluate, "rolled_out", lambda *_: pytest.fail("work began"))
    with pytest.raises(InputError, match="cannot be written"):
        run_main(evaluate.main, EvaluateConfig, "--run", run, "--data", tmp_path / "flow.h5")


def test_trajectories_are_known_again_by_their_frames(tmp_path):
    flow = waves()
    parts = split(flow.parameters, 0)
    save_seen(tmp_path, flow, parts)
    known = np.isin(np.arange(16), np.concatenate([parts.train, parts.validation]))
    assert (seen_rows(tmp_path, flow) == known).all()

    # from a later frame on and in float64; frames at another step are refused before
    later = Flow(**{**vars(flow), "fields": flow.fields[:, 7:].astype(np.float64)})
    assert (seen_rows(tmp_path, later) == known).all()

    # a run without the file does not say
    (tmp_path / SEEN).unlink()
    assert seen_rows(tmp_path, flow) is None


def test_the_own_test_part_of_a_run_that_does_not_say_what_it_saw_is_refused(
    run, tmp_path, monkeypatch
):
    monkeypatch.setattr(evaluate, "own_data", lambda _: tmp_path / "flow.h5")
    with pytest.raises(InputError, match=r"does not say which trajectories it was trained on"):
        run_main(evaluate.main, EvaluateConfig, "--run", run, "--steps", 2)


def test_waves_that_share_single_frames_are_not_seen(flow, tmp_path):
    """A wave of twice the speed is at every step where the other is at every second."""
    many = np.concatenate([flow.fields[:1], flow.fields[:1] + 1], 1)  # (1, 2 T, P, F)
    half = many.shape[1] // 2
    fast = np.concatenate([many[:, ::2], many[:, ::2] + 2], 1)
    fields = np.concatenate([many, fast, flow.fields[1:4].repeat(2, 1)])
    time = 0.05 * np.arange(2 * half)
    rows = flow.parameters[:5]
    both = dataclasses.replace(flow, fields=fields, time=time, parameters=rows)
    others = np.array([2, 3, 4])
    parts = dataclasses.replace(split(rows, 0), train=np.array([0]), validation=others)
    save_seen(tmp_path, both, parts)
    assert seen_rows(tmp_path, both).tolist() == [True, False, True, True, True]
