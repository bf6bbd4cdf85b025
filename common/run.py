"""The run folder: identity first, metrics streamed, everything written atomically, every finished part kept for --resume."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from safetensors.numpy import load_file, save
from tqdm import tqdm

from common.cli import BaseConfig, InputError, Interrupted

ROOT = Path(__file__).resolve().parents[1]
ROW_KEYS = (
    "protocol",
    "split",
    "model",
    "variant",
    "metric",
    "value",
    "std",
    "n_seeds",
    "series",
    "horizon",
    "params",
    "seconds",
    "peak_mb",
    "command",
)
LIBRARIES = (
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "torch",
    "tensorflow-cpu",
    "tensorflow",
    "keras",
    "yfinance",
)
CSV_HEADER = b"step,epoch,split,name,value\n"
HOUSEKEEPING = {"out", "resume", "overwrite", "tensorboard"}  # options that do not change a result


# ---------------------------------------------------------------------------------------------------------------- files


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder; renames it over `path` when the block ends well, removes it otherwise.

    Raises InputError where the system refuses to write.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror or error})") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically; a number that is not finite is an error, because JSON has none."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def write_arrays(path: Path, **arrays: Any) -> None:
    """Writes a compressed .npz atomically."""
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def sha256(path: Path) -> str:
    """Digest of a file, or of the sorted relative names and sizes of a folder's files."""
    digest = hashlib.sha256()
    if Path(path).is_dir():
        for file in sorted(p for p in Path(path).rglob("*") if p.is_file()):
            digest.update(f"{file.relative_to(path)}\0{file.stat().st_size}\n".encode())
    else:
        with open(path, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def save_state(path: Path, state: Any) -> None:
    """Writes nested dicts and lists of arrays, tensors, numbers, strings and None as one safetensors file (no pickle)."""
    arrays: dict[str, np.ndarray] = {}

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {"dict": [[key, strip(item)] for key, item in value.items()]}
        if isinstance(value, list | tuple):
            return {"list": [strip(item) for item in value]}
        if hasattr(value, "detach"):  # a torch tensor, without importing torch
            value = value.detach().cpu().numpy()
        if isinstance(value, np.ndarray):
            name = str(len(arrays))
            arrays[name] = np.ascontiguousarray(value)
            return {"array": [name, list(value.shape)]}
        return {"value": value.item() if isinstance(value, np.generic) else value}

    skeleton = json.dumps(strip(state))
    with atomic_path(path) as temporary:
        temporary.write_bytes(
            save(arrays or {"none": np.zeros(1)}, metadata={"skeleton": skeleton})
        )


def load_state(path: Path) -> Any:
    """Reads what save_state wrote; arrays come back as numpy arrays. Raises InputError where the file is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            skeleton, arrays = json.loads(file.metadata()["skeleton"]), load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        raise InputError(f"{path} is damaged; --overwrite begins the run anew") from None

    def fill(node: dict) -> Any:
        ((kind, value),) = node.items()
        if kind == "dict":
            return {key: fill(item) for key, item in value}
        if kind == "list":
            return [fill(item) for item in value]
        return arrays[value[0]].reshape(value[1]) if kind == "array" else value

    return fill(skeleton)


def tensors(state: Any) -> Any:
    """The nested state with torch tensors in place of numpy arrays."""
    if isinstance(state, dict):
        return {key: tensors(item) for key, item in state.items()}
    if isinstance(state, list):
        return [tensors(item) for item in state]
    if isinstance(state, np.ndarray):
        import torch

        return torch.from_numpy(state)
    return state


# ------------------------------------------------------------------------------------------------------------- identity


def git_state() -> dict[str, Any]:
    """The repository's commit and whether tracked files other than results differ from it; nulls outside a checkout."""

    def git(*words: str) -> str | None:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        commit, changes = (
            git("rev-parse", "HEAD"),
            git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!*/results/*"),
        )
    except OSError:
        commit = changes = None
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def choose_device(wanted: str) -> tuple[str, bool]:
    """A torch device for --device auto | cpu | cuda, and whether it computes in bfloat16. Raises InputError without a GPU for cuda."""
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: this machine shows torch no GPU; use cpu or auto")
    device = "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"
    # a processor whose bfloat16 products have no tile unit (AMX) is faster in float32
    return (
        device,
        torch.cuda.is_bf16_supported() if device == "cuda" else torch.cpu._is_amx_tile_supported(),
    )


def versions() -> dict[str, str]:
    """Python and the versions of the installed libraries that can change a result."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def peak_mb() -> float:
    """Largest resident memory of this process so far, in MiB."""
    with contextlib.suppress(
        OSError
    ):  # on Linux: unlike ru_maxrss, not inherited from the process that started this one
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) / 1024, 1)
    scale = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**20, 1)


def plain(value: Any) -> Any:
    """A config as JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


# ------------------------------------------------------------------------------------------------------------------ run


class Run:
    """One run folder, held by one process.

    `memo` keeps the result of each finished part and `save`/`load` the state inside a part, so that a killed run that is
    resumed writes the same metrics.json as an unbroken one (but for the measured `seconds` and `peak_mb`).

    Raises InputError when the folder cannot be written, is held by another run, or holds a run that neither --resume
    nor --overwrite speaks of.
    """

    def __init__(
        self, config: BaseConfig, folder: Path, script: str, source: str, provenance: dict[str, Any]
    ):
        self.folder = Path(folder)
        self.started = time.perf_counter()
        identity = {
            "assignment": Path(script).resolve().parent.name,
            "source": source,
            "preset": config.preset,
            "config": {
                key: value for key, value in plain(config).items() if key not in HOUSEKEEPING
            },
            "data": plain(provenance),
        }
        self.command = self._command(config, identity["assignment"])
        old = self._take(config, identity) or {}
        self.identity = identity
        self.record = {
            **identity,
            **git_state(),
            "resumed_from_commits": [
                *old.get("resumed_from_commits", []),
                *([old["commit"]] if "commit" in old else []),
            ],
            "argv": sys.argv,
            "command": self.command,
            "versions": versions(),
            "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "device": None,
            "status": "running",
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "notes": {},
        }
        write_json(self.folder / "run.json", self.record)
        self._writer = None
        if config.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(self.folder / "tensorboard")

    @staticmethod
    def _command(config: BaseConfig, assignment: str) -> str:
        """The command that repeats this run from the repository root: its preset and every option that differs from it."""
        words = ["python", f"{assignment}/{config.script}", "--preset", config.preset]
        preset = dataclasses.replace(type(config)(), **config.presets().get(config.preset, {}))
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            if field.name in HOUSEKEEPING | {"preset"} or value == getattr(preset, field.name):
                continue
            words.append("--" + field.name.replace("_", "-"))
            if value is not True:
                words += [str(item) for item in value] if isinstance(value, tuple) else [str(value)]
        return shlex.join(words)

    def _take(self, config: BaseConfig, identity: dict[str, Any]) -> dict[str, Any] | None:
        """Makes or takes over the folder and returns the record of the run that goes on; nothing changes before every check has passed."""
        old = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.folder / ".lock")
            self._lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                f"{self.folder} is in use by another run; give another folder with --out"
            ) from None
        except OSError as error:
            raise InputError(
                f"--out {self.folder} cannot be written ({error.strerror}); give a writable folder"
            ) from None
        if (self.folder / "run.json").exists():
            try:
                old = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
            except (OSError, ValueError):
                raise InputError(
                    f"{self.folder / 'run.json'} is not readable JSON; choose another --out or remove it"
                ) from None
        if old and not config.overwrite:
            if not config.resume:
                self._lock.release()
                raise InputError(
                    f"{self.folder} holds a {old.get('status', 'broken')} run; use --resume to go on, --overwrite to replace it, or another --out"
                )
            was = old.get("config", {})
            # options that did not exist when the run began take their present values
            different = [
                key for key in identity if key != "config" and old.get(key) != identity[key]
            ]
            different += [
                f"--{key.replace('_', '-')}"
                for key, value in was.items()
                if identity["config"].get(key) != value
            ]
            if different:
                self._lock.release()
                raise InputError(
                    f"--resume: {self.folder} was made with another {', '.join(different)}; use the same ones or --overwrite"
                )
        if old and config.overwrite:
            for item in self.folder.iterdir():
                if item.name != ".lock":
                    shutil.rmtree(item) if item.is_dir() else item.unlink()
        (self.folder / "checkpoints").mkdir(exist_ok=True)
        self._csv = os.open(
            self.folder / "metrics.csv", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644
        )
        if os.fstat(self._csv).st_size == 0:
            os.write(self._csv, CSV_HEADER)
        self._mark = len(CSV_HEADER)  # metrics.csv is good up to here
        self._part: str | None = None  # under way
        return None if config.overwrite else old

    # -- streamed metrics and notes

    def log(self, step: int, epoch: int, split: str, **values: float) -> None:
        """Appends one line a value to metrics.csv; a line is one write, so a killed run leaves no half line."""
        for name, value in values.items():
            line = io.StringIO()
            csv.writer(line, lineterminator="\n").writerow(
                [step, epoch, split, name, repr(float(value))]
            )
            try:
                os.write(self._csv, line.getvalue().encode())
            except OSError as error:
                raise InputError(
                    f"{self.folder / 'metrics.csv'} cannot be written ({error.strerror}); --resume goes on once it can be"
                ) from None
            if self._writer is not None:
                self._writer.add_scalar(f"{split}/{name}", value, step)

    def note(self, **facts: Any) -> None:
        """Adds facts about this run (audit counts, device, choices) to run.json."""
        self.record["notes"].update(plain(facts))
        write_json(self.folder / "run.json", self.record)

    # -- resuming

    def _checkpoint(self, name: str) -> Path:
        return self.folder / "checkpoints" / f"{name}.safetensors"

    def save(self, name: str, state: Any) -> None:
        """Writes a checkpoint of a part that is under way, with the place where metrics.csv stood."""
        save_state(self._checkpoint(name), {"csv": os.fstat(self._csv).st_size, "state": state})

    def _cut(self, size: int) -> None:
        os.ftruncate(
            self._csv, min(size, os.fstat(self._csv).st_size)
        )  # (beyond its end it would grow by zero bytes)

    def load(self, name: str) -> Any | None:
        """The last checkpoint of a part, or None; metrics.csv goes back to where it stood then."""
        if self._part not in (
            None,
            name,
        ):  # else memo would have cut off what that checkpoint's metrics.csv still counts on
            raise ValueError(
                f'the part "{self._part}" asks for the checkpoint "{name}"; it must bear the part\'s name'
            )
        if not self._checkpoint(name).exists():
            return None
        kept = load_state(self._checkpoint(name))
        self._cut(kept["csv"])
        return kept["state"]

    def memo(self, name: str, work: Callable[[], Any]) -> Any:
        """The result of `work`, from disk when this run has finished that part before.

        Parts come in the same order in every process; metrics are logged inside parts, so that what a killed part had
        logged can be taken back. Checkpoints inside `work` bear the part's name.
        """
        finished = self._checkpoint(f"done-{name}")
        if finished.exists():
            kept = load_state(finished)
            self._mark = kept["csv"]
            return kept["state"]
        if not self._checkpoint(
            name
        ).exists():  # else `work` loads it, and metrics.csv goes back to where that stood
            self._cut(self._mark)
        self._part = name
        self.save(f"done-{name}", work())
        self._part = None
        self._checkpoint(name).unlink(missing_ok=True)
        # the file is read back, so that an unbroken run goes on with the very values that a resumed one would read
        return self.memo(name, work)

    @contextlib.contextmanager
    def stoppable(self, save: Callable[[], None]) -> Iterator[Callable[[int, float], None]]:
        """Inside the block Ctrl-C and SIGTERM wait for the next call of the yielded check(step, loss), which saves and stops.

        The check raises Interrupted then, and FloatingPointError when the loss is not finite.
        """
        caught: list[int] = []
        before = {
            number: signal.signal(number, lambda n, _: caught.append(n))
            for number in (signal.SIGINT, signal.SIGTERM)
        }

        last = [float("nan")]

        def check(step: int, loss: float) -> None:
            if not np.isfinite(loss):
                raise FloatingPointError(
                    f"step {step}: the loss is {loss}; the last finite one was {last[0]}; the last checkpoint is in {self.folder}"
                )
            last[0] = loss
            if caught:
                save()
                raise Interrupted(
                    f"a checkpoint is in {self.folder}; go on with: {self.command} --resume"
                )

        try:
            yield check
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # -- the end

    def finish(
        self, rows: list[dict[str, Any]], metrics_info: dict[str, dict[str, str]]
    ) -> dict[str, Any]:
        """Writes metrics.json: every row gets all keys of ROW_KEYS; returns what was written.

        Raises ValueError for an unknown key or a metric that metrics_info does not explain.
        """
        table = []
        for row in rows:
            if unknown := set(row) - set(ROW_KEYS):
                raise ValueError(f"unknown row keys {sorted(unknown)}")
            if row["metric"] not in metrics_info:
                raise ValueError(f"metric {row['metric']} is not explained in metrics_info")
            table.append(
                {key: row.get(key) for key in ROW_KEYS}
                | {"command": row.get("command") or self.command}
            )
        results = {
            "run": {**self.identity, "versions": self.record["versions"]},
            "metrics_info": metrics_info,
            "rows": table,
        }
        write_json(self.folder / "metrics.json", results)
        return results

    def close(self, status: str) -> None:
        """Records how the run ended and gives the folder free."""
        self.record.update(
            status=status, seconds=round(time.perf_counter() - self.started, 1), peak_mb=peak_mb()
        )
        write_json(self.folder / "run.json", self.record)
        if self._writer is not None:
            self._writer.close()
        os.close(self._csv)
        self._lock.release()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        interrupted = kind is not None and issubclass(kind, Interrupted | KeyboardInterrupt)
        self.close("finished" if kind is None else "interrupted" if interrupted else "failed")


def finished_runs(results: Path) -> list[tuple[Path, dict[str, Any]]]:
    """(folder, run.json) of the finished runs with a report below a results folder (ablations keep their tables alone), the newest last."""
    found = []
    for file in Path(results).glob("*/run.json"):
        with contextlib.suppress(OSError, ValueError):
            record = json.loads(file.read_text(encoding="utf-8"))
            if record.get("status") == "finished" and all(
                (file.parent / name).exists() for name in ("metrics.json", "report.pdf")
            ):
                found.append((file.parent, record))
    return sorted(found, key=lambda run: (run[1]["started"], str(run[0])))


def newest_run(results: Path) -> Path:
    """The newest finished run below a results folder. Raises InputError when there is none."""
    if not (found := finished_runs(results)):
        raise InputError(
            f"no finished run in {results}; make one with train.py, or name one with --run"
        )
    return found[-1][0]


def progress(items: Iterable, label: str, total: int | None = None) -> Iterator:
    """Yields from `items` under a bar with rate and remaining time on a terminal, or plain lines elsewhere."""
    total = len(items) if total is None and isinstance(items, Sized) else total
    if sys.stderr.isatty():
        yield from tqdm(items, desc=label, total=total, leave=False)
        return
    start = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last > 15 and total:
            print(
                f"{label}: {done}/{total}, {(now - start) / done * (total - done):.0f} s left",
                file=sys.stderr,
                flush=True,
            )
            last = now
