"""The real entry points: what they leave behind, the same after an interruption, and refusals."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from assignment5 import ablate, evaluate, predict
from assignment5.ablation import AblateConfig
from assignment5.config import Config, EvaluateConfig, Job, PredictConfig
from assignment5.data import Parts
from assignment5.denoiser import Denoiser, Trained, filled, load_denoiser, save_denoiser
from assignment5.seen import Seen, digests
from assignment5.synthetic import draw_flowers
from assignment5.train import main, train
from common.cli import InputError
from common.files import tensors
from common.run import Run
from common.weights import read_model, save_model
from tests.assignment5.helpers import CPU, TINY, write_flowers
from tests.conftest import (
    assert_refused,
    assert_same_after_interruption,
    assert_summed_up,
    call,
    results,
    run_main,
    scores_alone,
    streamed,
)

SMOKE = ("--preset", "smoke", "--source", "synthetic")
FIGURES = (
    "samples.png",
    "steps.png",
    "interpolation.png",
    "trajectory.gif",
    "kid_by_evaluations.png",
    "learning_curves.png",
    "distances.png",
    "nearest.png",
    "report.pdf",
)
FILES = (
    "run.json",
    "metrics.csv",
    "metrics.json",
    "pictures.npz",
    "distances.npz",
    "seen.npz",
    "features.safetensors",
    "model.Transformer.safetensors",
    "model.U-Net.safetensors",
)
METRICS = {
    "kid",
    "kid_error",
    "order_agreement",
    "precision",
    "recall",
    "density",
    "coverage",
    "nearest_ratio",
    "copies",
    "noise_error",
    "feature_accuracy",
}


def cut_in_half(path):
    """Damages a file."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


# ------------------------------------------------------------------------------------------ train


def test_make_run_finds_its_rows(smoke5):
    assert_summed_up(5, smoke5)


def test_a_run_leaves_everything_that_the_readme_promises(smoke5):
    for name in (*FILES, *FIGURES):
        assert (smoke5 / name).stat().st_size > 0, name
    rows = results(smoke5)["rows"]
    models = {row["model"] for row in rows}
    known = {"held-out images", "colour means", "shuffled patches", "Gaussian blobs"}
    others = {"training images", "Gaussian", "feature network", "calibration"}
    assert models == {"Transformer", "U-Net", *known, *others}
    assert {row["metric"] for row in rows} == METRICS
    assert all(math.isfinite(row["value"]) for row in rows)
    assert "not photographs" in json.loads((smoke5 / "run.json").read_text())["data"]["notice"]


def test_an_interrupted_and_resumed_run_has_the_same_metrics(smoke5, tmp_path):
    assert_same_after_interruption(
        smoke5, main, Config, SMOKE, "done-Transformer, tuned", tmp_path / "run"
    )


def test_shards_together_make_the_run_of_one_process(smoke5, tmp_path):
    options = (*SMOKE, "--out", tmp_path / "run")
    for shard in ("1/2", "0/2"):
        assert run_main(main, Config, *options, "--shard", shard) is None
    with scores_alone():
        run_main(main, Config, *options)
    assert results(tmp_path / "run") == results(smoke5)
    assert sorted(streamed(tmp_path / "run")) == sorted(streamed(smoke5))


def test_a_process_that_is_not_the_first_only_helps_to_train(smoke5, tmp_path, monkeypatch):
    from common.world import World

    other = World(rank=1, size=1)  # finds every training finished
    monkeypatch.setattr(World, "join", lambda device: other)
    copy = tmp_path / "run"
    shutil.copytree(smoke5, copy)
    before = {file.name: file.stat().st_mtime_ns for file in copy.iterdir()}
    assert run_main(main, Config, *SMOKE, "--out", copy) is None
    assert {file.name: file.stat().st_mtime_ns for file in copy.iterdir()} == before


