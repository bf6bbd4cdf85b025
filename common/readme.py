"""Rewrites the tables in README files from metrics.json: `python -m common.readme` (a test fails when they are stale).

A table stands between `<!-- table run=... protocol=... split=... metric=... [top=N] [digits=N] [across=horizon] -->` and `<!-- end -->`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from common.run import write_text

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(<!-- table (?P<words>[^>]*?) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(words: str) -> str:
    """Markdown rows for `run=DIR protocol=... split=... metric=A[,B...] [top=N] [digits=3] [without=TEXT]`, pooled over series and
    steps, best by the first metric first; - where the run is not there yet. `across=horizon` gives the one metric a column a
    horizon instead; `without` leaves out variants with that text. In values _ stands for a space."""
    wanted: dict[str, Any] = {"series": None, "horizon": None} | dict(word.split("=", 1) for word in words.split())
    folder, top, digits = ROOT / wanted.pop("run"), int(wanted.pop("top", 99)), int(wanted.pop("digits", 3))
    names, across, without = wanted.pop("metric").split(","), wanted.pop("across", "metric"), wanted.pop("without", "\0").replace("_", " ")
    wanted = {key: value and value.replace("_", " ") for key, value in wanted.items()}
    if not (folder / "metrics.json").exists():
        return "-\n"
    if across != "metric":
        wanted.pop(across)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    found: dict[tuple[str, str], dict[Any, dict]] = {}
    for row in metrics["rows"]:
        if (
            all(row[key] == value for key, value in wanted.items())
            and row["metric"] in names
            and row[across] is not None
            and without not in row["variant"]
        ):
            found.setdefault((row["model"], row["variant"]), {})[row[across]] = row
    columns = names if across == "metric" else sorted({column for cells in found.values() for column in cells})

    def cell(row: dict | None) -> str:
        if row is None:
            return "-"
        if abs(row["value"]) >= 1e5:  # a rollout that blew up
            return f"{row['value']:.1e}"
        return f"{row['value']:.{digits}f}" + ("" if row["std"] is None else f" ± {row['std']:.{digits}f}")

    titles = " | ".join((name if across == "metric" else f"{names[0]}, {across} {name}").replace("_", " ") for name in columns)
    lines = [f"| model | variant | {titles} | seeds | trained weights | seconds |", "|---" * (5 + len(columns)) + "|"]
    info = metrics["metrics_info"]
    sign = -1 if info[names[0]]["better"] == "higher" else 1
    for (model, variant), cells in sorted(found.items(), key=lambda item: sign * item[1][columns[0]]["value"])[:top]:
        first = cells[columns[0]]
        weights = "" if first["params"] is None else f"{first['params']:,}"
        seconds = "" if first["seconds"] is None else first["seconds"]
        values = " | ".join(cell(cells.get(column)) for column in columns)
        lines.append(f"| {model} | {variant} | {values} | {first['n_seeds']} | {weights} | {seconds} |")
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
