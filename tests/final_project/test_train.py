"""The real entry points on a small flow of waves: training, evaluation, prediction, refusals."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common.run import Run
from final_project import evaluate, predict, train
from final_project.baselines.grid import Grid
from final_project.config import Config, EvaluateConfig, PredictConfig
from final_project.data import load_flow, split, write_flow
from final_project.figures import by_seconds, trainings_of
from final_project.mesh import triangulate
from final_project.splits import distances
from tests.conftest import (
    assert_refused,
    assert_same_after_interruption,
    assert_summed_up,
    run_main,
)
from tests.final_project.waves import waves

SHORT = ("--preset", "smoke", "--models", "SEA", "--baselines", "persistence")


@pytest.fixture(scope="session")
def wave_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("flow") / "waves.h5"
    write_flow(path, waves())
    return path


@pytest.fixture(scope="session")
def wave_run(wave_file, tmp_path_factory) -> Path:
    """The folder of one unbroken smoke run on waves."""
    folder = tmp_path_factory.mktemp("smoke") / "run"
    run_main(train.main, Config, "--preset", "smoke", "--data", wave_file, "--out", folder)
    return folder


def test_make_run_finds_its_rows(wave_run):
    assert_summed_up(6, wave_run)


def test_a_run_leaves_everything_that_the_readme_promises(wave_run):
    files = (
        "run.json metrics.csv metrics.json report.pdf model.safetensors mesh.npz pictures.npz "
        "errors.npz fields.png rollout.gif error_by_time.png probe.png models.png attention.png "
        "learning_curves.png error_by_seconds.png"
    )
    for name in files.split():
        assert (wave_run / name).stat().st_size > 0, name
    assert json.loads((wave_run / "run.json").read_text())["status"] == "finished"

    table = pd.DataFrame(json.loads((wave_run / "metrics.json").read_text())["rows"])
    assert table.value.notna().all()
    pooled = table.series.isna() & table.horizon.isna()
    whole = table[(table.metric == "relative_l2_squared") & pooled]
    parts = {"interpolation", "gap", "extrapolation", "longer", "other starts"}
    assert set(whole.variant) == parts
    assert {*Config().models, *Config().baselines, "autoencoder"} <= set(whole.model)
    assert {"exchange_ratio", "exchange_ratio_low", "exchange_ratio_high"} <= set(table.metric)

    # what was read is noted: the distances of the parts, and what the intervals are over
    notes = json.loads((wave_run / "run.json").read_text())["notes"]
    away = distances(waves().parameters, split(waves().parameters, 0))
    assert notes["distances"] == {name: values.round(2).tolist() for name, values in away.items()}
    assert notes["split"]["margin"] == len(notes["distances"]["margin"]) == 1
    assert notes["intervals"] == "over trajectories alone"


def test_every_training_logs_its_error_and_its_seconds_at_each_check(wave_run):
    log = pd.read_csv(wave_run / "metrics.csv")
    names = {f"autoencoder error, {kind}": 8 for kind in ("own", "as published")}
    names |= {f"rollout error, {model}, seed 0": 8 for model in Config.presets()["smoke"]["models"]}
    names |= {f"rollout error, {baseline}, seed 0": 4 for baseline in ("FNO", "U-Net")}
    assert set(log[log.split == "clock"].name) == set(names)
    for name, most in names.items():
        curve = by_seconds(log, name)
        assert 4 <= len(curve) <= most + 2
        assert (np.diff(curve.seconds) > 0).all()
        assert (curve.error > 0).all()


@pytest.mark.usefixtures("undrawn")
def test_a_mesh_baseline_and_the_floor_of_a_graded_grid_are_rows(wave_file, tmp_path):
    words = ["--preset", "smoke", "--models", "SEA", "--data", wave_file, "--checks", 2]
    words += ["--baselines", "Transolver", "FNO", "grid, there and back"]
    words += ["--baseline-grid", 16, 40, "--grid-grading", 0.5, "--baseline-seeds", 2]
    results = run_main(train.main, Config, *words, "--out", tmp_path / "run")
    table = pd.DataFrame(results["rows"]).set_index(["model", "variant", "metric"]).sort_index()

    def error(model: str) -> float:
        rows = table.loc[(model, "interpolation", "relative_l2_squared")]
        return rows[rows.series.isna() & rows.horizon.isna()].value.item()

    flow = waves()
    grid = Grid(flow.coordinates, triangulate(flow.coordinates), 16, 40, 0.5)
    parts = split(flow.parameters, 0)
    truth = flow.fields[parts.interpolation, 1:20].astype(np.float64)
    squares = np.square(grid.to_nodes(grid.to_grid(truth)) - truth).sum(2)
    by_hand = (squares / np.square(truth).sum(2)).mean()
    assert error("grid, there and back") == pytest.approx(by_hand, rel=1e-4)
    assert error("grid, there and back") < error("FNO")
    assert table.loc["Transolver"].params.max() > 1e5
    assert set(table.loc["Transolver"].n_seeds) == set(table.loc["FNO"].n_seeds) == {2}
    assert set(table.loc["grid, there and back"].n_seeds) == {1}
    log = pd.read_csv(tmp_path / "run" / "metrics.csv")
    trainings = trainings_of("Transolver", log)
    assert [len(by_seconds(log, name)) for name in trainings] == [2, 2]


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """Runs write their metrics, and neither figures nor a report."""

    whole = Run.finish

    def finish(run: Run, rows: list, metrics_info: dict, *_: object) -> object:
        return whole(run, rows, metrics_info)

    monkeypatch.setattr(Run, "finish", finish)


@pytest.mark.usefixtures("undrawn")
def test_an_interrupted_run_gives_the_same_metrics(wave_file, tmp_path):
    words = [*SHORT, "--data", wave_file]
    unbroken = tmp_path / "unbroken"
    run_main(train.main, Config, *words, "--out", unbroken)
    for checkpoint in ("autoencoder error, own", "rollout error, SEA, seed 0"):
        folder = tmp_path / checkpoint
        assert_same_after_interruption(unbroken, train.main, Config, words, checkpoint, folder)


@pytest.mark.usefixtures("undrawn")
def test_steps_of_another_kind_are_resumed_and_predict(wave_file, tmp_path):
    """Adams-Bashforth, turning pairs and growing unrolls, of frames and of patches."""
    words = ["--preset", "smoke", "--baselines", "persistence", "--data", wave_file]
    words += ["--models", "patch SEA", "SEA", "--patch-steps", 12, "--steps", 12]
    words += ["--scheme", "Adams-Bashforth", "--phase-pairs", 1, "--unroll-steps", 3]
    unbroken = tmp_path / "unbroken"
    run_main(train.main, Config, *words, "--out", unbroken)
    checkpoint = "rollout error, patch SEA, seed 0"
    assert_same_after_interruption(
        unbroken, train.main, Config, words, checkpoint, tmp_path / checkpoint
    )

    # the model file holds all that is needed
    words = ["--run", unbroken, "--data", wave_file, "--steps", 3, "--out", tmp_path / "rollout"]
    flow = run_main(predict.main, PredictConfig, *words)
    assert np.isfinite(flow.fields).all()


@pytest.mark.usefixtures("undrawn")
def test_the_first_stage_can_be_trained_alone(wave_file, tmp_path):
    words = [*SHORT, "--data", wave_file, "--stage", "autoencoder", "--out", tmp_path / "run"]
    results = run_main(train.main, Config, *words)
    assert {row["model"] for row in results["rows"]} == {"autoencoder"}
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.usefixtures("undrawn")
def test_shards_together_make_the_run_of_one_process(wave_file, tmp_path):
    words = [*SHORT, "--data", wave_file, "--seeds", 2, "--baselines", "persistence", "FNO"]
    words += ["--models", "SEA", "no exchange, matched"]
    whole = run_main(train.main, Config, *words, "--out", tmp_path / "whole")
    for shard in ("1/2", "0/2"):
        shared = ["--out", tmp_path / "run", "--shard", shard]
        assert run_main(train.main, Config, *words, *shared) is None
    taken = run_main(train.main, Config, *words, "--out", tmp_path / "run")
    for results in (whole, taken):
        for row in results["rows"]:
            row["seconds"] = None
    assert taken["rows"] == whole["rows"]
    logs = [pd.read_csv(tmp_path / name / "metrics.csv") for name in ("whole", "run")]
    columns = ["split", "name", "step", "value"]
    logs = [log[log.split != "clock"].sort_values(columns)[columns].values for log in logs]
    assert (logs[0] == logs[1]).all()


def test_evaluate_scores_other_trajectories_from_any_frame(wave_run, wave_file, tmp_path):
    out = tmp_path / "scores.json"
    words = ["--run", wave_run, "--data", wave_file, "--start", 5, "--steps", 10, "--out", out]
    run_main(evaluate.main, EvaluateConfig, *words)
    scores = json.loads(out.read_text())
    parts = split(waves().parameters, 0)
    seen = np.concatenate([parts.train, parts.validation])
    unseen = np.setdiff1d(np.arange(16), seen)
    assert scores["run"]["trajectories"] == len(unseen)
    assert scores["run"]["seen"] == 16 - len(unseen)
    assert {row["split"] for row in scores["rows"]} == {"given"}

    table = pd.DataFrame(scores["rows"]).set_index(["model", "series", "metric"]).sort_index()
    rows = table.loc[("persistence", "v", "relative_l2_squared")]
    value = rows[rows.horizon.isna()].value.item()
    v = waves().fields[unseen, ..., 1].astype(np.float64)
    error = ((v[:, 5:6] - v[:, 6:16]) ** 2).sum(2) / (v[:, 6:16] ** 2).sum(2)
    assert value == pytest.approx(error.mean(), rel=1e-5)


def test_evaluate_repeats_the_scores_of_the_runs_own_test_trajectories(
    wave_run, wave_file, tmp_path, monkeypatch
):
    def error(rows: list) -> float:
        """SEA's squared relative L2 over the trained horizon."""
        table = pd.DataFrame(rows)
        table = table[table.series.isna() & table.horizon.isna()]
        table = table.set_index(["model", "variant", "metric"])
        return table.value["SEA", "interpolation", "relative_l2_squared"]

    out = tmp_path / "scores.json"
    monkeypatch.setattr(evaluate, "data_folder", lambda: wave_file.parent)
    run_main(evaluate.main, EvaluateConfig, "--run", wave_run, "--steps", 19, "--out", out)
    trained = error(json.loads((wave_run / "metrics.json").read_text())["rows"])
    repeated = error(json.loads(out.read_text())["rows"])
    assert repeated == pytest.approx(trained, rel=0.02)  # the model file holds float16


