"""Every command and every Python example in README and docs is run, in the order it stands."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap

import pytest
from conftest import ROOT, said

from culturepark.journal import Journal

PAGES = ["README.md", "CONTRIBUTING.md", "docs/authoring.md", "docs/reproduce.md"]
FENCE = re.compile(r"^( *)```(bash|python|toml)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


def blocks(page, *languages):
    return [
        (kind, textwrap.dedent(body)) for _, kind, body in FENCE.findall((ROOT / page).read_text()) if kind in languages
    ]


@pytest.fixture
def endpoint(serve):
    """A server that answers as a model would."""

    def reply(n, body):
        text = body["messages"][-1]["content"]
        if '"opinions"' in text:
            turn = int(re.findall(r"^\[(\d+)\]", text, re.MULTILINE)[0])
            found = {"opinions": [{"turn": turn, "text": f"Opinion number {n} is widely held in Jordan."}]}
            return 200, {}, said(json.dumps(found))
        return 200, {}, said('{"verdict": "entail", "reason": "yes"}' if '"verdict"' in text else f"Well, number {n}.")

    return serve(reply).url


@pytest.mark.parametrize("page", PAGES)
def test_every_command_on_the_page_runs(page, tmp_path, endpoint):
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "culturepark"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m culturepark "$@"\n')
    script.chmod(0o755)
    env = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OPENAI_BASE_URL": endpoint,
    }
    cards = {"docs/authoring.md": iter(["mypark/personas/german/hanna.toml", "mypark/scenarios/tea.toml"])}
    for kind, body in blocks(page, "bash", "python", "toml"):
        if kind == "toml":
            (tmp_path / next(cards[page])).write_text(body)
            continue
        if kind == "python":
            code = [sys.executable, "-c", body]
        elif body.startswith("make "):
            code = ["make", "-n", "-C", str(ROOT), *[line.split()[1] for line in body.splitlines()]]
        else:
            body = body.replace("http://localhost:11434/v1", endpoint)
            code = [
                "sh",
                "-ec",
                body.replace(
                    "{sample}",
                    '$(sed -n \'s/.*"metadata": {"id": "\\([0-9a-f]*\\)".*/\\1/p;q\' outputs/first/corpus/trl/train.jsonl)',
                ),
            ]
        done = subprocess.run(code, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{body}\n{done.stdout}\n{done.stderr}"
    if page == "README.md":
        what_it_shows_is_what_came_out(tmp_path / "outputs/first")


def what_it_shows_is_what_came_out(run):
    """The row and the turns in the README are those of its own first run."""
    readme = (ROOT / "README.md").read_text()
    row = json.loads((run / "corpus/trl/train.jsonl").read_text().splitlines()[0])
    assert json.loads(re.search(r"```json\n(.*?)```", readme, re.DOTALL)[1]) == row
    quoted = " ".join(readme.replace("\n> ", " ").split())
    with Journal(run, write=False) as journal:
        for turn in journal.turns(row["metadata"]["dialogue"])[:2]:
            assert f"**{turn.speaker}:** {turn.text}" in quoted


def test_the_cards_in_the_guide_are_sound(tmp_path):
    import culturepark as cp

    park = cp.init(tmp_path / "park")
    persona, pack = (body for _, body in blocks("docs/authoring.md", "toml"))
    (park / "personas/german/hanna.toml").write_text(persona)
    (park / "scenarios/tea.toml").write_text(pack)
    assert cp.check(park)["scenarios"] == 2
    shutil.rmtree(park)


def test_every_test_that_the_docs_name_is_there():
    named = re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", (ROOT / "docs/reproduce.md").read_text())
    assert len(named) > 15
    assert [n for n in named if n[1] and f"def {n[1]}(" not in (ROOT / "tests" / n[0]).read_text()] == []


def test_the_docs_name_only_what_there_is():
    text = "\n".join((ROOT / page).read_text() for page in [*PAGES, "docs/architecture.md"])
    links = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    assert all((ROOT / link).exists() or (ROOT / "docs" / link).exists() for link in links)
    modules = re.findall(r"^  (\w+)/?  ", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
    there = {
        p.stem for p in (ROOT / "culturepark").iterdir() if not p.name.startswith("__") and p.suffix in ("", ".py")
    }
    assert set(modules) == there - {"py"}
