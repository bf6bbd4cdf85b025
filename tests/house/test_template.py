"""What CONTRIBUTING.md promises of template/: copied under another name, it passes its tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

from tests.conftest import ROOT
from tests.house.test_layout import SYSTEMS, packages


def copied(place, name: str):
    """template/ under another name, as the commands of CONTRIBUTING.md leave it.

    Its test file stands beside the package.
    """
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
    # a test that is taken away is missed here
    text = (tmp_path / "test_fresh.py").read_text(encoding="utf-8")
    for word in (
        "promises",
        "interrupted",
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
        "config.py",
        "data.py",
        "evaluate.py",
        "figures.py",
        "model.py",
        "predict.py",
        "report.typ",
        "train.py",
    ]


def test_the_template_imports_no_system_and_no_framework():
    assert "template" not in SYSTEMS
    for path in (ROOT / "template").glob("*.py"):
        assert not packages(path) & {*SYSTEMS, "torch", "tensorflow", "keras"}, path


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
