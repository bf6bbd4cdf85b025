"""docs/index.html from the committed run folders: `make page` (a test fails when it is stale).

The page shows what the README files and run folders hold and nothing else: the first paragraph and the tables of each system's README,
the figures of its runs under the captions of its report. It refers to figures by relative paths and asks no other machine for anything.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup
from PIL import Image

from tools.readme import BLOCK, table
from common.files import write_text

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "index.html"
ROW = re.compile(
    r"^\| (?:\[(?P<linked>\w+)\]\([^)]*\)|(?P<plain>\w+)) · (?P<summary>.*?) \| (?P<state>.*?) \|$",
    re.MULTILINE,
)
IMAGE = re.compile(r"!\[(?P<alt>[^\]]*)\]\((?P<path>[^)]*)\)")
FIGURE = re.compile(r'image\("run/(?P<name>[^"]+)".*?\), caption: \[(?P<caption>.*)\]\)')
SHOWN, LONG = 10, 15  # rows of a table with more than LONG that are shown at first
MARKDOWN = MarkdownIt("commonmark")


def committed() -> list[Path]:
    """Files of run folders that git knows, sorted; outside a checkout every file that is there."""
    words = ["git", "-C", str(ROOT), "ls-files", "-z", "--", "*/results/*"]
    try:
        names = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        names = [str(path.relative_to(ROOT)) for path in ROOT.glob("*/results/**/*")]
    return sorted(ROOT / name for name in names if name and (ROOT / name).is_file())


def inline(text: str, folder: str) -> Markup:
    """One paragraph of Markdown as HTML; links lead from docs/ to where they led from the folder."""
    html = MARKDOWN.renderInline(" ".join(text.split()))
    return Markup(re.sub(r'(href)="(?![a-z]+:|#)', rf'\1="../{folder}/', html))


def title_of(name: str) -> str:
    """error_by_cell_log -> Error by cell log."""
    words = name.replace("_", " ").replace("-", " ")
    return words[:1].upper() + words[1:]


def captions(report: Path, record: dict[str, Any]) -> dict[str, str]:
    """The captions of report.typ by name of the figure, in its order, with the values of run.json in place of #config.x and #record.x."""

    def value(found: re.Match) -> str:
        node: Any = {"config": record["config"], "record": record}
        for word in found[1].split("."):
            node = node[word]
        return str(node)

    if not report.exists():
        return {}
    found = {}
    for match in FIGURE.finditer(report.read_text(encoding="utf-8")):
        text = re.sub(r" \(@[\w-]+\)", "", match["caption"])  # the page numbers no equations
        try:
            found[match["name"]] = re.sub(r"#((?:config|record)(?:\.\w+)+)", value, text)
        except KeyError:  # the report of another run
            continue
    return {name: text for name, text in found.items() if not re.search(r"[#@$]", text)}


def figures(
    folder: Path, files: list[Path], record: dict[str, Any], readme: str
) -> list[dict[str, Any]]:
    """PNG and GIF files of a run in the order of the report, each with size, alternative text and caption."""
    system = folder.relative_to(ROOT).parts[0]
    told = captions(ROOT / system / "report.typ", record)
    alts = {Path(match["path"]).name: match["alt"] for match in IMAGE.finditer(readme)}
    names = sorted(
        file.name for file in files if file.parent == folder and file.suffix in {".png", ".gif"}
    )
    names.sort(key=lambda name: list(told).index(name) if name in told else len(told))
    found = []
    for name in names:
        with Image.open(folder / name) as picture:
            width, height = picture.size
        title = title_of(Path(name).stem)
        caption = told.get(name, alts.get(name, title) + ".")
        found.append(
            {
                "path": f"../{(folder / name).relative_to(ROOT)}",
                "width": width,
                "height": height,
                "caption": caption,
                "alt": alts.get(name) if alts.get(name, "") + "." != caption else title,
                "wide": width > 1.6 * height,
            }
        )
        found[-1]["alt"] = (
            f"{found[-1]['alt'] or title} ({record['assignment']}, run {folder.name})"
        )
    waits = False  # two narrow figures in a row stand beside each other
    for number, item in enumerate(found):
        follows = number + 1 < len(found) and not found[number + 1]["wide"]
        item["half"] = not item["wide"] and (waits or follows)
        waits = item["half"] and not waits
    return found


