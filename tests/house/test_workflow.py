"""The workflow of GitHub: the README's test command, pinned, bounded and without rights."""

from __future__ import annotations

import re
import tomllib

import yaml
from packaging.specifiers import SpecifierSet

from tests.conftest import ROOT

WORKFLOW = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")


def test_the_workflow_calls_the_test_command_of_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    command = re.search(r"^(make test)\b", readme, re.MULTILINE)
    assert command
    (job,) = yaml.safe_load(WORKFLOW)["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [command[1]]


def test_the_workflow_is_pinned_bounded_and_may_only_read():
    workflow = yaml.safe_load(WORKFLOW)
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["cancel-in-progress"] is True
    (job,) = workflow["jobs"].values()
    assert 0 < job["timeout-minutes"] <= 120
    assert "secrets." not in WORKFLOW
    assert "ADL_DATA_DIR" not in WORKFLOW
    uses = re.findall(r"uses: (\S+)(.*)", WORKFLOW)
    assert len(uses) == 2
    for action, comment in uses:
        assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", action), action
        assert re.fullmatch(r"  # v\d+\.\d+\.\d+", comment), action


def test_the_workflow_tests_linux_and_macos_on_every_python_that_may_install_this():
    (job,) = yaml.safe_load(WORKFLOW)["jobs"].values()
    matrix = job["strategy"]["matrix"]
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    allowed = SpecifierSet(project["requires-python"])
    released = [f"3.{minor}" for minor in range(11, 15)]
    assert matrix["python"] == [each for each in released if each in allowed]