def test_bad_input_of_train(tmp_path):
    few = write_flowers(tmp_path / "few", 50)
    words = ["--preset", "smoke", "--source", "folder", "--data", few]
    assert_refused(main, Config, words, "50 images leave 5 to judge by", tmp_path)
    three = write_flowers(tmp_path / "three", 3)
    words = ["--preset", "smoke", "--source", "folder", "--data", three]
    assert_refused(main, Config, words, "fewer than --batch 16", tmp_path)
    assert_refused(main, Config, [*SMOKE, "--width", "50"], "multiple of 12", tmp_path)
    assert_refused(main, Config, [*SMOKE, "--accumulate", "5"], "--batch 16 cannot", tmp_path)


def test_images_with_empty_channels_train(tmp_path):
    pixels, _ = draw_flowers(40, TINY.side, 0)
    pixels[..., [0, 2]] = 0
    parts = Parts(pixels, pixels[:6], pixels[:6])
    with Run(TINY, tmp_path / "run", __file__, "synthetic", {}) as run:
        trained = train(Job("x", "U-Net", "tuned", TINY), run, parts, CPU)
    assert all(torch.isfinite(value).all() for value in tensors(trained.weights).values())
    model = filled(TINY.denoiser("U-Net"), tensors(trained.weights), CPU)
    empty = torch.tensor([True, False, True])
    # one step of 8 bits, and no division by zero:
    assert model.std[empty].tolist() == pytest.approx([1 / 255] * 2, rel=1e-4)
    assert model.std[~empty].min() > 2 / 255
    zero = torch.zeros(1, 3, 1, 1)
    torch.testing.assert_close(model.denormalise(zero)[0, :, 0, 0], model.mean)


def test_a_loss_that_is_not_finite_stops_in_one_line(tmp_path):
    folder = tmp_path / "run"
    words = ("--out", folder, "--lr", "1e30", "--warmup", "1", "--repeats", "3")
    process = call("assignment5/train.py", *SMOKE, *words)
    assert process.returncode == 2, process.stderr
    assert "the loss is nan" in process.stderr.splitlines()[-1]
    assert json.loads((folder / "run.json").read_text())["status"] == "failed"


# ----------------------------------------------------------------------------------------- ablate


