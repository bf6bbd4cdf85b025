"""requirements.lock: complete, hashed, and of no place in particular."""

from __future__ import annotations

import importlib.metadata
import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.conftest import ROOT
from tools.lock import HEADER, LOCK, PROJECT

TEXT = LOCK.read_text(encoding="utf-8")
# a pinned package and the lines of hashes below it
ENTRY = re.compile(r"^(?P<pin>[a-z][^\\\n]*==[^\\\n]*)(?P<hashes>(?: \\\n +--hash=\S+)*)$", re.M)
RUNTIME, GPU = "requirements.txt", "requirements-gpu.txt"
PINS = [Requirement(match["pin"]) for match in ENTRY.finditer(TEXT)]


def required(name: str) -> list[Requirement]:
    """The requirements of a requirements file, without other files and folders."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    texts = [line.split("  #")[0].strip() for line in lines]
    return [Requirement(text) for text in texts if text and not text.startswith(("#", "-"))]


def locked(requirement: Requirement) -> list[Requirement]:
    """The pins of a package."""
    return [pin for pin in PINS if pin.name == canonicalize_name(requirement.name)]


def version(pin: Requirement) -> str:
    """The one version that a pin allows."""
    (specifier,) = pin.specifier
    assert specifier.operator == "=="
    return specifier.version


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_is_in_the_lock_in_a_version_that_satisfies_it(name):
    wanted = required(name)
    assert len(wanted) > 5
    for requirement in wanted:
        pins = locked(requirement)
        assert pins, f"{requirement} is not in {LOCK.name}: run `make lock`"
        assert all(requirement.specifier.contains(version(pin)) for pin in pins), requirement


def test_an_environment_for_gpus_differs_in_tensorflow_alone():
    usual, for_gpus = ({str(one) for one in required(name)} for name in (RUNTIME, GPU))
    assert {one.partition("[")[0].partition("=")[0] for one in usual ^ for_gpus} == {
        "tensorflow",
        "tensorflow-cpu",
    }
    (ours,) = for_gpus - usual
    versions = {version(one) for one in required(RUNTIME) if one.name.startswith("tensorflow")}
    assert ours == f"tensorflow[and-cuda]=={versions.pop()}"
    assert not versions
    assert (ROOT / GPU).read_text(encoding="utf-8").endswith("\n-e .\n")


def test_everything_in_the_lock_has_hashes_and_a_version_and_nothing_names_a_place():
    entries = list(ENTRY.finditer(TEXT))
    assert len(entries) > 100
    for entry in entries:
        hashes = re.findall(r"--hash=(\S+)", entry["hashes"])
        assert hashes, f"{entry['pin']} has no hash"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in hashes), entry["pin"]
    # nothing else is there: no option, no address, no folder
    rest = ENTRY.sub("", TEXT.removeprefix(HEADER)).splitlines()
    assert TEXT.startswith(HEADER)
    assert all(not line or line.lstrip().startswith("# ") for line in rest)
    assert "://" not in TEXT


def applies(requirement: Requirement, extra: str = "") -> bool:
    """Whether a requirement's marker holds on this machine."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def test_the_lock_holds_what_its_packages_need():
    open_ = [one for name in ("requirements.txt", "requirements-dev.txt") for one in required(name)]
    open_ = [one for one in open_ if applies(one)]
    seen = set()
    while open_:
        need = open_.pop()
        if str(need) in seen:
            continue
        seen.add(str(need))
        pins = [pin for pin in locked(need) if applies(pin)]
        assert len(pins) == 1, f"{need}: locked are {pins}; run `make lock`"
        assert need.specifier.contains(version(pins[0])), f"{need}: locked is {pins[0]}"
        # another version, as a newer one in an older environment, may need other packages
        if Version(importlib.metadata.version(need.name)).public != version(pins[0]):
            continue
        needs = map(Requirement, importlib.metadata.requires(need.name) or [])
        extras = need.extras or {""}
        open_ += [each for each in needs if any(applies(each, extra) for extra in extras)]
    assert len(seen) > 100
    assert not locked(Requirement(PROJECT))
