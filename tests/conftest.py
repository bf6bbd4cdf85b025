"""One unbroken smoke run of each system, and what tests need to call the real entry points."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from filelock import FileLock
from PIL import Image
from safetensors.numpy import load_file

from common.cli import InputError, Interrupted, parse
from common.files import load_state
from common.results import Metric, Results, Row
from common.run import Run, read_record, shard_folder
from common.shard import Shard
from tools.run_all import number
from tools.samples import SYSTEMS

ROOT = Path(__file__).resolve().parents[1]
Main = Callable[..., object]


# ---------------------------------------------------------------------------------- in process


@contextlib.contextmanager
def no_data_folder() -> Iterator[None]:
    """Inside the block no real data are found by themselves."""
    folder = os.environ.pop("ADL_DATA_DIR", None)
    try:
        yield
    finally:
        if folder is not None:
            os.environ["ADL_DATA_DIR"] = folder


def run_main(main: Main, config_class: type, *words: object) -> object:
    """Calls a script's main in this process, with options read as the command line reads them."""
    with no_data_folder():
        return main(parse(config_class, [str(word) for word in words]))


def smoke_run(main: Main, config_class: type, source: str, folder: Path, *words: object) -> Path:
    """The run folder of a smoke run, made in this process."""
    options = ("--preset", "smoke", "--source", source, "--out", folder, *words)
    run_main(main, config_class, *options)
    return folder


@contextlib.contextmanager
def scores_alone() -> Iterator[None]:
    """Inside the block a run ends with metrics.json: tests of numbers need no figures."""

    whole = Run.finish

    def finish(run: Run, rows: Sequence[Row], info: Mapping[str, Metric], *_: object) -> Results:
        return whole(run, rows, info)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "finish", finish)
        yield


def assert_refused(
    main: Main, config_class: type, words: Sequence[object], message: str, folder: Path
) -> None:
    """A user's mistake in `folder`: InputError with the message, no file more or less."""
    before = sorted(path.name for path in folder.iterdir())
    with contextlib.chdir(folder), pytest.raises(InputError) as refusal:
        run_main(main, config_class, *words)
    assert message in str(refusal.value)
    assert sorted(path.name for path in folder.iterdir()) == before


def assert_same_after_interruption(
    unbroken: Path,
    main: Main,
    config_class: type,
    words: Sequence[object],
    checkpoint: str,
    folder: Path,
) -> None:
    """A run that stops right after a checkpoint is written, and is resumed, equals `unbroken`."""
    save = Run.save

    def save_and_stop(run: Run, name: str, state: object) -> None:
        save(run, name, state)
        if name == checkpoint:
            raise Interrupted("stopped by the test")

    options = [*words, "--out", folder]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "save", save_and_stop)
        with pytest.raises(Interrupted):
            run_main(main, config_class, *options)
    assert json.loads((folder / "run.json").read_text())["status"] == "interrupted"
    with pytest.raises(InputError, match="--resume"):
        run_main(main, config_class, *options)
    with scores_alone():
        run_main(main, config_class, *options, "--resume")
    assert results(folder) == results(unbroken)
    assert streamed(folder) == streamed(unbroken)


def assert_shards_make_the_run(
    main: Main,
    config_class: type,
    words: Sequence[object],
    folder: Path,
    later: tuple[str, ...] = (),
) -> None:
    """Two shards, and the command without --shard after them, leave what one process leaves.

    Parts whose names begin with one of `later` wait for a choice among all trainings.
    """
    whole, shared = folder / "whole", folder / "shared"
    with scores_alone():
        run_main(main, config_class, *words, "--out", whole)
        for shard in ("1/2", "0/2"):
            options = ("--out", shared, "--shard", shard)
            assert run_main(main, config_class, *words, *options) is None
        run_main(main, config_class, *words, "--out", shared)
    assert results(shared) == results(whole)
    assert sorted(streamed(shared)) == sorted(streamed(whole))

    # each has done a part of the work, and nothing else was left to the last command
    places = [shard_folder(shared, Shard(number, 2)) for number in range(2)]
    one, other, every = (
        {file.name for file in (place / "checkpoints").glob("done-*")} for place in (*places, whole)
    )
    assert one | other == {name for name in every if not name.startswith(later)}
    assert one < every
    assert other < every


def streamed(folder: Path) -> list[str]:
    """The lines of metrics.csv, less those that are measured with a clock."""
    lines = (folder / "metrics.csv").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if ",clock," not in line]


