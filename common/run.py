"""The run folder: identity first, metrics streamed, every finished part stored for --resume."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import inspect
import io
import json
import os
import platform
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from filelock import FileLock, Timeout
from tqdm import tqdm

from common.cli import BaseConfig, InputError, Interrupted, option_of
from common.files import JsonObject, State, load_state, read_json, save_state, write_json
from common.machine import git_state, peak_mb, versions
from common.results import Metric, Results, Row, write_results
from common.shard import WHOLE, Shard
from common.world import ALONE, World

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

CSV_HEADER = b"step,epoch,split,name,value\n"
HOUSEKEEPING = {"out", "resume", "overwrite", "tensorboard", "shard"}  # they change no result
TIMES = {"seconds", "checking"}  # of a stored part: differ between two that are alike
T = TypeVar("T")


class Run:
    """One run folder, held by one process.

    `memo` stores the result of each finished part, `save` and `load` the state inside a part, so
    that a run that is killed and resumed writes the same metrics.json as an unbroken one (but for
    the measured `seconds` and `peak_mb`). On a process of rank above 0 the same object reads what
    the first process stores and writes nothing.

    A shard does some of the run's parts in a folder of its own inside the run folder. The whole run
    takes over the finished parts of all shards, as if it had been resumed after them. `choosing`
    names the options that only choose which parts there are: in them a shard may differ.

    Raises InputError when the folder cannot be written, is held by another run, or holds a run
    and neither --resume nor --overwrite is given; also for shards that are still running, belong to
    other options, or disagree.
    """

    def __init__(
        self,
        config: BaseConfig,
        folder: Path,
        script: str,
        source: str,
        provenance: JsonObject,
        world: World = ALONE,
        shard: Shard = WHOLE,
        choosing: Collection[str] = (),
    ):
        self.home = Path(folder)  # of the whole run
        self.shard = shard
        self.choosing = {option_of(name) for name in choosing}
        self.folder = self.home if shard.is_whole else shard_folder(self.home, shard)
        self.world = world
        self.writes = world.rank == 0
        self.started = time.perf_counter()
        self.record: JsonObject = {}
        self._part: str | None = None  # the part under way
        self._mark = len(CSV_HEADER)  # metrics.csv is complete up to here
        self._tensorboard: SummaryWriter | None = None
        assignment = Path(script).resolve().parent.name
        self.command = command_of(config, assignment)
        options = as_json(config)
        self.identity: JsonObject = {
            "assignment": assignment,
            "source": source,
            "preset": config.preset,
            "config": {name: options[name] for name in options if name not in HOUSEKEEPING},
            "data": as_json(provenance),
        }
        if self.writes:
            self._open(config)
        world.wait()  # no process reads what --overwrite removes

    def _open(self, config: BaseConfig) -> None:
        """Takes the folder and writes run.json."""
        self._take_lock()
        try:
            earlier = self._earlier_record(config)
            shards = {} if config.overwrite or not self.shard.is_whole else self._shards()
        except InputError:
            self._lock.release()
            raise
        if config.overwrite:
            self._clear()
        (self.folder / "checkpoints").mkdir(exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        self._csv = os.open(self.folder / "metrics.csv", flags, 0o644)
        if os.fstat(self._csv).st_size == 0:
            os.write(self._csv, CSV_HEADER)
        commits = earlier.get("resumed_from_commits", [])
        for record in (earlier, *shards.values()):
            if "commit" in record and record["commit"] not in commits:
                commits = [*commits, record["commit"]]
        self.record = {
            **self.identity,
            **git_state(),
            "resumed_from_commits": commits,
            "argv": sys.argv,
            "command": self.command,
            "versions": versions(),
            "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "device": None,
            "shards": {folder.name: shard.get("seconds") for folder, shard in shards.items()},
            "status": "running",
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "notes": {},
        }
        write_json(self.folder / "run.json", self.record)
        self._take_over(shards)
        if config.tensorboard:
            from torch.utils import tensorboard

            self._tensorboard = tensorboard.SummaryWriter(self.folder / "tensorboard")

    def _take_lock(self) -> None:
        """Makes the folder and locks it against other runs."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.folder / ".lock")
            self._lock.acquire(timeout=0)
        except Timeout:
            problem = "is in use by another run; give another folder with --out"
            raise InputError(f"{self.folder} {problem}") from None
        except OSError as error:
            problem = f"cannot be written ({error.strerror}); give a writable folder"
            raise InputError(f"--out {self.folder} {problem}") from None

    def _earlier_record(self, config: BaseConfig) -> JsonObject:
        """run.json of the run that is resumed, or an empty object; raises InputError otherwise."""
        if not (self.folder / "run.json").exists() or config.overwrite:
            return {}
        earlier = read_record(self.folder)
        if not config.resume:
            raise InputError(
                f"{self.folder} holds a {earlier.get('status', 'broken')} run; use --resume to "
                "continue it, --overwrite to replace it, or another --out"
            )
        if different := self._different(earlier):
            raise InputError(
                f"--resume: {self.folder} was made with another {', '.join(different)}; "
                "use the same ones or --overwrite"
            )
        return earlier

    def _different(self, earlier: JsonObject) -> list[str]:
        """In what a record is not of this run."""
        now = self.identity
        different = [key for key in now if key != "config" and earlier.get(key) != now[key]]
        # options that did not exist when the run began take their present values
        for name, value in earlier["config"].items():
            if now["config"].get(name) != value:
                different.append(option_of(name))
        return different

    def _shards(self) -> dict[Path, JsonObject]:
        """The folders of this run's shards with their records. Raises InputError as the class."""
        shards = {}
        for file in sorted((self.folder / "checkpoints" / "shards").glob("*/run.json")):
            record = read_record(file.parent)
            if different := [name for name in self._different(record) if name not in self.choosing]:
                raise InputError(
                    f"{file.parent} was made with another {', '.join(different)}; use the same "
                    "ones, remove it, or --overwrite"
                )
            try:
                FileLock(file.parent / ".lock").acquire(timeout=0).lock.release()
            except Timeout:
                raise InputError(f"{file.parent} is still running; wait for it") from None
            if record.get("status") != "finished":
                said = f"{file.parent} is unfinished; its finished parts are taken over"
                print(f"notice: {said}, the others done here", file=sys.stderr)
            shards[file.parent] = record
        return shards

    def _take_over(self, shards: Collection[Path]) -> None:
        """Stores the parts that shards have finished, with their lines of metrics.csv, as its own.

        A part that several of them have, or the run itself, must be the same but for its seconds.
        """
        if not shards:
            return
        for path in (self.folder / "checkpoints").glob("done-*.safetensors"):
            self._mark = max(self._mark, load_state(path)["csv"])
        for folder in shards:
            for name, lines, state in parts_of(folder):
                if self._checkpoint(name).exists():
                    if not alike(state, load_state(self._checkpoint(name))["state"]):
                        raise InputError(
                            f"{folder} and {self.folder} differ in {name}: machines of several "
                            "kinds round differently; train all shards on one kind"
                        )
                    continue
                self._cut(self._mark)
                os.write(self._csv, lines)
                self.save(name, state)
                self._mark = os.fstat(self._csv).st_size

    def _clear(self) -> None:
        """Removes what an earlier run left, but for the lock."""
        for item in self.folder.iterdir():
            if item.name != ".lock":
                shutil.rmtree(item) if item.is_dir() else item.unlink()

    def log(self, step: int, epoch: int, split: str, **values: float) -> None:
        """Appends one line per value to metrics.csv; a killed run leaves no half line."""
        if not self.writes:
            return
        for name, value in values.items():
            line = io.StringIO()
            row = [step, epoch, split, name, repr(float(value))]
            csv.writer(line, lineterminator="\n").writerow(row)
            try:
                os.write(self._csv, line.getvalue().encode())
            except OSError as error:
                problem = f"cannot be written ({error.strerror}); --resume continues once it can be"
                raise InputError(f"{self.folder / 'metrics.csv'} {problem}") from None
            if self._tensorboard is not None:
                self._tensorboard.add_scalar(f"{split}/{name}", value, step)

    def note(self, **facts: object) -> None:
        """Adds facts about this run (audit counts, device, choices) to run.json."""
        if not self.writes:
            return
        self.record["notes"].update(as_json(facts))
        write_json(self.folder / "run.json", self.record)

    def _checkpoint(self, name: str) -> Path:
        return self.folder / "checkpoints" / f"{name}.safetensors"

    def save(self, name: str, state: State) -> None:
        """Writes a checkpoint of the part under way, with the current length of metrics.csv."""
        if self.writes:
            size = os.fstat(self._csv).st_size
            save_state(self._checkpoint(name), {"csv": size, "state": state})

    def load(self, name: str) -> State | None:
        """The last checkpoint of a part, or None; metrics.csv is cut to its length at that time."""
        if self._part not in (None, name):  # else memo would cut off lines of that checkpoint
            problem = f'asks for the checkpoint "{name}"; it must bear the part\'s name'
            raise ValueError(f'the part "{self._part}" {problem}')
        if not self._checkpoint(name).exists():
            return None
        stored = load_state(self._checkpoint(name))
        self._cut(max(stored["csv"], self._mark))  # (parts of shards may have come since)
        return stored["state"]

    def _cut(self, size: int) -> None:
        """Cuts metrics.csv to a size, and never extends it with zero bytes."""
        if self.writes:
            os.ftruncate(self._csv, min(size, os.fstat(self._csv).st_size))

    def memo(self, name: str, function: Callable[..., T], *arguments: object) -> T:
        """function(*arguments), or its stored result when this run has finished the part before.

        Parts come in the same order in every process; metrics are logged inside parts, so that
        lines of a killed part can be taken back. Checkpoints inside bear the part's name. A data
        class is stored field by field and rebuilt from the function's return annotation.
        """
        if not self._checkpoint(f"done-{name}").exists():
            if not self._checkpoint(name).exists():  # else the part loads it and cuts metrics.csv
                self._cut(self._mark)
            self._part = name
            result = function(*arguments)
            self._part = None
            if not self.writes:
                return result
            is_class = dataclasses.is_dataclass(result)
            self.save(f"done-{name}", vars(result) if is_class else result)
            self._checkpoint(name).unlink(missing_ok=True)
        # an unbroken run too reads the file, so that it goes on with the values of a resumed one
        stored = load_state(self._checkpoint(f"done-{name}"))
        self._mark = max(self._mark, stored["csv"])  # (a part may be asked for again)
        return _rebuilt(stored["state"], function)

    @contextlib.contextmanager
    def stoppable(self, save: Callable[[], None]) -> Iterator[Callable[[int, float], None]]:
        """Yields check(step, loss), at which Ctrl-C and SIGTERM take effect inside the block.

        The check saves and raises Interrupted after a signal, and so does the end of the block; it
        raises FloatingPointError when the loss is not finite.
        """
        if not self.writes:  # the first process saves and stops; torchrun ends the others
            yield lambda step, loss: None
            return
        signals: list[int] = []
        last_finite = float("nan")

        def stop_if_asked() -> None:
            if signals:
                save()
                where = f"a checkpoint is in {self.folder}"
                raise Interrupted(f"{where}; continue with: {self.resume_command}")

        def check(step: int, loss: float) -> None:
            nonlocal last_finite
            if not np.isfinite(loss):
                raise FloatingPointError(
                    f"step {step}: the loss is {loss}; the last finite one was {last_finite}; "
                    f"the last checkpoint is in {self.folder}"
                )
            last_finite = loss
            stop_if_asked()

        handlers = {
            number: signal.signal(number, lambda received, _: signals.append(received))
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield check
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        stop_if_asked()  # a signal that came after the last check

    @property
    def resume_command(self) -> str:
        """The whole command that continues this run."""
        shard = "" if self.shard.is_whole else f" --shard {self.shard}"
        return f"{self.command} --out {shlex.quote(str(self.home))}{shard} --resume"

    def finish(
        self,
        rows: Iterable[Row],
        metrics_info: Mapping[str, Metric],
        draw: Callable[[Path], None] | None = None,
        report: Path | None = None,
    ) -> Results:
        """Writes metrics.json and returns its content; draws figures, compiles `report` (.typ).

        Raises ValueError for a metric that metrics_info does not explain.
        """
        identity = {**self.identity, "versions": self.record["versions"]}
        path = self.folder / "metrics.json"
        results = write_results(path, identity, metrics_info, rows, self.command)
        if draw is not None:
            draw(self.folder)
        if report is not None:
            from common.report import compile_report

            compile_report(self.folder, report, self.folder / "report.pdf")
        return results

    def __enter__(self) -> Run:
        if self.writes:
            announce(self.identity["data"])
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Records how the run ended and releases the folder."""
        if not self.writes:
            return
        status = "finished" if kind is None else "failed"
        if kind is not None and issubclass(kind, Interrupted | KeyboardInterrupt):
            status = "interrupted"
        seconds = round(time.perf_counter() - self.started, 1)
        self.record.update(status=status, seconds=seconds, peak_mb=peak_mb())
        write_json(self.folder / "run.json", self.record)
        if self._tensorboard is not None:
            self._tensorboard.close()
        os.close(self._csv)
        self._lock.release()


def shard_folder(folder: Path, shard: Shard) -> Path:
    """Where a shard of the run in `folder` does its parts."""
    return folder / "checkpoints" / "shards" / f"{shard.number}-of-{shard.count}"


def parts_of(folder: Path) -> list[tuple[str, bytes, State]]:
    """The finished parts of a run folder, as they came.

    Of each its checkpoint's name, its lines of metrics.csv, and its state.
    """
    log = (folder / "metrics.csv").read_bytes()
    files = (folder / "checkpoints").glob("done-*.safetensors")
    stored = [(path.stem, load_state(path)) for path in sorted(files, key=_written)]
    start = len(CSV_HEADER)
    parts = []
    for name, part in sorted(stored, key=lambda each: each[1]["csv"]):  # (stable)
        parts.append((name, log[start : part["csv"]], part["state"]))
        start = part["csv"]
    return parts


def _written(path: Path) -> int:
    return path.stat().st_mtime_ns


def alike(one: State, other: State) -> bool:
    """Whether two stored states are the same but for the seconds that they took."""
    if isinstance(one, dict) and isinstance(other, dict):
        names = one.keys() - TIMES
        same_names = names == other.keys() - TIMES
        return same_names and all(alike(one[name], other[name]) for name in names)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    return bool(np.array_equal(one, other, equal_nan=isinstance(one, np.ndarray)))


def announce(data: JsonObject) -> None:
    """Prints what was read ("read" of a data set's provenance), and the notice of a simulation."""
    if data.get("read"):
        print(f"read: {data['read']}", flush=True)
    if data.get("notice"):
        print(f"notice: {data['notice']}", file=sys.stderr)


def command_of(config: BaseConfig, assignment: str) -> str:
    """The command that repeats a run from the repository root.

    It names the preset and every option that differs from it.
    """
    words = ["python", f"{assignment}/{config.script}", "--preset", config.preset]
    preset = config.of_preset(config.preset)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name in HOUSEKEEPING | {"preset"} or value == getattr(preset, field.name):
            continue
        words.append(option_of(field.name))
        if isinstance(value, tuple):
            words += [str(item) for item in value]
        elif value is not True:
            words.append(str(value))
    return shlex.join(words)


def as_json(value: object) -> Any:
    """A config, path or nested container as JSON values."""
    return json.loads(json.dumps(value, default=_plain))


def _plain(value: object) -> object:
    """What JSON has no word for: data classes, paths and numbers of numpy."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return value.item() if isinstance(value, np.generic) else str(value)


def _rebuilt(state: State, function: Callable[..., T]) -> T:
    """The stored state as the data class that the function is annotated to return, if it is one."""
    annotation = inspect.signature(function).return_annotation
    if isinstance(annotation, str):
        plain = inspect.unwrap(getattr(function, "__func__", function))
        annotation = getattr(plain, "__globals__", {}).get(annotation)
    is_class = isinstance(annotation, type) and dataclasses.is_dataclass(annotation)
    return annotation(**state) if is_class else state


def read_record(folder: Path) -> JsonObject:
    """run.json of a run folder. Raises InputError for a file that does not describe a run."""
    record = read_json(folder / "run.json")
    kinds = {"config": dict, "data": dict, "notes": dict, "source": str, "started": str}
    if not all(isinstance(record.get(key), kind) for key, kind in kinds.items()):
        raise InputError(f"{folder / 'run.json'} does not describe a run; name another folder")
    return record


@dataclasses.dataclass(frozen=True)
class SavedRun:
    """A finished run on disk: its folder and its run.json."""

    folder: Path
    record: JsonObject

    @classmethod
    def open(
        cls, folder: Path | None, results: Path, needs: Sequence[str] = ("metrics.json",)
    ) -> SavedRun:
        """The run in `folder`, or the newest finished one below `results` that --out did not name.

        Raises InputError where there is none, where run.json or a file of `needs` is missing, and
        for a device or a pipe, which would never end.
        """
        if folder is None:
            if not (runs := finished_runs(results)):
                advice = "make one with train.py, or name one with --run"
                raise InputError(f"no finished run in {results}; {advice}")
            folder = runs[-1].folder
        for name in ("run.json", *needs):
            if not (folder / name).is_file():
                advice = f"give the folder of a finished run of {Path(results).parent.name}"
                raise InputError(f"--run {folder} holds no {name}; {advice}")
        for item in folder.iterdir():
            if item.exists() and not item.is_file() and not item.is_dir():
                raise InputError(f"{item} is a device or a pipe; a run folder holds files alone")
        return cls(folder, read_record(folder))

    @property
    def config(self) -> JsonObject:
        """The options that the run was made with."""
        return self.record["config"]

    @property
    def is_usual(self) -> bool:
        """Whether its folder has the name that a training without --out gives it."""
        return self.folder.name == f"{self.record['source']}-{self.record.get('preset')}"

    @property
    def data(self) -> JsonObject:
        """Where the run's data came from."""
        return self.record["data"]

    @property
    def notes(self) -> JsonObject:
        """What the run noted: audit counts, device, choices."""
        return self.record["notes"]


def finished_runs(results: Path) -> list[SavedRun]:
    """The finished runs with a report below a results folder, the newest last.

    Ablations have no report and are left out. Runs in a folder that --out named come first: they
    are special ones, on few series or with candles, that one asks for by their name.
    """
    runs = []
    for file in Path(results).glob("*/run.json"):
        with contextlib.suppress(InputError):
            run = SavedRun(file.parent, read_record(file.parent))
            complete = all((run.folder / name).exists() for name in ("metrics.json", "report.pdf"))
            if run.record.get("status") == "finished" and complete:
                runs.append(run)
    return sorted(runs, key=lambda run: (run.is_usual, run.record["started"], str(run.folder)))


def progress(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """`items` under a bar with rate and remaining time, drawn rarely where it goes into a file."""
    seconds = 0.1 if sys.stderr.isatty() else 15.0
    pace = {"mininterval": seconds, "maxinterval": seconds, "delay": seconds}
    return iter(tqdm(items, label, total, leave=False, **pace))
