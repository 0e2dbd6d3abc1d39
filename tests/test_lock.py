"""What `make` installs is locked by hash, agrees with constraints.txt, and fits every extra of the
project.
"""

import re
import tomllib

import pytest
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name as plain

PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s\\;]+)", re.MULTILINE)
LOCKS = ("requirements/base.txt", "requirements/dev.txt")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(name):
    return {plain(found): version for found, version in PIN.findall((ROOT / name).read_text())}


def needed(*extras):
    """The requirements of the project with these extras, its own extras resolved."""
    found = list(PROJECT["dependencies"])
    for extra in extras:
        for text in PROJECT["optional-dependencies"][extra]:
            found += (
                needed(*Requirement(text).extras) if text.startswith("culturepark[") else [text]
            )
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_every_file_of_a_lock_has_hashes_and_no_lock_names_an_index_or_a_path(lock):
    text = (ROOT / lock).read_text()
    parts = re.split(r"^(?=\S+==)", text, flags=re.MULTILINE)[1:]
    assert len(parts) > 40 and all("--hash=sha256:" in part for part in parts)
    assert not re.search(r"://|^-|file:|\.whl", text, re.MULTILINE)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_and_the_constraints_name_the_same_versions(lock):
    given = pins("constraints.txt")
    assert {name: given.get(name) for name in pins(lock)} == pins(lock)


@pytest.mark.parametrize(("lock", "extras"), [(LOCKS[0], ()), ("constraints.txt", ("dev",))])
def test_what_is_locked_fits_the_ranges_of_the_project(lock, extras):
    given = pins(lock)
    wrong = {
        text: given.get(plain(Requirement(text).name))
        for text in needed(*extras)
        if not Requirement(text).specifier.contains(given.get(plain(Requirement(text).name), "0"))
    }
    assert wrong == {}
