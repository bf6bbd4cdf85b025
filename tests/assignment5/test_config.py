"""The recipes are what README and report say, and options that make no run are refused."""

from __future__ import annotations

import dataclasses

import pytest

from assignment5.ablation import ABLATIONS, BASE, AblateConfig
from assignment5.config import ASSIGNED, Config, PredictConfig, Sampling, training_jobs
from common.cli import InputError, parse
from tests.assignment5.helpers import TINY


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 100}, "multiple of 12"),
        ({"patch": 5}, "divisors"),
        ({"positions": "rotary", "width": 60}, "multiple of 48"),
        ({"ends": "overlap", "patch": 1}, "take an even one"),
        ({"side": 20, "unet_widths": (8, 8, 8, 8)}, "multiple of 8"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        dataclasses.replace(TINY, **change)


def test_as_assigned_changes_the_recipe_and_nothing_else():
    jobs = training_jobs(TINY)
    assert [job.name for job in jobs] == [
        "Transformer, tuned",
        "U-Net, tuned",
        "Transformer, as assigned",
        "U-Net, as assigned",
    ]
    assert jobs[0].config is TINY
    plain = dataclasses.asdict(jobs[2].config)
    changed = {name for name, value in dataclasses.asdict(TINY).items() if plain[name] != value}
    assert changed <= set(ASSIGNED)
    example = {
        "target": "noise",
        "error": "mae",
        "flips": False,
        "lr": 1e-3,
        "weight_decay": 1e-4,
        "batch": 64,
    }
    assert {name: plain[name] for name in example} == example


def test_the_tuned_recipe_is_what_readme_and_report_say():
    tuned = {
        "target": "noise",
        "error": "mae",
        "min_snr": 0,
        "conditioning": "adaln",
        "skips": True,
        "ends": "linear",
        "batch": 64,
        "lr": 1e-3,
        "weight_decay": 1e-4,
        "warmup": 250,
        "decay": True,
        "flips": True,
        "ema": 0.999,
        "depth": 8,
        "heads": 12,
        "patch": 4,
        "unet_widths": (32, 64, 96, 128),
        "recipes": ("tuned",),
    }
    defaults = dataclasses.asdict(Config())
    assert {name: defaults[name] for name in tuned} == tuned
    # it differs from the ablation's best row in nothing that this row set
    best = {**BASE, **ABLATIONS["noise, MAE; long skips"].changes}
    assert {name: defaults[name] for name in best} == best
    default, full = (Config.presets()[name] for name in ("default", "full"))
    assert default == {"repeats": 3, "samples": 128, "powers": (1.0,)}
    assert (full["side"], full["epochs"], full["recipes"]) == (64, 50, ("tuned", "as assigned"))


def test_every_row_of_the_ablation_is_a_config():
    jobs = AblateConfig().jobs()
    assert [job.name for job in jobs] == list(ABLATIONS)
    assert [job.name for job in jobs if job.network == "U-Net"] == [
        "noise, MAE; U-Net",
        "as assigned, U-Net",
    ]
    assert jobs[0].config.target == "velocity"
    assert AblateConfig(rows=("long skips",)).jobs()[0].config.skips
    with pytest.raises(InputError, match="--rows nothing: allowed are base; convolutional ends;"):
        AblateConfig(rows=("nothing",))


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


def test_the_edges_of_the_ranges_are_allowed():
    edges = {"min_snr": 0.0, "warmup": 0, "ema": 0.0, "samples": 6, "seeds": 1}
    assert dataclasses.replace(Config(), **edges).samples == 6


def test_options_that_contradict_each_other_are_refused():
    with pytest.raises(InputError, match=r"--min-signal 0.96: allowed is less than --max-signal"):
        Config(min_signal=0.96)
    with pytest.raises(InputError, match="--recipes: at least one"):
        Config(recipes=())
    with pytest.raises(InputError, match="deterministic"):
        parse(PredictConfig, ["--eta", "1", "--sampler", "heun"])


def test_labels_are_made_from_values():
    assert Sampling("dpm++", 5, 0.6).variant("tuned") == "tuned, DPM-Solver++(2M), times ^0.6"
    assert Sampling("ddim", 5).variant("as assigned") == "as assigned, DDIM"
