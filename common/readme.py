"""Rewrites the tables in README files from metrics.json: `python -m common.readme` (a test fails when they are stale).

A table stands between `<!-- table run=... protocol=... split=... metric=... [top=N] -->` and `<!-- end -->`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from common.run import write_text

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(<!-- table (?P<words>[^>]*?) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(words: str) -> str:
    """Markdown rows for `run=DIR protocol=... split=... metric=... [top=N]`, best first; - where the run is not there yet."""
    wanted = dict(word.split("=", 1) for word in words.split())
    folder, top = ROOT / wanted.pop("run"), int(wanted.pop("top", 99))
    if not (folder / "metrics.json").exists():
        return "-\n"
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    rows = [row for row in metrics["rows"] if all(row[key] == value for key, value in wanted.items())]
    sign = -1 if metrics["metrics_info"][wanted["metric"]]["better"] == "higher" else 1
    lines = [f"| model | variant | {wanted['metric'].replace('_', ' ')} | seeds | trained weights | seconds |", "|---|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: sign * row["value"])[:top]:
        deviation = "" if row["std"] is None else f" ± {row['std']:.3f}"
        weights = "" if row["params"] is None else f"{row['params']:,}"
        lines.append(
            f"| {row['model']} | {row['variant']} | {row['value']:.3f}{deviation} | {row['n_seeds']} | {weights} | {row['seconds']} |"
        )
    reference = metrics["metrics_info"][wanted["metric"]]["reference"]
    return "\n".join([*lines, "", f"{reference}. Made by `{metrics['rows'][0]['command']}`.", ""])


def fresh(text: str) -> str:
    """The text of a README with every table made again."""
    return BLOCK.sub(lambda found: found[1] + table(found["words"]) + found[3], text)


if __name__ == "__main__":
    for file in [ROOT / "README.md", *sorted(ROOT.glob("*/README.md"))]:
        write_text(file, fresh(file.read_text(encoding="utf-8")))
