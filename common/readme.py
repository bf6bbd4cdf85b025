"""Rewrites the figures in README files from metrics.json: `python -m common.readme` (a test fails when they are stale).

A table stands between `<!-- table run=... protocol=... split=... metric=... [top=N] [digits=N] [across=horizon] -->` and `<!-- end -->`;
a single figure in running text between `<!-- value run=... model=... metric=... -->` and `<!-- end -->`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from common.run import write_text

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(
    r"(<!-- (?P<kind>table|value) (?P<words>[^>]*?) -->\n?).*?(<!-- end -->)", re.DOTALL
)
PLAIN = {"metric", "top", "digits", "across", "without"}  # words that choose no rows


def chosen(words: str) -> tuple[dict[str, str], dict[str, Any], list[dict[str, Any]]]:
    """The words by name, the run's metrics_info, and the rows of metrics.json that the words choose; pooled over series and steps
    unless they name one. In values _ stands for a space."""
    options = {"top": "99", "digits": "3", "across": "metric", "without": "\0"} | dict(
        word.split("=", 1) for word in words.split()
    )
    file = ROOT / options.pop("run") / "metrics.json"
    metrics = (
        json.loads(file.read_text(encoding="utf-8"))
        if file.exists()
        else {"metrics_info": {}, "rows": []}
    )
    fixed = {"series": None, "horizon": None} | {
        name: value.replace("_", " ") for name, value in options.items() if name not in PLAIN
    }
    fixed.pop(options["across"], None)
    rows = [
        row
        for row in metrics["rows"]
        if all(str(row[name]) == str(value) for name, value in fixed.items())
        and row["metric"] in options["metric"].split(",")
        and row[options["across"]] is not None
        and options["without"].replace("_", " ") not in row["variant"]
    ]
    return options, metrics["metrics_info"], rows


def cell(row: dict[str, Any] | None, digits: str) -> str:
    """A row's value, and its deviation where it has one."""
    if row is None:
        return "-"
    if abs(row["value"]) >= 1e5:  # a rollout that blew up
        return f"{row['value']:.1e}"
    return f"{row['value']:.{digits}f}" + (
        "" if row["std"] is None else f" ± {row['std']:.{digits}f}"
    )


def value(words: str) -> str:
    """The one value that the words choose. Raises ValueError where they choose none, or several."""
    options, _, (row,) = chosen(words)
    return f"{row['value']:.{options['digits']}f}"


def table(words: str) -> str:
    """Markdown rows, best by the first metric first; - where the run is not there yet. `metric=A,B` gives each a column, `across=horizon` one metric a column a horizon;
    `without` leaves out variants with that text."""
    options, info, rows = chosen(words)
    if not rows:
        return "-\n"
    names, across, digits = options["metric"].split(","), options["across"], options["digits"]
    found: dict[tuple[str, str], dict[Any, dict]] = {}
    for row in rows:
        found.setdefault((row["model"], row["variant"]), {})[row[across]] = row
    columns = (
        names
        if across == "metric"
        else sorted({column for cells in found.values() for column in cells})
    )
    titles = " | ".join(
        (name if across == "metric" else f"{names[0]}, {across} {name}").replace("_", " ")
        for name in columns
    )
    lines = [
        f"| model | variant | {titles} | seeds | trained weights | seconds |",
        "|---" * (5 + len(columns)) + "|",
    ]
    sign = -1 if info[names[0]]["better"] == "higher" else 1
    for (model, variant), cells in sorted(
        found.items(), key=lambda item: sign * item[1][columns[0]]["value"]
    )[: int(options["top"])]:
        first = cells[columns[0]]
        weights = "" if first["params"] is None else f"{first['params']:,}"
        seconds = "" if first["seconds"] is None else first["seconds"]
        values = " | ".join(cell(cells.get(column), digits) for column in columns)
        lines.append(
            f"| {model} | {variant} | {values} | {first['n_seeds']} | {weights} | {seconds} |"
        )
    told = [
        f"{name.replace('_', ' ')}: " * (len(names) > 1) + info[name]["reference"] for name in names
    ]
    return "\n".join([*lines, "", f"{'; '.join(told)}. Made by `{rows[0]['command']}`.", ""])


def fresh(text: str) -> str:
    """The text of a README with every table and figure made again."""
    return BLOCK.sub(
        lambda found: (
            found[1] + (table if found["kind"] == "table" else value)(found["words"]) + found[4]
        ),
        text,
    )


if __name__ == "__main__":
    for file in [ROOT / "README.md", *sorted(ROOT.glob("*/README.md"))]:
        write_text(file, fresh(file.read_text(encoding="utf-8")))
