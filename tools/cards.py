"""Writes a model card, MODEL.md, into every committed run folder that holds models.

python -m tools.cards      or `make cards`

A test fails when they are stale. What the models of a system are, what they are for and where they
fail is written by hand in tools/card_texts/<system>.md; the rest comes from run.json, metrics.json
and the model files. In a text

* the sections are those of SECTIONS; what stands under a title that names runs, as in
  `## Limits (hourly, new-coin)`, is added to the section in the cards of these runs alone;
* `{config[context]}` is a value of run.json, `{folder}` the run folder;
* tables and values are blocks as in README files (tools/readme.py), without `run=`;
* every line of `## Files` says what the files of one pattern hold.
"""

from __future__ import annotations

import re
import textwrap
from fnmatch import fnmatch
from pathlib import Path

from common.cli import InputError, entry
from common.files import JsonObject, read_json, sha256, write_text
from common.machine import ROOT
from tools.page import committed
from tools.readme import BLOCK, fresh

CARD = "MODEL.md"
TEXTS = Path(__file__).with_name("card_texts")
SECTIONS = ("Model", "Data", "Intended use", "Limits", "Evaluation", "Files")
HEADING = re.compile(r"^## (?P<title>[^(\n]+?)(?: \((?P<runs>[^)\n]+)\))?\n", re.MULTILINE)
FILES = re.compile(r"^\* `(?P<pattern>[^`]+)`: (?P<about>.+)$", re.MULTILINE)
MODELS = ("*.safetensors", "*.keras", "model.*.npz")
LIBRARIES = ("python", "torch", "tensorflow-cpu", "tensorflow", "keras")
COLUMNS = 116  # of a line of text


def model_folders() -> dict[Path, list[Path]]:
    """The committed run folders that hold model files, with those files, sorted."""
    folders: dict[Path, list[Path]] = {}
    for file in committed():
        is_model = any(fnmatch(file.name, pattern) for pattern in MODELS)
        if is_model and (file.parent / "run.json").exists():
            folders.setdefault(file.parent, []).append(file)
    return folders


# ------------------------------------------------------------------------- what is written by hand


def sections(text: str, run: str) -> dict[str, str]:
    """The sections of a text by title, for one run. Raises InputError for an unknown title."""
    _, *parts = HEADING.split(text)
    found: dict[str, str] = {}
    for title, runs, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        if title not in SECTIONS:
            raise InputError(f'"## {title}": the sections of a card are {", ".join(SECTIONS)}')
        if runs is None or run in runs.split(", "):
            found[title] = f"{found.get(title, '')}\n{body.strip()}".strip()
    return found


def filled(text: str, folder: Path) -> str:
    """A text with the values of run.json and metrics.json that it names.

    Raises InputError where run.json lacks one.
    """
    run = folder.relative_to(ROOT).as_posix()
    try:
        text = text.format_map(read_json(folder / "run.json") | {"folder": run})
    except (LookupError, ValueError, TypeError) as error:
        raise InputError(f"{run}/run.json does not hold {error}, which its card names") from None
    text = BLOCK.sub(lambda block: block[0].replace(" -->", f" run={run} -->", 1), text)
    text = re.sub(r" Made by `[^`]+`\.", "", fresh(text))  # the card names the command once
    return reflowed(re.sub(r"<!--.*?-->", "", text))


def reflowed(text: str) -> str:
    """Markdown with lines of at most COLUMNS columns, but for tables and the legend below each."""
    blocks = re.split(r"\n{2,}", text.strip())
    for number, block in enumerate(blocks):
        if block.startswith("|") or (number and blocks[number - 1].startswith("|")):
            continue
        items = re.split(r"\n(?=\* )", block)  # of a list; else one paragraph
        blocks[number] = "\n".join(wrapped(" ".join(item.split())) for item in items)
    return "\n\n".join(blocks)


def wrapped(line: str) -> str:
    """A paragraph or an item of a list in lines of at most COLUMNS columns; code stays whole."""
    whole = re.sub(r"`[^`]+`", lambda code: code[0].replace(" ", "\0"), line)
    lines = textwrap.wrap(
        whole,
        COLUMNS,
        subsequent_indent="  " if line.startswith("* ") else "",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines).replace("\0", " ")


