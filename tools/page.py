"""Builds docs/index.html from the committed run folders: `make page`.

A test fails when it is stale. The page shows what README files and run folders hold and nothing
else: the systems in the order of the README's table, the first paragraph and the tables of each
system's README, the figures of its runs with their captions. Links lead from docs/ into the
checkout, which has to be served as a whole; nothing is loaded from elsewhere.
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

from common.files import JsonObject, write_text
from tools.readme import BLOCK, described, options_of, table

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "index.html"
README_OF = re.compile(r"\((?P<name>\w+)/README\.md\)")  # a system, in a cell of the overview
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
IMAGE = re.compile(r"!\[(?P<alt>[^\]]*)\]\((?P<path>[^)]*)\)")
FIGURE = re.compile(r'image\("run/(?P<name>[^"]+)".*?\), caption: \[(?P<caption>.*)\]\)')
TARGET = re.compile(r'(?:href|src)="(?P<path>[^"#]+)[^"]*"')
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
    """One paragraph of Markdown as HTML without its comments; links keep leading where they led."""
    html = MARKDOWN.renderInline(" ".join(COMMENT.sub("", text).split()))
    return Markup(re.sub(r'(href)="(?![a-z]+:|#)', rf'\1="../{folder}/', html))


def title_of(name: str) -> str:
    """error_by_cell_log -> Error by cell log."""
    words = name.replace("_", " ").replace("-", " ")
    return words[:1].upper() + words[1:]


def captions(report: Path, record: JsonObject) -> dict[str, str]:
    """The captions of report.typ by name of the figure, in its order.

    #config.x and #record.x become the values of run.json. Captions that compute anything else are
    left out, because only Typst could say what they are.
    """

    def value(match: re.Match[str]) -> str:
        node: Any = {"config": record["config"], "record": record}
        for word in match[1].split("."):
            node = node[word]
        return str(node)

    if not report.exists():
        return {}
    texts = {}
    for match in FIGURE.finditer(report.read_text(encoding="utf-8")):
        text = re.sub(r" \(@[\w-]+\)", "", match["caption"])  # the page numbers no equations
        text = re.sub(r"\b_([^_]+)_\b", r"\1", text).replace("~", " ")
        try:
            texts[match["name"]] = re.sub(r"#((?:config|record)(?:\.\w+)+)", value, text)
        except KeyError:  # the report of another run
            continue
    return {name: text for name, text in texts.items() if not re.search(r"[#@$]", text)}


def alternatives(system: Path) -> dict[Path, str]:
    """The texts of the pictures in a system's README and in the README of its results, by file."""
    texts = {}
    for page in (system / "README.md", system / "results" / "README.md"):
        if page.exists():
            for match in IMAGE.finditer(page.read_text(encoding="utf-8")):
                texts[(page.parent / match["path"]).resolve()] = match["alt"]
    return texts


def figures(folder: Path, files: list[Path], record: JsonObject) -> list[dict[str, Any]]:
    """PNG and GIF files of a run in the order of the report, each with size, alt text and caption.

    A caption is the README's text of this very file, else the report's, else the file's name.
    """
    system = ROOT / folder.relative_to(ROOT).parts[0]
    of_report = captions(system / "report.typ", record)
    of_readme = alternatives(system)
    names = sorted(
        file.name for file in files if file.parent == folder and file.suffix in {".png", ".gif"}
    )
    order = list(of_report)
    names.sort(key=lambda name: order.index(name) if name in order else len(order))

    shown: list[dict[str, Any]] = []
    for name in names:
        with Image.open(folder / name) as picture:
            width, height = picture.size
        title = title_of(Path(name).stem)
        path = folder / name
        alt = of_readme.get(path.resolve())
        caption = f"{alt}." if alt else of_report.get(name, f"{title}.")
        shown.append(
            {
                "path": f"../{path.relative_to(ROOT)}",
                "width": width,
                "height": height,
                "caption": caption,
                "alt": f"{alt or title} ({record['assignment']}, run {folder.name})",
                "wide": width > 1.6 * height,
            }
        )

    waits = False  # two narrow figures in a row stand beside each other
    for number, item in enumerate(shown):
        follows = number + 1 < len(shown) and not shown[number + 1]["wide"]
        item["half"] = not item["wide"] and (waits or follows)
        waits = bool(item["half"]) and not waits
    return shown


