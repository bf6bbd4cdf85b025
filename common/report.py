"""metrics.json and the figures of a run folder become report.pdf, by one Typst template."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import typst

from common.cli import InputError
from common.files import JsonObject, atomic_path, read_json, write_json
from common.results import SHOWN_SERIES

TEMPLATE = Path(__file__).resolve().with_name("template.typ")
REFERENCES = TEMPLATE.with_name("references.yml")


def compile_report(folder: Path, source: Path, out: Path, author: str | None = None) -> None:
    """Compiles an assignment's report.typ against a finished run folder.

    The document finds `template.typ`, the run's files under `run/`, and the
    metrics.json of the assignment's other runs under `results/`; `sys.inputs.run` and
    `sys.inputs.others` name them, and `sys.inputs.author` who hands it in. Of a run with many
    series it gets the rows of the first ones.
    Raises InputError when the folder holds no finished run, and RuntimeError for a document that
    Typst refuses.
    """
    if not (folder / "metrics.json").exists():
        raise InputError(f"{folder} holds no metrics.json; finish the run first")
    results = source.parent / "results"
    with tempfile.TemporaryDirectory() as temporary:
        stage = Path(temporary)
        for file in (TEMPLATE, REFERENCES, source):
            shutil.copy(file, stage)
        (stage / "run").mkdir()
        for file in folder.iterdir():
            if file.suffix in {".json", ".png"}:
                shutil.copy(file, stage / "run" / file.name)
        metrics = of_first_series(read_json(folder / "metrics.json"))
        write_json(stage / "run" / "metrics.json", metrics)
        write_json(stage / "run" / "index.json", index_of(metrics["rows"]))

        # the other runs, which a user may have removed
        names = []
        for file in sorted(results.glob("**/metrics.json")):
            copied = stage / file.relative_to(source.parent)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copied)
            if file.parent.resolve() != folder.resolve():
                names.append(file.parent.relative_to(results).as_posix())
        inputs = {"run": folder.resolve().name, "others": " ".join(names)}
        if author is not None:
            inputs["author"] = author
        with atomic_path(out) as pdf:
            document = str(stage / source.name)
            typst.compile(document, output=str(pdf), root=str(stage), sys_inputs=inputs)


def of_first_series(metrics: JsonObject) -> JsonObject:
    """The content of a metrics.json with the rows of no more than SHOWN_SERIES series.

    "series_left_out" says of how many series the rows were left out.
    """
    rows = metrics["rows"]
    names = list(dict.fromkeys(row["series"] for row in rows if row["series"] is not None))
    left_out = set(names[SHOWN_SERIES:])
    shown = [row for row in rows if row["series"] not in left_out]
    return {**metrics, "rows": shown, "series_left_out": len(left_out)}


def index_of(rows: list[JsonObject]) -> dict[str, dict[str, list[int]]]:
    """The numbers of the rows by metric and model, so that a document finds them at once."""
    index: dict[str, dict[str, list[int]]] = {}
    for number, row in enumerate(rows):
        index.setdefault(row["metric"], {}).setdefault(row["model"], []).append(number)
    return index