# --------------------------------------------------------------------------- what a run has written


def sizes_of(part: int | JsonObject) -> str:
    """The size of a part, with its dates where it has any."""
    if isinstance(part, int):
        return f"{part:,}"
    return f"{part['origins']:,} ({part['first'][:10]} to {part['last'][:10]})"


def data_facts(record: JsonObject) -> str:
    """The file that a run read, its digest, what was read, and the parts."""
    data, notes = record["data"], record["notes"]
    text = f"`{data['path']}` has the sha256 `{data['sha256']}`."
    if "read" in data:
        read = re.sub(r"T[\d:]+Z", "", data["read"])  # days are enough here
        text += f" Read: {read.removeprefix(data['path'] + ': ')}."
    for key, what in (("parts", "Origins of forecasts"), ("split", "Parts")):
        if parts := notes.get(key):
            text += f" {what}: {', '.join(f'{name} {sizes_of(parts[name])}' for name in parts)}."
    return text


def training_facts(record: JsonObject) -> str:
    """The command, the commits, the seed and the versions of a run."""
    commit = record["commit"][:8] + (" with uncommitted changes" if record["dirty"] else "")
    if earlier := dict.fromkeys(record["resumed_from_commits"]):
        commit += f" (resumed after {', '.join(each[:8] for each in earlier)})"
    versions = record["versions"]
    libraries = ", ".join(f"{name} {versions[name]}" for name in LIBRARIES if name in versions)
    return (
        f"`{record['command']}` at commit {commit}, seed {record['config']['seed']}, "
        f"{record['started'][:10]}, on {record['platform']}, with {libraries}."
    )


def file_table(files: list[Path], text: str) -> str:
    """What each model file holds, its size and its digest.

    Raises InputError for a file that no line of the text explains, or more than one.
    """
    lines = ["| file | what it holds | bytes | sha256 |", "|---|---|---|---|"]
    for file in files:
        about = [
            match["about"] for match in FILES.finditer(text) if fnmatch(file.name, match["pattern"])
        ]
        if len(about) != 1:
            raise InputError(f"{len(about)} lines of ## Files explain {file}; write exactly one")
        size = f"{file.stat().st_size:,}"
        lines.append(f"| [{file.name}]({file.name}) | {about[0]} | {size} | `{sha256(file)}` |")
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------- the card


def card(folder: Path, files: list[Path]) -> str:
    """The model card of a run folder.

    Raises InputError for a text that lacks a section, or names what the run does not hold.
    """
    record = read_json(folder / "run.json")
    source = TEXTS / f"{record['assignment']}.md"
    text = source.read_text(encoding="utf-8")
    by_hand = sections(text, folder.name)
    if missing := [title for title in SECTIONS if title not in by_hand]:
        raise InputError(f"{source} has no section ## {missing[0]}")
    model, data, use, limits, evaluation = (
        filled(by_hand[title], folder) for title in SECTIONS if title != "Files"
    )

    up = "../" * len(folder.relative_to(ROOT).parts)
    licence = (
        f"Licence: MIT, as the repository ([LICENSE]({up}LICENSE)); the data are no part of it. "
        f"More in the [README]({up}{record['assignment']}/README.md). Made by `make cards`."
    )
    chapters = {
        "Model": model,
        "Data": wrapped(f"{data} {data_facts(record)}"),
        "Training": wrapped(training_facts(record)),
        "Intended use": use,
        "Limits": limits,
        "Evaluation (test part, held out)": evaluation,
        "Files and licence": f"{file_table(files, by_hand['Files'])}\n\n{wrapped(licence)}",
    }
    title = text.splitlines()[0].removeprefix("# ")
    head = f"# Model card: {title}, run {folder.name}"
    return "\n\n".join([head, *(f"## {name}\n{text}" for name, text in chapters.items())]) + "\n"


def main() -> None:
    """Writes every card."""
    for folder, files in model_folders().items():
        write_text(folder / CARD, card(folder, files))
        print((folder / CARD).relative_to(ROOT))


if __name__ == "__main__":
    entry(lambda _: main(), None)
