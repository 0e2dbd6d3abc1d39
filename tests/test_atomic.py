"""Files are written whole or not at all."""

import resource

import pytest

from culturepark.atomic import write_bytes, write_text
from culturepark.errors import WriteError


@pytest.fixture
def small_files():
    """No file may be longer than 1,000 bytes, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_is_replaced_as_a_whole_and_nothing_else_is_left(tmp_path):
    write_text(tmp_path / "new" / "a.toml", "x = 1\n")
    write_bytes(tmp_path / "new" / "a.toml", b"x = 2\n")
    assert {p.name: p.read_text() for p in (tmp_path / "new").iterdir()} == {"a.toml": "x = 2\n"}


def test_a_full_disk_leaves_the_old_file_and_is_one_clear_error(tmp_path, small_files):
    write_text(tmp_path / "a.toml", "x = 1\n")
    with pytest.raises(WriteError, match=r"cannot write .*a\.toml: File too large"):
        write_text(tmp_path / "a.toml", "x" * 2000)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a.toml": "x = 1\n"}
