"""Every command and every Python example in README and docs is run, in the order it stands."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import textwrap

import pytest
from conftest import ROOT

import culturepark as cp
from culturepark.store import RunStore

GUIDES = [
    "docs/authoring.md",
    "docs/models.md",
    "docs/cost.md",
    "docs/tuning.md",
    "docs/evaluation.md",
    "docs/benchmarks.md",
    "docs/reproduce.md",
]
PAGES = ["README.md", "CONTRIBUTING.md", *GUIDES]
FENCE = re.compile(r"^( *)```(bash|python|toml)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
FILES = {  # where a reader puts a page's TOML
    "docs/authoring.md": ["mypark/personas/german/hanna.toml", "mypark/scenarios/tea.toml"],
    "docs/models.md": ["mypark/culturepark.toml"],
    "docs/benchmarks.md": ["teatime.toml", "teatalk.toml"],
}
# What the pages reach that is not here: a local server answers in its place, under the same names.
ELSEWHERE = re.compile(r"http://localhost:(?:8000|8080|11434)/v1|https://llm\.example\.org/v1")
NAMES = (
    "gpt-4o-mini",
    "gpt-4o",
    "llama3.1",
    "Qwen/Qwen3-8B",
    "Qwen/Qwen3-0.6B",
    "local",
    "my-model",
)
VARIABLES = (
    "OPENAI_BASE_URL",
    "HOSTED_VLLM_API_BASE",
    "OLLAMA_API_BASE",
    "LLAMACPP_API_BASE",
    "TRANSFORMERS_API_BASE",
)
SAMPLE = (
    '$(sed -n \'s/.*"metadata": {"id": "\\([0-9a-f]*\\)".*/\\1/p;q\''
    " outputs/first/corpus/trl/train.jsonl)"
)


def blocks(page, *languages):
    return [
        (kind, textwrap.dedent(body))
        for _, kind, body in FENCE.findall((ROOT / page).read_text())
        if kind in languages
    ]


@pytest.fixture(scope="module")
def endpoint():
    """A server that answers as the models would."""
    with cp.Server(models=NAMES) as server:
        yield server.url


@pytest.fixture
def reader(tmp_path, endpoint, small):
    """Somebody who types what a page shows: maps a block to what it printed."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "culturepark"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m culturepark "$@"\n')
    command.chmod(0o755)
    (tmp_path / "bin" / "inspect").write_text(
        command.read_text().replace("-m culturepark", "-P -m inspect_ai")  # as its script: no cwd
    )
    (tmp_path / "bin" / "inspect").chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    env = {
        **os.environ,
        "PATH": path,
        "PYTHONPATH": str(ROOT),
        **dict.fromkeys(VARIABLES, endpoint),
    }
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])  # the pages' 8765 may be taken

    def types(kind, body):
        body = ELSEWHERE.sub(endpoint, body).replace("{sample}", SAMPLE)
        # No hub and no card here: a small base in the place of the one that is named (where it must
        # make sense, the offline one), whole numbers for four bits.
        body = body.replace(
            "--base Qwen/Qwen3-0.6B", "--base tiny" if "local/Qwen" in body else f"--base {small}"
        )
        body = body.replace("local/Qwen/Qwen3-0.6B", "local/tiny").replace(
            "--method qlora", "--method lora"
        )
        body = body.replace("serve-embedded", f"serve-embedded --port {port}").replace(
            "localhost:8765", f"localhost:{port}"
        )
        if kind == "python":
            code = [sys.executable, "-c", body]
        elif body.startswith("make "):
            code = ["make", "-n", "-C", str(ROOT), *[line.split()[1] for line in body.splitlines()]]
        else:
            code = [
                "sh",
                "-ec",
                "trap 'kill $! 2>&- || :' EXIT\n" + body,
            ]  # what a block left running
        done = subprocess.run(
            code, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"{body}\n{done.stdout}\n{done.stderr}"
        return done.stdout.replace(f"localhost:{port}", "localhost:8765")

    return types


@pytest.mark.parametrize("page", PAGES)
def test_every_command_on_the_page_runs(page, tmp_path, reader, endpoint):
    files, printed = iter(FILES.get(page, ())), ""
    for kind, body in blocks(page, "bash", "python", "toml"):
        if kind == "toml":
            (tmp_path / next(files)).write_text(ELSEWHERE.sub(endpoint, body))
        else:
            printed += reader(kind, body)
    if page == "README.md":
        what_it_shows_is_what_came_out(tmp_path / "outputs/first")
    if page == "docs/cost.md":
        assert totals(printed) == totals((ROOT / page).read_text())


def totals(text):
    """The last row of an estimate's table, as numbers."""
    return [
        float(n.replace(",", ""))
        for n in re.findall(r"[\d,.]+", re.search(r"^all  (.*)$", text, re.MULTILINE)[1])
    ]


def what_it_shows_is_what_came_out(run):
    """The row and the turns in the README are those of its own first run."""
    readme = (ROOT / "README.md").read_text()
    row = json.loads((run / "corpus/trl/train.jsonl").read_text().splitlines()[0])
    assert json.loads(re.search(r"```json\n(.*?)```", readme, re.DOTALL)[1]) == row
    quoted = " ".join(readme.replace("\n> ", " ").split())
    with RunStore(run, write=False) as journal:
        for turn in journal.read_turns(row["metadata"]["dialogue"])[:2]:
            assert f"**{turn.speaker}:** {turn.text}" in quoted


def test_the_cards_in_the_guide_are_sound(tmp_path):
    park = cp.init(tmp_path / "park")
    persona, pack = (body for _, body in blocks("docs/authoring.md", "toml"))
    (park / "personas/german/hanna.toml").write_text(persona)
    (park / "scenarios/tea.toml").write_text(pack)
    assert cp.check(park)["scenarios"] == 3
    shutil.rmtree(park)


def test_every_test_that_the_docs_name_is_there():
    named = re.findall(
        r"`(test_\w+\.py)(?:::(test_\w+))?`", (ROOT / "docs/reproduce.md").read_text()
    )
    assert len(named) > 15
    assert [
        n for n in named if n[1] and f"def {n[1]}(" not in (ROOT / "tests" / n[0]).read_text()
    ] == []


def test_the_docs_name_only_what_there_is():
    text = "\n".join((ROOT / page).read_text() for page in [*PAGES, "docs/architecture.md"])
    links = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    assert all((ROOT / link).exists() or (ROOT / "docs" / link).exists() for link in links)
    modules = re.findall(r"^  (\w+)/?  ", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
    there = {p.stem for p in (ROOT / "culturepark").glob("*.py")}
    there |= {p.parent.name for p in (ROOT / "culturepark").glob("*/__init__.py")}
    assert set(modules) == {name for name in there if not name.startswith("_")}
