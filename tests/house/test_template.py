"""What CONTRIBUTING.md promises of template/: copied under another name by its commands, it passes its own tests and keeps the house's limits."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

from tests.conftest import ROOT
from tests.test_layout import SYSTEMS, imports


def copied(place, name: str):
    """template/ under another name, as the commands of CONTRIBUTING.md leave it; its test file stands beside the package."""
    shutil.copytree(
        ROOT / "template", place / name, ignore=shutil.ignore_patterns("__pycache__", "results")
    )
    for file in [*(place / name).glob("*.py"), place / name / "README.md"]:
        file.write_text(
            re.sub(r"\btemplate\b", name, file.read_text(encoding="utf-8")), encoding="utf-8"
        )
    (place / name / "test_assignment.py").rename(place / f"test_{name}.py")
    return place / name


def test_a_copy_under_another_name_passes_its_own_tests(tmp_path):
    package = copied(tmp_path, "fresh")
    environment = os.environ | {
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
        "OMP_NUM_THREADS": "1",
    }
    words = [
        "-m",
        "pytest",
        "-c",
        ROOT / "pyproject.toml",
        "--rootdir",
        ROOT,
        "-p",
        "no:cacheprovider",
        tmp_path / "test_fresh.py",
    ]
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # a line a file, an entry a promise: a test that is taken away is missed here
    text = (tmp_path / "test_fresh.py").read_text(encoding="utf-8")
    for word in (
        "promises",
        "kill_9",
        "evaluate_and_predict",
        "mistake_is_one_line",
        "by_hand",
        "closed_form",
    ):
        assert re.search(rf"def test_\w*{word}", text), word
    assert re.search(r"^1[0-9] passed", done.stdout, re.MULTILINE), done.stdout
    assert sorted(path.name for path in package.iterdir() if path.name != "__pycache__") == [
        "README.md",
        "__init__.py",
        "data.py",
        "evaluate.py",
        "figures.py",
        "model.py",
        "predict.py",
        "report.typ",
        "train.py",
    ]


def test_the_template_is_small_and_keeps_the_houses_directions():
    assert "template" not in SYSTEMS
    assert len((ROOT / "template/train.py").read_text(encoding="utf-8").splitlines()) <= 90
    for path in (ROOT / "template").glob("*.py"):
        found = {name.split(".")[0] for name in imports(path)}
        assert not found & {*SYSTEMS, "torch", "tensorflow", "keras", "pickle", "joblib"}, path
    for call in re.findall(
        r"np\.load\([^\n]*",
        "".join(path.read_text(encoding="utf-8") for path in (ROOT / "template").glob("*.py")),
    ):
        assert "allow_pickle=False" in call, call


def test_the_contributors_page_names_what_there_is():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert "cp -r template assignment7" in text
    assert "s/\\btemplate\\b/assignment7/g" in text
    for path in re.findall(r"`((?:common|template|tests|benchmarks)/[\w./]*)`", text):
        assert (ROOT / path).exists(), path
    targets = set(
        re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert set(re.findall(r"`make ([a-z]+)", text)) <= targets
