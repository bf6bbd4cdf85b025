"""One frozen dataclass becomes a command line; a user's mistake becomes one line on stderr and exit code 2."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args

import tyro

Preset = Literal["smoke", "default", "full"]
PathOrNone = Annotated[Path | None, tyro.conf.arg(metavar="PATH")]
C = TypeVar("C")


class InputError(Exception):
    """A mistake in an option or an input file: one line that says what, where and what is allowed."""


class Interrupted(Exception):
    """Ctrl-C or SIGTERM arrived and everything worth keeping is on disk."""


@dataclasses.dataclass(frozen=True)
class BaseConfig:
    """The options that `train.py` of every assignment has."""

    script: ClassVar[str] = "train.py"  # which command a run's rows name
    preset: Preset = "default"
    """smoke: under a minute; default: up to ten minutes on two CPU cores; full: the real experiment"""
    data: PathOrNone = None
    """the user's own data: file or folder; see the assignment's README"""
    out: PathOrNone = None
    """run folder (default: results/<source>-<preset> beside train.py)"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    resume: bool = False
    """continue an interrupted run from its last checkpoint"""
    overwrite: bool = False
    """replace what an earlier run left in the run folder"""
    tensorboard: bool = False
    """also write the metrics as TensorBoard events into <run>/tensorboard"""

    @classmethod
    def presets(cls) -> dict[str, dict[str, Any]]:
        """What each preset changes: {preset: {field: value}}."""
        return {}


def parse(config_class: type[C], argv: Sequence[str] | None = None) -> C:
    """Reads a frozen dataclass from the command line; a preset changes the defaults, options given by hand win.

    Raises InputError (one line) for an unknown option or a value that is not allowed.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    default = config_class()
    if isinstance(default, BaseConfig):
        words = " ".join(argv).replace("--preset=", "--preset ").split()
        name = dict(itertools.pairwise(words)).get("--preset", default.preset)
        if name in get_args(Preset):  # anything else is tyro's to refuse
            default = dataclasses.replace(
                default, **default.presets().get(name, {}) | {"preset": name}
            )
    caught = io.StringIO()
    try:
        with contextlib.redirect_stderr(caught):
            short = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
            return tyro.cli(
                config_class,
                args=argv,
                default=default,
                description=config_class.__doc__,
                config=short,
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise InputError(_one_line(caught.getvalue())) from None


def _one_line(box: str) -> str:
    """tyro's framed, wrapped message as a single line, without its advice to read the help."""
    lines = [line.strip(" │") for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()]
    text = " ".join(line for line in lines if line and line[0] not in "╭╰─")
    text = re.split(r" ?(Argument helptext:|For full helptext)", text)[0].strip()
    return text or "the command line cannot be read; --help lists the options"


def data_folder() -> Path:
    """Where data sets and download caches live: $ADL_DATA_DIR, else data/ at the repository root."""
    return Path(os.environ.get("ADL_DATA_DIR") or Path(__file__).resolve().parents[1] / "data")


def entry(main: Callable[[], object]) -> None:
    """Runs a script's main: exit code 2 and one line for a user's mistake, 130 after an interruption."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        main()
    except (
        InputError,
        FloatingPointError,
    ) as error:  # the second: Run.stoppable met a loss that is not finite
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    except (Interrupted, KeyboardInterrupt) as cause:
        print(
            f"interrupted: {str(cause) or 'finished parts are kept; the same command with --resume goes on'}",
            file=sys.stderr,
        )
        raise SystemExit(130) from None
