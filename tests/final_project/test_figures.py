"""Figures of a run: one style per model, what the parts mean, movies that can be followed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from PIL import Image

from common.figures import read_run
from final_project import figures
from final_project.figures import by_seconds, draw_rollout, draw_seconds
from final_project.painting import Scale
from final_project.pictures import parts_note, read_errors, read_pictures, styles_of
from tests.final_project.helpers import FANS, SQUARE

RESULTS = Path(figures.__file__).parent / "results"
COMMITTED = ("cylinder-core", "lock_exchange-core")


def run(**distances: list[float]) -> dict:
    return {
        "config": {"models": ["SEA", "no exchange, matched"], "frames": 200},
        "data": {"flow": "cylinder", "seed": 0},
        "notes": {"distances": distances},
    }


def test_every_model_has_one_style_and_trained_ones_come_first():
    names = ["persistence", "FNO", *(f"control {number}" for number in range(8)), "SEA"]
    table = pd.DataFrame({"model": names, "metric": "relative_l2_squared"})
    table.loc[len(table)] = ["SEA over no exchange, matched", "exchange_ratio"]
    styles = styles_of(run(), table)
    assert list(styles) == ["SEA", *names[:-1]]
    assert len({(style.colour, style.dash) for style in styles.values()}) == len(names)


def test_the_note_on_the_parts_speaks_of_the_data_at_hand():
    note = parts_note(run(validation=[9.0], interpolation=[3.1, 2.04], gap=[4.0]))
    assert note.endswith("trained range: interpolation 2.0 to 3.1; gap 4.0 to 4.0")
    assert "does not vary" in parts_note(run())


@pytest.mark.parametrize("name", COMMITTED)
def test_the_pictures_of_a_committed_run_are_read_by_the_names_of_its_models(name):
    record, table = read_run(RESULTS / name)
    pictures = read_pictures(RESULTS / name / "pictures.npz", record)
    assert list(pictures.fields) == record["config"]["models"][:3]
    assert set(pictures.fields) < set(styles_of(record, table))
    shape = (len(pictures.frames), len(pictures.mesh.x), len(pictures.field_names))
    assert all(fields.shape == shape for fields in pictures.fields.values())
    errors = read_errors(RESULTS / name / "errors.npz", table.model.unique())
    assert set(errors) == set(styles_of(record, table))


def test_a_movie_of_a_rollout_can_be_followed(tmp_path, monkeypatch):
    movies = []
    monkeypatch.setattr(figures.Movie, "write", lambda movie, path: movies.append(movie))
    time = 0.1 * np.arange(400)
    period = 24.0  # frames
    wave = np.sin(2 * np.pi * np.arange(400) / period)[:, None] * np.arange(1, 6)  # (T, P)
    draw_rollout(tmp_path / "a.gif", SQUARE, FANS, time, ("v",), wave[..., None], "footer")
    (movie,) = movies
    shown = movie.panels["prediction"].values
    steps = [int(label.split()[1].rstrip(",")) for label in movie.labels]
    assert steps == [*range(0, 100, 2), *range(301, 400, 2)]
    assert np.array_equal(shown, wave[steps])


@pytest.mark.parametrize("name", COMMITTED)
def test_a_committed_runs_movie_shows_the_truth_a_model_and_its_error(name, tmp_path, monkeypatch):
    movies = []
    monkeypatch.setattr(figures.Movie, "write", lambda movie, path: movies.append(movie))
    record, _ = read_run(RESULTS / name)
    pictures = read_pictures(RESULTS / name / "pictures.npz", record)
    figures.draw_run_movie(tmp_path / "a.gif", record, pictures)
    (movie,) = movies
    truth, guess, error = (panel.values for panel in movie.panels.values())
    assert np.array_equal(error, guess - truth)
    beyond = ["beyond" in label for label in movie.labels]
    assert beyond == (pictures.frames >= record["config"]["frames"]).tolist()


def test_a_forest_of_ratios_has_every_pair_field_and_part(tmp_path, monkeypatch):
    pair = "SEA over no exchange, matched"
    lines = []
    for part, series, ratio in (("gap", None, 0.5), ("gap", "u", 2.0), ("longer", None, 0.8)):
        for metric, factor in (("", 1.0), ("_low", 0.5), ("_high", 2.0)):
            lines.append((pair, part, series, f"exchange_ratio{metric}", factor * ratio))
    table = pd.DataFrame(lines, columns=["model", "variant", "series", "metric", "value"])
    record = run()
    record["source"] = record["assignment"] = record["preset"] = "x"
    drawn = []
    errorbar = Axes.errorbar

    def noted(axes: Axes, x, y, xerr, **style):
        drawn.append((x, y, [low for (low,) in xerr], style["label"]))
        return errorbar(axes, x, y, xerr=xerr, **style)

    monkeypatch.setattr(Axes, "errorbar", noted)
    figures.draw_exchange(tmp_path / "a.png", record, table, ("u",))
    assert drawn == [
        (0.5, 0.0, [0.25, 0.5], pair),
        (2.0, 1.0, [1.0, 2.0], None),
        (0.8, 0.0, [0.4, 0.8], pair),
    ]
    figures.draw_exchange(tmp_path / "b.png", record, table[table.model == "SEA"], ("u",))
    assert not (tmp_path / "b.png").exists()


def test_a_movie_is_a_gif_of_one_image_per_label(tmp_path):
    values = np.random.default_rng(0).normal(size=(3, 5, 1))
    draw_rollout(tmp_path / "a.gif", SQUARE, FANS, np.arange(3.0), ("p",), values, "footer")
    with Image.open(tmp_path / "a.gif") as movie:
        assert movie.n_frames == 3
    assert [path.name for path in tmp_path.iterdir()] == ["a.gif"]


def test_a_models_seconds_begin_after_those_of_its_autoencoder(tmp_path, monkeypatch):
    lines = [
        (5, "clock", "autoencoder error, own", 10.0),
        (5, "validation", "autoencoder error, own", 0.02),
        (10, "clock", "autoencoder error, own", 20.0),
        (10, "validation", "autoencoder error, own", 0.01),
        (4, "clock", "rollout error, SEA, seed 0", 3.0),
        (4, "validation", "rollout error, SEA, seed 0", 0.5),
        (8, "validation", "rollout error, SEA, seed 0", 0.4),  # (of a run cut off before its time)
        (2, "clock", "rollout error, FNO", 7.0),
        (2, "validation", "rollout error, FNO", 0.3),
        (2, "train", "loss, rollout error, FNO", 0.9),
    ]
    log = pd.DataFrame(lines, columns=["step", "split", "name", "value"])
    curve = by_seconds(log, "rollout error, SEA, seed 0")
    assert (curve.seconds.tolist(), curve.error.tolist()) == ([3.0], [0.5])

    drawn = {}
    plot = Axes.plot

    def noted(axes: Axes, x, y, **style):
        drawn[style["label"]] = (list(x), list(y), style["color"])
        return plot(axes, x, y, **style)

    monkeypatch.setattr(Axes, "plot", noted)
    names = ["SEA", "FNO", "autoencoder"]
    table = pd.DataFrame({"model": names, "metric": "relative_l2_squared"})
    record = run()
    record["config"]["seeds"] = 2
    record["source"] = record["assignment"] = record["preset"] = "x"
    styles = styles_of(record, table)
    draw_seconds(tmp_path / "a.png", record, log, styles)
    assert drawn["SEA"][:2] == ([23.0], [0.5])
    assert drawn["FNO"][:2] == ([7.0], [0.3])
    assert drawn["autoencoder"][:2] == ([10.0, 20.0], [0.02, 0.01])
    assert {name: colour for name, (_, _, colour) in drawn.items()} == {
        name: styles[name].colour for name in names
    }


def test_velocities_are_drawn_symmetrically_and_pressures_are_not():
    values = np.linspace(-1, 3, 1000)
    velocity = Scale.of_field("v", values)
    assert velocity.low == -velocity.high
    assert Scale.of_field("alpha", values).low == pytest.approx(-1, abs=0.02)
    assert Scale.of_error(values).low == -Scale.of_error(values).high
