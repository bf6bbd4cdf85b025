"""assignment1/elm stands alone: it imports nothing of the repository, and its README is right."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib

from tests.conftest import ROOT

PACKAGE = ROOT / "assignment1" / "elm"


def test_the_package_imports_only_itself_and_what_it_declares():
    declared = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.split("[<>=]", one)[0].replace("scikit-learn", "sklearn") for one in declared}
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module or ""]
            roots = {module.split(".")[0] for module in modules}
            assert roots <= names | sys.stdlib_module_names, f"{path.name}: {roots}"


def test_the_example_of_the_readme_runs_where_the_package_is_called_elm(tmp_path):
    (tmp_path / "elm").symlink_to(PACKAGE)
    text = (PACKAGE / "README.md").read_text(encoding="utf-8")
    example = re.search(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert example is not None
    code = f"{example[1]}\nassert model.score(X_test, y_test) > 0.97\nimport sys\n"
    code += "assert not any(name.startswith(('assignment1', 'common')) for name in sys.modules)"
    process = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
