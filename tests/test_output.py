"""Output streams and the cache folder: whatever they are like, finished work stays finished and the
exit code is honest.
"""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from culturepark.store import RunStore

ENV = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
TEA = "--scenario tea --contact south -c north -m conftest:Plays -n 1 --turns 2"
full_disk = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")  # noqa: PTH110


def shell(line, **env):
    """Run a command line as a user types it; `culturepark` is ours."""
    line = f'culturepark() {{ "{sys.executable}" -m culturepark "$@"; }}\n{line}'
    return subprocess.run(
        ["bash", "-c", line], env={**ENV, **env}, capture_output=True, timeout=120
    )


def test_a_run_ends_well_where_its_output_is_cp1252(park):
    done = shell(f"culturepark run x {TEA} --to trl", PYTHONIOENCODING="cp1252")
    assert done.returncode == 0 and b"Traceback" not in done.stderr
    assert done.stdout.decode("cp1252").startswith("1 dialogues -> ")


@pytest.mark.parametrize("encoding", ["ascii:strict", "cp437", "utf-16", "utf-8:strict"])
def test_what_an_encoding_cannot_say_is_escaped(park, encoding):
    (park / "culturepark.toml").write_text('scenario = "tea"\ncontact = "south"\n')
    card = park / "personas/north/norta.toml"
    card.write_text(card.read_text().replace("baker", "baker of 饺子 → 🥟"))
    done = shell("culturepark show delegate -p north/norta -q T1", PYTHONIOENCODING=encoding)
    assert done.returncode == 0 and b"Traceback" not in done.stderr
    text = done.stdout.decode(encoding.partition(":")[0] if "ascii" not in encoding else "utf-8")
    assert "baker of 饺子 → 🥟" in text or r"baker of \u997a\u5b50 -> \U0001f95f" in text


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_json_stays_json_in_any_encoding(park, encoding):
    (park / "culturepark.toml").write_text('scenario = "tea"\ncontact = "south"\n')
    done = shell("culturepark show delegate --culture north --json", PYTHONIOENCODING=encoding)
    assert json.loads(done.stdout.decode(encoding))["messages"]


def turns(park):
    with RunStore(park / "outputs/x", write=False) as journal:
        return journal.select("SELECT COUNT(*) FROM turns")[0][0]


@pytest.mark.parametrize(
    "streams", ["<&-", "<&- >&-", ">&-", "2>&-", ">&- 2>&-", "| true", "2>/dev/full"]
)
def test_a_stream_that_cannot_be_written_does_not_end_the_work(park, streams):
    done = shell(f"set -o pipefail; culturepark simulate x {TEA} {streams}")
    assert done.returncode == 0 and turns(park) == 2
    assert b"Traceback" not in done.stderr


@full_disk
def test_a_result_that_cannot_be_printed_is_told_and_exits_1_with_the_work_kept(park):
    done = shell(f"culturepark simulate x {TEA} > /dev/full")
    assert done.returncode == 1 and turns(park) == 2
    assert (
        b"standard output cannot be written: No space left on device. The work itself is done"
        in done.stderr
    )


@pytest.mark.parametrize(
    ("args", "kind"),
    [
        ("check -w /nowhere", "InputError"),
        ("show narrator", "NotFound"),
        ("explain abc --run nothing", "InputError"),
        ("run x --turns 0", "CardError"),
        ("calls x --top none", "BadParameter"),
        ("simluate x", "UsageError"),
    ],
)
def test_errors_under_json_are_one_json_document_on_standard_output(park, args, kind):
    done = shell(f"culturepark {args} --json")
    told = json.loads(done.stdout)
    assert done.returncode == told["code"] == 2 and told["kind"] == kind
    assert told["error"].splitlines()[0] in done.stderr.decode()


def test_every_problem_of_cards_stands_in_the_json(park):
    for name in ("norta", "nortb"):
        (park / f"personas/north/{name}.toml").write_text("nmae = 1\n")
    problems = json.loads(shell("culturepark check --json").stdout)["problems"]
    assert sum("nmae: unknown key" in p for p in problems) == 2


@pytest.mark.parametrize(
    "home",
    [{"HOME": "/proc"}, {"CULTUREPARK_CACHE": "/proc/x"}, {"CULTUREPARK_CACHE": "/dev/null/x"}],
)
def test_a_cache_that_cannot_be_written_is_one_line_that_names_it_and_the_setting(home):
    env = {k: v for k, v in ENV.items() if k != "CULTUREPARK_CACHE"} | home
    code = "from culturepark.local_models import tiny; tiny.find_folder()"
    code = (
        f"import sys; from culturepark.errors import InputError\ntry: {code}\nexcept InputError as"
        " e: sys.exit(str(e))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    (line,) = done.stderr.splitlines()
    assert "cannot write to the cache folder" in line and "CULTUREPARK_CACHE" in line
    assert next(iter(home.values())) in line


def test_the_cache_stands_where_the_setting_says(tmp_path, monkeypatch):
    from culturepark.cache import cache_folder

    monkeypatch.setenv("CULTUREPARK_CACHE", str(tmp_path / "a/b"))
    assert cache_folder() == tmp_path / "a/b" and cache_folder().is_dir()


def test_an_evaluation_needs_no_home_that_can_be_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shell("culturepark simulate x -c arabic -n 1 --turns 2")
    asked = "culturepark evaluate x survey --model embedded --limit 1"
    (refused,) = (
        shell(asked, HOME="/proc", XDG_DATA_HOME="", CULTUREPARK_CACHE="")
        .stderr.decode()
        .splitlines()[-1:]
    )
    assert (
        "cannot write to the cache folder /proc/.cache/culturepark" in refused
        and "CULTUREPARK_CACHE" in refused
    )
    done = shell(asked, HOME="/proc", XDG_DATA_HOME="", CULTUREPARK_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr.decode()[-2000:]


def test_a_path_below_a_home_that_there_is_not_is_one_line():
    done = shell("culturepark check -w '~nobody-of-this-name/park'")
    assert (
        done.returncode == 1
        and b"Traceback" not in done.stderr
        and b"Write paths without ~" in done.stderr
    )
