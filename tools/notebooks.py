"""Executes the notebooks in place and keeps what a reader needs of them.

python -m tools.notebooks              all of them: `make notebooks`
python -m tools.notebooks 2 6          these (6: the final project)

A notebook runs as in a checkout without data sets, on one thread. Times, machines and editors are
left out of the file. One with an error, a warning, a path of this machine or more than 300 kB of
outputs is refused and stays as it was.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from common.cli import InputError, entry, read_options
from common.files import write_text
from common.machine import ROOT

FOLDER = ROOT / "notebooks"
FILES = {number: f"assignment{number}.ipynb" for number in range(1, 6)} | {6: "final_project.ipynb"}
LARGEST = 300_000  # bytes of one notebook's file
SECONDS = 600  # for one cell, at most


@dataclass(frozen=True)
class Config:
    """Executes notebooks in place."""

    numbers: Annotated[tuple[int, ...], tyro.conf.Positional] = tuple(FILES)
    """numbers of the systems; 6 is the final project"""

    def check(self) -> None:
        """Raises InputError for a number that is no system's."""
        if unknown := sorted(set(self.numbers) - set(FILES)):
            raise InputError(f"notebook {unknown[0]}: allowed are {min(FILES)} to {max(FILES)}")


if __name__ == "__main__":  # before the heavy imports: --help and a refusal answer at once
    OPTIONS = read_options(Config)

import nbformat
import traitlets.config
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

QUIET = {
    "OMP_NUM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TQDM_DISABLE": "1",
    "PYTHONWARNINGS": "ignore:IProgress",  # of tqdm, where there are no widgets
}
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def executed(path: Path) -> NotebookNode:
    """The notebook with the outputs of this checkout's code.

    Raises InputError with the error of the first cell that fails.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as empty:
        pipes = {"transport": "ipc", "ip": str(Path(empty) / "kernel")}  # no port is opened
        environment = {name: text for name, text in os.environ.items() if name != "ADL_DATA_DIR"}
        environment |= {"PYTHONPATH": str(ROOT), "IPYTHONDIR": empty} | QUIET
        client = NotebookClient(
            notebook,
            timeout=SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": str(FOLDER)}},
            startup_timeout=SECONDS,
            config=traitlets.config.Config(KernelManager=pipes),
        )
        try:
            client.execute(env=environment)
        except CellExecutionError as error:
            raise InputError(f"{path.name}: {error.ename}: {error.evalue}") from None
    return notebook


def cleaned(notebook: NotebookNode) -> NotebookNode:
    """The notebook without what differs from machine to machine and from call to call."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for number, cell in enumerate(notebook.cells, 1):
        cell.id = f"cell-{number}"
        cell.metadata = {}
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("image/svg+xml", None)
            if "metadata" in output:
                output.metadata = {}
    return notebook


def complaint(notebook: NotebookNode, text: str) -> str | None:
    """What is wrong with an executed notebook and the text of its file; None where nothing is."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    if any(output.output_type == "error" for output in outputs):
        return "a cell ends with an error"
    for output in outputs:
        if output.output_type == "stream" and output.name == "stderr":
            return f"a cell warns: {output.text.strip().splitlines()[-1]}"
    if str(ROOT) in text or str(Path.home()) in text:
        return "an output names a folder of this machine"
    if len(text) > LARGEST:
        return f"{len(text):,} bytes; allowed are {LARGEST:,}"
    return None


def main(config: Config) -> None:
    """Executes and writes the notebooks. Raises InputError for the first that is refused."""
    for number in config.numbers:
        path = FOLDER / FILES[number]
        start = time.perf_counter()
        notebook = cleaned(executed(path))
        text = nbformat.writes(notebook) + "\n"
        if reason := complaint(notebook, text):
            raise InputError(f"{path.name}: {reason}")
        write_text(path, text)
        seconds = time.perf_counter() - start
        print(f"{path.name}: {seconds:.0f} s, {len(text) / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    entry(main, OPTIONS)