def lead_of(text: str, folder: str) -> Markup:
    """The heading or paragraph that ends a text, as one line of HTML."""
    paragraph = text.rstrip().rpartition("\n\n")[2]
    return inline(re.sub(r"^[#*] ?#* ?", "", paragraph).rstrip(":"), folder)


def parts_of(lines: list[list[str]]) -> dict[str, Any]:
    """Head and rows of a table for the template; a long table's later rows are a part apart."""
    head, *body = lines
    cut = SHOWN if len(body) > LONG else len(body)
    parts = [part for part in (body[:cut], body[cut:]) if part]
    return {"head": head, "parts": parts, "rows": len(body)}


def tables(readme: str, runs: set[str], folder: str) -> list[dict[str, Any]]:
    """The generated tables of a README whose runs are committed, each with what leads to it."""
    shown = []
    for match in BLOCK.finditer(readme):
        words = options_of(match["words"])
        caption = lead_of(readme[: match.start()], folder)
        if match["kind"] == "results":
            lines = parts_of(described(words["name"]))
            shown.append({"caption": caption, **lines, "note": "", "run": None})
        if match["kind"] != "table" or words["run"] not in runs:
            continue
        text, _, note = table(match["words"]).partition("\n\n")
        head, _, *body = [
            [cell.strip() for cell in line[1:-1].split("|")] for line in text.splitlines()
        ]
        shown.append(
            {
                "caption": caption,
                **parts_of([head, *body]),
                # the page shows the command with the run
                "note": note.partition("Made by ")[0].strip(),
                "run": words["run"],
                "protocol": words.get("protocol"),
                "split": words.get("split"),
            }
        )
    return shown


def run_of(folder: Path, files: list[Path]) -> dict[str, Any]:
    """One run: identity, data, where and when it ran, figures."""
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
        "figures": figures(folder, files, record),
    }


def link_to(path: Path) -> str | None:
    """Where a file is, seen from docs/; None where there is none."""
    return f"../{path.relative_to(ROOT)}" if path.exists() else None


def system_of(row: list[str], files: list[Path]) -> dict[str, Any]:
    """One section, from a row of the overview, the system's README and its runs.

    Raises ValueError where the row's first cell leads to no README.
    """
    link, finding, measure, result, baseline = row
    found = README_OF.search(link)
    if not found:
        raise ValueError(f"no README of a system in {link}")
    name = found["name"]
    readme = (ROOT / name / "README.md").read_text(encoding="utf-8")
    label, _, subject = readme.splitlines()[0].lstrip("# ").partition(": ")
    files = [file for file in files if file.relative_to(ROOT).parts[0] == name]
    folders = [file.parent for file in files if file.name == "run.json"]
    return {
        "id": name,
        "label": label,
        "subject": subject[:1].upper() + subject[1:],
        "about": inline(readme.split("\n\n")[1], name),
        "finding": inline(finding, "."),
        "result": inline(f"{measure}: {result}, {baseline}", "."),
        "readme": f"../{name}/README.md",
        "more": link_to(ROOT / name / "results" / "README.md"),
        "report": link_to(ROOT / name / "report.pdf"),
        "tables": tables(readme, {str(folder.relative_to(ROOT)) for folder in folders}, name),
        "runs": [run_of(folder, files) for folder in folders],
        "command": f"python {name}/train.py",
    }


def broken(html: str) -> list[str]:
    """The links and images of the page that lead to no file when it is opened from docs/."""
    paths = {match["path"] for match in TARGET.finditer(html)}
    local = {path for path in paths if not re.match("https?:|data:", path)}
    return sorted(path for path in local if not (PAGE.parent / path).is_file())


def build() -> str:
    """The whole page; the same run folders and README files give the same text.

    Raises ValueError where a comment of a generator or a broken link is left in it.
    """
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    files = committed()
    _, *rows = described("overview")
    systems = [system_of(row, files) for row in rows]
    environment = Environment(
        loader=FileSystemLoader(ROOT / "docs"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("template.html").render(
        title=readme.splitlines()[0].lstrip("# "),
        abstract=inline(readme.split("\n\n")[1], "."),
        systems=systems,
    )
    if "&lt;!--" in html or broken(html):
        raise ValueError(f"comments or broken links in the page: {broken(html)}")
    return html


def main() -> None:
    """Writes docs/index.html."""
    write_text(PAGE, build())
    print(PAGE.relative_to(ROOT))


if __name__ == "__main__":
    main()
