"""Shares of a run's parts, and how the whole run takes them over."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from common.cli import BaseConfig, InputError
from common.run import Run, alike, shard_folder
from common.shard import WHOLE, Shard

NAMES = ("a", "b", "c", "d", "e")


@dataclasses.dataclass(frozen=True)
class Config(BaseConfig):
    """A small config."""

    shard: str = "0/1"
    rate: float = 0.1
    names: int = 5


def parts(
    folder: Path, done: list[str], shard: str = "0/1", extra: float = 0, stop: str = "", **options
) -> dict:
    """A run of one part that all shards do and five that they share; what it came to."""
    config = Config(shard=shard, **options)
    share = Shard.of(shard)

    def part(name: str) -> dict:
        if name == stop:
            raise KeyboardInterrupt
        done.append(name)
        run.log(1, 0, "train", **{name: 1.0})
        run.log(2, 0, "train", **{name: 2.0})
        size = np.arange(3.0) + len(name) + (extra if name == "all" else 0)
        return {"weights": size, "seconds": len(done)}

    choosing = {"names"}
    with Run(config, folder, __file__, "made", {}, shard=share, choosing=choosing) as run:
        return {name: run.memo(name, part, name) for name in ("all", *share.share(NAMES))}


def test_shares_are_disjoint_and_together_whole():
    shares = [Shard(number, 3).share(NAMES) for number in range(3)]
    assert shares == [("a", "d"), ("b", "e"), ("c",)]
    assert Shard.of("2/3") == Shard(2, 3)
    assert str(Shard(2, 3)) == "2/3"
    assert Shard.of("0/1") == WHOLE
    assert WHOLE.is_whole
    assert not Shard(0, 2).is_whole


@pytest.mark.parametrize("text", ["3/3", "0/0", "-1/2", "1", "1/2/3", "a/b", ""])
def test_other_words_are_refused(text):
    with pytest.raises(InputError, match=r"--shard .*allowed is i/n with 0 <= i < n"):
        Shard.of(text)


def test_a_run_takes_over_what_its_shards_did_and_does_the_rest(tmp_path):
    done: list[str] = []
    whole = parts(tmp_path / "whole", done)
    done.clear()
    parts(tmp_path / "run", done, "1/3")
    parts(tmp_path / "run", done, "0/3")
    assert done == ["all", "b", "e", "all", "a", "d"]

    taken = parts(tmp_path / "run", done)
    assert done[6:] == ["c"]
    for name, state in whole.items():
        np.testing.assert_array_equal(taken[name]["weights"], state["weights"])
    lines = [(tmp_path / each / "metrics.csv").read_text() for each in ("whole", "run")]
    assert sorted(lines[0].splitlines()) == sorted(lines[1].splitlines())

    # once more: nothing is left to do, and no line comes twice
    parts(tmp_path / "run", done, resume=True)
    assert done[6:] == ["c"]
    assert (tmp_path / "run" / "metrics.csv").read_text() == lines[1]


def test_a_shard_that_comes_late_is_taken_over_too(tmp_path):
    done: list[str] = []
    config = Config()
    with pytest.raises(KeyboardInterrupt), Run(config, tmp_path, __file__, "made", {}) as run:
        run.memo("a", lambda: run.log(7, 0, "train", early=7.0))
        run.log(8, 0, "train", lost=8.0)
        raise KeyboardInterrupt
    parts(tmp_path, done, "1/2")
    parts(tmp_path, done, resume=True)
    assert done == ["all", "b", "d", "c", "e"]
    text = (tmp_path / "metrics.csv").read_text()
    assert "early" in text
    assert "lost" not in text
    assert text.count("\n") == 1 + 1 + 2 * len(done)


def test_the_finished_parts_of_an_unfinished_shard_are_taken_over(tmp_path, capsys):
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        parts(tmp_path, done, "0/2", stop="c")
    assert done == ["all", "a"]
    parts(tmp_path, done, names=4)  # (an option that only chooses parts)
    assert done == ["all", "a", "b", "c", "d", "e"]
    assert "0-of-2 is unfinished; its finished parts are taken over" in capsys.readouterr().err
    assert (tmp_path / "metrics.csv").read_text().count("\n") == 1 + 2 * len(done)


def test_shards_of_other_options_running_ones_and_other_results_are_refused(tmp_path):
    done: list[str] = []
    parts(tmp_path / "a", done, "0/2", rate=0.2)
    with pytest.raises(InputError, match=r"0-of-2 was made with another --rate"):
        parts(tmp_path / "a", done)

    busy = Config(shard="0/2")
    with Run(busy, tmp_path / "b", __file__, "made", {}, shard=Shard(0, 2)) as run:
        assert run.folder == shard_folder(tmp_path / "b", Shard(0, 2))
        assert run.resume_command.endswith(f"--out {tmp_path / 'b'} --shard 0/2 --resume")
        with pytest.raises(InputError, match=r"0-of-2 is still running; wait for it"):
            parts(tmp_path / "b", done)

    parts(tmp_path / "c", done, "0/2")
    parts(tmp_path / "c", done, "1/2", extra=1e-7)
    with pytest.raises(InputError, match="differ in done-all: machines of several kinds"):
        parts(tmp_path / "c", done)
    assert parts(tmp_path / "c", done, overwrite=True).keys() == {"all", *NAMES}


def test_states_are_alike_but_for_their_seconds():
    one = {"seconds": 1.0, "list": [np.array([1.0, np.nan]), {"x": None}], "name": "a"}
    assert alike(one, {**one, "seconds": 2.0})
    assert not alike(one, {**one, "name": "b"})
    assert not alike(one, {**one, "list": [np.array([1.0, 2.0]), {"x": None}]})
    assert not alike(one, {**one, "more": 1})
    assert not alike([1], [1, 2])
