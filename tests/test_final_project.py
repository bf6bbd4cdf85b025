"""The final project's real entry points on a small made-up flow, its objective, and what a rollout is scored by."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch

from common.cli import InputError
from final_project import training
from final_project.config import MODELS, Config, temporal_config
from final_project.data import Flow, groups_of, load_flow, split, write_flow
from final_project.models import build_autoencoder, build_temporal, encode, predict
from final_project.protocols import Judge
from final_project.rollout import weighted_error
from final_project.sea import count
from final_project.training import StepError
from tests.conftest import assert_refused, assert_same_after_kill_9, call

SMALL = Config(**Config.presets()["smoke"])


def waves(trajectories: int = 16, frames: int = 30, nodes: int = 200) -> Flow:
    """Waves that travel at a speed set by the first parameter, on a cloud of nodes."""
    rng = np.random.default_rng(0)
    nodes_ = np.concatenate([rng.random((nodes, 2)) * [4, 1], [[0, 0], [4, 0], [0, 1], [4, 1]]])
    speed, size, time = (
        np.linspace(60, 400, trajectories),
        rng.random(trajectories) * 0.1,
        np.arange(frames) * 0.05,
    )
    phase = 2 * np.pi * (
        nodes_[None, None, :, 0] - (1 + speed / 400)[:, None, None] * time[None, :, None]
    ) + 6 * rng.random((trajectories, 1, 1))
    wall = np.sin(np.pi * nodes_[:, 1])
    fields = np.stack(
        [
            1 + 0.2 * np.sin(phase) * wall,
            (0.3 + size[:, None, None]) * np.cos(phase) * wall,
            0.1 * np.cos(2 * phase),
        ],
        -1,
    )
    return Flow(
        fields.astype(np.float32),
        nodes_,
        np.stack([speed, size], 1),
        time,
        ("u", "v", "p"),
        ("Re", "size"),
        np.zeros((0, 3), np.int32),
        {"generator": "waves"},
    )


@pytest.fixture(scope="session")
def wave_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("flow") / "waves.h5"
    write_flow(path, waves())
    return path


@pytest.fixture(scope="session")
def smoke6(wave_file, tmp_path_factory):
    """One unbroken run of the final project."""
    place = tmp_path_factory.mktemp("smoke")
    done = call(
        "final_project/train.py",
        "--preset",
        "smoke",
        "--data",
        wave_file,
        "--out",
        place / "run",
        cwd=place,
    )
    assert done.returncode == 0, done.stderr
    return place / "run"


def test_a_run_leaves_everything_that_the_readme_promises(smoke6):
    for name in (
        "run.json",
        "metrics.csv",
        "metrics.json",
        "report.pdf",
        "model.safetensors",
        "mesh.npz",
        "pictures.npz",
        "errors.npz",
        "fields.png",
        "rollout.gif",
        "error_by_time.png",
        "probe.png",
        "models.png",
        "attention.png",
        "learning_curves.png",
    ):
        assert (smoke6 / name).stat().st_size > 0, name
    assert json.loads((smoke6 / "run.json").read_text())["status"] == "finished"
    table = pd.DataFrame(json.loads((smoke6 / "metrics.json").read_text())["rows"])
    assert table.value.notna().all()
    whole = table[
        (table.metric == "relative_l2_squared") & table.series.isna() & table.horizon.isna()
    ]
    assert set(whole.variant) == {"interpolation", "gap", "extrapolation", "longer"}
    assert {
        "SEA",
        "no exchange, matched",
        "as published",
        "autoencoder",
        "persistence",
        "parameter interpolation",
        "POD + linear",
        "FNO",
        "U-Net",
    } <= set(whole.model)
    assert {"exchange_ratio", "exchange_ratio_low", "exchange_ratio_high"} <= set(table.metric)


def test_kill_9_and_resume_gives_the_same_metrics(smoke6, wave_file, tmp_path):
    assert_same_after_kill_9(
        smoke6,
        "final_project",
        "auto",
        tmp_path,
        "rollout error, SEA, seed 0.safetensors",
        "--data",
        str(wave_file),
    )


def test_evaluate_scores_other_trajectories_from_any_frame(smoke6, wave_file, tmp_path):
    done = call(
        "final_project/evaluate.py",
        "--run",
        smoke6,
        "--data",
        wave_file,
        "--start",
        "5",
        "--steps",
        "10",
        "--out",
        tmp_path / "scores.json",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "scores.json").read_text())
    assert found["run"]["trajectories"] == 16
    persistence = next(
        row
        for row in found["rows"]
        if row["model"] == "persistence"
        and row["series"] == "v"
        and row["metric"] == "relative_l2_squared"
        and row.get("horizon") is None
    )
    v = waves().fields[..., 1].astype(np.float64)
    by_hand = (((v[:, 5:6] - v[:, 6:16]) ** 2).sum(2) / ((v[:, 6:16] ** 2).sum(2) + 1e-8)).mean()
    assert persistence["value"] == pytest.approx(by_hand, rel=1e-5)


def test_predict_goes_on_from_a_single_frame(smoke6, tmp_path):
    flow = waves()
    state = dataclasses.replace(
        flow, fields=flow.fields[:1, 3:4], parameters=flow.parameters[:1], time=flow.time[3:4]
    )
    write_flow(tmp_path / "state.npz", state)
    done = call(
        "final_project/predict.py",
        "--run",
        smoke6,
        "--data",
        tmp_path / "state.npz",
        "--steps",
        "7",
        "--out",
        tmp_path / "out",
    )
    assert done.returncode == 0, done.stderr
    rollout = load_flow(tmp_path / "out" / "rollout.h5")
    assert rollout.fields.shape == (1, 8, 204, 3)
    np.testing.assert_array_equal(rollout.fields[0, 0], state.fields[0, 0])
    np.testing.assert_allclose(np.diff(rollout.time), 0.05)
    assert len(list((tmp_path / "out").glob("*.vtu"))) == 8
    assert (tmp_path / "out" / "rollout.gif").stat().st_size > 0


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        ("train", ["--data", "nowhere.h5"], "nowhere.h5"),
        ("train", ["--source", "file", "--data", "flow.h5", "--models", "SAE"], "SAE"),
        ("train", ["--preset", "smoke", "--data", "flow.h5", "--groups", "u,w;p"], "w"),
        ("train", ["--preset", "smoke", "--data", "flow.h5", "--heads", "3"], "heads"),
        ("train", ["--preset", "smoke", "--data", "flow.h5", "--boxes", "0", "4"], "patches"),
        ("evaluate", ["--run", "nowhere"], "nowhere"),
        ("predict", ["--run", "nowhere"], "--data"),
        ("predict", ["--run", "nowhere", "--data", "flow.h5", "--steps", "0"], "--steps 0"),
        ("predict", ["--run", "nowhere", "--data", "flow.h5"], "nowhere"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(wave_file, tmp_path, script, words, message):
    (tmp_path / "flow.h5").write_bytes(wave_file.read_bytes())
    assert_refused(f"final_project/{script}.py", words, message, tmp_path)


def test_another_mesh_other_fields_and_a_broken_file_are_refused(smoke6, tmp_path):
    flow = waves(nodes=150)
    write_flow(tmp_path / "other.h5", flow)
    assert_refused(
        "final_project/predict.py",
        ["--run", smoke6, "--data", "other.h5"],
        "another mesh",
        tmp_path,
    )
    write_flow(tmp_path / "renamed.h5", dataclasses.replace(waves(), field_names=("u", "v", "T")))
    assert_refused(
        "final_project/predict.py",
        ["--run", smoke6, "--data", "renamed.h5"],
        "trained on fields u, v, p",
        tmp_path,
    )
    (tmp_path / "run").mkdir()
    for name in ("run.json", "metrics.json", "mesh.npz"):
        (tmp_path / "run" / name).write_bytes((smoke6 / name).read_bytes())
    (tmp_path / "run" / "model.safetensors").write_bytes(
        (smoke6 / "model.safetensors").read_bytes()[:5000]
    )
    assert_refused(
        "final_project/predict.py",
        ["--run", "run", "--data", "renamed.h5"],
        "not a whole model file",
        tmp_path,
    )


def test_one_field_runs_without_exchange_and_a_constant_parameter_is_no_division_by_zero(tmp_path):
    flow = waves(trajectories=6)
    flow = dataclasses.replace(
        flow,
        fields=flow.fields[..., :1],
        field_names=("u",),
        parameters=np.ones((6, 1)),
        parameter_names=("Re",),
    )
    write_flow(tmp_path / "one.h5", flow)
    done = call(
        "final_project/train.py",
        "--preset",
        "smoke",
        "--data",
        tmp_path / "one.h5",
        "--out",
        tmp_path / "run",
        "--models",
        "SEA",
        "--baselines",
        "persistence",
    )
    assert done.returncode == 0, done.stderr
    assert "no exchange" in done.stderr
    assert (
        json.loads((tmp_path / "run" / "run.json").read_text())["notes"]["exchange"]
        == "off: one field group"
    )


def test_the_control_without_exchange_has_as_many_weights():
    config = Config()
    with_exchange, matched, plain = (
        count(temporal_config(config, name, 2, 512, 3), 2, 512, 3)
        for name in ("SEA", "no exchange, matched", "no exchange")
    )
    assert abs(matched - with_exchange) < 0.01 * with_exchange
    assert plain < 0.95 * with_exchange
    assert with_exchange < 5e6  # the aim
    patches, without = (
        count(temporal_config(config, name, 3, 512, 2), 3, 512, 2)
        for name in ("patch SEA", "patches, no exchange, matched")
    )
    assert abs(without - patches) < 0.01 * patches < 0.02e6
    for name in MODELS:
        assert count(temporal_config(config, name, 3, 512, 2), 3, 512, 2) > 0


def test_the_objective_is_teacher_forcing_without_tricks_and_grows_by_each():
    flow = waves(6, 14)
    groups = groups_of(flow.field_names)
    autoencoder = build_autoencoder(SMALL, False, flow.coordinates, groups)
    autoencoder.fit_linear(torch.from_numpy(flow.fields.reshape(-1, *flow.fields.shape[2:])))
    z, theta = encode(autoencoder, flow.fields), torch.from_numpy(flow.parameters).float()
    model = build_temporal(SMALL, "SEA", *z.shape[2:], 2)
    model.fit(z, theta)
    none = torch.zeros_like(z[:, :-1])
    plain = StepError(model, (), 3)(z, theta, none, False)
    assert torch.allclose(
        plain, weighted_error(model, z[:, :-1], z[:, 1:])
    )  # it starts as persistence,
    assert plain.item() == pytest.approx(1, rel=1e-4)  # which costs 1
    pushed = StepError(model, ("pushforward",), 3)(z, theta, none, False)
    rolled = StepError(model, ("pushforward",), 3)(z, theta, none, True)
    assert plain < pushed < rolled


@pytest.mark.parametrize(
    ("name", "option"), [("SEA", "first_share"), ("patch SEA", "patch_first_share")]
)
def test_windows_begin_at_the_first_frame_as_often_as_asked(monkeypatch, name, option):
    flow = waves(6, 40)
    autoencoder = build_autoencoder(SMALL, False, flow.coordinates, groups_of(flow.field_names))
    autoencoder.fit_linear(torch.from_numpy(flow.fields.reshape(-1, *flow.fields.shape[2:])))
    z = encode(autoencoder, flow.fields)
    drawn = []

    def take(config, run, name, network, objective, total, lr, constant, draw, judge, world):
        drawn.append([draw(step)[0][:, 0] for step in range(200)])

    monkeypatch.setattr(training, "optimise", take)
    for share in (0.0, 1.0):
        config = dataclasses.replace(SMALL, **{option: share})
        training.train_temporal(
            config,
            None,
            name,
            0,
            autoencoder,
            flow.coordinates,
            flow.fields,
            flow.parameters,
            flow.fields[:1],
            flow.parameters[:1],
            "cpu",
        )
    first = z[:, 0]
    anywhere, always = (torch.cat(each) for each in drawn)
    begins = [
        torch.isclose(each[:, None], first).all(3).all(2).any(1).float().mean().item()
        for each in (anywhere, always)
    ]
    assert begins[1] == 1.0
    assert 0 < begins[0] < 0.1  # one of 28 starts


def test_poisoned_test_trajectories_change_neither_codes_nor_scales():
    flow = waves()
    parts = split(flow.parameters, 0)
    poisoned = flow.fields.copy()
    for part in (parts.interpolation, parts.gap, parts.extrapolation):
        poisoned[part] = 1e6
    states = []
    for fields in (flow.fields, poisoned):
        model = build_autoencoder(SMALL, False, flow.coordinates, groups_of(flow.field_names))
        model.fit_linear(torch.from_numpy(fields[parts.train].reshape(-1, *fields.shape[2:])))
        states.append(
            {
                name: value
                for name, value in model.state_dict().items()
                if "centre" in name or "analysis" in name or name in ("mean", "std")
            }
        )
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_an_untrained_model_is_persistence_of_the_code():
    flow = waves(4)
    autoencoder = build_autoencoder(SMALL, False, flow.coordinates, groups_of(flow.field_names))
    autoencoder.fit_linear(torch.from_numpy(flow.fields.reshape(-1, *flow.fields.shape[2:])))
    model = build_temporal(SMALL, "SEA", *encode(autoencoder, flow.fields[:1, :1]).shape[2:], 2)
    guess = predict(autoencoder, model, flow.fields[:, 0], flow.parameters, 5)
    np.testing.assert_allclose(guess, np.repeat(guess[:, :1], 5, 1), atol=1e-6)


def test_judge_scores_persistence_as_by_hand_and_pairs_the_exchange():
    flow = waves()
    judge, parts = Judge(flow, (8, 16), 20), split(flow.parameters, 0)
    scores = judge.score(lambda first, theta, steps: np.repeat(first[:, None], steps, 1), parts)
    assert scores["interpolation"]["squared_relative_l2"].shape == (len(parts.interpolation), 19, 3)
    assert scores["longer"]["squared_relative_l2"].shape == (len(parts.interpolation), 10, 3)
    rows = {
        (row["variant"], row["series"], row["metric"]): row["value"]
        for row in judge.exchange_rows("SEA over control", [scores], [scores])
    }
    assert rows["gap", "v", "exchange_ratio"] == pytest.approx(1)
    halved = {
        part: {name: values / 2 for name, values in found.items()} for part, found in scores.items()
    }
    rows = {
        (row["variant"], row["series"], row["metric"]): row["value"]
        for row in judge.exchange_rows("SEA over control", [halved], [scores])
    }
    assert rows["interpolation", None, "exchange_ratio_low"] == pytest.approx(0.5, rel=1e-5)
    blown = judge.score(
        lambda first, theta, steps: np.full((len(first), steps, *first.shape[1:]), np.inf), parts
    )
    assert all(np.isfinite(row["value"]) for row in judge.rows("blown up", [blown]))


def test_unknown_models_are_refused_by_name():
    with pytest.raises(InputError, match="allowed are as published"):
        temporal_config(Config(), "SAE", 2, 64, 1)
