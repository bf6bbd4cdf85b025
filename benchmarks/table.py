"""One table of all benchmarks, from benchmarks/results/*.json: table.md there, and the block in README.md (`make bench` ends with it)."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from common.run import write_text

HERE = Path(__file__).resolve().parent
BLOCK = re.compile(r"(<!-- benchmarks -->\n).*?(<!-- end -->)", re.DOTALL)


def seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def machine(record: dict[str, Any]) -> str:
    """The machine in a few words: benchmarks name it as a text or as counts and versions."""
    told = record["machine"]
    return (
        told
        if isinstance(told, str)
        else f"{told['cores']} cores, {told['threads']} threads, torch {told['torch']}"
    )


def table(folder: Path = HERE / "results") -> str:
    """Markdown: a line a comparison; ratios above 1 say that ours is the slower (or the larger) one."""
    lines = [
        "| benchmark | case | ours (s) | beside it | its (s) | ratio |",
        "|---|---|---|---|---|---|",
    ]
    machines: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        machines.setdefault(machine(record), []).append(path.stem)
        for row in record["rows"]:
            floor = (
                " (its floor)" if "products alone" in (row["other"] or "") else " (ours is behind)"
            )
            ratio = (
                ""
                if row["ratio"] is None
                else f"{row['ratio']:.2f}" + (floor if row["ratio"] > 1 else "")
            )
            other = row["other"] or (
                "" if row["peak_mb"] is None else f"peak {row['peak_mb']:.0f} MiB"
            )
            cells = (
                path.stem,
                row["case"],
                seconds(row["ours_seconds"]),
                other,
                seconds(row["other_seconds"]),
                ratio,
            )
            lines.append("| " + " | ".join(cells) + " |")
    where = "; ".join(f"{', '.join(names)}: {told}" for told, names in machines.items())
    told = "Ratio: ours over what stands beside it, below 1 ours is faster or smaller; the matrix products alone are a floor that no code passes."
    return (
        "\n".join(lines)
        + f"\n\n{told} Each file was measured in one run on one machine ({where}); made by `make bench`.\n"
    )


def main(root: Path = HERE.parent) -> None:
    text = table()
    write_text(HERE / "results" / "table.md", text)
    readme = (root / "README.md").read_text(encoding="utf-8")
    write_text(root / "README.md", BLOCK.sub(lambda found: found[1] + text + found[2], readme))
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
