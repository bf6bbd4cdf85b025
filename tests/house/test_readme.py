"""What README files promise: their commands exist, and their tables are fresh."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from assignment1 import config as matrices
from assignment5 import config as photographs
from benchmarks import table
from common import cli
from common.cli import parse
from tests.conftest import ROOT

TARGETS = set(
    re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
)


def commands() -> list[tuple[str, str]]:
    """(file, command) of all that calls python, torchrun or make.

    Lines in code blocks, and code in running text.
    """
    found = []
    files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("*/README.md"))]
    for file in [*files, *sorted(ROOT.glob("*/results/*/MODEL.md"))]:
        text = re.sub(
            r"<!-- table.*?<!-- end -->", "", file.read_text(encoding="utf-8"), flags=re.DOTALL
        )  # (made from run.json)
        blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        lines = [line for block in blocks for line in block.splitlines()]
        lines += re.findall(
            r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
        )
        wanted = re.compile(r"^(\$ )?(python (-m )?[\w./]+|torchrun |make [a-z]+)")
        found += [
            (file.relative_to(ROOT).as_posix(), line.split("#")[0].strip())
            for line in lines
            if wanted.match(line)
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