def test_scores_of_given_data_are_written_and_nothing_is_drawn(wave_run, tmp_path, capsys):
    """A second file of the same name replaces no scores; what was trained on alone is refused."""
    folder = tmp_path / "run"
    shutil.copytree(wave_run, folder)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    parts = split(waves().parameters, 0)
    other = dataclasses.replace(waves(), fields=waves().fields[::-1] + np.float32(0.01))
    for number, flow in enumerate((waves(), other)):
        (tmp_path / str(number)).mkdir()
        write_flow(tmp_path / str(number) / "more.h5", flow)
        words = ["--run", folder, "--data", tmp_path / str(number) / "more.h5", "--steps", 3]
        run_main(evaluate.main, EvaluateConfig, *words)
    seen = len(parts.train) + len(parts.validation)
    told = capsys.readouterr().out
    assert f"{seen} of 16 trajectories are those that the run was trained on or chosen by" in told
    assert "more.h5: 16 trajectories of 30 frames" in told
    written = {path.name for path in folder.iterdir()} - set(before)
    digest = load_flow(tmp_path / "1" / "more.h5").provenance["sha256"][:8]
    assert written == {"evaluation-more.json", f"evaluation-more-{digest}.json"}
    assert (
        before.items() <= {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}.items()
    )

    train_part = dataclasses.replace(
        waves(), fields=waves().fields[parts.train], parameters=waves().parameters[parts.train]
    )
    write_flow(tmp_path / "train.npz", train_part)
    words = ["--run", folder, "--data", "train.npz"]
    message = f"was trained on or chosen by all of its {len(parts.train)} trajectories"
    assert_refused(evaluate.main, EvaluateConfig, words, message, tmp_path)


