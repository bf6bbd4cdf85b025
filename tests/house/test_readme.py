"""What READMEs and the pages of docs/ promise: commands exist, tables are fresh, links lead."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageStat

import assignment1.data
import assignment5.data
from assignment1 import config as matrices
from assignment5 import config as photographs
from benchmarks import table
from common import cli
from common.cli import parse
from common.forecasting.prices import COINS, load_prices
from final_project.data import load_flow
from tests.conftest import ROOT
from tools import strip
from tools.readme import fresh, readme_files

TARGETS = set(
    re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
)


PAGES = [ROOT / "CONTRIBUTING.md", *readme_files()]
LARGEST_README, MOST_LINES = 6000, 12  # rendered characters and table rows of the first README
MOST_ROWS = 8  # of a generated table in the README of an assignment


def without_tables(text: str) -> str:
    """A page without the tables that are made."""
    return re.sub(r"<!-- (table|results) .*?<!-- end -->", "", text, flags=re.DOTALL)


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def commands() -> list[tuple[str, str]]:
    """(file, command) of all that calls python, torchrun or make.

    Lines in code blocks, and code in running text.
    """
    found = []
    for file in [*PAGES, *sorted(ROOT.glob("*/results/*/MODEL.md"))]:
        text = without_tables(file.read_text(encoding="utf-8"))  # (made from run.json)
        blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        lines = [line for block in blocks for line in block.splitlines()]
        lines += re.findall(
            r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
        )
        wanted = re.compile(r"^(\$ )?(python (-m )?[\w./]+|torchrun |make [a-z]+)")
        found += [
            (name_of(file), line.split("#")[0].strip()) for line in lines if wanted.match(line)
        ]
    return list(dict.fromkeys(found))


def config_of(module: str):
    """The class of a script's options; None where it has none."""
    spec = importlib.util.find_spec(module)
    assert spec is not None, module
    named = re.search(r"read_options\((\w+)\)", Path(spec.origin).read_text(encoding="utf-8"))
    return getattr(importlib.import_module(module), named[1]) if named else None


def test_there_are_commands_to_check():
    shown = [command for _, command in commands()]
    assert len(shown) > 40
    assert {command.split()[1].split("/")[0] for command in shown if "train.py" in command} >= {
        "assignment1",
        "assignment5",
    }


@pytest.mark.parametrize(("file", "command"), commands())
def test_a_command_that_is_shown_can_be_given(file, command, monkeypatch):
    # the reader's own files need not be here
    monkeypatch.setattr(cli, "check_exists", lambda *_: None)
    monkeypatch.setattr(matrices, "check_exists", lambda *_: None)
    monkeypatch.setattr(photographs, "check_readable", lambda *_: None)

    words = shlex.split(command.removeprefix("$ "))
    if words[0] == "make":
        assert words[1] in TARGETS, f"{file}: {command}"
        return
    if words[0] == "torchrun":
        words = ["python", *[word for word in words[1:] if not word.startswith("--nproc")]]
    if words[1] == "-m":
        module, options = words[2], words[3:]
    else:
        path = words[1].replace("assignmentN", "assignment5")
        assert (ROOT / path).exists(), f"{file}: {command}"
        module, options = path.removesuffix(".py").replace("/", "."), words[2:]
    if (
        module in ("pytest", "pip")
        or "..." in options
        or "smoke|default|full" in options
        or "DIR" in options
    ):
        return  # a pattern, not a command
    config = config_of(module)
    if config is None:
        assert importlib.util.find_spec(module) is not None
    else:
        parse(config, options)


def test_the_benchmarks_table_is_fresh():
    text = table.README.read_text(encoding="utf-8")
    block = table.BLOCK.search(text)
    assert block[0] == block[1] + table.table() + block[2], "run `python benchmarks/table.py`"
    written = (table.HERE / "results" / "table.md").read_text(encoding="utf-8")
    assert written == table.table()


# ---------------------------------------------------------------------------------------- pages


@pytest.mark.parametrize("file", readme_files(), ids=name_of)
def test_tables_and_values_are_fresh(file):
    text = file.read_text(encoding="utf-8")
    assert fresh(text) == text, "run `make readme`"


def anchors(file: Path) -> set[str]:
    """The names by which GitHub links to the headings of a page."""
    text = re.sub(r"^```.*?^```", "", file.read_text(encoding="utf-8"), flags=re.DOTALL | re.M)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("file", PAGES, ids=name_of)
def test_every_link_and_picture_leads_somewhere(file):
    text = file.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    for link in links:
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = file.parent / path if path else file
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def rows_of(text: str) -> list[int]:
    """The number of rows below the head of each table."""
    tables = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    return [table.strip().count("\n") - 1 for table in tables]


def test_the_first_readme_fits_on_a_screen():
    text = re.sub(r"<!--.*?-->", "", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.S)
    assert len(text) <= LARGEST_README
    assert sum(rows_of(text)) <= MOST_LINES


@pytest.mark.parametrize("number", range(1, 6))
def test_the_readme_of_an_assignment_selects_rows(number):
    text = (ROOT / f"assignment{number}" / "README.md").read_text(encoding="utf-8")
    assert rows_of(text)
    assert max(rows_of(text)) <= MOST_ROWS
    for block in re.finditer(r"(.*)<!-- (?:table|results) ", text):
        above = text[: block.start()].rstrip()
        assert above.endswith(":"), f"no sentence above the table after {above[-60:]!r}"


# ------------------------------------------------------------------------- the reader's own data


def examples() -> list[str]:
    """The programs of docs/own-data.md that write a file, in their order."""
    text = (ROOT / "docs" / "own-data.md").read_text(encoding="utf-8")
    programs = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [program for program in programs if "frames import" not in program]


def test_the_examples_write_what_the_loaders_read(tmp_path):
    with contextlib.chdir(tmp_path):
        for program in examples():
            exec(program, {})

    faces = assignment1.data.load("auto", tmp_path / "faces.npz")
    assert faces.images.shape == (600, 48, 48)
    prices = load_prices("auto", tmp_path / "prices.csv", COINS)
    assert prices.values.shape == (3000, 2)
    pictures = assignment5.data.read(tmp_path / "photographs", side=32)
    assert pictures.pixels.shape == (160, 32, 32, 3)
    flow = load_flow(tmp_path / "flow.h5")
    assert flow.fields.shape == (12, 40, 24 * 48, 2)


def test_the_example_of_metrics_json_prints_a_table(capsys):
    text = (ROOT / "docs" / "run-folders.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    with contextlib.chdir(ROOT):
        exec(program, {})
    shown = capsys.readouterr().out
    assert "Seq2Seq" in shown
    assert "random walk" in shown


def test_the_pictures_of_the_strip_are_those_of_the_runs(tmp_path):
    strip.draw(tmp_path)
    for file in strip.FOLDER.glob("*.png"):
        with Image.open(file) as committed, Image.open(tmp_path / file.name) as drawn:
            difference = ImageChops.difference(committed.convert("RGB"), drawn.convert("RGB"))
        assert ImageStat.Stat(difference).mean == pytest.approx([0, 0, 0], abs=1), file.name
