"""What goes wrong in real life: damaged and hostile files, large ones, a full disk, a folder that is taken or read-only, kill -9."""

from __future__ import annotations

import contextlib
import csv
import errno
import functools
import gzip
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tarfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import load_file

from assignment1 import data as faces
from assignment1.elm import ELMClassifier
from assignment1.synthetic import draw_faces
from assignment5 import data as flowers
from common import run as run_module
from common.cli import BaseConfig, InputError
from common.prices import COINS, read_table, simulate
from common.run import Run, load_state, save_state, write_arrays, write_json, write_text
from final_project.data import write_flow
from tests.conftest import ROOT, call, results, smoke
from tests.test_final_project import waves
from tests.test_template import copied

MORE = int(os.environ.get("ADL_FUZZ", "1"))  # how many times the usual number of examples


def few(examples: int) -> settings:
    """The same examples at every call."""
    options = {
        "deadline": None,
        "derandomize": True,
        "database": None,
        "suppress_health_check": [HealthCheck.function_scoped_fixture],
    }
    return settings(max_examples=examples * MORE, **options)


# ------------------------------------------------------------------------------------------------------------- fuzzing


def contents(place: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in place.rglob("*")
        if path.is_file()
    }


def refused_or(load: Callable[[], object], place: Path, valid: Callable[[object], bool]) -> None:
    """Only InputError or a valid result, never another exception, and nothing written in `place`."""
    before, refusal = contents(place), None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a library's warning is no failure of ours
        try:
            assert valid(load())
        except InputError as error:
            refusal = str(error)
    assert refusal is None or refusal.strip()
    assert contents(place) == before


# six bytes to flip at most, and then: the whole, cut off, or with a part that comes twice
HARM = st.tuples(
    st.lists(st.tuples(st.integers(0, 10**5), st.integers(1, 255)), max_size=6),
    st.sampled_from(["whole", "cut", "doubled"]),
    st.integers(0, 10**5),
)