def test_data_of_another_time_step(wave_run, tmp_path, capsys):
    """Half the step: one of two frames; another step: refused; predict keeps the run's step."""
    fine = dataclasses.replace(waves(frames=60), time=0.025 * np.arange(60))
    new = fine.fields + np.float32(0.01)  # (not the trajectories of the training part)
    write_flow(tmp_path / "half.h5", dataclasses.replace(fine, fields=new))
    write_flow(
        tmp_path / "coarse.h5",
        dataclasses.replace(waves(), fields=new[:, ::2], time=0.1 * np.arange(30)),
    )
    words = ["--run", wave_run, "--out", tmp_path / "half.json", "--data", tmp_path / "half.h5"]
    run_main(evaluate.main, EvaluateConfig, *words, "--start", 3, "--steps", 4)
    assert "step is 0.05, the data's 0.025: one of 2 frames is taken" in capsys.readouterr().out
    table = pd.DataFrame(json.loads((tmp_path / "half.json").read_text())["rows"])
    rows = table[(table.model == "persistence") & (table.series == "v") & table.horizon.isna()]
    v = new[..., 1].astype(np.float64)
    error = ((v[:, 3:4] - v[:, 5:12:2]) ** 2).sum(2) / (v[:, 5:12:2] ** 2).sum(2)
    value = rows[rows.metric == "relative_l2_squared"].value.item()
    assert value == pytest.approx(error.mean(), rel=1e-9)

    words = ["--run", wave_run, "--data", "coarse.h5"]
    message = "the run's time step is 0.05, the data's 0.1"
    assert_refused(evaluate.main, EvaluateConfig, words, message, tmp_path)
    words = ["--run", wave_run, "--data", tmp_path / "coarse.h5", "--steps", 2, "--frame", 4]
    flow = run_main(predict.main, PredictConfig, *words, "--out", tmp_path / "out")
    assert flow.time == pytest.approx([0.4, 0.45, 0.5])
    assert message in capsys.readouterr().out


