"""metrics.json and the figures of a run folder become report.pdf, by one Typst template."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import typst

from common.cli import InputError
from common.files import atomic_path

TEMPLATE = Path(__file__).resolve().parent / "report.typ"
REFERENCES = TEMPLATE.with_name("references.yml")


def compile_report(folder: Path, source: Path, out: Path) -> None:
    """Compiles an assignment's report.typ against a finished run folder.

    The document finds `template.typ` (common/report.typ), the run's files under `run/`, and the
    metrics.json of the assignment's other runs under `results/`; `sys.inputs.run` and
    `sys.inputs.others` name them. Raises InputError when the folder holds no finished run.
    """
    folder, source = Path(folder), Path(source)
    if not (folder / "metrics.json").exists():
        raise InputError(f"{folder} holds no metrics.json; finish the run first")
    results = source.parent / "results"
    with tempfile.TemporaryDirectory() as temporary:
        stage = Path(temporary)
        shutil.copy(TEMPLATE, stage / "template.typ")
        shutil.copy(REFERENCES, stage / REFERENCES.name)
        shutil.copy(source, stage / "report.typ")
        (stage / "run").mkdir()
        for file in folder.iterdir():
            if file.suffix in {".json", ".png"}:
                shutil.copy(file, stage / "run" / file.name)

        # the other runs, which a user may have removed
        names = []
        for file in sorted(results.glob("**/metrics.json")):
            copied = stage / file.relative_to(source.parent)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copied)
            if file.parent.resolve() != folder.resolve():
                names.append(file.parent.relative_to(results).as_posix())
        inputs = {"run": folder.resolve().name, "others": " ".join(names)}
        with atomic_path(Path(out)) as pdf:
            typst.compile(stage / "report.typ", output=pdf, root=stage, sys_inputs=inputs)
