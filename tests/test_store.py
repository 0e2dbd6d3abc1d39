"""A run's folder: nothing of one run gets into another, whatever is edited, lost, damaged or thrown
away half way.
"""

import os
import random
import shutil
import sqlite3
import subprocess
import sys

import pytest
from conftest import ROOT, TEA
from pydantic import Field

import culturepark as cp
from culturepark import workspace
from culturepark.dialogue import casting
from culturepark.errors import InputError, JournalError, ParkError
from culturepark.records import Persona, digest
from culturepark.settings import Endpoint, Settings
from culturepark.store import RunStore

ENV = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
PLAYS = {**TEA, "model": "conftest:Plays", "dialogues": 3, "turns": 4}


@pytest.fixture
def run(park):
    """A run whose dialogues are held."""
    made = cp.start("x", PLAYS)
    cp.simulate(made)
    return made


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def as_first_versions_left_it(run):
    """Take away what only later versions write: the run's identity, its checksum, the hash in
    run.toml.
    """
    db = sqlite3.connect(run.folder / "journal.sqlite")
    db.execute("DELETE FROM meta WHERE key = 'run'")
    db.commit()
    db.close()
    (run.folder / "journal.sqlite.crc").unlink()
    settings = run.folder / "run.toml"
    settings.write_text(settings.read_text().partition("\n")[2])


# ------------------------------------------------------------ whose it is


def test_a_setting_edited_in_run_toml_is_named_before_anything_is_mixed(run):
    edit(run.folder / "run.toml", "turns = 4", "turns = 6")
    before = (run.folder / "journal.sqlite").read_bytes()
    with pytest.raises(
        InputError, match=r"run\.toml was changed by hand \(turns 4 → 6\).*NEWNAME --config"
    ):
        cp.simulate(cp.resume(run.folder))
    assert (run.folder / "journal.sqlite").read_bytes() == before


def test_an_edited_cap_is_named_and_the_option_that_changes_it_works(run):
    edit(run.folder / "run.toml", "dialogues = 3", "dialogues = 3\nmax_tokens = 5")
    with pytest.raises(InputError, match=r"max_tokens default → 5.*--resume --max-usd 10"):
        cp.resume(run.folder)
    edit(run.folder / "run.toml", "\nmax_tokens = 5", "")
    assert cp.resume(run.folder, max_tokens=5000).settings.max_tokens == 5000
    assert cp.resume(run.folder).settings.max_tokens == 5000


def test_settings_that_were_swapped_as_a_whole_are_refused_by_the_journal(run):
    other = cp.start("y", {**PLAYS, "seed": 9})
    shutil.copy(other.folder / "run.toml", run.folder / "run.toml")
    with pytest.raises(InputError, match="created with different settings or cards: seed 0 → 9"):
        cp.simulate(cp.resume(run.folder))


@pytest.mark.parametrize("change", ["edited", "gone", "new"])
def test_a_frozen_card_that_changed_is_named(run, change):
    card = run.folder / "cards" / "personas" / "north" / "norta.toml"
    if change == "edited":
        edit(card, "age = 30", "age = 31")
    elif change == "gone":
        card.unlink()
    else:
        card.with_name("nortc.toml").write_text(card.read_text().replace("norta", "nortc"))
    with pytest.raises(InputError, match=rf"cards/personas/north/nort[ac]\.toml (was|is) {change}"):
        cp.simulate(cp.resume(run.folder))
    with pytest.raises(InputError, match=r"Nothing was changed\."):
        cp.report(cp.resume(run.folder))


def test_a_journal_without_run_toml_is_never_adopted(run):
    (run.folder / "run.toml").unlink()
    with pytest.raises(InputError, match=r"run\.toml is gone. Put run.toml back.*--fresh"):
        cp.start("x", {**PLAYS, "seed": 1})
    fresh = cp.start("x", {**PLAYS, "seed": 1}, fresh=True)
    assert not (fresh.folder / "journal.sqlite").exists()


@pytest.mark.parametrize("size", [0, 1, 60, 200, 300])
def test_an_empty_or_half_written_run_toml_is_an_error(run, size):
    path = run.folder / "run.toml"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ParkError, match=r"run\.toml"):
        cp.start("x", PLAYS)