def results(folder: Path) -> dict:
    """metrics.json less what is measured with a clock or a memory gauge."""
    metrics = json.loads((folder / "metrics.json").read_text())
    for row in metrics["rows"]:
        row.pop("seconds")
        row.pop("peak_mb")
    return metrics


# ------------------------------------------------------------------------------- as a process


def call(script: str, *words: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Runs a script as a user does, without real data unless the words name them."""
    environment = {name: value for name, value in os.environ.items() if name != "ADL_DATA_DIR"}
    command = [sys.executable, str(ROOT / script), *map(str, words)]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


def assert_same_after_kill_9(
    unbroken: Path, assignment: str, source: str, folder: Path, checkpoint: str, *more: str
) -> None:
    """A smoke run that is killed after a checkpoint is written, and resumed, equals `unbroken`."""
    script = f"{assignment}/train.py"
    words = ["--preset", "smoke", "--source", source, "--out", str(folder / "run"), *more]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / script), *words],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.time() + 120
    file = folder / "run" / "checkpoints" / checkpoint
    while not file.exists() and time.time() < deadline and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert json.loads((folder / "run" / "run.json").read_text())["status"] == "running"
    refused = call(script, *words)
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
    resumed = call(script, *words, "--resume", cwd=folder)
    assert resumed.returncode == 0, resumed.stderr
    assert results(folder / "run") == results(unbroken)
    assert streamed(folder / "run") == streamed(unbroken)


def peak_memory(code: str) -> float:
    """MiB that `code` needs beyond what stood when it set `before = peak_mb()`, in a process."""
    head = "from common.machine import peak_mb\n"
    command = [sys.executable, "-c", head + code + "\nprint(peak_mb() - before)"]
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    return float(result.stdout)


def assert_readable(folder: Path) -> None:
    """Every file of a run folder that has its final name can be read to its end."""
    for path in folder.rglob("*"):
        if not path.is_file() or path.name.startswith("."):
            continue
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".safetensors":
            if path.parent.name == "checkpoints":
                load_state(path)
            else:
                load_file(path)
        elif path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                assert archive.testzip() is None, path
        elif path.suffix == ".csv":
            text = path.read_text(encoding="utf-8")
            assert not text or text.endswith("\n"), path
            assert {len(row) for row in csv.reader(text.splitlines())} <= {5}, path
        elif path.suffix in {".png", ".gif"}:
            with Image.open(path) as picture:
                picture.load()
        elif path.suffix == ".pdf":
            assert b"%%EOF" in path.read_bytes()[-32:], path


def assert_summed_up(key: int, folder: Path) -> None:
    """A smoke run has the rows, and the name, that `make run` looks for."""
    system = SYSTEMS[key]
    record = read_record(folder)
    for scored in (system.ours, system.baseline):
        number(system, scored, folder, record["config"])  # raises InputError without the row
    if key != 6:  # (which is tested on a file)
        assert f"{record['source']}-smoke" == system.folder("smoke").name


# ----------------------------------------------------------------------------------- smoke runs


@pytest.fixture(scope="session")
def smoke1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one unbroken smoke run of assignment 1."""
    from assignment1.train import Config, main

    return smoke_run(main, Config, "synthetic", tmp_path_factory.mktemp("smoke") / "run")


@pytest.fixture(scope="session")
def smoke2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one unbroken smoke run of assignment 2."""
    from assignment2.train import Config, main

    return smoke_run(main, Config, "simulated", tmp_path_factory.mktemp("smoke") / "run")


@pytest.fixture(scope="session")
def smoke3(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The folder of one unbroken smoke run of assignment 3; assignment 4's worker shares it."""
    from assignment3.train import Config, main

    mine = tmp_path_factory.getbasetemp()
    folder = (mine if worker_id == "master" else mine.parent) / "smoke3"
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / "report.pdf").exists():
            smoke_run(main, Config, "simulated", folder)
    return folder


@pytest.fixture(scope="session")
def smoke4(smoke3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one unbroken smoke run of assignment 4, on that of assignment 3."""
    from assignment4.train import Config, main

    folder = tmp_path_factory.mktemp("smoke") / "run"
    return smoke_run(main, Config, "simulated", folder, "--base", smoke3)


@pytest.fixture(scope="session")
def smoke5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one unbroken smoke run of assignment 5."""
    from assignment5.train import Config, main

    return smoke_run(main, Config, "synthetic", tmp_path_factory.mktemp("smoke") / "run")


@pytest.fixture(scope="session")
def smoke6(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one unbroken smoke run of the final project."""
    from final_project.train import Config, main

    return smoke_run(main, Config, "simulated", tmp_path_factory.mktemp("smoke") / "run")
