"""The house's rules: import directions, no pickle, size of common/ and of the entry scripts."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SYSTEMS = [
    name
    for name in (
        "assignment1",
        "assignment2",
        "assignment3",
        "assignment4",
        "assignment5",
        "final_project",
    )
    if (ROOT / name).is_dir()
]
ALLOWED = {
    "assignment4": {"assignment3"},
    "assignment3": {"assignment2"},
}  # the one chain of imports
SOURCES = [
    path for name in ("common", *SYSTEMS, "benchmarks") for path in (ROOT / name).rglob("*.py")
]


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return found | {
        node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module
    }


def test_common_imports_no_assignment_and_loads_frameworks_lazily():
    for path in (ROOT / "common").glob("*.py"):
        assert not {name.split(".")[0] for name in imports(path)} & set(SYSTEMS), path
        assert not {name.split(".")[0] for name in imports(path, top_level_only=True)} & {
            "torch",
            "tensorflow",
            "keras",
        }, path


@pytest.mark.parametrize("system", SYSTEMS)
def test_assignments_import_each_other_only_along_the_chain(system):
    for path in (ROOT / system).rglob("*.py"):
        others = {name.split(".")[0] for name in imports(path)} & set(SYSTEMS) - {system}
        assert others <= ALLOWED.get(system, set()), path


def test_figures_read_run_folders_only():
    for path in ROOT.glob("*/figures.py"):
        assert not {name.split(".")[0] for name in imports(path)} & {
            "torch",
            "tensorflow",
            "keras",
            *SYSTEMS,
        }, path


def test_nothing_reads_or_writes_pickle():
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        assert not {"pickle", "joblib", "shelve", "dill"} & imports(path), path
        assert "torch.load(" not in text, path
        assert "torch.save(" not in text, path
        for call in re.findall(r"np\.load\([^\n]*", text):
            assert "allow_pickle=False" in call, f"{path}: {call}"


def test_sizes():
    assert (
        sum(
            len(path.read_text(encoding="utf-8").splitlines())
            for path in (ROOT / "common").glob("*.py")
        )
        <= 2600
    )
    for system in SYSTEMS:
        for name in ("train.py", "evaluate.py", "predict.py"):
            assert len((ROOT / system / name).read_text(encoding="utf-8").splitlines()) <= 200, (
                f"{system}/{name}"
            )


def test_readme_tables_are_fresh():
    from common.readme import fresh

    for file in [ROOT / "README.md", *ROOT.glob("*/README.md")]:
        text = file.read_text(encoding="utf-8")
        assert fresh(text) == text, f"{file}: run `make readme`"


def test_no_name_of_a_report_hides_a_sign_of_mathematics_or_a_name_of_the_template():
    def names_of(text: str) -> set[str]:
        return set(re.findall(r"^#let ([\w-]+)", text, re.MULTILINE))

    template = names_of((ROOT / "common" / "report.typ").read_text(encoding="utf-8"))
    for path in {*ROOT.glob("*/report.typ")} - {ROOT / "common" / "report.typ"}:
        text = path.read_text(encoding="utf-8")
        names = names_of(text)
        assert not names & template, f"{path}: {names & template} are the template's"
        used = {
            word
            for formula in re.findall(r"\$([^$]+)\$", text)
            for word in re.findall(r"(?<![#\w.\"])[a-z]{2,}(?![\w\"])", formula)
        }
        assert not names & used, f"{path}: {names & used} mean something else inside a formula"
        assert not re.search(r"#[\w.]+(\([^()]*(\([^()]*\))?[^()]*\))?\.len\(\); [a-z]", text), (
            f"{path}: Typst takes this ; for its own"
        )
