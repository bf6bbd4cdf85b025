"""Model cards: fresh, complete, short, and true of the files beside them."""

from __future__ import annotations

import hashlib
import re

import pytest

from common.cli import InputError
from tests.conftest import ROOT
from tools import cards

FOLDERS = cards.model_folders()


def names(folder) -> str:
    return folder.relative_to(ROOT).as_posix()


def test_every_committed_run_with_models_has_a_card_and_no_other_folder():
    assert len(FOLDERS) > 5
    assert {path.parent for path in ROOT.glob(f"*/results/**/{cards.CARD}")} == set(FOLDERS)


@pytest.mark.parametrize("folder", FOLDERS, ids=names)
def test_a_card_is_fresh_and_short_and_its_links_lead_somewhere(folder):
    text = (folder / cards.CARD).read_text(encoding="utf-8")
    assert text == cards.card(folder, FOLDERS[folder]), "run `make cards`"
    assert text.count("\n") < 60
    for path in re.findall(r"\]\(([^)]+)\)", text):
        assert (folder / path).exists(), path
    assert "<!--" not in text
    assert not re.search(r"[{}]", text.replace("{-1, +1}", ""))


@pytest.mark.parametrize("folder", FOLDERS, ids=names)
def test_a_card_has_size_and_digest_of_every_model_file(folder):
    text = (folder / cards.CARD).read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| \[([^]]+)\]\(\1\) \| .+ \| ([\d,]+) \| `(\w{64})` \|$", text, re.MULTILINE
    )
    assert [row[0] for row in rows] == [file.name for file in FOLDERS[folder]]
    for name, size, digest in rows:
        content = (folder / name).read_bytes()
        assert int(size.replace(",", "")) == len(content)
        assert digest == hashlib.sha256(content).hexdigest(), name


def test_a_text_names_only_runs_and_files_that_there_are():
    for source in cards.TEXTS.glob("*.md"):
        text = source.read_text(encoding="utf-8")
        runs = {folder.name for folder in FOLDERS if names(folder).startswith(f"{source.stem}/")}
        assert runs, f"{source} is of no committed run"
        for _, named, _ in re.findall(r"^## ([^(\n]+?)( \(([^)]+)\))?$", text, re.MULTILINE):
            assert set(filter(None, named.strip(" ()").split(", "))) <= runs, named


def test_a_section_of_some_runs_is_added_to_that_of_all():
    text = "# T\n\n## Limits\n\n* a\n\n## Limits (x, y)\n\n* b\n\n## Data (y)\n\nd\n"
    assert cards.sections(text, "x") == {"Limits": "* a\n* b"}
    assert cards.sections(text, "y") == {"Limits": "* a\n* b", "Data": "d"}
    assert cards.sections(text, "z") == {"Limits": "* a"}


def test_what_a_text_gets_wrong_is_refused():
    folder, (file, *_) = next(iter(FOLDERS.items()))
    with pytest.raises(InputError, match='"## Bogus": the sections of a card are Model, Data'):
        cards.sections("# T\n\n## Bogus\n\nx\n", "run")
    with pytest.raises(InputError, match=r"run.json does not hold 'bogus'"):
        cards.filled("{config[bogus]}", folder)
    with pytest.raises(InputError, match="0 lines of ## Files"):
        cards.file_table([file], "* `other.npz`: something")
    with pytest.raises(InputError, match="2 lines of ## Files"):
        cards.file_table([file], f"* `{file.name}`: this\n* `*`: that")