def test_parameters_fill_what_a_single_case_lacks(wave_run, tmp_path):
    case = dataclasses.replace(
        waves(), fields=waves().fields[:1] + 1, parameters=np.zeros((1, 0)), parameter_names=()
    )
    write_flow(tmp_path / "case.h5", case)
    words = ["--run", wave_run, "--data", "case.h5"]
    for script, config in ((predict, PredictConfig), (evaluate, EvaluateConfig)):
        message = "give them with --parameters RE SIZE"
        assert_refused(script.main, config, words, message, tmp_path)
        message = "--parameters 100: 2 are needed: Re, size"
        assert_refused(script.main, config, [*words, "--parameters", 100], message, tmp_path)
    words = ["--run", wave_run, "--data", tmp_path / "case.h5", "--steps", 2]
    words += ["--parameters", 100, 0.05]
    run_main(predict.main, PredictConfig, *words)
    assert load_flow(tmp_path / "rollout" / "rollout.h5").parameters.tolist() == [[100, 0.05]]
    results = run_main(evaluate.main, EvaluateConfig, *words, "--out", tmp_path / "scores.json")
    assert results["run"]["trajectories"] == 1


@pytest.mark.parametrize(("factor", "offset"), [(1e5, 0), (1, 101_325)])
def test_fields_in_another_unit_are_refused(wave_run, tmp_path, factor, offset):
    fields = factor * waves().fields.astype(np.float64) + offset
    write_flow(tmp_path / "pascal.h5", dataclasses.replace(waves(), fields=fields))
    words = ["--run", wave_run, "--data", "pascal.h5", "--steps", 2]
    for script, config in ((predict, PredictConfig), (evaluate, EvaluateConfig)):
        assert_refused(script.main, config, words, "is it in another unit?", tmp_path)


def test_much_smaller_fields_are_remarked_on(wave_run, tmp_path, capsys):
    small = dataclasses.replace(waves(), fields=waves().fields * np.float32(1e-3))
    write_flow(tmp_path / "small.h5", small)
    words = ["--run", wave_run, "--data", tmp_path / "small.h5", "--steps", 2]
    run_main(predict.main, PredictConfig, *words)
    assert "is it in another unit?" in capsys.readouterr().err


