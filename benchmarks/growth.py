"""How the processor seconds and the memory of each system grow at 1, 2 and 4 times its data.

    python benchmarks/growth.py         writes results/growth.json, docs/growth.png, docs/scale.md

Every point is a training on built-in data in a process of its own on one thread, and nothing but
the amount of data differs between the points of a system. Processor seconds (user and system) are
counted, not those of a clock: they hardly change where the machine does other work too. The imports
are not counted; figures and the report, which cost the same whatever the data, are left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import math
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.measure import RESULTS, machine
from common.cli import parse
from common.files import JsonObject, read_json, write_json, write_text
from common.machine import ROOT, git_state, peak_mb
from common.results import Metric, Results, Row
from common.run import Run

PAGE = ROOT / "docs" / "scale.md"
BLOCK = re.compile(r"(<!-- growth -->\n).*?(<!-- end -->)", re.DOTALL)
HEAD = "| system | data at 1x | s at 1x | 2x | 4x | doublings | MiB at 1x | 2x | 4x |"
TIMES = (1, 2, 4)
ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "TF_NUM_INTRAOP_THREADS",
        "TF_NUM_INTEROP_THREADS",
    ),
    "1",
)


@dataclasses.dataclass(frozen=True)
class Case:
    """A system: the module with its main and options, and the option that sets its data."""

    system: str
    module: str
    option: str
    amount: int  # at 1x
    unit: str
    options: str  # {base}: assignment 3's run at 1x; {flow}: a file with the data of 4x
    config: str = "Config"


FACES = (
    "--preset smoke --source synthetic --seeds 1 --vq-epochs 1 --units 50 --field-maps 2 "
    "--picture-maps 1 --patches 4 --mlp-copies-epochs 1 --sweep-units 40 --sweep-patches 2"
)
PRICES = "--preset smoke --source simulated --seeds 1 --epochs 1 --assigned-epochs 2"
FEW = "--relatives --passes --shares 0.5 --sequence 0"
CASES = (
    Case(
        *("assignment 1", "assignment1.train", "--synthetic-faces", 500, "faces"),
        FACES,
    ),
    Case(*("assignment 2", "assignment2.train", "--steps", 2000, "hours"), PRICES),
    Case(*("assignment 3", "assignment3.train", "--steps", 2000, "hours"), PRICES),
    Case(
        *("assignment 4", "assignment4.train", "--steps", 700, "days"),
        f"{PRICES} {FEW} --base {{base}}",
    ),
    Case(
        *("assignment 5", "assignment5.train", "--synthetic-images", 200, "images"),
        "--preset smoke --source synthetic",
    ),
    Case(
        *("flow solver", "final_project.simulate", "--trajectories", 6, "trajectories"),
        "--preset smoke --flow lock_exchange --workers 1",
        "SimulateConfig",
    ),
    Case(
        *("final project", "final_project.train", "--trajectories", 6, "trajectories"),
        "--preset smoke --flow lock_exchange --data {flow}",
    ),
)


@dataclasses.dataclass(frozen=True)
class Point:
    """What a training on `times` the data cost: seconds of the processor, and memory."""

    system: str
    times: int
    data: str
    seconds: float
    peak_mb: float


# ------------------------------------------------------------------------------------ a point


def processor_seconds() -> float:
    """User and system seconds of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def finish_without_figures(
    run: Run,
    rows: Iterable[Row],
    info: Mapping[str, Metric],
    draw: Callable[[Path], None] | None = None,
    report: Path | None = None,
) -> Results:
    """Run.finish without the figures and the report."""
    return FINISH(run, rows, info)


FINISH = Run.finish


def measure(case: Case, times: int, out: Path, options: Sequence[str]) -> Point:
    """Trains in this process, which has done nothing before."""
    module = importlib.import_module(case.module)
    amount = case.amount * times
    words = [*options, case.option, str(amount), "--out", str(out)]
    config = parse(getattr(module, case.config), words)
    Run.finish = finish_without_figures  # type: ignore[method-assign,assignment]
    start = processor_seconds()
    module.main(config)
    seconds = round(processor_seconds() - start, 2)
    return Point(case.system, times, f"{amount:,} {case.unit}", seconds, peak_mb())


def out_of(case: Case, times: int, folder: Path) -> Path:
    """Where a point's training writes."""
    ending = ".h5" if case.config == "SimulateConfig" else ""
    return folder / f"{case.system.replace(' ', '-')}-{times}{ending}"


