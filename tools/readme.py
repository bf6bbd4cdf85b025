"""Fills the tables and values of README files from metrics.json: `python -m tools.readme`.

A test fails when they are stale. Four kinds of block, each closed by `<!-- end -->`; in the
words an underscore stands for a space:

* `<!-- table run=... protocol=... split=... metric=A,B -->` a table with one column per metric.
  rows=MODEL/VARIANT|MODEL/VARIANT=LABEL   these rows in this order (else all, best first);
                                           or one row=... each, on lines of their own
  across=horizon unit=steps                one column per horizon instead, headed "5 steps"
  digits=N top=N without=TEXT              decimals; only the first N rows; no variant with TEXT
  hide=seconds,trained_weights,seeds       leaves these columns out
  spread=TEXT                              what the ± in the table is taken over
  note=short                               below the table only what the ± is taken over
* `<!-- results name=... -->` a table whose cells docs/tables.toml describes, from several runs.
* `<!-- value run=... model=... metric=... -->` one value in running text.
* `<!-- welch run=... model=A/B metric=... -->` p of Welch's test between two models over seeds.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.files import JsonObject, read_json, write_text
from common.machine import ROOT

BLOCK = re.compile(
    r"(<!-- (?P<kind>table|results|value|welch) (?P<words>[^>]*?) -->\n?).*?(<!-- end -->)",
    re.DOTALL,
)
TABLES = ROOT / "docs" / "tables.toml"
# words that choose no rows by a key of theirs
LAYOUT = {
    *("metric", "top", "digits", "across", "without"),
    *("rows", "unit", "spread", "hide", "note"),
}
TITLES = {
    "crps_ratio": "CRPS / random walk",
    "rmsse": "RMSE / no change",
    "coverage_80": "in 80 %",
    "coverage_95": "in 95 %",
    "crps_against": "CRPS ratio",
    "crps_against_se": "standard error over weeks",
    "crps_ratio_se": "standard error over weeks",
    "p_crps_against": "p (CRPS)",
    "p_crps_against_holm": "p after Holm",
    "rmse_against": "RMSE ratio",
    "p_rmse_against": "p (RMSE)",
    "coin_crps": "CRPS / before",
    "kid": "KID",
    "mse": "MSE",
    "relative_l2_squared": "squared relative L2",
    "vrmse": "VRMSE",
    "time_to_correlation": "time to 0.8",
}
LARGE, TINY_P = 1e5, 1e-4  # shown as a power of ten; shown as a bound
Cells = dict[object, JsonObject]  # the rows of one line of a table, by column


# --------------------------------------------------------------------------------- the rows


@dataclass(frozen=True)
class Choice:
    """The words of a block and the rows of metrics.json that they choose."""

    options: dict[str, str]
    metrics_info: JsonObject
    rows: list[JsonObject]

    @classmethod
    def of(cls, words: str) -> Choice:
        """Reads the run that the words name; no rows where it does not exist yet.

        Rows are those pooled over series and horizons unless the words name one.
        """
        options = {"top": "99", "digits": "3", "across": "metric", "without": "\0"}
        options |= options_of(words)
        file = ROOT / options.pop("run") / "metrics.json"
        if not file.exists():
            return cls(options, {}, [])
        metrics = read_json(file)

        # every other word is a key of a row with its value
        wanted: dict[str, str | None] = {"series": None, "horizon": None}
        for name, text in options.items():
            if name not in LAYOUT:
                wanted[name] = spaced(text)
        wanted.pop(options["across"], None)
        rows = [
            row
            for row in metrics["rows"]
            if all(str(row[name]) == str(text) for name, text in wanted.items())
            and row["metric"] in options["metric"].split(",")
            and row[options["across"]] is not None
            and spaced(options["without"]) not in row["variant"]
        ]
        return cls(options, metrics["metrics_info"], rows)

    @property
    def metrics(self) -> list[str]:
        return self.options["metric"].split(",")

    @property
    def row(self) -> JsonObject:
        """The only row. Raises ValueError where there are none, or several."""
        (row,) = self.rows
        return row

    def number(self, row: JsonObject) -> str:
        """A row's value: a rollout that blew up as a power of ten, a tiny p as a bound."""
        value = row["value"]
        if abs(value) >= LARGE:
            return f"{value:.1e}"
        if row["metric"].startswith("p_") and value < TINY_P:
            return f"< {TINY_P:.4f}"
        return f"{value:.{self.options['digits']}f}"

    def cell(self, row: JsonObject | None) -> str:
        """A row's value, and its deviation where it has one."""
        if row is None:
            return "-"
        if row["std"] is None or abs(row["value"]) >= LARGE:
            return self.number(row)
        return f"{self.number(row)} ± {row['std']:.{self.options['digits']}f}"


