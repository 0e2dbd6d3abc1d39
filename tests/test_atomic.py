"""Files are written whole or not at all."""

import pytest
from conftest import room

from culturepark.atomic import discard, sweep, write_bytes, write_text
from culturepark.errors import WriteError


def test_a_file_is_replaced_as_a_whole_and_nothing_else_is_left(tmp_path):
    write_text(tmp_path / "new" / "a.toml", "x = 1\n")
    write_bytes(tmp_path / "new" / "a.toml", b"x = 2\n")
    assert {p.name: p.read_text() for p in (tmp_path / "new").iterdir()} == {"a.toml": "x = 2\n"}


def test_a_full_disk_leaves_the_old_file_and_is_one_clear_error(tmp_path):
    write_text(tmp_path / "a.toml", "x = 1\n")
    with room(1000), pytest.raises(WriteError, match=r"cannot write .*a\.toml: File too large"):
        write_text(tmp_path / "a.toml", "x" * 2000)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a.toml": "x = 1\n"}


def test_a_discarded_folder_is_gone_in_one_step_and_what_a_kill_leaves_of_it_is_swept(
    tmp_path, monkeypatch
):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").touch()
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *_, **__: None)  # as if killed before
        discard(tmp_path / "a")
    assert not (tmp_path / "a").exists() and len(list(tmp_path.glob(".a.old-*/x"))) == 1
    assert sweep(tmp_path, "a") == [] and [p.name for p in tmp_path.iterdir()] == ["b"]