def in_a_process(case: Case, times: int, folder: Path) -> Point:
    """One point, measured by a process of its own; one that the folder holds is not repeated."""
    out = out_of(case, times, folder)
    file = folder / f"{out.stem}.json"
    if not file.exists():
        command = [sys.executable, __file__, "--only", case.system, "--times", str(times)]
        subprocess.run(
            [*command, "--work", str(folder)],
            stdout=subprocess.DEVNULL,
            check=True,
            env=os.environ | ONE_THREAD,
        )
    return Point(**read_json(file))


def measure_into(folder: Path, system: str, times: int) -> None:
    """Measures a point in this process and leaves it in the folder."""
    cases = {case.system: case for case in CASES}
    base = out_of(cases["assignment 3"], TIMES[0], folder)
    flow = out_of(cases["flow solver"], TIMES[-1], folder)
    case = cases[system]
    out = out_of(case, times, folder)
    words = [word.format(base=base, flow=flow) for word in case.options.split()]
    point = measure(case, times, out, words)
    write_json(folder / f"{out.stem}.json", dataclasses.asdict(point))


# ---------------------------------------------------------------------------- table and figure


def doublings(seconds: Sequence[float]) -> float:
    """What the second doubling of the data adds over what the first one adds.

    2 where the cost is linear, whatever part of it is there without data; 4 where it grows as the
    square.
    """
    one, two, four = seconds
    return (four - two) / (two - one)


def systems(rows: Sequence[JsonObject]) -> dict[str, list[Point]]:
    """The points of growth.json by their system, the smallest first."""
    found: dict[str, list[Point]] = {}
    for row in rows:
        found.setdefault(row["system"], []).append(Point(**row))
    return {name: sorted(points, key=lambda each: each.times) for name, points in found.items()}


def table(record: JsonObject) -> str:
    """The Markdown table of growth.json, one line per system."""
    lines = [HEAD, "|---" * 9 + "|"]
    for name, points in systems(record["rows"]).items():
        seconds = [each.seconds for each in points]
        cells = [name, points[0].data]
        cells += [f"{each:.1f}" for each in seconds]
        cells.append(f"{doublings(seconds):.1f}")
        cells += [f"{each.peak_mb:.0f}" for each in points]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def draw(path: Path, record: JsonObject) -> None:
    """Seconds and memory of every system over those at 1x, against the amount of data."""
    from common.figures import MARKERS, WIDTH, colours, figure, legend_below

    about = {"source": "built-in", "preset": "smoke", "commit": record["commit"]}
    about["data"] = {"generator": "benchmarks/growth.py"}
    found = systems(record["rows"])
    colour = colours(found)
    with figure(path, about, (WIDTH, 3.2), columns=2) as (picture, panels):
        for axes, of, title in zip(
            panels, ("seconds", "peak_mb"), ("processor seconds", "peak memory"), strict=True
        ):
            axes.plot(TIMES, TIMES, "--", color="#666666", label="linear")
            for number, (name, points) in enumerate(found.items()):
                values = [getattr(each, of) / getattr(points[0], of) for each in points]
                marker = MARKERS[number % len(MARKERS)]
                axes.plot(TIMES, values, marker=marker, color=colour[name], label=name)
            axes.set_xscale("log", base=2)
            axes.set_yscale("log", base=2)
            axes.set_xticks(TIMES, [f"{each}x" for each in TIMES])
            highest = max(4, *(value for line in axes.lines for value in line.get_ydata()))
            ticks = [2**power for power in range(math.ceil(math.log2(highest)) + 1)]
            axes.set_yticks(ticks, [f"{each}x" for each in ticks])
            axes.set_xlabel("data")
            axes.set_title(f"{title}, over those at 1x")
        legend_below(picture, panels[:1], columns=4)


def write_page(record: JsonObject, page: Path = PAGE) -> None:
    """Puts the table into the page about scale."""
    text = page.read_text(encoding="utf-8")
    write_text(page, BLOCK.sub(lambda block: block[1] + table(record) + block[2], text))


def main() -> None:
    """Measures every point, and writes growth.json, the figure and the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, help="folder that keeps finished points and runs")
    parser.add_argument("--only", choices=[case.system for case in CASES], help=argparse.SUPPRESS)
    parser.add_argument("--times", type=int, choices=TIMES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        measure_into(options.work, options.only, options.times)
        return

    points = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for case in CASES:
            for times in TIMES:
                points.append(in_a_process(case, times, folder.resolve()))
                print(json.dumps(dataclasses.asdict(points[-1])), flush=True)
    record = {
        "machine": machine(),
        "commit": git_state()["commit"],
        "rows": [dataclasses.asdict(point) for point in points],
    }
    write_json(RESULTS / "growth.json", record)
    draw(ROOT / "docs" / "growth.png", record)
    write_page(record)


if __name__ == "__main__":
    main()
