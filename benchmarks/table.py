"""One table of all benchmarks from benchmarks/results/*.json: the end of `make bench`.

It is written to benchmarks/results/table.md and into the block of benchmarks/README.md.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from common.files import JsonObject, read_json, write_text

HERE = Path(__file__).resolve().parent
README = HERE / "README.md"
BLOCK = re.compile(r"(<!-- benchmarks -->\n).*?(<!-- end -->)", re.DOTALL)
OTHERS = ("growth", "halves")  # whose tables are in docs/scale.md
HEAD = "| benchmark | case | ours (s) | compared with | its (s) | ratio |"
LEGEND = (
    "Ratio: our time (or memory) over that of what it is compared with; below 1 ours is faster "
    "or smaller. The time of the matrix products alone is a lower bound."
)


def seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def ratio_of(row: JsonObject) -> str:
    """The ratio, with a word where it is above 1."""
    if row["ratio"] is None:
        return ""
    if row["ratio"] <= 1:
        return f"{row['ratio']:.2f}"
    is_bound = "products alone" in (row["other"] or "")
    return f"{row['ratio']:.2f} ({'its lower bound' if is_bound else 'ours is slower'})"


def machine_of(record: JsonObject) -> str:
    """The machine in a few words; older files describe it as one text."""
    machine = record["machine"]
    if isinstance(machine, str):
        return machine
    threads = f", {machine['threads']} threads" if "threads" in machine else ""
    library = f"torch {machine['torch']}" if "torch" in machine else f"numpy {machine['numpy']}"
    return f"{machine['cores']} cores{threads}, {library}"


def line(name: str, row: JsonObject) -> str:
    """One comparison as a line of the table."""
    memory = "" if row["peak_mb"] is None else f"peak {row['peak_mb']:.0f} MiB"
    cells = (
        name,
        row["case"],
        seconds(row["ours_seconds"]),
        row["other"] or memory,
        seconds(row["other_seconds"]),
        ratio_of(row),
    )
    return f"| {' | '.join(cells)} |"


def table(folder: Path = HERE / "results") -> str:
    """The Markdown table, one line per comparison."""
    lines = [HEAD, "|---" * 6 + "|"]
    machines: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*.json")):
        if path.stem in OTHERS:
            continue
        record = read_json(path)
        machines.setdefault(machine_of(record), []).append(path.stem)
        lines += [line(path.stem, row) for row in record["rows"]]
    where = "; ".join(f"{', '.join(names)}: {machine}" for machine, names in machines.items())
    measured = f"Each file was measured in one run on one machine ({where}); made by `make bench`."
    return "\n".join([*lines, "", f"{LEGEND} {measured}", ""])


def main(readme: Path = README) -> None:
    """Writes the table and prints it."""
    text = table()
    write_text(HERE / "results" / "table.md", text)
    page = readme.read_text(encoding="utf-8")
    write_text(readme, BLOCK.sub(lambda block: block[1] + text + block[2], page))
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
