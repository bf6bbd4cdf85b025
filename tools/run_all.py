"""Trains the systems on their built-in data, one after another: `make run`.

python -m tools.run_all 1 2 6        # these systems (6: the final project); none: all
python -m tools.run_all --again      # nothing is kept or continued

What an earlier call has finished with the same code is kept, what it has not is continued. A system
that fails is told and the others go on; the exit code is 1 then.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from common.cli import InputError, Interrupted, Preset, entry, read_options
from common.files import JsonObject, read_json
from common.machine import ROOT, git_state
from common.run import finished_runs, read_record
from tools.readme import as_words, value
from tools.samples import SYSTEMS, Scored, System

COLUMNS = ("system", "test score", "result", "baseline", "minutes", "report")


@dataclass(frozen=True)
class Config:
    """Trains the systems on built-in data; a call that was interrupted goes on when repeated."""

    systems: Annotated[tuple[int, ...], tyro.conf.Positional] = tuple(SYSTEMS)
    """numbers of the systems; 6 is the final project"""
    preset: Preset = "default"
    """what each train.py is called with"""
    again: bool = False
    """begin anew, also where a run is finished or can be continued"""

    def check(self) -> None:
        """Raises InputError for a number that is no system's."""
        if unknown := sorted(set(self.systems) - set(SYSTEMS)):
            raise InputError(f"system {unknown[0]}: allowed are {min(SYSTEMS)} to {max(SYSTEMS)}")


# ---------------------------------------------------------------------------- what there is to do


@dataclass(frozen=True)
class Plan:
    """What becomes of a system: the option of its training, None where its run is kept, and why."""

    option: str | None
    why: str


def plan_of(system: System, preset: Preset, again: bool = False) -> Plan:
    """What the run folder says that there is to do.

    Raises InputError where it holds the run of another command.
    """
    lasts = {"smoke": "a minute", "default": f"{system.minutes:.0f} minutes", "full": "hours"}
    folder = ROOT / system.folder(preset)
    if again or not (folder / "run.json").exists():
        return Plan("--overwrite", f"about {lasts[preset]}")
    record = read_record(folder)
    if record.get("command") != system.command(preset):
        raise InputError(
            f"{system.folder(preset)} holds the run of another command, "
            f"{record.get('command')}; keep it under another name, or replace it with --again"
        )

    # numbers of two codes, or on two bases, would belong to neither
    if changed := code_changed(record, git_state()):
        return Plan("--overwrite", f"anew: {changed}")
    if system.after and has_newer_run(system.after, record):
        return Plan("--overwrite", f"anew: {system.after} has a newer run")
    if record.get("status") == "finished" and (folder / "report.pdf").exists():
        return Plan(None, f"finished on {record['started'][:10]} by the same code: kept")
    return Plan("--resume", f"goes on: the earlier run is {record.get('status')}")


def code_changed(record: JsonObject, now: JsonObject) -> str:
    """Why the present code may not be that of a run; empty where it is, or outside a checkout."""
    commits = {record.get("commit"), *record.get("resumed_from_commits", [])}
    if commits != {now["commit"]}:
        return "the code has changed"
    if record.get("dirty") or now["dirty"]:
        return "with uncommitted changes the code may be another"
    return ""


def has_newer_run(system: str, record: JsonObject) -> bool:
    """Whether the newest run of a system, which others begin with, began after a run did."""
    runs = finished_runs(ROOT / system / "results")
    return bool(runs) and runs[-1].record["started"] > record["started"]


def train(system: System, preset: Preset, option: str) -> None:
    """Trains a system in a process of its own, and waits for it also after Ctrl-C and SIGTERM.

    Raises Interrupted, or InputError where the training fails.
    """
    words = [*system.command(preset).split()[1:], option]
    process = subprocess.Popen([sys.executable, *words], cwd=ROOT)
    received = []

    def stop(number: int, _: object) -> None:
        received.append(number)
        if number == signal.SIGTERM:  # (a terminal sends Ctrl-C to all of its processes)
            process.terminate()

    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = {number: signal.signal(number, stop) for number in numbers}
    try:
        code = process.wait()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if received or code in (130, *(-number for number in numbers)):
        raise Interrupted(f"{system.name}; the same command goes on from here")
    if code:
        raise InputError(f"its training ended with exit code {code}, as the lines above say")


# ---------------------------------------------------------------------------------- the table


def line_of(system: System, preset: Preset) -> tuple[str, ...]:
    """One line of the table, from the run's files.

    Raises InputError where metrics.json lacks a row, or has it twice.
    """
    folder = system.folder(preset)
    record = read_record(ROOT / folder)
    metrics_info = read_json(ROOT / folder / "metrics.json")["metrics_info"]
    arrow = {"higher": "↑", "lower": "↓"}[metrics_info[system.row["metric"]]["better"]]
    ours = number(system, system.ours, folder, record["config"])
    baseline = number(system, system.baseline, folder, record["config"])
    minutes = f"{record['seconds'] / 60:.1f}{'+' if record['resumed_from_commits'] else ''}"
    report = (folder / "report.pdf").as_posix()
    return system.name, f"{system.score} {arrow}", ours, baseline, minutes, report


def number(system: System, scored: Scored, folder: Path, options: JsonObject) -> str:
    """A model's value on the test part behind its label. Raises InputError as `line_of`."""
    row = {**system.row, "model": scored.model, "variant": scored.variant}
    row = {key: text.format(**options) for key, text in row.items()}
    run = {"run": folder.as_posix(), "protocol": "held-out", "split": "test"}
    try:
        return f"{scored.label} {value(as_words(run | row))}"
    except ValueError:  # none, or several
        words = ", ".join(f"{key} {text}" for key, text in row.items() if key != "digits")
        raise InputError(f"{folder}/metrics.json has not one test row of {words}") from None


def table(lines: Collection[Sequence[str]]) -> str:
    """The lines under their titles, in columns."""
    widths = [max(map(len, column)) for column in zip(COLUMNS, *lines, strict=True)]
    text = "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in (COLUMNS, *lines))
    if any(line[COLUMNS.index("minutes")].endswith("+") for line in lines):
        text += "\n+: since the run was last continued"
    return text


def main(config: Config) -> None:
    """Trains the systems, tells of each when it is done and of all at the end.

    Raises SystemExit with code 1 where one has failed, Interrupted after Ctrl-C.
    """
    numbers = sorted(set(config.systems))  # 4 begins with a run of 3
    lines: list[tuple[str, ...]] = []
    for count, key in enumerate(numbers, 1):
        system = SYSTEMS[key]
        head = f"[{count}/{len(numbers)}] {system.name}"
        try:
            plan = plan_of(system, config.preset, config.again)
            print(f"\n{head}: {system.about} ({plan.why})", flush=True)
            if plan.option is not None:
                train(system, config.preset, plan.option)
            lines.append(line_of(system, config.preset))
            name, score, ours, baseline, minutes, report = lines[-1]
            print(f"{name}: {score} {ours}, {baseline}; {minutes} minutes; {report}", flush=True)
        except InputError as error:
            print(f"{head} failed: {error}", file=sys.stderr, flush=True)
            lines.append((system.name, *("-" for _ in COLUMNS[2:]), "failed"))
    print(f"\n{table(lines)}")
    if any(line[-1] == "failed" for line in lines):
        raise SystemExit(1)


if __name__ == "__main__":
    entry(main, read_options(Config))