def test_the_ablation_scores_its_rows_on_validation_and_writes_after_each(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    names = ("long skips", "noise, MAE; U-Net")
    words = (*SMOKE, "--out", folder, "--samples", "6", "--seeds", "1", "--rows", *names)
    train = ablate.train

    def train_one(job, run, parts, device, codec) -> Trained:
        if job.name == names[1]:
            raise KeyboardInterrupt
        return train(job, run, parts, device, codec)

    monkeypatch.setattr(ablate, "train", train_one)
    with pytest.raises(KeyboardInterrupt):
        run_main(ablate.main, AblateConfig, *words)
    variants = {row["variant"] for row in results(folder)["rows"]}
    assert variants == {"long skips, DDIM"}
    monkeypatch.undo()
    rows = run_main(ablate.main, AblateConfig, *words, "--resume")["rows"]
    assert {row["split"] for row in rows} == {"validation"}
    assert {(row["model"], row["variant"]) for row in rows} == {
        ("Transformer", "long skips, DDIM"),
        ("U-Net", "noise, MAE; U-Net, DDIM"),
    }


# --------------------------------------------------------------------------------------- evaluate


FEW = ("--samples", 6, "--seeds", 1, "--steps", 1, "--imagenet", "off")


def test_evaluate_scores_given_images_and_leaves_out_those_that_the_run_has_seen(
    smoke5, tmp_path, capsys
):
    pixels, _ = draw_flowers(160, 16, 0)  # the run's own
    seen = Seen.load(smoke5)
    given = write_flowers(tmp_path / "given", 160)
    for number in range(12):  # new ones
        name = f"new{number}.png"
        Image.fromarray(255 - pixels[number]).save(given / name)
    out = tmp_path / "e.json"
    files = {path: path.stat().st_mtime_ns for path in smoke5.iterdir()}
    run_main(evaluate.main, EvaluateConfig, "--run", smoke5, "--data", given, *FEW, "--out", out)
    held = json.loads(out.read_text())
    trained, chosen = (int(np.isin(digests(pixels), part).sum()) for part in vars(seen).values())
    assert (trained, chosen) == (128, 16)
    assert held["run"]["left_out"] == {"trained_on": 128, "chosen_on": 16}
    assert held["run"]["images"] == 172 - 144
    assert {row["split"] for row in held["rows"]} == {"given"}
    assert {(row["model"], row["horizon"]) for row in held["rows"]} == {
        ("Transformer", 1),
        ("U-Net", 1),
    }
    assert "nearest_ratio" not in {row["metric"] for row in held["rows"]}
    assert (tmp_path / "e.png").stat().st_size > 0
    printed = capsys.readouterr().out
    assert "read: given: 172 images" in printed
    assert "128 of 172 images were trained on and 16 chosen on" in printed
    assert "test part" not in printed
    # nothing of the run is drawn again
    assert {path: path.stat().st_mtime_ns for path in smoke5.iterdir()} == files


def test_scores_of_other_images_with_the_same_name_have_a_file_of_their_own(smoke5, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(smoke5, copy)
    for seed in (5, 6, 5):
        place = tmp_path / str(seed)
        place.mkdir(exist_ok=True)
        if not (place / "test").exists():
            write_flowers(place / "test", 12, seed=seed)
        words = ("--run", copy, "--data", place / "test", *FEW)
        run_main(evaluate.main, EvaluateConfig, *words)
    files = sorted(path.name for path in copy.glob("evaluation*.json"))
    assert len(files) == 2
    assert "evaluation-given-test.json" in files
    with pytest.raises(InputError, match=r"metrics.json is there and holds no scores"):
        run_main(evaluate.main, EvaluateConfig, *words, "--out", copy / "metrics.json")


def test_a_run_that_cannot_be_written_is_scored_into_out(smoke5, tmp_path, monkeypatch):
    access = os.access
    monkeypatch.setattr(
        "os.access", lambda path, *mode: Path(path) != smoke5 and access(path, *mode)
    )
    with pytest.raises(InputError, match=r"cannot be written; name a file for the scores with"):
        run_main(evaluate.main, EvaluateConfig, "--run", smoke5, *FEW)
    before = {path.name: path.stat().st_mtime_ns for path in smoke5.iterdir()}
    out = tmp_path / "scores.json"
    rows = run_main(evaluate.main, EvaluateConfig, "--run", smoke5, *FEW, "--out", out)["rows"]
    assert {row["split"] for row in rows} == {"test"}
    assert {path.name: path.stat().st_mtime_ns for path in smoke5.iterdir()} == before


def test_a_run_whose_images_are_others_by_now_is_refused(smoke5, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(smoke5, copy)
    record = json.loads((copy / "run.json").read_text())
    record["data"]["pixels_sha256"] = "0" * 64
    (copy / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"holds others by now; give images with --data"):
        run_main(evaluate.main, EvaluateConfig, "--run", copy, *FEW)


def test_evaluate_scores_every_sampler_on_the_validation_part_and_draws_all_again(smoke5, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(smoke5, copy)
    for name in FIGURES:
        (copy / name).unlink()
    samplers = ("--sampler", "ddim", "heun", "dpm++", "--steps", 2, 3)
    words = ("--run", copy, "--part", "validation", *samplers, "--samples", 8, "--seeds", 2)
    rows = run_main(evaluate.main, EvaluateConfig, *words)["rows"]
    assert {row["split"] for row in rows} == {"validation"}
    assert {(row["variant"], row["horizon"]) for row in rows if row["model"] == "U-Net"} == {
        ("tuned, DDIM", 2),
        ("tuned, DDIM", 3),
        ("tuned, Heun", 3),
        ("tuned, Heun", 5),
        ("tuned, DPM-Solver++(2M)", 2),
        ("tuned, DPM-Solver++(2M)", 3),
    }
    for name in (*FIGURES, "evaluation-validation.json", "evaluation-validation.png"):
        assert (copy / name).stat().st_size > 0, name
    with Image.open(copy / "trajectory.gif") as film:
        assert film.n_frames > 5
        film.seek(film.n_frames - 1)
        assert film.info["duration"] > 1000  # the last frame stays


def test_the_test_part_scored_again_gives_the_rows_of_the_run(smoke5, tmp_path):
    out = tmp_path / "e.json"
    sizes = ("--samples", 24, "--seeds", 2, "--steps", 2, 3, "--imagenet", "off")
    words = ("--run", smoke5, *sizes, "--out", out)
    rows = run_main(evaluate.main, EvaluateConfig, *words)["rows"]

    def keyed(table):
        keys = ("model", "variant", "horizon", "metric")
        return {tuple(row[key] for key in keys): row["value"] for row in table}

    earlier = keyed(row for row in results(smoke5)["rows"] if row["split"] == "test")
    again = keyed(row for row in rows if row["model"] in ("Transformer", "U-Net"))
    assert len(again) == 32
    # the feature network is stored in float16
    assert all(earlier[key] == pytest.approx(value, abs=0.02) for key, value in again.items())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--steps 0", "--steps 0"),
        ("--samples 5", "--samples 5"),
        ("--seeds 0", "--seeds 0"),
        ("--data nowhere", "does not exist"),
        ("--out no/e.json", "the folder no does not exist"),
        ("--run .", "holds no run.json"),
        ("--data few", "few holds 5 images"),
        ("--out scores.txt", "give the name of a file that ends in .json"),
    ],
)
def test_bad_input_of_evaluate(smoke5, tmp_path, words, message):
    write_flowers(tmp_path / "few", 5)
    options = ["--run", smoke5, "--samples", "6", "--seeds", "1", "--steps", "1", *words.split()]
    assert_refused(evaluate.main, EvaluateConfig, options, message, tmp_path)


def without(key):
    """Takes a key out of the config in a run.json."""

    def damage(path):
        record = json.loads(path.read_text())
        record["config"].pop(key)
        path.write_text(json.dumps(record))

    return damage


def pickled(path):
    """Arrays of objects, which only pickle could read."""
    np.savez(path, steps=np.array([{}], object), seen=np.array([{}], object))


def described(**changes):
    """Changes what a model file says of itself."""

    def damage(path):
        weights, about = read_model(path)
        config = {**about.get("config", {}), **changes}
        save_model(path, weights, {**about, **changes, "config": config})

    return damage


def without_description(path):
    """A model file that says [1] of itself."""
    save_model(path, read_model(path)[0], [1])


def not_finite(path):
    """A model file with a weight that is no number."""
    weights, about = read_model(path)
    weights["std"][0] = float("nan")
    save_model(path, weights, about)


TRANSFORMER = "model.Transformer.safetensors"
DAMAGES = [
    *(("run.json", content) for content in (b"[]", b"{}", b"\xff", b'{"config": []}')),
    *(("run.json", without(key)) for key in ("side", "seed", "recipes", "data")),
    *(("metrics.json", content) for content in (b"{}", b'{"rows": [1]}', b'{"rows": []}')),
    ("metrics.csv", b"\xff\xfe\0"),
    ("metrics.csv", b"a,b\n1,2\n"),
    *((name, pickled) for name in ("pictures.npz", "distances.npz")),
    *((name, cut_in_half) for name in ("pictures.npz", "distances.npz", TRANSFORMER)),
    ("pictures.npz", b"PK"),
    ("features.safetensors", described(width="x")),
    ("features.safetensors", described(side=-1)),
    *((TRANSFORMER, described(depth=depth)) for depth in (-1, 0, "x", 10**9)),
    *((TRANSFORMER, described(width=width)) for width in (12 * 10**8, 1.5)),
    (TRANSFORMER, described(patch=0)),
    (TRANSFORMER, described(heads=0)),
    (TRANSFORMER, described(target="everything")),
    (TRANSFORMER, described(min_signal=2.0)),
    (TRANSFORMER, described(unet_widths=3)),
    (TRANSFORMER, described(side=10**9)),
    (TRANSFORMER, without_description),
    (TRANSFORMER, not_finite),
]


def test_a_damaged_list_of_seen_images_is_refused(smoke5, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(smoke5, broken)
    new = write_flowers(tmp_path / "new", 12, seed=5)
    for damage in (pickled, cut_in_half):
        damage(broken / "seen.npz")
        with pytest.raises(InputError, match=r"seen.npz is damaged"):
            run_main(evaluate.main, EvaluateConfig, "--run", broken, "--data", new, *FEW)
        shutil.copy(smoke5 / "seen.npz", broken)
    (broken / "seen.npz").unlink()  # the drawn images tell what was trained on
    words = ("--run", broken, "--data", new, *FEW, "--out", tmp_path / "e.json")
    assert run_main(evaluate.main, EvaluateConfig, *words)["run"]["left_out"] == {
        "trained_on": 0,
        "chosen_on": 0,
    }


def test_damaged_files_of_a_run_are_refused_by_evaluate(smoke5, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(smoke5, broken)
    cut_in_half(broken / "features.safetensors")
    with pytest.raises(InputError, match=r"features.safetensors is not a whole model file"):
        run_main(evaluate.main, EvaluateConfig, "--run", broken)
    shutil.copy(smoke5 / "features.safetensors", broken)
    for name, damage in DAMAGES:
        content = (smoke5 / name).read_bytes()
        if callable(damage):
            damage(broken / name)
        else:
            (broken / name).write_bytes(damage)
        with pytest.raises(InputError, match=re.escape(name)):
            run_main(evaluate.main, EvaluateConfig, "--run", broken, *FEW)
        (broken / name).write_bytes(content)
    (broken / "pictures.npz").unlink()
    with pytest.raises(InputError, match=r"holds no pictures.npz"):
        run_main(evaluate.main, EvaluateConfig, "--run", broken)


# ---------------------------------------------------------------------------------------- predict


def test_predict_writes_the_same_images_for_the_same_seed(smoke5, tmp_path):
    for name in ("a", "b"):
        words = ("--run", smoke5, "--n", 3, "--steps", 2, "--out", tmp_path / name)
        images = run_main(predict.main, PredictConfig, *words)
        assert images.shape == (3, 16, 16, 3)
    names = sorted(file.name for file in (tmp_path / "a").iterdir())
    assert names == ["0000.png", "0001.png", "0002.png", "grid.png"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a" / "0000.png")), images[0])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--steps 0", "--steps 0: allowed are 1 and more"),
        ("--steps -3", "--steps -3"),
        ("--seed -1", "--seed -1"),
        ("--eta 2", "--eta 2"),
        ("--eta 1 --sampler heun", "deterministic"),
        ("--n 0", "--n 0"),
        ("--run .", "holds no run.json"),
        ("--class rose", "--class rose: the run was trained without --classes"),
        ("--guidance 2", "trained without --classes"),
        ("--init-image here.png", "--init-image and --mask go together"),
        ("--init-image no.png --mask no.png", "--init-image no.png is no file"),
    ],
)
def test_bad_input_of_predict(smoke5, tmp_path, words, message):
    options = ["--run", smoke5, "--out", "x", *words.split()]
    assert_refused(predict.main, PredictConfig, options, message, tmp_path)


def test_predict_leads_from_one_image_to_another(smoke5, tmp_path):
    words = ("--run", smoke5, "--steps", 2, "--n", 5, "--out", tmp_path / "way")
    way = run_main(predict.main, PredictConfig, *words, "--seed", 3, "--to-seed", 8).astype(int)
    for seed, image in ((3, way[0]), (8, way[-1])):
        words = ("--run", smoke5, "--steps", 2, "--n", 1, "--seed", seed, "--out", tmp_path / "one")
        end = run_main(predict.main, PredictConfig, *words)[0]
        assert np.abs(end - image).max() <= 1


def test_predict_keeps_the_black_part_of_a_picture(smoke5, tmp_path):
    picture = draw_flowers(1, 16, 5)[0][0]
    Image.fromarray(picture).save(tmp_path / "mine.png")
    mask = np.zeros((16, 16), np.uint8)
    mask[:, 8:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    files = ("--init-image", tmp_path / "mine.png", "--mask", tmp_path / "mask.png")
    words = ("--run", smoke5, "--steps", 2, "--n", 2, "--out", tmp_path / "painted")
    images = run_main(predict.main, PredictConfig, *words, *files)
    assert np.abs(images[:, :, :8].astype(int) - picture[:, :8]).max() <= 1
    assert (images[:, :, 8:] != picture[:, 8:]).any()
    Image.fromarray(mask * 0).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match="white nowhere"):
        run_main(predict.main, PredictConfig, *words, *files)
    (tmp_path / "mask.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"mask.png cannot be read as a picture"):
        run_main(predict.main, PredictConfig, *words, *files)


def test_a_run_with_classes_draws_the_class_that_one_asks_for(smoke5, tmp_path):
    """The model file alone is another: its weights begin with a short training with classes."""
    config = dataclasses.replace(TINY, classes=True)
    pixels, labels = draw_flowers(40, TINY.side, 0)
    names = tuple("abcdefghij")
    parts = Parts(pixels, pixels[:6], pixels[:6], labels, names)
    job = Job("x", "Transformer", "tuned", config)
    with Run(config, tmp_path / "training", __file__, "synthetic", {}) as run:
        trained = train(job, run, parts, CPU)
    shutil.copytree(smoke5, tmp_path / "run")
    denoiser = Denoiser.of(job, trained, CPU, names)
    for layer in (denoiser.model.network.modulation, denoiser.model.network.head):
        torch.nn.init.normal_(layer.weight, std=0.3)  # so short a training leaves them near zero
    file = tmp_path / "run" / "model.Transformer.safetensors"
    save_denoiser(file, denoiser)
    again = load_denoiser(file, CPU)
    assert again.config == denoiser.config
    assert again.config.class_names == names
    assert again.model.chances.tolist() == pytest.approx([0.1] * 10, rel=1e-3)
    table = again.model.network.classes.table.weight
    assert len({tuple(row.tolist()) for row in table}) == 11

    words = ("--run", tmp_path / "run", "--steps", 2, "--count", 3, "--out", tmp_path / "out")
    one, other = (
        run_main(predict.main, PredictConfig, *words, "--class", kind, "--guidance", 2)
        for kind in ("c", "D")
    )
    assert one.shape == (3, 16, 16, 3)
    assert (one != other).any()
    with pytest.raises(InputError, match="--class cc is none of 10; near: c"):
        run_main(predict.main, PredictConfig, *words, "--class", "cc")


def test_classes_need_labels(tmp_path):
    write_flowers(tmp_path / "flowers", 80)
    words = ["--preset", "smoke", "--data", tmp_path / "flowers", "--classes"]
    assert_refused(main, Config, words, "--classes: the images have no labels", tmp_path)


def test_damaged_models_are_refused_by_predict(smoke5, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(smoke5, broken)
    file = broken / "model.Transformer.safetensors"
    cut_in_half(file)
    with pytest.raises(InputError, match="not a whole model file"):
        run_main(predict.main, PredictConfig, "--run", broken)
    weights, about = read_model(smoke5 / file.name)
    wider = {**about, "config": {**about["config"], "width": 96}}
    save_model(file, weights, wider)
    with pytest.raises(InputError, match="another shape"):
        run_main(predict.main, PredictConfig, "--run", broken)
    save_model(file, weights, {**about, "config": {"side": 16}})
    with pytest.raises(InputError, match="is not a model of assignment 5: it lacks"):
        run_main(predict.main, PredictConfig, "--run", broken)


def test_a_model_file_that_carries_a_whole_config_is_read(smoke5, tmp_path):
    """As the committed run's do."""
    file = tmp_path / "model.safetensors"
    weights, about = read_model(smoke5 / "model.U-Net.safetensors")
    more = {**about["config"], "out": "somewhere", "epochs": 5}
    save_model(file, weights, {**about, "config": more})
    assert (
        load_denoiser(file, CPU).config
        == load_denoiser(smoke5 / "model.U-Net.safetensors", CPU).config
    )
    assert load_file(file).keys() == weights.keys()
