"""What goes wrong on a machine: a full disk, a folder that is taken or read-only."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from common import files
from common.cli import BaseConfig, InputError
from common.files import save_state, write_arrays, write_json, write_text
from common.run import Run
from tests.conftest import ROOT, assert_readable, call
from tests.fuzzing import contents
from tests.house.test_template import copied

WRITERS = {
    "a.json": lambda path, size: write_json(path, ["x" * size]),
    "a.txt": lambda path, size: write_text(path, "x" * size),
    "a.npz": lambda path, size: write_arrays(path, a=np.random.default_rng(0).random(size // 8)),
    "a.safetensors": lambda path, size: save_state(path, {"a": np.zeros(size // 8), "b": [1, "x"]}),
}


@contextlib.contextmanager
def no_file_above(count: int) -> Iterator[None]:
    """Inside, a write beyond `count` bytes of a file fails half way, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A disk of 64 KiB, where this process may mount one."""
    place.mkdir()
    mounted = (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "none", place],
            capture_output=True,
            check=False,
        ).returncode
        == 0
    )
    if not mounted:
        pytest.skip("no right to mount a small disk")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("name", WRITERS)
def test_a_writer_that_fails_half_way_leaves_the_old_file(tmp_path, name, monkeypatch):
    WRITERS[name](tmp_path / name, 64)
    old = contents(tmp_path)
    with (
        no_file_above(10_000),
        pytest.raises(InputError, match=rf"{name} cannot be written \(File too large\)"),
    ):
        WRITERS[name](tmp_path / name, 1_000_000)
    assert contents(tmp_path) == old

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for step in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(files.os, step, full)
            with pytest.raises(
                InputError, match=rf"{name} cannot be written \(No space left on device\)"
            ):
                WRITERS[name](tmp_path / name, 640)
        assert contents(tmp_path) == old


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_the_old_file(tmp_path, name):
    with small_disk(tmp_path / "disk") as disk:
        WRITERS[name](disk / name, 64)
        old = contents(disk)
        with pytest.raises(InputError, match="No space left"):
            WRITERS[name](disk / name, 1_000_000)
        assert contents(disk) == old


def test_a_run_on_a_full_disk_ends_in_one_line(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        done = call(
            "assignment2/train.py",
            "--preset",
            "smoke",
            "--source",
            "simulated",
            "--out",
            disk / "run",
        )
        assert done.returncode == 2, done.stderr
        *notice, error = [line for line in done.stderr.splitlines() if line]
        assert len(notice) == 1, done.stderr
        assert notice[0].startswith("notice: simulated prices")
        assert error.startswith("error: ")
        assert "No space left" in error
        assert_readable(disk / "run")
        assert json.loads((disk / "run" / "run.json").read_text())["status"] in {
            "running",
            "failed",
        }


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """train.py of a copy of the template: the Run of every assignment, no framework to load."""
    place = tmp_path_factory.mktemp("light")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{place}{os.pathsep}{ROOT}")
        yield str(copied(place, "light") / "train.py")


HOLDER = """
import sys
from pathlib import Path
from common.cli import BaseConfig
from common.results import Metric, Row
from common.run import Run
info = {"loss": Metric("1", "lower", "-")}
row = Row(protocol="held-out", split="test", model="x", variant="-", metric="loss", value=0.25)
script = "assignment2/train.py"
with Run(BaseConfig(), Path(sys.argv[1]), script, "simulated", {"generator": "none"}) as run:
    run.log(1, 1, "train", loss=0.5)
    print("held", flush=True)
    sys.stdin.readline()
    run.log(2, 1, "train", loss=0.25)
    run.finish([row], info)
"""


def test_the_second_process_into_a_folder_is_refused_and_the_first_goes_on(light, tmp_path):
    folder = tmp_path / "run"
    first = subprocess.Popen(
        [sys.executable, "-c", HOLDER, folder],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert first.stdout.readline() == "held\n"
    before = contents(folder)
    for words in ([], ["--resume"], ["--overwrite"]):
        done = call(light, "--preset", "smoke", "--source", "simulated", "--out", folder, *words)
        assert done.returncode == 2
        assert done.stderr.splitlines() == [
            f"error: {folder} is in use by another run; give another folder with --out"
        ]
        assert contents(folder) == before
    first.communicate("go on\n", timeout=60)
    assert first.returncode == 0
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    assert (folder / "metrics.csv").read_text().splitlines()[1:] == [
        "1,1,train,loss,0.5",
        "2,1,train,loss,0.25",
    ]


@pytest.fixture(params=["below a file", "proc", "no right", "immutable"])
def read_only(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder that nothing can be written into, in the ways that bind this user."""
    place = tmp_path / "place"
    if request.param == "below a file":
        place.write_text("not a folder")
        yield place
    elif request.param == "proc":
        if not Path("/proc/self").exists():
            pytest.skip("no /proc here")
        yield Path("/proc")
    elif request.param == "no right":
        place.mkdir(mode=0o500)
        if os.access(place, os.W_OK):
            pytest.skip("root may write everywhere")
        yield place
    else:
        place.mkdir()
        try:
            if subprocess.run(["chattr", "+i", place], capture_output=True, check=False).returncode:
                pytest.skip("no right to make a folder immutable")
        except OSError:
            pytest.skip("no chattr here")
        yield place
        subprocess.run(["chattr", "-i", place], check=True)


def test_a_read_only_folder_is_one_line(read_only):
    for name, write in WRITERS.items():
        with pytest.raises(InputError, match=f"{name} cannot be written"):
            write(read_only / name, 64)
    with pytest.raises(InputError, match="cannot be written"):
        Run(
            BaseConfig(),
            read_only / "run",
            "assignment2/train.py",
            "simulated",
            {"generator": "none"},
        )


def test_a_script_says_so_before_it_works(light, read_only):
    done = call(light, "--preset", "smoke", "--source", "simulated", "--out", read_only / "run")
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith(f"error: --out {read_only / 'run'} cannot be written")


@pytest.mark.parametrize("words", [["--help"], ["--preset", "smoke", "--source", "simulated"]])
def test_a_reader_that_leaves_early_ends_the_script_without_a_traceback(light, tmp_path, words):
    if words != ["--help"]:
        words = [*words, "--out", tmp_path / "run"]
    reading, writing = os.pipe()
    os.close(reading)  # as `| head` leaves it
    command = [sys.executable, light, *map(str, words)]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert done.returncode == 141
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_ctrl_c_while_frameworks_are_imported_gives_no_traceback():
    code = (
        "import os, signal\n"
        "from common.cli import BaseConfig, read_options\n"
        "read_options(BaseConfig)\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -2
    assert not done.stderr