def options_of(words: str) -> dict[str, str]:
    """The words of a block by key; the row=... become one rows=..."""
    pairs = [word.split("=", 1) for word in words.split()]
    options = {key: text for key, text in pairs if key != "row"}
    if rows := [text for key, text in pairs if key == "row"]:
        options["rows"] = "|".join(rows)
    return options


def spaced(text: str) -> str:
    """A word of a block as it reads."""
    return text.replace("_", " ")


def value(words: str) -> str:
    """The one value that the words choose."""
    choice = Choice.of(words)
    return choice.number(choice.row)


def welch(words: str) -> str:
    """The p-value of Welch's test between two models, from means, deviations and seeds."""
    from scipy.stats import ttest_ind_from_stats  # heavy, and only few blocks need it

    options = options_of(words)
    models = options.pop("model").split("/")
    shared = " ".join(f"{name}={text}" for name, text in options.items())
    samples: list[float] = []
    for model in models:
        row = Choice.of(f"{shared} model={model}").row
        samples += [row["value"], row["std"], row["n_seeds"]]
    p = ttest_ind_from_stats(*samples, equal_var=False).pvalue
    return f"{p:.3f}" if p < 0.01 else f"{p:.2f}"


# -------------------------------------------------------------------------------- the table


def named_rows(words: str) -> dict[tuple[str, str], str]:
    """(model, variant) of each row that `rows=` names, in its order, with its label."""
    labels = {}
    for entry in words.split("|"):
        key, _, label = entry.partition("=")
        model, _, variant = spaced(key).partition("/")
        labels[model, variant] = spaced(label) or f"{model}, {variant}"
    return labels


def columns_of(choice: Choice, lines: dict[tuple[str, str], Cells]) -> dict[object, str]:
    """Titles by column: one per metric, or one per value of `across` of one metric."""
    across = choice.options["across"]
    if across == "metric":
        return {name: TITLES.get(name, spaced(name)) for name in choice.metrics}
    unit = spaced(choice.options.get("unit", ""))
    found = {column for cells in lines.values() for column in cells}
    values = sorted(found)  # type: ignore[type-var]
    return {column: f"{column} {unit}".strip() for column in values}


def ordered(
    choice: Choice, lines: dict[tuple[str, str], Cells], first: object
) -> list[tuple[list[str], Cells]]:
    """The lines that `rows=` names under their labels, or all with the best first.

    Raises KeyError where `rows=` names a row that the run does not have.
    """
    if "rows" in choice.options:
        labels = named_rows(choice.options["rows"])
        return [([label], lines[key]) for key, label in labels.items()]
    higher = choice.metrics_info[choice.metrics[0]]["better"] == "higher"
    best = sorted(lines, key=lambda key: lines[key][first]["value"], reverse=higher)
    return [(list(key), lines[key]) for key in best[: int(choice.options["top"])]]


def facts(row: JsonObject) -> list[str]:
    """Seeds, trained weights and seconds of a line."""
    weights = "" if row["params"] is None else f"{row['params']:,}"
    if row["seconds"] is None:
        seconds = ""
    elif row["seconds"] >= 100:
        seconds = f"{row['seconds']:.0f}"
    else:
        seconds = f"{row['seconds']:.3g}"
    return [str(row["n_seeds"]), weights, seconds]


def visible(head: list[str], body: list[list[str]], hidden: list[str]) -> list[list[str]]:
    """Head and body without the columns that are hidden or empty."""
    shown = [
        number
        for number, title in enumerate(head)
        if title not in hidden and any(line[number] for line in body)
    ]
    return [[line[number] for number in shown] for line in [head, *body]]