def harm(raw: bytes, drawn: tuple[list[tuple[int, int]], str, int]) -> bytes:
    """The bytes as HARM says."""
    harmed, (flips, kind, at) = bytearray(raw), drawn
    for place, flip in flips:
        harmed[place % len(raw)] ^= flip
    at %= len(raw)
    return (
        bytes(harmed)
        if kind == "whole"
        else bytes(harmed[:at]) + (b"" if kind == "cut" else bytes(harmed[at // 2 :]))
    )


def table_text() -> bytes:
    prices = simulate(COINS, 12, 0)
    frame = pd.DataFrame(prices.values[:, :2], columns=["BTC", "ETH"]).round(3)
    frame.insert(0, "time", np.datetime_as_string(prices.times, "s"))
    return frame.to_csv(index=False).encode()


def valid_prices(prices: object) -> bool:
    return bool(
        np.isfinite(prices.values).all()
        and (np.diff(prices.times) > np.timedelta64(0)).all()
        and prices.values.shape[1] > 0
    )


@pytest.mark.parametrize("name", ["prices.csv", "prices.csv.gz"])
@few(60)
@given(drawn=HARM)
def test_damaged_price_tables(tmp_path, name, drawn):
    raw = gzip.compress(table_text(), mtime=0) if name.endswith("gz") else table_text()
    (tmp_path / name).write_bytes(harm(raw, drawn))
    refused_or(lambda: read_table(tmp_path / name), tmp_path, valid_prices)


TYPES = ("?", "u1", "i2", "i8", "f2", "f8", "c16", "U3", "S8", "M8[s]", "m8[s]", "O", "V4", "i4,f8")
SHAPES = (
    (),
    (0,),
    (1,),
    (4,),
    (4, 1),
    (4, 7),
    (4, 8),
    (0, 7),
    (4, 12, 12),
    (0, 12, 12),
    (4, 12, 11),
    (4, 48, 48),
    (0, 48, 48),
    (4, 48, 48, 1),
    (256, 8),
    (4, 2304),
)
VALUES = (0, 1, 6, 7, -1, 255, 256, 0.5, 2.0**70, float("nan"), float("inf"), "train")


@st.composite
def strange(draw: st.DrawFn, usual: np.ndarray | None = None) -> np.ndarray:
    """An array of any type and shape with one odd value in it; now and then the usual one in another type, or as it is."""
    kind, shape = draw(st.sampled_from(TYPES)), draw(st.sampled_from(SHAPES))
    as_is = usual is not None and draw(st.booleans())
    array = usual.copy() if as_is else np.zeros(shape, kind)
    with contextlib.suppress(ValueError, TypeError, OverflowError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = array.astype(kind) if as_is and draw(st.booleans()) else array
        if array.size and draw(st.booleans()):
            array.flat[draw(st.integers(0, array.size - 1))] = draw(st.sampled_from(VALUES))
    return array


@functools.cache
def usual(name: str) -> np.ndarray:
    images, labels = draw_faces(4, 0)
    rng = np.random.default_rng(0)
    return {
        "images": images,
        "labels": np.arange(4),
        "usage": np.array(["train", "test"] * 2),
        "one_hot": np.eye(7)[labels],
        "codemaps": rng.integers(256, size=(4, 12, 12)),
        "codebook": rng.random((256, 8)).astype("f4"),
    }[name]


def valid_faces(found: faces.Faces) -> bool:
    rows = found.images if found.codemaps is None else found.codemaps
    whole = (
        rows.dtype == np.uint8
        and rows.shape[1:] in {(48, 48), (12, 12)}
        and 0 < len(rows) == len(found.part)
    )
    codes = found.codebook is None or (
        found.codebook.dtype == np.float32 and bool(np.isfinite(found.codebook).all())
    )
    known = found.labels is None or (
        found.labels.shape == (len(rows),) and set(np.unique(found.labels)) <= set(range(7))
    )
    return whole and codes and known and set(found.part) <= {"train", "test", "private"}


@few(150)
@given(
    images=strange(usual("images")),
    labels=strange(usual("labels")),
    usage=st.none() | strange(usual("usage")),
    labelled=st.booleans(),
)
def test_strange_arrays_in_an_image_npz(tmp_path, images, labels, usage, labelled):
    np.savez(
        tmp_path / "faces.npz",
        images=images,
        labels=labels,
        **({} if usage is None else {"usage": usage}),
    )
    refused_or(lambda: faces.load_images(tmp_path / "faces.npz", labelled), tmp_path, valid_faces)


@few(200)
@given(
    maps=strange(usual("codemaps")),
    labels=strange(usual("labels")) | strange(usual("one_hot")),
    codebook=st.none() | strange(usual("codebook")),
    usage=st.none() | strange(usual("usage")),
)
def test_strange_arrays_as_code_maps(tmp_path, maps, labels, codebook, usage):
    for name, array in {
        "codemaps": maps,
        "labels": labels,
        "codebook": codebook,
        "usage": usage,
    }.items():
        (tmp_path / f"{name}.npy").unlink(missing_ok=True)
        if array is not None:
            np.save(tmp_path / f"{name}.npy", array)
    refused_or(lambda: faces.load_codemaps(tmp_path), tmp_path, valid_faces)


def archive(save: Callable[..., None], *arrays: np.ndarray, **named: np.ndarray) -> bytes:
    held = io.BytesIO()
    save(held, *arrays, **named)
    return held.getvalue()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@few(80)
@given(drawn=HARM)
def test_damaged_image_npz(tmp_path, save, drawn):
    raw = archive(save, images=usual("images"), labels=usual("labels"))
    (tmp_path / "faces.npz").write_bytes(harm(raw, drawn))
    refused_or(lambda: faces.load_images(tmp_path / "faces.npz", True), tmp_path, valid_faces)


@pytest.mark.parametrize("name", ["codemaps", "labels", "codebook"])
@few(80)
@given(drawn=HARM, header=st.booleans())
def test_damaged_code_maps(tmp_path, name, drawn, header):
    for each in ("codemaps", "labels", "codebook"):
        np.save(tmp_path / f"{each}.npy", usual(each))
    raw = (tmp_path / f"{name}.npy").read_bytes()
    (tmp_path / f"{name}.npy").write_bytes(
        harm(raw[:128], drawn) + raw[128:] if header else harm(raw, drawn)
    )
    refused_or(lambda: faces.load_codemaps(tmp_path), tmp_path, valid_faces)


def test_an_archive_under_the_name_of_an_array(tmp_path):
    np.save(tmp_path / "labels.npy", usual("labels"))
    whole = archive(np.savez, codemaps=usual("codemaps"))
    for raw in (whole, whole[:300], whole[:-30], b"PK\x03\x04"):
        (tmp_path / "codemaps.npy").write_bytes(raw)
        with pytest.raises(InputError, match=r"codemaps\.npy"):
            faces.load_codemaps(tmp_path)


FORMATS = ("png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm")


@functools.cache
def pictures() -> dict[str, bytes]:
    pixels, _ = flowers.draw_flowers(len(FORMATS), 24, 0)
    found = {}
    for kind, image in zip(FORMATS, pixels, strict=True):
        held = io.BytesIO()
        Image.fromarray(image).save(held, kind)
        found[f"a/{kind}.{kind}"] = held.getvalue()
    return found


def valid_images(found: flowers.Images) -> bool:
    return (
        found.pixels.dtype == np.uint8
        and found.pixels.shape[1:] == (16, 16, 3)
        and 0 < len(found) == len(found.names)
    )


@pytest.mark.parametrize("kind", FORMATS)
@few(60)
@given(drawn=HARM)
@example(drawn=([], "doubled", 21694))  # a png whose next chunk is none: Pillow says SyntaxError
def test_damaged_images_in_a_folder(tmp_path, kind, drawn):
    (tmp_path / f"picture.{kind}").write_bytes(harm(pictures()[f"a/{kind}.{kind}"], drawn))
    refused_or(lambda: flowers.read(tmp_path, 16), tmp_path, valid_images)
    ending = {"jpeg": "jpg", "gif": "png", "ppm": "pgm"}.get(
        kind, kind
    )  # (assignment 1 knows no gif; the content decides)
    place = (tmp_path / f"picture.{kind}").rename(tmp_path / f"picture.{ending}")
    refused_or(lambda: faces.load_images(place, False), tmp_path, valid_faces)
    place.unlink()


def packed(mode: str) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode=mode) as tar:
        for name, content in {
            **pictures(),
            "labels.csv": b"file,label\n" + b"".join(f"{k}.{k},{k[0]}\n".encode() for k in FORMATS),
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return held.getvalue()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@few(50)
@given(drawn=HARM)
def test_damaged_archives_of_images(tmp_path, mode, drawn):
    (tmp_path / "images.tar").write_bytes(harm(packed(mode), drawn))
    refused_or(lambda: flowers.read(tmp_path / "images.tar", 16), tmp_path, valid_images)


@few(80)
@given(
    st.lists(
        st.lists(
            st.sampled_from(["file", "label", "a.png", "b.png", "", "nan", "x", '"', "\0"]),
            max_size=3,
        ).map(",".join),
        max_size=4,
    ).map("\n".join)
)
def test_strange_labels_of_images(tmp_path, text):
    (tmp_path / "a.png").write_bytes(pictures()["a/png.png"])
    (tmp_path / "b.png").write_bytes(pictures()["a/bmp.bmp"])
    (tmp_path / "labels.csv").write_text(text)
    refused_or(lambda: flowers.read(tmp_path, 16), tmp_path, valid_images)


HEADS = [
    "emotion,pixels,Usage",
    "emotion,pixels",
    "Emotion,emotion,pixels",
    "emotion,pixels,Pixels",
    "emotion,Usage,usage",
]


@few(60)
@given(drawn=HARM, head=st.sampled_from(HEADS))
def test_damaged_fer_tables(tmp_path, drawn, head):
    row = " ".join(["7"] * 2304)
    raw = f"{head}\n0,{row},Training\n1,{row},PublicTest\n".encode()
    (tmp_path / "f.csv").write_bytes(harm(raw, drawn))
    refused_or(lambda: faces.load_images(tmp_path / "f.csv", True), tmp_path, valid_faces)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("labels", np.full((4, 7), "x"), "labels.npy: values of type <U1"),
        ("labels", np.zeros((4, 7), "V4"), r"labels.npy: values of type \|V4"),
        ("usage", np.zeros(4, "V4"), r"usage.npy: usage of type \|V4"),
        ("usage", np.array([b"train", b"test", b"\xff", b"test"]), "usage.npy: usage of type"),
    ],
)
def test_types_that_fuzzing_found(tmp_path, name, array, message):
    for each in ("codemaps", "labels"):
        np.save(tmp_path / f"{each}.npy", usual(each))
    np.save(tmp_path / f"{name}.npy", array)
    with pytest.raises(InputError, match=message):
        faces.load_codemaps(tmp_path)


def test_words_as_bytes_are_words(tmp_path):
    np.savez(
        tmp_path / "faces.npz",
        images=usual("images"),
        labels=usual("labels"),
        usage=usual("usage").astype("S"),
    )
    assert list(faces.load_images(tmp_path / "faces.npz", True).part) == ["train", "test"] * 2


# ----------------------------------------------------------------------------------------------------------- no pickle


class Trap:
    """Unpickled, it writes a file."""

    def __init__(self, place: Path):
        self.place = place

    def __reduce__(self):
        return (Path.write_text, (self.place, "caught"))


@pytest.mark.parametrize(
    ("name", "load", "usual_files"),
    [
        ("images.npz", lambda path: faces.load_images(path, True), {}),
        ("images.npz", lambda path: faces.load_images(path, False), {}),
        ("codemaps.npy", lambda path: faces.load_codemaps(path.parent), {"labels": "labels"}),
        ("labels.npy", lambda path: faces.load_codemaps(path.parent), {"codemaps": "codemaps"}),
        (
            "codebook.npy",
            lambda path: faces.load_codemaps(path.parent),
            {"codemaps": "codemaps", "labels": "labels"},
        ),
        (
            "usage.npy",
            lambda path: faces.load_codemaps(path.parent),
            {"codemaps": "codemaps", "labels": "labels"},
        ),
        ("model.npz", ELMClassifier.load, {}),
    ],
)
def test_no_loader_unpickles(tmp_path, name, load, usual_files):
    for file, key in usual_files.items():
        np.save(tmp_path / f"{file}.npy", usual(key))
    trap = np.array([Trap(tmp_path / "caught")] * 4, dtype=object)
    for raw in (
        [archive(np.save, trap), trap.dumps()]
        if name.endswith("npy")
        else [archive(np.savez, images=trap, facts=trap), trap.dumps()]
    ):
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(InputError, match=name.replace(".", r"\.")):
            load(tmp_path / name)
        assert not (tmp_path / "caught").exists()
    np.load(io.BytesIO(trap.dumps()), allow_pickle=True)
    assert (
        tmp_path / "caught"
    ).exists()  # the trap works: a loader that had taken it would have been seen


# --------------------------------------------------------------------------------------------------------- large inputs


def measured(code: str) -> tuple[float, float]:
    """(MiB above what stood before, CPU seconds) that a process of its own prints."""
    head = "import time\nfrom common.run import peak_mb\n"
    tail = "\nprint(peak_mb() - before, time.process_time() - start)"
    done = subprocess.run(
        [sys.executable, "-c", head + code + tail],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    memory, seconds = map(float, done.stdout.split())
    return memory, seconds


def test_a_million_rows_of_prices_in_bounded_memory_and_time(tmp_path):
    hours = np.datetime64("1900-01-01T00", "h") + np.arange(1_000_000)
    with open(tmp_path / "long.csv", "w") as file:
        file.write("time,BTC\n")
        file.writelines(
            f"{hour}:00:00Z,{100 + row % 97}.25\n" for row, hour in enumerate(hours.astype(str))
        )
    size = (tmp_path / "long.csv").stat().st_size / 2**20
    memory, seconds = measured(f"""
from common.prices import read_table
before, start = peak_mb(), time.process_time()
prices = read_table({str(tmp_path / "long.csv")!r})
assert prices.values.shape == (1_000_000, 1) and prices.hourly and prices.provenance["gaps"]["count"] == 0
assert prices.values[96, 0] == 196.25""")
    assert memory < 20 * size, (
        f"{memory:.0f} MiB for a file of {size:.0f}"
    )  # (about 10 times the file)
    assert seconds < 20, f"{seconds:.1f} s"  # (about 2.5)


def test_200_000_faces_through_an_elm_in_bounded_memory():
    units = 500
    memory, seconds = measured(f"""
import numpy as np
from assignment1.elm import ELMClassifier
rng = np.random.default_rng(0)
X, y = rng.integers(256, size=(200_000, 144), dtype=np.uint8), rng.integers(7, size=200_000)
X[:, 0] = 36 * y
model = ELMClassifier({units}, penalty="ridge", direct_links=True, random_state=0)
model.fit(X[:5_000], y[:5_000])
before, start = peak_mb(), time.process_time()
model.fit(X, y)
assert (model.predict(X[:2_000]) == y[:2_000]).mean() > 0.3""")
    copied, hidden = 200_000 * 144 * 4 / 2**20, 200_000 * (units + 144) * 4 / 2**20
    assert memory < copied + 80 < hidden, (
        f"{memory:.0f} MiB"
    )  # the rows as float32 and some blocks, never the hidden matrix
    assert seconds < 15, f"{seconds:.1f} s"


# ---------------------------------------------------------------------------------------------------------- a full disk


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
            patch.setattr(run_module.os, step, full)
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
        lines = [line for line in done.stderr.splitlines() if line]
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("error: ")
        assert "No space left" in lines[0]
        assert readable(disk / "run")
        assert json.loads((disk / "run" / "run.json").read_text())["status"] in {
            "running",
            "failed",
        }


# ------------------------------------------------------------------------------- a folder that is taken, or read-only


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """train.py of a copy of the template: the same Run as every assignment's, without a framework to load."""
    place = tmp_path_factory.mktemp("light")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{place}{os.pathsep}{ROOT}")
        yield str(copied(place, "light") / "train.py")


HOLDER = """
import sys
from pathlib import Path
from common.cli import BaseConfig
from common.run import Run
with Run(BaseConfig(), Path(sys.argv[1]), "assignment2/train.py", "simulated", {"generator": "none"}) as run:
    run.log(1, 1, "train", loss=0.5)
    print("held", flush=True)
    sys.stdin.readline()
    run.log(2, 1, "train", loss=0.25)
    run.finish([{"metric": "loss", "value": 0.25}], {"loss": {"unit": "1", "better": "lower", "reference": "-"}})
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


# -------------------------------------------------------------------------------------------------------------- kill -9


def readable(folder: Path) -> bool:
    """Reads every file of a run folder that has its final name, whole; raises where one cannot be read."""
    for path in (
        path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")
    ):
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif (
            path.suffix == ".safetensors"
            and path.parent.name == "checkpoints"
            and not path.name.startswith("adapter-")
        ):
            load_state(path)
        elif path.suffix == ".safetensors":
            load_file(path)
        elif path.suffix == ".npz":
            with zipfile.ZipFile(path) as held:
                assert held.testzip() is None, path
        elif path.suffix == ".csv":
            text = path.read_text(encoding="utf-8")
            assert not text or text.endswith("\n"), path
            assert {len(row) for row in csv.reader(text.splitlines())} <= {5}, path
        elif path.suffix in {".png", ".gif"}:
            with Image.open(path) as picture:
                picture.load()
        elif path.suffix == ".pdf":
            assert b"%%EOF" in path.read_bytes()[-32:], path
    return True


SLOW = pytest.mark.skipif("ADL_KILLS" not in os.environ, reason="minutes a system: `make check`")


@pytest.mark.parametrize(
    "assignment",
    [
        "assignment2",
        "assignment5",
        *(
            pytest.param(name, marks=SLOW)
            for name in ("assignment1", "assignment3", "assignment4", "final_project")
        ),
    ],
)
def test_kill_9_at_random_moments_and_resume(assignment, tmp_path, tmp_path_factory):
    """ADL_KILLS moments (default 2), spread over about one training; the seed is ADL_KILL_SEED (default 0)."""
    source = [
        "--source",
        "synthetic" if assignment in ("assignment1", "assignment5") else "simulated",
    ]
    if assignment == "assignment4":
        source += [
            "--base",
            str(smoke("assignment3", "simulated", tmp_path_factory.mktemp("base"))),
        ]
    if assignment == "final_project":
        write_flow(tmp_path / "waves.h5", waves())
        source = ["--source", "auto", "--data", str(tmp_path / "waves.h5")]
    unbroken = smoke(assignment, source[1], tmp_path_factory.mktemp("unbroken"), *source[2:])
    kills = int(os.environ.get("ADL_KILLS", "2"))
    whole = json.loads((unbroken / "run.json").read_text())["seconds"]
    rng = np.random.default_rng((int(os.environ.get("ADL_KILL_SEED", "0")), *assignment.encode()))
    record, words = (
        tmp_path / "run" / "run.json",
        ["--preset", "smoke", *source, "--out", str(tmp_path / "run"), "--resume"],
    )
    for moment in rng.uniform(0, 2 * whole / (kills + 1), kills):
        began = time.time()
        with subprocess.Popen(
            [sys.executable, str(ROOT / assignment / "train.py"), *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            # the clock runs from when the run has its folder: importing writes nothing
            while (
                process.poll() is None
                and not (record.exists() and record.stat().st_mtime >= began)
                and time.time() < began + 120
            ):
                time.sleep(0.01)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(moment)
            process.send_signal(signal.SIGKILL)
        assert readable(tmp_path / "run")
    if not record.exists() or json.loads(record.read_text())["status"] != "finished":
        done = call(f"{assignment}/train.py", *words)
        assert done.returncode == 0, done.stderr
    assert readable(tmp_path / "run")
    assert results(tmp_path / "run") == results(unbroken)
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == (
        unbroken / "metrics.csv"
    ).read_bytes()
    assert not list((tmp_path / "run" / "checkpoints").glob("*.tmp"))
