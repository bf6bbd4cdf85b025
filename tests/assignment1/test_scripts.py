"""The real entry points: train, evaluate, predict, encode, an interruption, and bad input."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from assignment1 import encode, evaluate, predict, train
from assignment1.artifacts import FINGERPRINTS_FILE, load_models
from assignment1.audit import audit, fingerprints, held_out_split
from assignment1.config import Config, EncodeConfig, EvaluateConfig, PredictConfig
from assignment1.data import Faces, Split, load_images
from assignment1.saved import known_faces, own_faces
from assignment1.synthetic import draw_faces
from assignment1.variants import prediction_key
from assignment1.views import code_views
from assignment1.words import CLASSES
from common.cli import InputError
from common.files import read_json
from common.run import SavedRun
from tests.conftest import (
    ROOT,
    assert_refused,
    assert_same_after_interruption,
    assert_shards_make_the_run,
    assert_summed_up,
    call,
    run_main,
)

SMOKE = ("--preset", "smoke", "--source", "synthetic")
SCRIPTS = {
    "train": (train.main, Config),
    "evaluate": (evaluate.main, EvaluateConfig),
    "predict": (predict.main, PredictConfig),
    "encode": (encode.main, EncodeConfig),
}


def rows_of(folder: Path) -> pd.DataFrame:
    """The rows of metrics.json."""
    return pd.DataFrame(read_json(folder / "metrics.json")["rows"])


@pytest.fixture
def copied(smoke1: Path, tmp_path: Path) -> Path:
    """The smoke run as a finished run of its own, which a script may draw into."""
    ignored = shutil.ignore_patterns(".lock", "checkpoints")
    return Path(shutil.copytree(smoke1, tmp_path / "copied", ignore=ignored))


def test_make_run_finds_its_rows(smoke1):
    assert_summed_up(1, smoke1)


def test_a_run_leaves_everything_that_the_readme_promises(smoke1):
    for name in (
        "run.json",
        "metrics.csv",
        "metrics.json",
        "report.pdf",
        "predictions.npz",
        "paths.npz",
        "units.npz",
        "vqvae.safetensors",
        "model.ELM.npz",
        "model.binary-ELM.npz",
        "model.MLP.safetensors",
        "learning_curves.png",
        "accuracy_by_representation.png",
        "accuracy_grid.png",
        "penalty_paths.png",
        "confusion.png",
        "recall.png",
        "units.png",
        "codes.png",
    ):
        assert (smoke1 / name).stat().st_size > 0, name
    assert not list(smoke1.glob(".*.tmp*"))
    assert (smoke1 / "report.pdf").read_bytes()[:5] == b"%PDF-"
    record = read_json(smoke1 / "run.json")
    assert record["status"] == "finished"
    assert "not real data" in record["data"]["notice"]
    assert record["notes"]["audit"]["rows"] == 700
    table = rows_of(smoke1)
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
    # 5 representations x 4 penalties, whitened patches with the ridge penalty, and two students
    assert grid.groupby("model").size().to_dict() == {"ELM": 21, "binary ELM": 21, "MLP": 23}
    assert (grid[grid.model != "MLP"].n_seeds == 2).all()
    assert {"largest class", "linear", "CNN"} <= set(held_out.model)
    curves = pd.read_csv(smoke1 / "metrics.csv")
    quality = curves[curves.name == "vq_psnr"].value
    assert quality.iloc[-1] > quality.iloc[0]


def test_shards_together_make_the_run_of_one_process(tmp_path):
    few = ("--seeds", 2, "--vq-epochs", 1, "--synthetic-faces", 400, "--units", 30)
    fields = ("--field-maps", 2, "--picture-maps", 1, "--patches", 3, "--alphas", 3)
    swept = ("--sweep-units", 20, "--sweep-patches", 2, "--mlp-copies-epochs", 1)
    words = (*SMOKE, *few, *fields, *swept)
    refits = ("done-model-",)
    assert_shards_make_the_run(train.main, Config, words, tmp_path, refits)


def test_every_accuracy_comes_from_the_stored_predictions(smoke1):
    rows = rows_of(smoke1)
    part = rows[
        (rows.protocol == "held-out")
        & (rows.split == "test")
        & (rows.metric == "accuracy")
        & (rows.model != "VQ-VAE")
    ]
    with np.load(smoke1 / "predictions.npz", allow_pickle=False) as arrays:
        for row in part.itertuples():
            right = arrays[prediction_key(row.model, row.variant)] == arrays["labels"]
            assert abs(right.mean() - row.value) < 1e-12


def test_the_table_shows_what_validation_chose(smoke1):
    notes = read_json(smoke1 / "run.json")["notes"]
    chosen = notes["best_on_validation"]
    rows = rows_of(smoke1)
    validation = rows[
        (rows.protocol == "held-out") & (rows.split == "validation") & (rows.metric == "accuracy")
    ]
    for model, choice in chosen.items():
        of_model = validation[validation.model == model].set_index("variant")
        accuracy = of_model.value
        # right answers of all seeds, whose means may differ in the last bit where they are equal
        right = (accuracy * of_model.n_seeds * notes["split"]["validation"]).round(6)
        assert right[choice["variant"]] == right.max()
        assert abs(choice["accuracy"] - accuracy.max()) < 1e-12


def test_an_interrupted_and_resumed_run_has_the_same_metrics(smoke1, tmp_path):
    folder = tmp_path / "run"
    assert_same_after_interruption(smoke1, train.main, Config, SMOKE, "vqvae", folder)
    assert load_models(folder).classifiers["ELM"].seed_ == 0


def fresh_and_seen(place: Path, fresh: int = 40) -> Path:
    """An npz of new faces, and behind them all those of the smoke run."""
    new, labels = draw_faces(fresh, 99)
    seen, seen_labels = draw_faces(700, 0)
    images = np.concatenate([new, seen])
    np.savez(place, images=images, labels=np.concatenate([labels, seen_labels]))
    return place


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_evaluate_leaves_out_what_the_run_saw_and_redraws_nothing(copied, tmp_path, capsys):
    with np.load(copied / FINGERPRINTS_FILE, allow_pickle=False) as archive:
        known = len(np.unique(archive["fingerprints"]))
    before = files_of(copied)
    data = fresh_and_seen(tmp_path / "new.npz")
    run_main(evaluate.main, EvaluateConfig, "--run", copied, "--data", data)
    scores = read_json(copied / "evaluation-new.json")
    assert scores["run"]["faces"] == 740 - known
    assert scores["run"]["left_out"]["trained or stopped on"] == known
    assert {row["variant"] for row in scores["rows"]} == {"given faces"}
    assert {row["split"] for row in scores["rows"]} == {"given"}
    after = files_of(copied)
    assert after.pop("evaluation-new.json")
    assert after == before
    printed = capsys.readouterr().out
    assert "read: new.npz: 740 faces (train 740): angry" in printed
    assert f"{known:,} of 740 faces of new.npz are faces that the run was trained or" in printed

    # another file of the same name overwrites nothing
    (tmp_path / "other").mkdir()
    data = fresh_and_seen(tmp_path / "other/new.npz", fresh=30)
    run_main(evaluate.main, EvaluateConfig, "--run", copied, "--data", data)
    found = [read_json(path)["run"]["faces"] for path in copied.glob("evaluation-new*.json")]
    assert sorted(found) == [730 - known, 740 - known]


def test_evaluate_without_data_repeats_the_runs_own_score(copied, tmp_path):
    out = tmp_path / "scores.json"
    before = files_of(copied)
    run_main(evaluate.main, EvaluateConfig, "--run", copied, "--out", out)
    assert files_of(copied) == before
    again = {(row["model"], row["metric"]): row["value"] for row in read_json(out)["rows"]}
    variant = read_json(copied / "run.json")["notes"]["best_on_validation"]["ELM"]["variant"]
    with np.load(copied / "predictions.npz", allow_pickle=False) as archive:
        first_seed = archive[prediction_key("ELM", variant)][0]
        accuracy = (first_seed == archive["labels"]).mean()
    assert abs(again["ELM", "accuracy"] - accuracy) < 0.03  # the first seed, fitted again

    (copied / "confusion.png").unlink()
    run_main(evaluate.main, EvaluateConfig, "--run", copied)
    assert (copied / "confusion.png").stat().st_size > 0
    assert read_json(copied / "evaluation-test.json")["run"]["split"] == "test"


def test_which_part_of_given_faces_is_scored(tmp_path):
    images, labels = draw_faces(40, 3)
    usage = np.array(["Training", "val", "PublicTest", "PrivateTest"])[np.arange(40) % 4]
    np.savez(tmp_path / "f.npz", images=images, labels=labels, usage=usage)
    known = fingerprints(images[[0, 1, 2, 6]])
    np.savez(tmp_path / FINGERPRINTS_FILE, fingerprints=known)
    saved = SavedRun(tmp_path, {})

    def rows(part: str) -> list[int]:
        config = EvaluateConfig(part=part)
        sample = evaluate.given_faces(config, saved, tmp_path / "f.npz", as_codemaps=False)
        assert sample.split == "given"
        return sample.rows.tolist()

    assert rows("auto") == [row for row in range(40) if row % 4 > 1 and row not in (2, 6)]
    assert rows("validation") == list(range(5, 40, 4))
    assert rows("private") == list(range(3, 40, 4))
    assert rows("all") == [row for row in range(40) if row not in (0, 1, 2, 6)]
    np.savez(tmp_path / "f.npz", images=images[:3], labels=labels[:3])
    with pytest.raises(InputError, match="trained or stopped on all of it"):
        rows("auto")
    with pytest.raises(InputError, match="--part test"):
        rows("test")


def test_train_says_where_its_parts_come_from():
    images, labels = draw_faces(200, 3)
    part = np.array(["train", "train", "train", "validation", "test", "private"])
    faces = Faces("fer2013", images, None, None, labels, part[np.arange(200) % 6], {})
    audited = audit(faces)
    line = train.parts_line(faces, audited, held_out_split(faces, audited, 0))
    assert "101 faces to train on, 33 to choose on (as given), 33 to test on (as given)" in line
    assert "the private part of 33 faces is kept aside" in line
    faces = Faces("fer2013", images, None, None, labels, np.full(200, "train"), {})
    line = train.parts_line(faces, audited, held_out_split(faces, audited, 0))
    assert line.count("drawn from the training part") == 2


def test_faces_with_the_same_codes_are_refused():
    maps = np.zeros((9, 12, 12), np.uint8)
    split = Split(np.arange(6), np.arange(6, 8), np.arange(8, 9))
    with pytest.raises(InputError, match="nothing can be learnt"):
        train.check_codes(train.Codes(maps, None, None), split)
    maps[3, 1, 1] = 1
    train.check_codes(train.Codes(maps, None, None), split)


DAMAGES = {
    "run.json": [b"[]", b"{}", b"cut", b'{"config": {}, "data": {}, "notes": {}, "source": "x"}'],
    "metrics.json": [b"{}", b"[]", b'{"rows": 3}', b'{"rows": [{}]}'],
    "metrics.csv": [b"\xff\xfe", b"a,b\n1,2\n", b""],
    "predictions.npz": [b"PK", "pickled", b""],
    "paths.npz": [b"PK", "pickled"],
    "reconstructions.npz": ["pickled", "other"],
    "model.ELM.npz": [b"PK", "pickled", "other"],
    "model.MLP.safetensors": [b"\xff" * 64, b""],
    "vqvae.safetensors": [b"\xff" * 64, b""],
}


@pytest.mark.parametrize("name", list(DAMAGES))
def test_a_damaged_run_folder_is_one_line(copied, name):
    for content in DAMAGES[name]:
        if isinstance(content, bytes):
            (copied / name).write_bytes(content)
        else:
            kind = object if content == "pickled" else float
            np.savez(copied / name, labels=np.array([None, 1.0], kind))
        with pytest.raises(InputError) as caught:
            run_main(evaluate.main, EvaluateConfig, "--run", copied)
        message = str(caught.value)
        assert name in message or copied.name in message
        assert "\n" not in message
        assert not (copied / "evaluation-test.json").exists() or content == b'{"rows": [{}]}'


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": "zero"},
        {"seed": -1},
        {"synthetic_faces": 10**12},
        {"synthetic_faces": None},
        {"validation": [1]},
        {"data": 7},
        {"data": "/dev/zero"},
    ],
)
def test_hostile_options_of_a_run_are_one_line(tmp_path, changes):
    config = {"seed": 0, "synthetic_faces": 50, "validation": 0.1, "data": None}
    record = {"config": config | changes, "data": {}, "notes": {}, "source": "synthetic"}
    with pytest.raises(InputError):
        own_faces(SavedRun(tmp_path, record))


def test_faces_that_are_others_now_are_not_scored_as_the_runs_own(tmp_path):
    data = fresh_and_seen(tmp_path / "f.npz")
    config = {"seed": 0, "synthetic_faces": 50, "validation": 0.1, "data": str(data)}
    digest = load_images(data, labelled=True).provenance["sha256"]
    record = {"config": config, "data": {"sha256": digest}, "notes": {}, "source": "fer2013"}
    assert len(own_faces(SavedRun(tmp_path, record))) == 740
    fresh_and_seen(tmp_path / "f.npz", fresh=39)
    with pytest.raises(InputError, match=r"f\.npz is not what .* was made from any more"):
        own_faces(SavedRun(tmp_path, record))


@pytest.mark.parametrize("content", [b"PK", b"", "pickled", "other"])
def test_damaged_fingerprints_are_one_line(tmp_path, content):
    file = tmp_path / FINGERPRINTS_FILE
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        kind = object if content == "pickled" else float
        np.savez(file, fingerprints=np.array([None, 1.0], kind))
    with pytest.raises(InputError, match=FINGERPRINTS_FILE):
        known_faces(tmp_path)


def test_predict_takes_one_image_or_a_folder(smoke1, tmp_path):
    for number, face in enumerate(draw_faces(3, 5)[0]):
        image = Image.fromarray(face).resize((200, 150)).convert("RGB")
        image.save(tmp_path / f"face{number}.png")
    words = ("--run", smoke1, "--data", tmp_path, "--out", tmp_path / "out.csv")
    done = call("assignment1/predict.py", *words)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "out.csv")
    assert set(table.face) == {"face0.png", "face1.png", "face2.png"}
    np.testing.assert_allclose(table[[f"p_{name}" for name in CLASSES]].sum(axis=1), 1, atol=2e-3)
    assert (tmp_path / "out-probabilities.png").stat().st_size > 0

    # one image: the face itself is not overwritten by its figure
    one = tmp_path / "face0.png"
    words = ("--run", smoke1, "--data", one, "--out", tmp_path / "face0.csv")
    run_main(predict.main, PredictConfig, *words)
    assert len(pd.read_csv(tmp_path / "face0.csv")) == 3
    with Image.open(one) as face:
        assert face.size == (200, 150)


def test_predict_needs_pixels_alone_and_overwrites_nothing(copied, tmp_path):
    pixels = [" ".join(map(str, face.ravel())) for face in draw_faces(2, 5)[0]]
    data = tmp_path / "test.csv"
    data.write_text("pixels\n" + "\n".join(pixels) + "\n")
    for _ in range(2):
        table = run_main(predict.main, PredictConfig, "--run", copied, "--data", data)
        assert set(table.face) == {"test.csv[0]", "test.csv[1]"}
    names = {path.name for path in copied.glob("predictions-*")}
    assert names == {
        "predictions-test.csv",
        "predictions-test-probabilities.png",
        "predictions-test-2.csv",
        "predictions-test-2-probabilities.png",
    }
    words = ("--run", copied, "--data", data, "--out", data)
    with pytest.raises(InputError, match="among the faces of --data"):
        run_main(predict.main, PredictConfig, *words)


def test_encode_writes_the_courses_format_and_train_reads_it(smoke1, tmp_path):
    codes = tmp_path / "codes"
    arrays = run_main(encode.main, EncodeConfig, "--run", smoke1, "--out", codes)
    shapes = {name: arrays[name].shape for name in ("codemaps", "labels", "codebook")}
    assert shapes == {"codemaps": (700, 12, 12), "labels": (700, 7), "codebook": (256, 128)}
    assert (arrays["labels"].sum(1) == 1).all()
    with pytest.raises(InputError, match="holds code maps already"):
        run_main(encode.main, EncodeConfig, "--run", smoke1, "--out", codes)

    run = tmp_path / "run"
    words = ("--preset", "smoke", "--source", "codemaps", "--data", codes, "--out", run)
    quick = ("--seeds", 1, "--alphas", 2, "--mlp-epochs", 1)
    run_main(train.main, Config, *words, *quick)
    assert rows_of(run).variant.str.contains("receptive fields").any()
    with pytest.raises(InputError, match="trained or stopped on"):
        seen = codes_of_training(codes, run, tmp_path / "seen")
        run_main(evaluate.main, EvaluateConfig, "--run", run, "--data", seen)
    face = tmp_path / "face.png"
    Image.fromarray(draw_faces(1, 5)[0][0]).save(face)
    with pytest.raises(InputError, match="no VQ-VAE"):
        run_main(predict.main, PredictConfig, "--run", run, "--data", face)


def codes_of_training(codes: Path, run: Path, place: Path) -> Path:
    """The code maps that a run was trained or stopped on, in a folder of their own."""
    maps = np.load(codes / "codemaps.npy")
    with np.load(run / FINGERPRINTS_FILE) as archive:
        rows = np.isin(fingerprints(maps), archive["fingerprints"])
    place.mkdir()
    for name in ("codemaps", "labels"):
        np.save(place / f"{name}.npy", np.load(codes / f"{name}.npy")[rows])
    return place


def test_the_committed_models_can_be_read():
    models = load_models(ROOT / "assignment1/results/fer2013-full")
    assert models.vqvae is not None
    faces, _ = draw_faces(4, 0)
    X = code_views(models.vqvae.encode(faces), models.vqvae).matrix
    for classifier in models.classifiers.values():
        np.testing.assert_allclose(classifier.predict_proba(X).sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        ("train", ["--source", "fer2013", "--data", "nowhere.csv"], "nowhere.csv"),
        ("train", ["--preset", "gigantic"], "gigantic"),
        ("train", ["--vq-epochs", "-1"], "--vq-epochs -1"),
        ("train", ["--field-sizes", "3", "0"], "--field-sizes 0"),
        ("train", ["--validation", "1.5"], "--validation 1.5"),
        ("train", ["--source", "fer2013", "--data", "one_class.npz"], "classes"),
        (
            "train",
            ["--source", "synthetic", "--preset", "smoke", "--out", "file/run"],
            "cannot be written",
        ),
        ("evaluate", ["--run", "nowhere"], "nowhere"),
        ("evaluate", ["--data", "nowhere.csv"], "nowhere.csv"),
        ("encode", ["--data", "nowhere.npz"], "nowhere.npz"),
        ("predict", [], "--data"),
        ("predict", ["--data", "nowhere.png"], "nowhere.png"),
        ("predict", ["--run", "nowhere", "--data", "one_class.npz"], "nowhere"),
        ("encode", ["--run", "nowhere"], "nowhere"),
    ],
)
def test_a_users_mistake_is_one_line_and_changes_nothing(tmp_path, script, words, message):
    (tmp_path / "file").write_text("not a folder")
    np.savez(tmp_path / "one_class.npz", images=draw_faces(4, 0)[0], labels=np.zeros(4, int))
    main, config = SCRIPTS[script]
    assert_refused(main, config, words, message, tmp_path)


def test_a_refusal_is_exit_code_2_and_one_line():
    done = call("assignment1/train.py", "--seeds", 0)
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["error: --seeds 0: allowed are 1 and more"]


def test_a_finished_run_is_kept(smoke1):
    before = {path.name: path.read_bytes() for path in smoke1.iterdir() if path.is_file()}
    with pytest.raises(InputError, match="finished run"):
        run_main(train.main, Config, *SMOKE, "--out", smoke1)
    after = {path.name: path.read_bytes() for path in smoke1.iterdir() if path.is_file()}
    assert after == before
