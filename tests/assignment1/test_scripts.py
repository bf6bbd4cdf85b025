"""The real entry points as a user calls them: train, evaluate, predict, encode, kill -9 and --resume, bad input."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from assignment1.data import CLASSES, load_codemaps, load_images
from assignment1.elm import ELMClassifier
from assignment1.synthetic import draw_faces
from tests.conftest import assert_refused, assert_same_after_kill_9, call


def test_a_run_leaves_everything_that_the_readme_promises(smoke1):
    for name in (
        "run.json",
        "metrics.csv",
        "metrics.json",
        "report.pdf",
        "predictions.npz",
        "paths.npz",
        "vqvae.safetensors",
        "model.ELM.npz",
        "model.binary-ELM.npz",
        "model.MLP.safetensors",
        "learning_curves.png",
        "accuracy_by_representation.png",
        "accuracy_grid.png",
        "penalty_paths.png",
        "confusion.png",
        "codes.png",
    ):
        assert (smoke1 / name).stat().st_size > 0, name
    assert not list(smoke1.glob(".*.tmp*"))
    assert (smoke1 / "report.pdf").read_bytes()[:5] == b"%PDF-"
    record = json.loads((smoke1 / "run.json").read_text())
    assert record["status"] == "finished"
    assert "not real data" in record["data"]["notice"]
    assert record["notes"]["audit"]["rows"] == 700
    table = pd.DataFrame(json.loads((smoke1 / "metrics.json").read_text())["rows"])
    assert table.value.notna().all()
    assert set(table.protocol) == {"as-assigned", "held-out"}
    assigned = table[
        (table.protocol == "as-assigned")
        & (table.metric == "accuracy")
        & (table.model != "largest class")
    ]
    assert len(assigned) == 9
    held_out = table[
        (table.protocol == "held-out") & (table.split == "test") & (table.metric == "accuracy")
    ]
    grid = held_out[held_out.model.isin(["ELM", "binary ELM", "MLP"])]
    assert grid.groupby("model").size().to_dict() == {
        "ELM": 21,
        "binary ELM": 21,
        "MLP": 21,
    }  # 5 representations x 4 penalties + wide ridge
    assert (grid[grid.model != "MLP"].n_seeds == 2).all()
    assert {"largest class", "linear", "CNN"} <= set(held_out.model)
    curves = pd.read_csv(smoke1 / "metrics.csv")
    quality = curves[curves.name == "vq_psnr"].value
    assert quality.iloc[-1] > quality.iloc[0]


def test_every_accuracy_comes_from_the_stored_predictions(smoke1):
    rows = pd.DataFrame(json.loads((smoke1 / "metrics.json").read_text())["rows"])
    held = np.load(smoke1 / "predictions.npz", allow_pickle=False)
    part = rows[
        (rows.protocol == "held-out")
        & (rows.split == "test")
        & (rows.metric == "accuracy")
        & (rows.model != "VQ-VAE")
    ]
    for row in part.itertuples():
        assert (
            abs((held[f"{row.model} | {row.variant}"] == held["labels"]).mean() - row.value) < 1e-12
        )


def test_kill_9_in_training_and_resume_gives_the_same_metrics(smoke1, tmp_path):
    assert_same_after_kill_9(smoke1, "assignment1", "synthetic", tmp_path, "vqvae.safetensors")
    assert ELMClassifier.load(tmp_path / "run" / "model.ELM.npz").seed_ == 0


def test_evaluate_scores_new_faces_and_leaves_out_those_it_was_trained_on(smoke1, tmp_path):
    fresh, labels = draw_faces(40, 99)
    seen, seen_labels = draw_faces(700, 0)
    held = np.load(smoke1 / "training_faces.npz", allow_pickle=False)["fingerprints"]
    np.savez(
        tmp_path / "new.npz",
        images=np.concatenate([fresh, seen]),
        labels=np.concatenate([labels, seen_labels]),
    )
    done = call(
        "assignment1/evaluate.py",
        "--run",
        smoke1,
        "--data",
        tmp_path / "new.npz",
        "--out",
        tmp_path / "scores.json",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "scores.json").read_text())
    assert found["run"]["faces"] == 740
    assert found["run"]["seen_in_training"] == len(np.unique(held))
    assert {row["variant"] for row in found["rows"]} == {"all faces", "unseen faces"}


def test_evaluate_without_data_repeats_the_runs_own_score(smoke1, tmp_path):
    done = call("assignment1/evaluate.py", "--run", smoke1, "--out", tmp_path / "scores.json")
    assert done.returncode == 0, done.stderr
    again = {
        (row["model"], row["metric"]): row["value"]
        for row in json.loads((tmp_path / "scores.json").read_text())["rows"]
    }
    best = json.loads((smoke1 / "run.json").read_text())["notes"]["best_on_validation"]["ELM"][
        "variant"
    ]
    held = np.load(smoke1 / "predictions.npz", allow_pickle=False)
    assert (
        abs(again["ELM", "accuracy"] - (held[f"ELM | {best}"][0] == held["labels"]).mean()) < 0.03
    )  # the first seed, fitted again


def test_predict_takes_one_image_or_a_folder(smoke1, tmp_path):
    for number, face in enumerate(draw_faces(3, 5)[0]):
        Image.fromarray(face).resize((200, 150)).convert("RGB").save(tmp_path / f"face{number}.png")
    done = call(
        "assignment1/predict.py", "--run", smoke1, "--data", tmp_path, "--out", tmp_path / "out.csv"
    )
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "out.csv")
    assert set(table.face) == {"face0.png", "face1.png", "face2.png"}
    np.testing.assert_allclose(table[[f"p_{name}" for name in CLASSES]].sum(axis=1), 1, atol=2e-3)
    assert (tmp_path / "out-probabilities.png").stat().st_size > 0
    done = call(
        "assignment1/predict.py",
        "--run",
        smoke1,
        "--data",
        tmp_path / "face0.png",
        "--out",
        tmp_path / "face0.csv",
    )
    assert done.returncode == 0, done.stderr
    assert len(pd.read_csv(tmp_path / "face0.csv")) == 3
    with Image.open(tmp_path / "face0.png") as face:
        assert face.size == (200, 150)  # the face itself is not overwritten


def test_encode_writes_the_courses_format_and_train_reads_it(smoke1, tmp_path):
    done = call("assignment1/encode.py", "--run", smoke1, "--out", tmp_path / "codes")
    assert done.returncode == 0, done.stderr
    maps, labels, codebook = (
        np.load(tmp_path / "codes" / f"{name}.npy", allow_pickle=False)
        for name in ("codemaps", "labels", "codebook")
    )
    assert (maps.shape, labels.shape, codebook.shape) == ((700, 12, 12), (700, 7), (256, 128))
    assert (labels.sum(1) == 1).all()
    done = call(
        "assignment1/train.py",
        "--preset",
        "smoke",
        "--source",
        "codemaps",
        "--data",
        tmp_path / "codes",
        "--out",
        tmp_path / "run",
    )
    assert done.returncode == 0, done.stderr
    table = pd.DataFrame(json.loads((tmp_path / "run" / "metrics.json").read_text())["rows"])
    assert any("receptive fields" in variant for variant in table.variant)
    done = call("assignment1/predict.py", "--run", tmp_path / "run", "--data", tmp_path / "codes")
    assert done.returncode == 2


def test_every_part_that_encode_writes_is_read_back(tmp_path):
    faces, labels = draw_faces(60, 3)
    usage = np.array(["Training", "PublicTest", "PrivateTest"])[np.arange(60) % 3]
    np.savez(tmp_path / "faces.npz", images=faces, labels=labels, usage=usage)
    part = load_images(tmp_path / "faces.npz", labelled=True).part
    for name, array in (
        ("codemaps", np.zeros((60, 12, 12), np.int64)),
        ("labels", labels),
        ("usage", part),
    ):
        np.save(tmp_path / f"{name}.npy", array)
    np.testing.assert_array_equal(load_codemaps(tmp_path).part, part)
    assert set(part) == {"train", "test", "private"}


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        ("train", ["--source", "fer2013", "--data", "nowhere.csv"], "nowhere.csv"),
        ("train", ["--preset", "gigantic"], "gigantic"),
        ("train", ["--source", "fer2013", "--data", "one_class.npz"], "classes"),
        (
            "train",
            ["--source", "synthetic", "--preset", "smoke", "--out", "file/run"],
            "cannot be written",
        ),
        ("evaluate", ["--run", "nowhere"], "nowhere"),
        ("evaluate", ["--data", "nowhere.csv"], "nowhere.csv"),
        ("encode", ["--data", "nowhere.npz"], "nowhere.npz"),
        ("predict", ["--data", "nowhere.png"], "nowhere.png"),
        ("predict", ["--run", "nowhere", "--data", "one_class.npz"], "nowhere"),
        ("encode", ["--run", "nowhere"], "nowhere"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(tmp_path, script, words, message):
    (tmp_path / "file").write_text("not a folder")
    np.savez(tmp_path / "one_class.npz", images=draw_faces(4, 0)[0], labels=np.zeros(4, int))
    assert_refused(f"assignment1/{script}.py", words, message, tmp_path)


def test_a_finished_run_is_kept(smoke1, tmp_path):
    shutil.copytree(smoke1, tmp_path / "run", ignore=shutil.ignore_patterns(".lock"))
    before = {
        path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()
    }
    done = call(
        "assignment1/train.py",
        "--preset",
        "smoke",
        "--source",
        "synthetic",
        "--out",
        tmp_path / "run",
    )
    assert done.returncode == 2
    assert "finished run" in done.stderr
    assert {
        path.name: path.read_bytes()
        for path in (tmp_path / "run").iterdir()
        if path.is_file() and path.name != ".lock"
    } == before