def tables(readme: str, runs: set[str]) -> list[dict[str, Any]]:
    """The generated tables of a README whose runs are committed, each with the heading or the sentence that leads to it."""
    found = []
    for match in BLOCK.finditer(readme):
        words = dict(word.split("=", 1) for word in match["words"].split())
        if match["kind"] != "table" or words["run"] not in runs:
            continue
        lead = readme[: match.start()].rstrip().splitlines()[-1].lstrip("# ").rstrip(":")
        text, _, note = table(match["words"]).partition("\n\n")
        rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in text.splitlines()]
        head, _, *body = rows
        cut = SHOWN if len(body) > LONG else len(body)
        note = note.strip().rpartition(" Made by ")[0]  # the page shows the command with the run
        found.append(
            {
                "caption": lead,
                "head": head,
                "parts": [part for part in (body[:cut], body[cut:]) if part],
                "rows": len(body),
                "note": note,
                "run": words["run"],
                "protocol": words.get("protocol"),
                "split": words.get("split"),
            }
        )
    return found


def run_of(folder: Path, files: list[Path], readme: str) -> dict[str, Any]:
    """What the page tells of one run: identity, data, where and when it ran, figures."""
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    commit = (record.get("commit") or "")[:8] or "not recorded"
    return {
        "name": str(folder.relative_to(ROOT / record["assignment"] / "results")),
        "status": record["status"],
        "command": record["command"],
        "date": record["started"][:10],
        "commit": commit + (" and uncommitted changes" if record.get("dirty") else ""),
        "data": record["data"].get("path") or record["data"].get("generator") or record["source"],
        "notice": record["data"].get("notice"),
        "place": record["platform"],
        "figures": figures(folder, files, record, readme),
    }


def system_of(name: str, summary: str, state: str, files: list[Path]) -> dict[str, Any]:
    """One section: the README's title, first paragraph and tables, the report, and the runs."""
    place = ROOT / name
    readme = (
        (place / "README.md").read_text(encoding="utf-8") if (place / "README.md").exists() else ""
    )
    title = (
        readme.splitlines()[0].lstrip("# ")
        if readme
        else f"{title_of(name)}: {summary.rpartition(', ')[0] or summary}"
    )
    label, _, subject = title.partition(": ")
    files = [file for file in files if file.relative_to(ROOT).parts[0] == name]
    folders = [file.parent for file in files if file.name == "run.json"]
    return {
        "id": name,
        "label": label,
        "subject": subject[:1].upper() + subject[1:],
        "summary": summary,
        "about": inline(readme.split("\n\n")[1], name) if readme else Markup.escape(summary + "."),
        "state": "complete" if state == "here" else state,
        "readme": f"../{name}/README.md" if readme else None,
        "report": f"../{name}/report.pdf" if (place / "report.pdf").exists() else None,
        "tables": tables(readme, {str(folder.relative_to(ROOT)) for folder in folders}),
        "runs": [run_of(folder, files, readme) for folder in folders],
        "command": f"python {name}/train.py",
    }


def build() -> str:
    """The whole page; the same run folders and README files give the same text."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    files = committed()
    systems = [
        system_of(row["linked"] or row["plain"], row["summary"], row["state"], files)
        for row in ROW.finditer(readme)
    ]
    abstract = next(
        part for part in readme.split("\n\n")[1:] if part[0].isalpha() and len(part) > 200
    )
    environment = Environment(
        loader=FileSystemLoader(ROOT / "docs"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    title = readme.splitlines()[0].lstrip("# ")
    return environment.get_template("template.html").render(
        title=title, abstract=inline(abstract, "."), systems=systems
    )


def main() -> None:
    """Writes docs/index.html."""
    write_text(PAGE, build())
    print(PAGE.relative_to(ROOT))


if __name__ == "__main__":
    main()