def test_runs_of_the_first_versions_go_on_under_their_own_cards(run):
    as_first_versions_left_it(run)
    cp.simulate(cp.resume(run.folder, dialogues=5))
    with run.open_store(write=False) as journal:
        assert journal.read_meta("run") and journal.select(
            "SELECT COUNT(DISTINCT ordinal), COUNT(*) FROM scenes"
        ) == [(5, 5)]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("run.toml", "seed = 0", "seed = 1"),
        ("cards/personas/north/norta.toml", "age = 30", "age = 31"),
    ],
)
def test_runs_of_the_first_versions_are_held_to_what_their_dialogues_say(run, file, old, new):
    as_first_versions_left_it(run)
    edit(run.folder / file, old, new)
    with pytest.raises(InputError, match="dialogues of other settings or cards"):
        cp.simulate(cp.resume(run.folder))


@pytest.mark.parametrize("size", [0, 150, 350])
def test_a_half_written_run_toml_of_the_first_versions_is_an_error(run, size):
    as_first_versions_left_it(run)
    path = run.folder / "run.toml"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ParkError, match=r"run\.toml"):
        cp.resume(run.folder)


# ---------------------------------------------------------------- hashes


class Grown(Persona):
    """A persona of a later version, with an optional field more."""

    faith: str = ""
    friends: tuple[str, ...] = Field(default=())


def test_an_optional_field_added_to_personas_changes_no_scene_unless_it_is_set(park):
    cards, settings = workspace.load(park), Settings(**TEA)
    ids = [next(casting.scenes(cards, settings, "north")).id]
    for more in ({}, {"faith": "none"}):
        people = {name: Grown(**p.model_dump(), **more) for name, p in cards.personas.items()}
        grown = workspace.Workspace(park, cards.roles, cards.cultures, people, cards.scenarios)
        ids.append(next(casting.scenes(grown, settings, "north")).id)
    assert ids[0] == ids[1] != ids[2]


def test_an_optional_setting_added_later_changes_no_scene_unless_it_is_set():
    class Later(Settings):
        mood: str = "calm"

    assert Later().determining() == Settings().determining() != Later(mood="wild").determining()


def test_what_determines_dialogues_is_hashed_as_in_the_first_versions():
    settings = Settings(
        turns=8,
        endpoints={"a/b": Endpoint(structured="json", params={"x": 1.5})},
        faults={"refusal": 0.1},
    )
    assert digest(settings.determining()) == "2741009881e9c7a2"


GROW_AND_RESUME = """
import sys
import culturepark as cp
from culturepark import records, settings
from culturepark.store.queries import iterate_scenes
from pydantic.fields import FieldInfo

kinds = [
    kind
    for module in (records, settings)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, records.Record)
]
for kind in kinds:
    kind.__pydantic_fields__["later"] = FieldInfo(annotation=str, default="")
for kind in kinds * 2:
    for field in kind.__pydantic_fields__.values():
        if isinstance(field.default, records.Record):
            field.default = type(field.default)()
    kind.model_rebuild(force=True)
run = cp.run(cp.resume(sys.argv[1]), formats=("trl",))
with run.open_store(write=False) as journal:
    print([scene.ordinal for scene in iterate_scenes(journal)])
print(sorted(kind.__name__ for kind in kinds if "later" in kind.model_json_schema()["properties"]))
"""


