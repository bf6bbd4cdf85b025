"""The notebooks: executed, small, without places or warnings, and made of names that exist."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, new_output

from common.files import read_json
from tests.conftest import ROOT
from tools.notebooks import FILES, FOLDER, LARGEST, cleaned, complaint, executed
from tools.samples import SYSTEMS

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]


def read(path: Path) -> NotebookNode:
    """A committed notebook."""
    return nbformat.read(path, as_version=4)


def code(notebook: NotebookNode) -> list[NotebookNode]:
    """Its cells of code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def sources(notebook: NotebookNode) -> str:
    """Its whole code."""
    return "\n".join(cell.source for cell in code(notebook))


def texts(notebook: NotebookNode) -> str:
    """Its cells of text."""
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def headline(notebook: NotebookNode) -> str:
    """The last table that it shows: the scores of the run with their baselines."""
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    *_, last = (output for output in outputs if output.output_type == "execute_result")
    return last.data["text/plain"]


def test_every_system_has_a_notebook():
    assert FILES.keys() == SYSTEMS.keys()
    assert sorted(FILES.values()) == [path.name for path in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_notebook_is_as_make_notebooks_wrote_it(path):
    notebook = read(path)
    nbformat.validate(notebook)
    text = path.read_text(encoding="utf-8")
    assert complaint(notebook, text) is None
    assert nbformat.writes(cleaned(notebook)) + "\n" == text, "run `make notebooks`"
    assert [cell.execution_count for cell in code(notebook)] == [*range(1, len(code(notebook)) + 1)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_notebook_walks_shows_and_asks(path):
    notebook = read(path)
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    assert 7 <= len(code(notebook)) <= 12
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 4
    assert texts(notebook).count("Change this") == 1
    assert sum("# <- change this" in cell.source for cell in code(notebook)) == 1
    _, exercises = texts(notebook).split("## Exercises")
    assert [line[:2] for line in exercises.splitlines() if line[:1].isdigit()] == ["1.", "2.", "3."]
    assert exercises.count("Expect") == 3
    assert "EXPECT" not in exercises
    assert exercises.count("*Hint:*") == 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_every_score_of_the_headline_is_in_metrics_json(path):
    notebook = read(path)
    (place,) = re.findall(
        r'^RUN = ROOT / "(\w+)" / "results" / "([\w-]+)"', sources(notebook), re.M
    )
    rows = read_json(ROOT / place[0] / "results" / place[1] / "metrics.json")["rows"]
    scores = [re.search(r" (\d\.\d+)", line)[1] for line in headline(notebook).splitlines()[1:]]
    assert len(scores) >= 5
    for score in scores:
        digits = len(score) - 2
        assert any(f"{row['value']:.{digits}f}" == score for row in rows), "run `make notebooks`"
    assert "baseline" in headline(notebook)


def defined(module: str) -> set[str]:
    """The names at the top of a module of this repository, which is not imported for that."""
    spec = importlib.util.find_spec(module)
    assert spec is not None, f"no module {module}"
    assert spec.origin is not None, module
    names: set[str] = set()
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        for part in ast.walk(node) if not isinstance(node, ast.FunctionDef | ast.ClassDef) else ():
            if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                names.add(part.id)
            if isinstance(part, ast.alias):
                names.add(part.asname or part.name)
    return names


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_what_a_notebook_imports_exists(path):
    tree = ast.parse(sources(read(path)))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in imports if (ROOT / node.module.split(".")[0]).is_dir()]
    assert len(ours) > 4
    for node in ours:
        missing = {alias.name for alias in node.names} - defined(node.module)
        assert not missing, f"{node.module} has no {missing}"


def test_what_is_refused_is_told():
    def about(*outputs: NotebookNode, text: str = "") -> str | None:
        cell = new_code_cell("1", execution_count=1, outputs=[*outputs])
        return complaint(new_notebook(cells=[cell]), text)

    assert about(new_output("stream", name="stdout", text="fine\n")) is None
    assert "error" in about(new_output("error", ename="ValueError", evalue="", traceback=[]))
    assert about(new_output("stream", name="stderr", text="a\nmind\n")) == "a cell warns: mind"
    assert "folder" in about(text=f"see {ROOT}/x")
    assert "bytes" in about(text="x" * (LARGEST + 1))


def test_a_cleaned_notebook_tells_nothing_of_its_making():
    cell = new_code_cell("1", execution_count=1, metadata={"execution": {"iopub.status.idle": "9"}})
    language = {"name": "python", "version": "3.11.7"}
    notebook = new_notebook(cells=[cell], metadata={"language_info": language})
    text = nbformat.writes(cleaned(notebook))
    assert "3.11.7" not in text
    assert "iopub" not in text
    assert text == nbformat.writes(cleaned(nbformat.reads(text, as_version=4)))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_notebook_runs_and_shows_the_same_scores(path):
    again = cleaned(executed(path))
    assert complaint(again, nbformat.writes(again)) is None
    assert headline(again) == headline(read(path))
