"""Rates and batches tried on validation for equal seconds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common.cli import InputError, parse
from final_project import tune
from final_project.config import MODELS, STEPPERS, Config, OneStepRecipe
from final_project.data import split, write_flow
from final_project.tune_config import AUTOENCODERS, TuneConfig, knobs_of
from tests.conftest import run_main
from tests.final_project.waves import waves

FLOW = waves(trajectories=10, frames=24)


@pytest.fixture(scope="module")
def wave_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("flow") / "waves.h5"
    write_flow(path, FLOW)
    return path


@pytest.mark.parametrize(
    "network",
    [*AUTOENCODERS, "as published", "SEA", "patch SEA", "patches, joint, wide", *STEPPERS],
)
def test_an_attempt_changes_the_rate_batch_and_steps_of_its_network_alone(network):
    config = TuneConfig(network=network)
    tried = config.attempt(7e-4, 3, 11)
    changed = {name for name in vars(Config()) if getattr(tried, name) != getattr(config, name)}
    assert changed == set(knobs_of(network))
    assert type(tried) is Config


def test_the_options_reach_the_recipes():
    options = TuneConfig(network="as published").attempt(7e-4, 3, 11)
    recipe = options.temporal_recipe(MODELS["as published"])
    assert (recipe.lr, recipe.batch, recipe.steps, recipe.constant) == (7e-4, 3, 11, True)
    coding = TuneConfig(network="autoencoder, as published").attempt(7e-4, 3, 11)
    recipe = coding.autoencoder_recipe("as published")
    assert (recipe.lr, recipe.batch, recipe.steps, recipe.constant) == (7e-4, 3, 11, True)
    stepper = TuneConfig(network="U-Net").attempt(7e-4, 3, 11).one_step_recipe("U-Net")
    assert (stepper.lr, stepper.batch, stepper.steps) == (7e-4, 3, 11)
    assert Config().one_step_recipe("FNO") == OneStepRecipe()  # what the committed runs had


def test_networks_that_step_fields_have_rates_steps_and_seeds_of_their_own():
    options = Config(baseline_steps=50, baseline_lr=1e-2, unet_steps=70, transolver_lr=1e-3, seed=2)
    recipes = [options.one_step_recipe(name, seed=1) for name in STEPPERS]
    assert [recipe.steps for recipe in recipes] == [50, 70, 50]
    assert [recipe.lr for recipe in recipes] == [1e-2, 1e-2, 1e-3]
    assert {recipe.seed for recipe in recipes} == {2001}


@pytest.mark.parametrize("network", ["autoencoder, as published", "published, own codes", "U-Net"])
def test_every_try_is_a_row_and_the_best_one_is_named(wave_file, tmp_path, capsys, network):
    words = ["--preset", "smoke", "--data", wave_file, "--network", network]
    words += ["--rates", 1e-3, 1e-30, "--batches", 2, "--seconds", 0.5, "--out", tmp_path / "run"]
    words += ["--autoencoder-steps", 4]
    results = run_main(tune.main, TuneConfig, *words)
    table = pd.DataFrame(results["rows"])
    assert list(table.split) == ["validation"] * 2
    assert set(table.model) == {network}
    assert [name.rpartition(",")[0] for name in table.variant] == [
        "lr 0.001, batch 2",
        "lr 1e-30, batch 2",
    ]
    assert table.value[0] != table.value[1]  # a rate of nothing learns nothing
    knobs = knobs_of(network)
    best = ("0.001", "1e-30")[int(table.value.argmin())]
    assert f"best: --{knobs.lr.replace('_', '-')} {best} --" in capsys.readouterr().out

    # equal numbers of steps of equal batches, and a learning curve each
    steps = table.variant.str.extract(r"(\d+) steps").astype(int)[0]
    assert steps.nunique() == 1
    log = pd.read_csv(tmp_path / "run" / "metrics.csv")
    tries = log[log.name.str.startswith("try, ") & (log.split == "validation")]
    assert set(tries.name) == {"try, lr 0.001, batch 2", "try, lr 1e-30, batch 2"}
    assert (tries.groupby("name").step.max() == steps[0]).all()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "finished"


def test_no_try_reads_the_test_trajectories(wave_file, tmp_path):
    parts = split(FLOW.parameters, 0)
    poisoned = FLOW.fields.copy()
    for rows in (parts.interpolation, parts.gap, parts.extrapolation):
        poisoned[rows] += 1e3
    write_flow(tmp_path / "poisoned.h5", dataclasses.replace(FLOW, fields=poisoned))
    errors = []
    for number, path in enumerate((wave_file, tmp_path / "poisoned.h5")):
        words = ["--preset", "smoke", "--data", path, "--network", "autoencoder, as published"]
        words += ["--batches", 2, "--seconds", 0.001, "--out", tmp_path / str(number)]
        results = run_main(tune.main, TuneConfig, *words)
        errors.append([row["value"] for row in results["rows"]])
        assert all("1 steps" in row["variant"] for row in results["rows"])  # none is too short
    assert np.array_equal(*errors)


def test_networks_that_there_are_none_of_are_refused():
    with pytest.raises(InputError, match="--network SAE: allowed are autoencoder"):
        parse(TuneConfig, ["--network", "SAE"])
    with pytest.raises(InputError, match="--rates -1"):
        parse(TuneConfig, ["--rates", "-1"])