def test_a_half_finished_run_ends_byte_equal_when_every_record_has_grown_a_field(park):
    whole = cp.run("x", PLAYS, formats=("trl",), out=park / "whole")
    half = cp.start("x", PLAYS, out=park / "half")
    cp.estimate(half, pilot=1)
    cp.simulate(cp.resume(half.folder, dialogues=2))
    cp.resume(half.folder, dialogues=3)
    done = subprocess.run(
        [sys.executable, "-c", GROW_AND_RESUME, str(half.folder)],
        env=ENV,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("[0, 1, 2]")
    for name in "Culture Persona Norm Role Scenario Question Scene Seat Turn Settings".split():
        assert f"'{name}'" in done.stdout
    assert hash_files(half.folder / "corpus") == hash_files(whole.folder / "corpus")


def hash_files(folder):
    return {p.relative_to(folder): digest(p.read_text()) for p in folder.rglob("*") if p.is_file()}


# ------------------------------------------------------------ thrown away


def test_fresh_killed_at_any_moment_leaves_the_old_run_or_none(run, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", killed)
        cp.start("x", {**PLAYS, "seed": 1}, fresh=True)
    assert not run.folder.exists()
    cp.start("x", {**PLAYS, "seed": 1})
    assert [p.name for p in run.folder.parent.iterdir()] == ["x"]


def test_fresh_waits_for_nobody_and_takes_nothing_from_a_run_that_is_being_written(run):
    with run.open_store(), pytest.raises(cp.ParkError, match="written by another process"):
        cp.start("x", PLAYS, fresh=True)
    assert (run.folder / "run.toml").exists()


def test_fresh_throws_a_damaged_run_away_too(run):
    (run.folder / "journal.sqlite").write_bytes(b"no database")
    assert cp.simulate(cp.start("x", PLAYS, fresh=True))["turns"] == 12


# --------------------------------------------------------------- damaged


@pytest.mark.parametrize("seed", range(12))
def test_a_flipped_bit_in_a_journal_is_one_error(run, seed):
    path, rng = run.folder / "journal.sqlite", random.Random(seed)
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    for work in (cp.simulate, cp.report, cp.export):
        with pytest.raises(JournalError, match=r"damaged"):
            work(cp.resume(run.folder))


@pytest.mark.parametrize("seed", range(12))
def test_a_flipped_bit_in_the_journal_of_a_killed_run_is_never_a_traceback(run, seed):
    (run.folder / "journal.sqlite.crc").unlink()
    path, rng = run.folder / "journal.sqlite", random.Random(seed)
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    try:
        cp.simulate(cp.resume(run.folder))
        cp.run(cp.resume(run.folder), formats=("trl",))
    except ParkError as error:
        assert "journal.sqlite" in str(error)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_journal_is_one_error(run, share):
    path = run.folder / "journal.sqlite"
    for crc in (True, False):
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        if not crc:
            path.with_name("journal.sqlite.crc").unlink(missing_ok=True)
        with pytest.raises(JournalError, match="damaged"):
            cp.simulate(cp.resume(run.folder))


def test_a_truncated_log_of_a_killed_run_is_an_earlier_state_of_it(park):
    run = cp.start("x", {**PLAYS, "dialogues": 20})
    code = (
        "import os, sys, culturepark as cp; from culturepark.store import RunStore; "
        "RunStore.close = lambda _: os._exit(9); cp.simulate(cp.resume(sys.argv[1]))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(run.folder)], env=ENV).returncode == 9
    wal = run.folder / "journal.sqlite-wal"
    wal.write_bytes(wal.read_bytes()[: wal.stat().st_size * 2 // 3])
    assert cp.simulate(run)["turns"] == 80


def test_a_journal_that_is_gone_while_its_log_is_there_is_told(run):
    (run.folder / "journal.sqlite-wal").write_bytes(b"x" * 100)
    (run.folder / "journal.sqlite").unlink()
    with pytest.raises(JournalError, match=r"is gone, but journal\.sqlite-wal is there"):
        cp.simulate(run)
    assert not (run.folder / "journal.sqlite").exists()


@pytest.mark.parametrize("left", ["journal.sqlite.crc", "journal.begun", "corpus"])
def test_a_begun_run_without_its_journal_asks_nothing_again(run, left):
    cp.run(run, formats=("trl",))
    for path in (*run.folder.glob("journal.*"), run.folder / "report"):
        if path.name != left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for work in (
        cp.resume,
        lambda _: cp.run("x", PLAYS),
        lambda _: cp.simulate(run),
        lambda _: cp.report(run),
    ):
        with pytest.raises(
            JournalError, match=rf"journal\.sqlite is gone, but {left} is there.*--fresh"
        ):
            work(run.folder)
    assert (
        not (run.folder / "journal.sqlite").exists()
        and (run.folder / "corpus/trl/train.jsonl").exists()
    )
    assert cp.simulate(cp.start("x", PLAYS, fresh=True))["turns"] == 12


def test_a_run_that_was_never_begun_is_begun_by_resume(park):
    assert cp.simulate(cp.resume(cp.start("x", PLAYS).folder))["turns"] == 12


def test_creating_a_journal_that_is_killed_half_way_leaves_none(tmp_path):
    (tmp_path / ".journal.sqlite.partial").write_bytes(b"half")
    RunStore(tmp_path).close()
    found = sorted(p.name for p in tmp_path.iterdir())
    assert found == ["journal.begun", "journal.lock", "journal.sqlite", "journal.sqlite.crc"]
