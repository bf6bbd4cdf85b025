"""docs/index.html: fresh, complete, self-contained, readable; and no broken image in a browser."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from markupsafe import escape

from tools import page as build

PAGE = build.PAGE.read_text(encoding="utf-8")
SYSTEMS = [
    "assignment1",
    "assignment2",
    "assignment3",
    "assignment4",
    "assignment5",
    "final_project",
]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PROBE = """<script>
const images = [...document.images]
for (const image of images) image.loading = "eager"  // now the load event waits for them
const every = (selector) => [...document.querySelectorAll(selector)]
const isHidden = (element) => !element.getClientRects().length
addEventListener("load", () => {
  parent.postMessage(JSON.stringify({
    images: images.map((image) => [image.getAttribute("src"), image.naturalWidth]),
    width: document.documentElement.scrollWidth,
    view: innerWidth,
    systems: every("section.system").map((section) => section.id),
    hidden: every("h1, h2, h3, h4, img, button").filter(isHidden).length,
    folded: every(".more").length,
  }), "*")
})
</script>"""
FRAME = """<!doctype html><body><script>
addEventListener("message", (event) => {
  const report = document.createElement("pre")
  report.id = "probe"
  report.textContent = event.data
  document.body.append(report)
})
</script>
<iframe src="index.html" width="{width}" height="2000" style="border: 0"></iframe></body>"""


class Elements(HTMLParser):
    """Every start tag with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(PAGE)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))


ELEMENTS = Elements().found


def test_no_comment_of_a_generator_is_shown_and_every_file_exists():
    assert "&lt;!--" not in PAGE
    assert "<!--" not in PAGE
    assert build.broken(PAGE) == []


def test_the_page_is_fresh():
    assert build.build() == PAGE, "docs/index.html is stale: run `make page`"


def test_six_systems_and_what_each_must_tell():
    sections = [attributes["id"] for tag, attributes in ELEMENTS if tag == "section"]
    assert sections == SYSTEMS
    for name, part in zip(SYSTEMS, PAGE.split('<section class="system"')[1:], strict=True):
        runs = [
            file
            for file in build.committed()
            if file.name == "run.json" and file.relative_to(build.ROOT).parts[0] == name
        ]
        assert part.count("<article") == len(runs)
        if not runs:
            assert "No run of this system is committed" in part
            assert f"python {name}/train.py" in part
        for file in runs:
            record = json.loads(file.read_text())
            assert record["commit"][:8] in part
            assert record["started"][:10] in part
            assert str(escape(record["command"])) in part


def test_the_page_has_the_rows_of_the_readme_tables():
    rows = 0
    for name in SYSTEMS:
        readme = build.ROOT / name / "README.md"
        for block in build.BLOCK.finditer(
            readme.read_text(encoding="utf-8") if readme.exists() else ""
        ):
            rows += sum(line.startswith("| ") for line in block[0].splitlines()) - (
                "| " in block[0]
            )  # less the head
    assert PAGE.count('<tr><th scope="row">') == rows > 100


def test_every_committed_figure_is_shown_with_an_alternative_text_and_its_size():
    images = {attributes["src"]: attributes for tag, attributes in ELEMENTS if tag == "img"}
    assert set(images) == {
        f"../{file.relative_to(build.ROOT)}"
        for file in build.committed()
        if file.suffix in {".png", ".gif"}
    }
    for attributes in images.values():
        assert len(attributes["alt"]) > 10
        assert attributes["loading"] == "lazy"
        assert int(attributes["width"]) > 0
        assert int(attributes["height"]) > 0
    assert len({attributes["alt"] for attributes in images.values()}) == len(images)


def test_every_link_leads_somewhere_and_nothing_is_fetched_from_elsewhere():
    ids = {attributes["id"] for _, attributes in ELEMENTS if "id" in attributes}
    assert len(ids) == sum("id" in attributes for _, attributes in ELEMENTS)
    for tag, attributes in ELEMENTS:
        for target in (
            attributes[name] for name in ("src", "href", "aria-labelledby") if name in attributes
        ):
            if "aria-labelledby" in attributes and target == attributes["aria-labelledby"]:
                assert target in ids
            elif target.startswith("#"):
                assert target[1:] in ids
            elif re.match("https?://", target):
                assert tag == "a", f"{tag} asks {target}"
            elif target != "data:,":
                assert (build.PAGE.parent / target.partition("#")[0]).is_file(), target
    assert not {
        tag
        for tag, attributes in ELEMENTS
        if tag in {"iframe", "object", "embed", "source"} or (tag == "script" and attributes)
    }
    style = PAGE.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in PAGE


def test_headings_come_in_order():
    levels = [int(tag[1]) for tag, _ in ELEMENTS if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert PAGE.count("<caption") == PAGE.count("<table>")


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return sum(
        w * (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
        for w, c in zip((0.2126, 0.7152, 0.0722), parts, strict=True)
    )


@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize("text", ["ink", "soft", "accent"])
@pytest.mark.parametrize("ground", ["paper", "plate"])
def test_contrast_is_that_of_wcag_aa(theme, text, ground):
    pairs = {
        name: (light, dark)
        for name, light, dark in re.findall(r"--(\w+): light-dark\((#\w{6}), (#\w{6})\)", PAGE)
    }
    low, high = sorted(luminance(pairs[name][theme]) for name in (text, ground))
    assert (high + 0.05) / (low + 0.05) >= 4.5


def test_captions_take_the_values_of_the_run_and_leave_out_what_they_cannot_tell(tmp_path):
    report = tmp_path / "report.typ"
    told = "The #config.horizon hours of #record.notes.coins (@eq)."
    report.write_text(
        f'#figure(image("run/a.png", width: 9%), caption: [{told}])\n'
        '#figure(image("run/b.png"), caption: [Not #config.known.])\n'
        '#figure(image("run/c.png"), caption: [With $x$.])\n'
    )
    record = {"config": {"horizon": 5}, "notes": {"coins": "seven"}}
    assert build.captions(report, record) == {"a.png": "The 5 hours of seven."}
    assert build.captions(tmp_path / "none.typ", record) == {}


@pytest.mark.skipif(
    CHROMIUM is None,
    reason="no chromium: `make browser` installs Debian's package, then the page is opened in it",
)
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_finds_six_systems_and_no_broken_image(tmp_path, width):
    # the page with a probe at its end, in a frame, because a window cannot be as narrow as a
    # phone; what it refers to stays where it is
    probed = PAGE.replace("<head>", f'<head><base href="{build.PAGE.as_uri()}">', 1).replace(
        "</body>", PROBE + "</body>"
    )
    (tmp_path / "index.html").write_text(probed, encoding="utf-8")
    (tmp_path / "frame.html").write_text(FRAME.replace("{width}", str(width)), encoding="utf-8")
    words = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1400,2000",
    ]
    words += ["--virtual-time-budget=20000", "--dump-dom", (tmp_path / "frame.html").as_uri()]
    done = subprocess.run(
        [CHROMIUM, *words], capture_output=True, text=True, timeout=120, check=False
    )
    found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout)
    assert found, done.stderr[-2000:]
    report = json.loads(found[1])
    assert report["systems"] == SYSTEMS
    assert len(report["images"]) == sum(tag == "img" for tag, _ in ELEMENTS)
    assert [source for source, natural in report["images"] if natural == 0] == []
    assert report["view"] == width
    assert report["width"] <= width  # nothing but tables and commands scrolls sideways
    assert report["hidden"] == 0
    assert report["folded"] == PAGE.count('class="more"')
