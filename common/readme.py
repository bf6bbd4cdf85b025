"""Rewrites the tables in README files from metrics.json: `python -m common.readme` (a test fails when they are stale).

A table stands between `<!-- table run=... protocol=... split=... metric=... [top=N] [digits=N] -->` and `<!-- end -->`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from common.run import write_text

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(<!-- table (?P<words>[^>]*?) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(words: str) -> str:
    """Markdown rows for `run=DIR protocol=... split=... metric=A[,B...] [top=N] [digits=3]`, pooled over series and steps, best
    by the first metric first; - where the run is not there yet."""
    wanted = {"series": None, "horizon": None} | dict(word.split("=", 1) for word in words.split())
    folder, top, digits = ROOT / wanted.pop("run"), int(wanted.pop("top", 99)), int(wanted.pop("digits", 3))
    names = wanted.pop("metric").split(",")
    if not (folder / "metrics.json").exists():
        return "-\n"
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    found: dict[tuple[str, str], dict[str, dict]] = {}
    for row in metrics["rows"]:
        if all(row[key] == value for key, value in wanted.items()) and row["metric"] in names:
            found.setdefault((row["model"], row["variant"]), {})[row["metric"]] = row

    def cell(row: dict | None) -> str:
        if row is None:
            return "-"
        return f"{row['value']:.{digits}f}" + ("" if row["std"] is None else f" ± {row['std']:.{digits}f}")

    titles = " | ".join(name.replace("_", " ") for name in names)
    lines = [f"| model | variant | {titles} | seeds | trained weights | seconds |", "|---" * (5 + len(names)) + "|"]
    sign = -1 if metrics["metrics_info"][names[0]]["better"] == "higher" else 1
    for (model, variant), cells in sorted(found.items(), key=lambda item: sign * item[1][names[0]]["value"])[:top]:
        first = cells[names[0]]
        weights, seconds = (
            (f"{first['params']:,}" if first["params"] is not None else ""),
            ("" if first["seconds"] is None else first["seconds"]),
        )
        lines.append(
            f"| {model} | {variant} | {' | '.join(cell(cells.get(name)) for name in names)} | {first['n_seeds']} | {weights} | {seconds} |"
        )
    info = metrics["metrics_info"]
    meaning = (
        [f"{name.replace('_', ' ')}: {info[name]['reference']}" for name in names] if len(names) > 1 else [info[names[0]]["reference"]]
    )
    return "\n".join([*lines, "", f"{'; '.join(meaning)}. Made by `{metrics['rows'][0]['command']}`.", ""])


def fresh(text: str) -> str:
    """The text of a README with every table made again."""
    return BLOCK.sub(lambda found: found[1] + table(found["words"]) + found[3], text)


if __name__ == "__main__":
    for file in [ROOT / "README.md", *sorted(ROOT.glob("*/README.md"))]:
        write_text(file, fresh(file.read_text(encoding="utf-8")))
