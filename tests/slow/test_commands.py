"""Runs every command of the READMEs and of docs/ in its order, as a reader would.

The commands run in a checkout, with files of the reader's own; every training takes
`--preset smoke`. About ten minutes, so `make check` runs them and `make test` does not.
"""

from __future__ import annotations

import gzip
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from assignment1.synthetic import draw_faces
from assignment5.synthetic import draw_flowers
from common.forecasting.prices import COINS, CURRENCIES
from common.forecasting.simulate import simulate
from common.run import SavedRun
from tests.conftest import ROOT
from tests.house.test_readme import commands

pytestmark = pytest.mark.slow

LONG = (
    "make ",
    "python benchmarks/",
    "python -m final_project.solver.validate",
    "python -m tools.compare RUN",
)  # other tests, or hours
SHOWN = [
    (file, command)
    for file, command in commands()
    if not command.startswith(LONG) and "assignmentN/" not in command
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout without runs, with every file that a README names."""
    place = tmp_path_factory.mktemp("reader") / "checkout"
    for name in (
        "common",
        "tools",
        "template",
        "final_project",
        *(f"assignment{n}" for n in range(1, 6)),
    ):
        shutil.copytree(
            ROOT / name,
            place / name,
            ignore=shutil.ignore_patterns("results", "__pycache__", "*.pdf"),
        )
    (place / "data").mkdir()
    faces, labels = draw_faces(400, 1)
    usage = np.array(["Training", "Training", "Training", "PublicTest", "Training", "PrivateTest"])[
        np.arange(len(faces)) % 6
    ]
    np.savez(place / "faces.npz", images=faces, labels=labels, usage=usage)
    pixels = [" ".join(map(str, face.ravel())) for face in faces]
    for file in (place / "fer2013.csv", place / "data" / "fer2013.csv"):
        pd.DataFrame({"emotion": labels, "pixels": pixels, "Usage": usage}).to_csv(
            file, index=False
        )
    Image.fromarray(faces[0]).resize((300, 300)).save(place / "me.jpg")
    for market, steps, names in (
        (
            COINS,
            3000,
            ("prices.csv", "data/crypto_hourly_usdt.csv.gz", "crypto_hourly_usdt.csv.gz"),
        ),
        (CURRENCIES, 3000, ("currencies.csv", "rates.csv", "fx_oil_daily.csv")),
    ):
        prices = simulate(market, steps, 3)
        frame = pd.DataFrame(prices.values, columns=list(prices.series))
        frame.insert(0, "time", np.datetime_as_string(prices.times, "s"))
        for name in names:
            frame.to_csv(place / name, index=False)
    with gzip.open(place / "exchange_rate.txt.gz", "wt") as file:
        np.savetxt(
            file,
            np.exp(np.random.default_rng(0).standard_normal((1500, 8)).cumsum(0) / 100),
            delimiter=",",
        )
    for folder in ("photographs", "more_flowers"):
        (place / folder).mkdir()
        for number, picture in enumerate(draw_flowers(160, 48, len(folder))[0]):
            Image.fromarray(picture).save(place / folder / f"{number}.png")
    with tarfile.open(place / "data" / "oxford_flowers102.tar", "w") as archive:
        archive.add(place / "photographs", "jpg")
    np.save(place / "X.npy", np.random.default_rng(0).standard_normal((300, 9)))
    np.save(place / "y.npy", np.arange(300) % 3)
    rows = pd.DataFrame(np.random.default_rng(0).standard_normal((200, 3)), columns=["a", "b", "c"])
    rows.to_csv(place / "rows.csv", index=False)
    for name in ("table.csv", "more.csv"):
        rows.assign(y=rows.sum(axis=1)).to_csv(place / name, index=False)
    made = [
        f"python final_project/simulate.py --preset smoke --trajectories 8 --out {name}"
        for name in ("flow.h5", "more.h5", "state.h5")
    ]
    for command in (
        *made,
        "python assignment3/train.py --preset smoke --source simulated",
    ):  # the second in place of the committed run
        done = give(place, command)
        assert done.returncode == 0, done.stderr
    return place


def give(place: Path, command: str) -> subprocess.CompletedProcess[str]:
    words = shlex.split(command)
    words = [
        sys.executable,
        *(["-m", "torch.distributed.run", *words[1:]] if words[0] == "torchrun" else words[1:]),
    ]
    environment = os.environ | {
        "PYTHONPATH": str(place),
        "ADL_DATA_DIR": str(place / "data"),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        words, cwd=place, env=environment, capture_output=True, text=True, timeout=900, check=False
    )


def in_smoke(place: Path, command: str) -> str:
    """The command with the smallest preset, and the newest run in place of a committed one."""
    command = (
        command.removeprefix("$ ")
        .replace(" --preset full", "")
        .replace("nproc_per_node=4", "nproc_per_node=2")
    )
    trainings = ("train.py", "exchange.py", "ablate.py", "codes.py", "tune.py")
    if any(script in command for script in trainings):
        command += " --preset smoke --overwrite"
    if "simulate.py" in command:
        command = command.replace("--trajectories 48", "--trajectories 8 --preset smoke")
    words = shlex.split(
        command.replace("--start 50", "--start 5")
    )  # (the smoke preset's trajectories are short)
    for number, word in enumerate(words):
        parts = word.split("/")
        if len(parts) >= 3 and parts[1] == "results" and words[number - 1] != "--out":
            run = SavedRun.open(None, place / parts[0] / "results").folder
            file = run / parts[3] if len(parts) > 3 else run
            words[number] = str(file if file.exists() else min(run.glob("adapter.*.safetensors")))
    return shlex.join(words)


def test_the_readmes_show_commands():
    assert len(SHOWN) > 40
    assert {file for file, _ in SHOWN} >= {
        "docs/own-data.md",
        "docs/gpu.md",
        "template/README.md",
        "final_project/README.md",
    }


@pytest.mark.parametrize(("file", "command"), SHOWN)
def test_a_command_does_what_its_readme_says(place, file, command):
    given = in_smoke(place, command)
    done = give(place, given)
    if "yahoo" in command and done.returncode == 2:  # no network
        lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, done.stderr
        assert "Yahoo" in lines[0] or "yahoo" in lines[0]
        return
    assert done.returncode == 0, f"{given}\n{done.stderr[-2000:]}"
