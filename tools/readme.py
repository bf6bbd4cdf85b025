"""Rewrite the tables and values in README files from metrics.json: `python -m tools.readme`.

A test fails when they are stale. Three kinds of block, each closed by `<!-- end -->`; in the
words an underscore stands for a space:

* `<!-- table run=... protocol=... split=... metric=A,B -->` a table with one column per metric.
  rows=MODEL/VARIANT|MODEL/VARIANT=LABEL   these rows in this order (else all, best first)
  across=horizon unit=steps                one column per horizon instead, headed "5 steps"
  digits=N top=N without=TEXT              decimals; only the first N rows; no variant with TEXT
  hide=seconds,trained_weights,seeds       leaves these columns out
  spread=TEXT                              what the ± in the table is taken over
* `<!-- value run=... model=... metric=... -->` one value in running text.
* `<!-- welch run=... model=A/B metric=... -->` p of Welch's test between two models over seeds.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from common.files import write_text

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(
    r"(<!-- (?P<kind>table|value|welch) (?P<words>[^>]*?) -->\n?).*?(<!-- end -->)", re.DOTALL
)
# Words that choose no rows.
PLAIN = {"metric", "top", "digits", "across", "without", "rows", "unit", "spread", "hide"}
TITLES = {
    "crps_ratio": "CRPS / random walk",
    "rmsse": "RMSE / no change",
    "coverage_80": "in 80 %",
    "coverage_95": "in 95 %",
    "crps_against": "CRPS ratio",
    "p_crps_against": "p (CRPS)",
    "rmse_against": "RMSE ratio",
    "p_rmse_against": "p (RMSE)",
    "coin_crps": "CRPS / before",
    "kid": "KID",
    "mse": "MSE",
    "relative_l2_squared": "squared relative L2",
    "vrmse": "VRMSE",
    "time_to_correlation": "time to 0.8",
}


def chosen(words: str) -> tuple[dict[str, str], dict[str, Any], list[dict[str, Any]]]:
    """The words by name, the run's metrics_info, and the rows of metrics.json that they choose.

    Rows are those pooled over series and horizons unless the words name one.
    """
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


def number(row: dict[str, Any], digits: str) -> str:
    """A row's value: a rollout that blew up as a power of ten, a tiny p-value as a bound."""
    value = row["value"]
    if abs(value) >= 1e5:
        return f"{value:.1e}"
    if row["metric"].startswith("p_") and value < 1e-4:
        return "< 0.0001"
    return f"{value:.{digits}f}"


def cell(row: dict[str, Any] | None, digits: str) -> str:
    """A row's value, and its deviation where it has one."""
    if row is None:
        return "-"
    if row["std"] is None or abs(row["value"]) >= 1e5:
        return number(row, digits)
    return f"{number(row, digits)} ± {row['std']:.{digits}f}"


def value(words: str) -> str:
    """The one value that the words choose. Raises ValueError where they choose none, or several."""
    options, _, (row,) = chosen(words)
    return number(row, options["digits"])


def welch(words: str) -> str:
    """The p-value of Welch's test between two models, from means, deviations and seeds."""
    from scipy.stats import ttest_ind_from_stats  # heavy, and only few blocks need it

    plain = dict(word.split("=", 1) for word in words.split())
    samples: list[float] = []
    for model in plain.pop("model").split("/"):
        kept = " ".join(f"{name}={text}" for name, text in plain.items())
        _, _, (row,) = chosen(f"{kept} model={model}")
        samples += [row["value"], row["std"], row["n_seeds"]]
    p = ttest_ind_from_stats(*samples, equal_var=False).pvalue
    return f"{p:.3f}" if p < 0.01 else f"{p:.2f}"


def labels(words: str) -> dict[tuple[str, str], str]:
    """(model, variant) of each row that `rows=` names, in its order, with its label."""
    named = {}
    for entry in words.split("|"):
        key, _, label = entry.partition("=")
        model, _, variant = key.replace("_", " ").partition("/")
        named[model, variant] = label.replace("_", " ") or f"{model}, {variant}"
    return named


def table(words: str) -> str:
    """A Markdown table of the rows that the words choose; "-" where the run does not exist yet.

    Raises KeyError where `rows=` names a row that the run does not have.
    """
    options, info, rows = chosen(words)
    if not rows:
        return "-\n"
    names, across, digits = options["metric"].split(","), options["across"], options["digits"]
    found: dict[tuple[str, str], dict[Any, dict]] = {}
    for row in rows:
        found.setdefault((row["model"], row["variant"]), {})[row[across]] = row

    if "rows" in options:
        named = labels(options["rows"])
        found = {key: found[key] for key in named}

    # Columns: one per metric, or one per horizon of one metric.
    if across == "metric":
        columns: list[Any] = names
        titles = [TITLES.get(name, name.replace("_", " ")) for name in names]
    else:
        columns = sorted({column for cells in found.values() for column in cells})
        unit = options.get("unit", "").replace("_", " ")
        titles = [f"{column} {unit}".strip() for column in columns]

    # Rows: those that are named, or all of them with the best first.
    if "rows" in options:
        chosen_rows = [([label], found[key]) for key, label in named.items()]
        heads = ["model"]
    else:
        sign = -1 if info[names[0]]["better"] == "higher" else 1
        best = sorted(found.items(), key=lambda item: sign * item[1][columns[0]]["value"])
        chosen_rows = [(list(key), cells) for key, cells in best[: int(options["top"])]]
        heads = ["model", "variant"]

    body = []
    for label, cells in chosen_rows:
        first = next(iter(cells.values()))
        weights = "" if first["params"] is None else f"{first['params']:,}"
        seconds = "" if first["seconds"] is None else f"{first['seconds']:.3g}"
        if first["seconds"] is not None and first["seconds"] >= 100:
            seconds = f"{first['seconds']:.0f}"
        values = [cell(cells.get(column), digits) for column in columns]
        body.append([*label, *values, str(first["n_seeds"]), weights, seconds])
    head = [*heads, *titles, "seeds", "trained weights", "seconds"]
    hidden = options.get("hide", "").replace("_", " ").split(",")
    shown = [
        place
        for place, title in enumerate(head)
        if title not in hidden and any(line[place] for line in body)
    ]
    body = [[line[place] for place in shown] for line in body]
    head = [head[place] for place in shown]
    lines = ["| " + " | ".join(line) + " |" for line in [head, *body]]
    lines.insert(1, "|---" * len(head) + "|")

    # What the metrics mean, what the deviation is taken over, and the command.
    meanings = [
        f"{title}: {info[name]['reference']}" if len(names) > 1 else info[name]["reference"]
        for title, name in zip(titles if across == "metric" else names, names, strict=True)
    ]
    note = "; ".join(meanings) + "."
    if any("±" in line for line in lines):
        note += (
            " ± is one standard deviation over "
            + options.get("spread", "seeds").replace("_", " ")
            + "."
        )
    return "\n".join([*lines, "", f"{note} Made by `{rows[0]['command']}`.", ""])


def fresh(text: str) -> str:
    """The text of a README with every table and value made again."""
    kinds = {"table": table, "value": value, "welch": welch}
    return BLOCK.sub(lambda found: found[1] + kinds[found["kind"]](found["words"]) + found[4], text)


if __name__ == "__main__":
    for file in [ROOT / "README.md", *sorted(ROOT.glob("*/README.md"))]:
        write_text(file, fresh(file.read_text(encoding="utf-8")))
