"""One frozen dataclass becomes a command line; a user's mistake becomes one line and exit code 2.

Nothing heavier than tyro is imported here, so that `--help` and a refusal answer at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias, TypeVar, get_args

import tyro

Preset = Literal["smoke", "default", "full"]
DeviceName = Literal["auto", "cpu", "cuda"]
PathOrNone = Annotated[Path | None, tyro.conf.arg(metavar="PATH")]
Fields: TypeAlias = dict[str, Any]  # values by the name of a config's field
C = TypeVar("C")


class InputError(Exception):
    """A mistake in an option or a file: one line that says what, where and what is allowed."""


class Interrupted(Exception):
    """Ctrl-C or SIGTERM arrived and everything worth keeping is on disk."""


@dataclasses.dataclass(frozen=True)
class BaseConfig:
    """The options that every `train.py` has."""

    script: ClassVar[str] = "train.py"  # the script that the command of a run names
    preset: Preset = "default"
    """smoke: under a minute; default: ten minutes on two CPU cores; full: the real experiment"""
    data: PathOrNone = None
    """file or folder with your own data; docs/own-data.md lists the formats"""
    out: PathOrNone = None
    """run folder (default: results/<source>-<preset> beside train.py)"""
    device: DeviceName = "auto"
    """where networks are computed; auto: the GPU where there is one"""
    resume: bool = False
    """continue an interrupted run from its last checkpoint"""
    overwrite: bool = False
    """replace the run that the run folder holds"""
    tensorboard: bool = False
    """also write the metrics as TensorBoard events into <run>/tensorboard"""

    @classmethod
    def presets(cls) -> dict[str, Fields]:
        """The fields that each preset changes: {preset: {field: value}}."""
        return {}

    @classmethod
    def of_preset(cls, name: Preset) -> Self:
        """The defaults with what a preset changes."""
        return dataclasses.replace(cls(), **{**cls.presets().get(name, {}), "preset": name})

    def check(self) -> None:
        """Raises InputError for paths that cannot be used, before anything heavy is imported."""
        check_exists("--data", self.data)
        if self.out is not None:
            check_writable("--out", self.out)


@dataclasses.dataclass(frozen=True)
class SavedRunConfig:
    """The options that every `evaluate.py` and `predict.py` has."""

    out_is_folder: ClassVar[bool] = False  # else --out names a file
    run: PathOrNone = None
    """run folder (default: the newest finished run in results/ that --out did not name)"""
    data: PathOrNone = None
    """file or folder with your own data; docs/own-data.md lists the formats"""
    out: PathOrNone = None
    """where the result is written"""
    device: DeviceName = "auto"
    """where networks are computed; auto: the GPU where there is one"""

    def check(self) -> None:
        """Raises InputError for paths that cannot be used, before anything heavy is imported."""
        check_exists("--run", self.run)
        check_exists("--data", self.data)
        if self.out is None:
            return
        if not self.out_is_folder and not self.out.absolute().parent.is_dir():
            raise InputError(f"--out {self.out}: the folder {self.out.parent} does not exist")
        check_writable("--out", self.out if self.out_is_folder else self.out.parent)


def check_exists(option: str, path: Path | None) -> None:
    """Raises InputError where a path is given and nothing is there."""
    if path is not None and not path.exists():
        raise InputError(f"{option} {path} does not exist; give the path of a file or folder")


def check_writable(option: str, folder: Path) -> None:
    """Raises InputError where a folder neither exists and can be written, nor can be made."""
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        problem = f"cannot be written ({nearest} is no folder that may be written)"
        raise InputError(f"{option} {folder} {problem}; give a writable folder")


def check_ranges(config: object, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Raises InputError for a number of the config below the least or above the largest allowed.

    `ranges` is {field: (least, largest)}; entries of tuples are checked one by one, None and
    fields that the config lacks are skipped.
    """
    for name, (least, largest) in ranges.items():
        given = getattr(config, name, None)
        for value in given if isinstance(given, tuple) else (given,):
            if value is None or least <= value <= largest:
                continue  # (NaN is in no range)
            allowed = f"{least} and more" if largest == math.inf else f"{least} to {largest}"
            raise InputError(f"{option_of(name)} {value}: allowed are {allowed}")


def option_of(field: str) -> str:
    """The option of a config's field: test_steps -> --test-steps."""
    return "--" + field.replace("_", "-")


def parse(config_class: type[C], argv: Sequence[str] | None = None) -> C:
    """Reads a frozen dataclass from the command line; a preset changes the defaults, options win.

    Raises InputError (one line) for an unknown option or a value that is not allowed.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    default = config_class()
    if isinstance(default, BaseConfig):
        default = default.of_preset(_preset_of(argv, default.preset))
    caught = io.StringIO()
    try:
        with contextlib.redirect_stderr(caught):
            config = tyro.cli(
                config_class,
                args=argv,
                default=default,
                description=config_class.__doc__,
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise InputError(_one_line(caught.getvalue())) from None
    if hasattr(config, "check"):
        config.check()
    return config


def _preset_of(argv: Sequence[str], default: Preset) -> Preset:
    """The preset on the command line; a name that is none is left for tyro to refuse."""
    words = " ".join(argv).replace("--preset=", "--preset ").split()
    name = dict(itertools.pairwise(words)).get("--preset", default)
    return name if name in get_args(Preset) else default  # type: ignore[return-value]


def _one_line(box: str) -> str:
    """tyro's framed, wrapped message as a single line, without its advice to read the help."""
    lines = [line.strip(" │") for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()]
    text = " ".join(line for line in lines if line and line[0] not in "╭╰─")
    text = re.split(r" ?(Argument helptext:|For full helptext)", text)[0].strip()
    return text or "the command line cannot be read; --help lists the options"


def data_folder() -> Path:
    """The folder of data sets and download caches: $ADL_DATA_DIR, else data/ in the repository."""
    return Path(os.environ.get("ADL_DATA_DIR") or Path(__file__).resolve().parents[1] / "data")


def read_options(config_class: type[C]) -> C:
    """The options of a script; prints one line and exits with code 2 for a mistake.

    A script calls this before its heavy imports, during which nothing is lost by a Ctrl-C.
    """
    with _exit_codes():
        options = parse(config_class)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return options


def entry(main: Callable[[C], object], options: C) -> None:
    """Runs a script's main: exit code 2 and one line for a user's mistake, 130 after Ctrl-C."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with _exit_codes():
        main(options)


@contextlib.contextmanager
def _exit_codes() -> Iterator[None]:
    """Turns a user's mistake and an interruption into one line and the exit code."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except (InputError, FloatingPointError) as error:  # the second: a loss that is not finite
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    except (Interrupted, KeyboardInterrupt) as cause:
        advice = "finished parts are stored; the same command with --resume continues"
        print(f"interrupted: {str(cause) or advice}", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:  # `| head` has read enough; what is printed at exit goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(128 + signal.SIGPIPE) from None