def test_predict_continues_from_a_single_frame(wave_run, tmp_path):
    flow = waves()
    state = dataclasses.replace(
        flow, fields=flow.fields[:1, 3:4], parameters=flow.parameters[:1], time=flow.time[3:4]
    )
    path = tmp_path / "state.npz"
    write_flow(path, state)
    out = tmp_path / "out"
    words = ["--run", wave_run, "--data", path, "--steps", 7, "--out", out]
    run_main(predict.main, PredictConfig, *words)
    rollout = load_flow(out / "rollout.h5")
    assert rollout.fields.shape == (1, 8, 204, 3)
    np.testing.assert_array_equal(rollout.fields[0, 0], state.fields[0, 0])
    np.testing.assert_allclose(np.diff(rollout.time), 0.05)
    assert len(list(out.glob("*.vtu"))) == 8
    assert (out / "rollout.gif").stat().st_size > 0


@pytest.mark.parametrize(
    ("script", "config", "words", "message"),
    [
        (train, Config, "--data nowhere.h5", "nowhere.h5"),
        (train, Config, "--source file --data flow.h5 --models SAE", "SAE"),
        (train, Config, "--preset smoke --data flow.h5 --groups u,w;p", "w"),
        (train, Config, "--preset smoke --data flow.h5 --heads 3", "heads"),
        (train, Config, "--preset smoke --data flow.h5 --boxes 0 4", "--boxes 0"),
        (train, Config, "--preset smoke --data flow.h5 --seeds 0", "--seeds 0"),
        (train, Config, "--preset smoke --data flow.h5 --unroll-steps 12", "--window 12"),
        (train, Config, "--preset smoke --data flow.h5 --scheme Adams-Bashforth", "have no past"),
        (train, Config, "--preset smoke --data flow.h5 --autoencoder-width 18", "multiples"),
        (evaluate, EvaluateConfig, "--run nowhere", "nowhere"),
        (evaluate, EvaluateConfig, "--start -1", "--start -1"),
        (predict, PredictConfig, "--run nowhere", "--data"),
        (predict, PredictConfig, "--run nowhere --data flow.h5 --steps 0", "--steps 0"),
        (predict, PredictConfig, "--run nowhere --data flow.h5", "nowhere"),
    ],
)
def test_a_users_mistake_is_refused(wave_file, tmp_path, script, config, words, message):
    (tmp_path / "flow.h5").write_bytes(wave_file.read_bytes())
    assert_refused(script.main, config, words.split(), message, tmp_path)


def test_another_mesh_other_fields_and_a_broken_file_are_refused(wave_run, tmp_path):
    def refused(run: Path | str, data: str, message: str) -> None:
        words = ["--run", run, "--data", data]
        assert_refused(predict.main, PredictConfig, words, message, tmp_path)

    write_flow(tmp_path / "other.h5", waves(nodes=150))
    refused(wave_run, "other.h5", "another mesh")
    write_flow(tmp_path / "renamed.h5", dataclasses.replace(waves(), field_names=("u", "v", "T")))
    refused(wave_run, "renamed.h5", "trained on fields u, v, p")

    (tmp_path / "run").mkdir()
    for name in ("run.json", "metrics.json", "mesh.npz"):
        (tmp_path / "run" / name).write_bytes((wave_run / name).read_bytes())
    model = (wave_run / "model.safetensors").read_bytes()
    (tmp_path / "run" / "model.safetensors").write_bytes(model[:5000])
    refused("run", "renamed.h5", "not a whole model file")


@pytest.mark.usefixtures("undrawn")
def test_one_field_runs_without_exchange_and_a_constant_parameter_divides_nothing_by_zero(
    tmp_path, capsys
):
    flow = waves(trajectories=6)
    flow = dataclasses.replace(
        flow,
        fields=flow.fields[..., :1],
        field_names=("u",),
        parameters=np.ones((6, 1)),
        parameter_names=("Re",),
    )
    write_flow(tmp_path / "one.h5", flow)
    folder = tmp_path / "run"
    words = [*SHORT, "--data", tmp_path / "one.h5", "--out", folder]
    run_main(train.main, Config, *words)
    assert "no exchange" in capsys.readouterr().err
    record = json.loads((folder / "run.json").read_text())
    assert record["notes"]["exchange"] == "off: one field group"
