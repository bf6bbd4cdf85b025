"""The rules of the house: import directions, light options, no pickle, readable functions."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

SYSTEMS = (
    "assignment1",
    "assignment2",
    "assignment3",
    "assignment4",
    "assignment5",
    "final_project",
)
# the one chain of imports
ALLOWED = {"assignment4": {"assignment3"}, "assignment3": {"assignment2"}}
FORECASTING = {"assignment2", "assignment3", "assignment4"}
FRAMEWORKS = {"torch", "tensorflow", "keras"}
HEAVY = {*FRAMEWORKS, "pandas", "sklearn", "scipy", "matplotlib", "h5py", "ngsolve"}
SOURCES = [
    path
    for name in ("common", "tools", "template", *SYSTEMS, "benchmarks")
    for path in sorted((ROOT / name).rglob("*.py"))
]
SCRIPTS = [
    path
    for path in SOURCES
    if path.parent.name not in ("benchmarks", "tools")
    and "read_options(" in path.read_text(encoding="utf-8")
    and path.name != "cli.py"
]
# the one file in torch's format that is read: published weights, of a digest that is checked first
IMAGENET = ROOT / "common" / "imagenet.py"
# an optimiser of torch, whose class must be torch's; whoever imports it has torch already
MUON = ROOT / "common" / "muon.py"
LONGEST_FUNCTION, MOST_PARAMETERS, WIDEST_LINE = 60, 7, 100


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """The modules that a file imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {
        node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module
    }


def packages(path: Path, top_level_only: bool = False) -> set[str]:
    """The packages that a file imports from."""
    return {name.split(".")[0] for name in imports(path, top_level_only)}


# ------------------------------------------------------------------------------- directions


def test_common_imports_no_assignment_and_loads_frameworks_lazily():
    for path in (ROOT / "common").rglob("*.py"):
        assert not packages(path) & {*SYSTEMS, "tools", "tests"}, path
        assert path == MUON or not packages(path, top_level_only=True) & FRAMEWORKS, path
        assert path == MUON or "common.muon" not in imports(path), path


def test_only_the_forecasting_assignments_import_common_forecasting():
    for system in set(SYSTEMS) - FORECASTING:
        for path in (ROOT / system).rglob("*.py"):
            assert not any(name.startswith("common.forecasting") for name in imports(path)), path
    for path in (ROOT / "common").glob("*.py"):
        assert not any(name.startswith("common.forecasting") for name in imports(path)), path


@pytest.mark.parametrize("system", SYSTEMS)
def test_assignments_import_each_other_only_along_the_chain(system):
    for path in (ROOT / system).rglob("*.py"):
        others = packages(path) & set(SYSTEMS) - {system}
        assert others <= ALLOWED.get(system, set()), path
        assert not packages(path) & {"tools", "tests", "benchmarks"}, path


def test_figures_read_run_folders_only():
    for path in ROOT.glob("*/figures.py"):
        assert not packages(path) & FRAMEWORKS, path


def test_nothing_reads_or_writes_pickle():
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        assert not {"pickle", "joblib", "shelve", "dill"} & imports(path), path
        if path == IMAGENET:
            calls = re.findall(r"torch\.load\([^\n]*", text)
            assert len(calls) == 1
            assert "weights_only=True" in calls[0]
        else:
            assert "torch.load(" not in text, path
        assert "torch.save(" not in text, path
        for call in re.findall(r"np\.load\([^\n]*", text):
            assert "allow_pickle=False" in call, f"{path}: {call}"


# ------------------------------------------------------------------------------ light options


def test_there_are_scripts():
    names = {name_of(path) for path in SCRIPTS}
    for system in (*SYSTEMS, "template"):
        for script in ("train.py", "evaluate.py", "predict.py"):
            assert f"{system}/{script}" in names


@pytest.mark.parametrize("path", SCRIPTS, ids=name_of)
def test_a_script_reads_its_options_before_anything_heavy(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    options = next(node for node in tree.body if isinstance(node, ast.If))
    assert "read_options" in ast.unparse(options)
    before = tree.body[: tree.body.index(options)]
    modules = {node.module for node in before if isinstance(node, ast.ImportFrom)}
    assert not any(isinstance(node, ast.Import) for node in before)
    command = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); "
        f"import {', '.join(sorted(modules - {'__future__'}))}; "
        f"print(*sorted({sorted(HEAVY)!r} & sys.modules.keys()))".replace(
            "sorted([", "sorted({", 1
        ).replace("]", "}", 1)
    )
    result = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert not result.stdout.strip(), f"{name_of(path)} loads {result.stdout.strip()} for --help"


# --------------------------------------------------------------------------------- readability


def functions(path: Path) -> list[ast.FunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_functions_and_lines_are_short(path):
    for function in functions(path):
        length = (function.end_lineno or 0) - function.lineno + 1
        assert length <= LONGEST_FUNCTION, f"{function.name} has {length} lines"
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        assert len(line) <= WIDEST_LINE, f"line {number} has {len(line)} columns"


def test_functions_have_few_parameters():
    for path in SOURCES:
        for function in functions(path):
            if function.name == "__init__":  # estimators
                continue
            arguments = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
            names = [one.arg for one in arguments if one.arg not in ("self", "cls")]
            assert len(names) <= MOST_PARAMETERS, f"{name_of(path)}: {function.name}"


# ------------------------------------------------------------------------------------- reports


def test_no_name_of_a_report_hides_a_sign_of_mathematics_or_a_name_of_the_template():
    def names_of(text: str) -> set[str]:
        return set(re.findall(r"^#let ([\w-]+)", text, re.MULTILINE))

    template = names_of((ROOT / "common" / "template.typ").read_text(encoding="utf-8"))
    for path in ROOT.glob("*/report.typ"):
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