def legend(choice: Choice, columns: dict[object, str], has_spread: bool) -> str:
    """What the metrics mean, what the deviation is taken over, and the command.

    With note=short the deviation alone.
    """
    over = spaced(choice.options.get("spread", "seeds"))
    spread = f"± is one standard deviation over {over}." if has_spread else ""
    if choice.options.get("note") == "short":
        return spread
    references = [choice.metrics_info[name]["reference"] for name in choice.metrics]
    if len(references) > 1:
        titles = columns.values() if choice.options["across"] == "metric" else choice.metrics
        pairs = zip(titles, references, strict=True)
        references = [f"{title}: {reference}" for title, reference in pairs]
    sentences = ["; ".join(references) + ".", spread, f"Made by `{choice.rows[0]['command']}`."]
    return " ".join(filter(None, sentences))


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A head and the rows below it as a Markdown table."""
    text = [f"| {' | '.join(line)} |\n" for line in lines]
    text.insert(1, "|---" * len(lines[0]) + "|\n")
    return "".join(text)


def table(words: str) -> str:
    """A Markdown table of the rows that the words choose; "-" where the run does not exist yet."""
    choice = Choice.of(words)
    if not choice.rows:
        return "-\n"
    lines: dict[tuple[str, str], Cells] = {}
    for row in choice.rows:
        cells = lines.setdefault((row["model"], row["variant"]), {})
        cells[row[choice.options["across"]]] = row
    if "rows" in choice.options:
        lines = {key: lines[key] for key in named_rows(choice.options["rows"])}
    columns = columns_of(choice, lines)

    body = []
    for label, cells in ordered(choice, lines, next(iter(columns))):
        values = [choice.cell(cells.get(column)) for column in columns]
        body.append([*label, *values, *facts(next(iter(cells.values())))])
    names = ["model"] if "rows" in choice.options else ["model", "variant"]
    head = [*names, *columns.values(), "seeds", "trained weights", "seconds"]
    shown = visible(head, body, spaced(choice.options.get("hide", "")).split(","))

    text = markdown(shown)
    note = legend(choice, columns, has_spread="±" in text)
    return f"{text}\n{note}\n" if note else text


def described(name: str) -> list[list[str]]:
    """Head and rows of a table of docs/tables.toml, with its values in place.

    Raises KeyError where there is no such table or a cell names no value, ValueError where a value
    is not the only one of its description.
    """
    plan = tomllib.loads(TABLES.read_text(encoding="utf-8"))[name]
    lines: list[list[str]] = [plan["columns"]]
    for row in plan["rows"]:
        values = {
            label: value(as_words(row["from"] | choice)) for label, choice in row["values"].items()
        }
        lines.append([cell.format(**values) for cell in row["cells"]])
    return lines


def as_words(choice: Mapping[str, object]) -> str:
    """A choice of docs/tables.toml as the words of a block."""
    return " ".join(f"{key}={str(text).replace(' ', '_')}" for key, text in choice.items())


def results(words: str) -> str:
    """A Markdown table that docs/tables.toml describes."""
    return markdown(described(words.removeprefix("name=")))


# --------------------------------------------------------------------------------- the files


def fresh(text: str) -> str:
    """The text of a README with every table and value made again."""
    kinds = {"table": table, "results": results, "value": value, "welch": welch}

    def filled(block: re.Match[str]) -> str:
        return block[1] + kinds[block["kind"]](block["words"]) + block[4]

    return BLOCK.sub(filled, text)


def readme_files() -> list[Path]:
    """The README files and the pages of docs/, which may have generated blocks."""
    folders = [*ROOT.glob("[!.]*/"), *ROOT.glob("[!.]*/[!.]*/")]
    pages = [*(folder / "README.md" for folder in folders), *ROOT.glob("docs/*.md")]
    return [ROOT / "README.md", *sorted(page for page in pages if page.is_file())]


if __name__ == "__main__":
    for file in readme_files():
        write_text(file, fresh(file.read_text(encoding="utf-8")))
