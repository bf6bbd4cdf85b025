"""The page about scale: its tables are fresh, and its Slurm scripts can be submitted."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest

from benchmarks import growth
from common.cli import parse
from common.files import read_json
from common.shard import Shard
from tests.conftest import ROOT
from tests.house.test_readme import config_of

TEXT = growth.PAGE.read_text(encoding="utf-8")
SCRIPTS = re.findall(r"^```bash\n(#!.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def tasks(script: str) -> list[dict[str, str]]:
    """What Slurm sets for each task of a script's array; one task without an array."""
    cores = re.findall(r"^#SBATCH --cpus-per-task=(\d+)$", script, re.MULTILINE)
    array = re.findall(r"^#SBATCH --array=(\d+)-(\d+)$", script, re.MULTILINE) or [(0, 0)]
    ((first, last),) = array
    return [
        {"SLURM_ARRAY_TASK_ID": str(number), "SLURM_CPUS_PER_TASK": cores[0]}
        for number in range(int(first), int(last) + 1)
    ]


def commands(script: str, environment: dict[str, str]) -> list[list[str]]:
    """The words that srun gets, as bash expands them."""
    said = "srun() { printf '%s\\n' \"$*\"; }\n" + script
    done = subprocess.run(
        ["bash", "-eu", "-c", said], env=environment, capture_output=True, text=True, check=True
    )
    return [shlex.split(line) for line in done.stdout.splitlines()]


def test_there_are_scripts_for_flows_for_seeds_and_for_what_follows():
    assert len(SCRIPTS) == 3


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_tasks_of_an_array_are_all_shards_of_a_command_that_can_be_given(script):
    shards = []
    for task in tasks(script):
        for python, path, *words in commands(script, task):
            assert python == "python"
            config = config_of(path.removesuffix(".py").replace("/", "."))
            options = parse(config, words)
            shards += [Shard.of(options.shard)] if "--shard" in words else []
            if "--merge" not in words:
                assert options.resume  # a requeued job goes on
    assert shards == [Shard(number, len(shards)) for number in range(len(shards))]


def test_an_array_of_seeds_has_a_task_for_every_network():
    (script,) = (each for each in SCRIPTS if "--array" in each and "assignment2" in each)
    every = tasks(script)
    ((_, _, *words),) = commands(script, every[0])
    assert len(every) == int(words[words.index("--seeds") + 1]) + 1


@pytest.mark.parametrize("name", ["growth", "halves"])
def test_the_tables_are_fresh(name):
    module = __import__(f"benchmarks.{name}", fromlist=["table"])
    block = module.BLOCK.search(TEXT)
    record = read_json(ROOT / "benchmarks" / "results" / f"{name}.json")
    assert block[0] == block[1] + module.table(record) + block[2], f"run benchmarks/{name}.py"


@pytest.mark.parametrize(
    ("cost", "expected"),
    [(lambda n: 3 + 5 * n, 2), (lambda n: 7 + 2 * n**2, 4), (lambda n: n**0.5, 2**0.5)],
)
def test_doublings_show_the_power_whatever_does_not_grow(cost, expected):
    seconds = [cost(times) for times in growth.TIMES]
    assert growth.doublings(seconds) == pytest.approx(expected)
