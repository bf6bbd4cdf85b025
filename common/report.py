"""metrics.json and the figures of a run folder -> report.pdf, by one Typst template."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import typst

from common.cli import InputError
from common.run import atomic_path, finished_runs

TEMPLATE = Path(__file__).resolve().parent / "report.typ"
REFERENCES = TEMPLATE.with_name("references.yml")


def compile_report(folder: Path, source: Path, out: Path) -> None:
    """Compiles an assignment's report.typ against a finished run folder.

    The document sees `template.typ` (common/report.typ) and everything it may show under `run/`; numbers come from
    run/metrics.json and run/run.json, and from results/<run>/metrics.json of the assignment's other runs, which sys.inputs.others names beside sys.inputs.run. Raises InputError when the folder holds no finished run.
    """
    if not (Path(folder) / "metrics.json").exists():
        raise InputError(f"{folder} holds no metrics.json; finish the run first")
    with tempfile.TemporaryDirectory() as place:
        stage = Path(place)
        for file, name in (
            (TEMPLATE, "template.typ"),
            (REFERENCES, REFERENCES.name),
            (source, "report.typ"),
        ):
            shutil.copy(file, stage / name)
        (stage / "run").mkdir()
        for file in Path(folder).iterdir():
            if file.suffix in {".json", ".png"}:
                shutil.copy(file, stage / "run" / file.name)
        runs = sorted(
            Path(source).parent.glob("results/**/metrics.json")
        )  # other runs, which a user may have removed
        for file in runs:
            copied = stage / file.relative_to(Path(source).parent)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copied)
        results = Path(source).parent / "results"
        names = [
            file.parent.relative_to(results).as_posix()
            for file in runs
            if file.parent.resolve() != Path(folder).resolve()
        ]
        inputs = {"run": Path(folder).resolve().name, "others": " ".join(names)}
        with atomic_path(Path(out)) as temporary:
            typst.compile(stage / "report.typ", output=temporary, root=stage, sys_inputs=inputs)


def main() -> None:
    """Compiles assignmentN/report.pdf from the newest finished run on real data of each assignment."""
    root = TEMPLATE.parents[1]
    for source in sorted(root.glob("*/report.typ")):
        real = [
            folder
            for folder, record in finished_runs(source.parent / "results")
            if "notice" not in record["data"]
        ]
        if source.parent != TEMPLATE.parent and real:
            compile_report(real[-1], source, source.parent / "report.pdf")
            print(f"{source.parent.name}/report.pdf from {real[-1].name}")


if __name__ == "__main__":
    main()
