"""Parts that tests share: a tiny workspace, a model that plays every role by rule, a local OpenAI-compatible server."""

import json
import os
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import culturepark as cp
from culturepark.records import Reply, Request

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("CULTUREPARK_DATA", ROOT.parent / "shared" / "data"))

CULTURE = """
name = "{name}"
title = "{title}"
people = "people in {place}"
place = "{place}"
languages = ["{title}"]
style = "Many people talk calmly."
[[norm]]
kind = "custom"
subtype = "food"
text = "Many families share {food} on feast days."
topics = ["tea"]
"""
PERSONA = """
name = "{name}"
culture = "{culture}"
given_name = "{given}"
gender = "{gender}"
age = {age}
home = "{home}"
work = "baker"
education = "secondary school"
household = "lives with two cousins"
voice = "Short sentences."
public = ["I bake bread at four in the morning."]
private = ["I owe {given} money."]
secret = ["I once lost the {given} recipe."]
"""
SCENARIO = """
name = "tea"
title = "Tea"
setting = "Two people sit at a table."
source = "authored for the tests"
[scales]
agree = [{code = 1, label = "Agree", degree = 1}, {code = 2, label = "Disagree", degree = -1}]
"""
QUESTION = """
[[question]]
id = "T{n}"
topic = "tea"
about = "drinking tea with {n} guests"
text = "Is it good to drink tea with {n} guests?"
options = "agree"
claim = ["drinking tea with {n} guests is good"]
denial = ["drinking tea with {n} guests is bad"]
answers = {{ north = 1, south = 2 }}
"""


def build_workspace(root: Path) -> Path:
    """Two cultures of two people each, ten questions, the shipped roles."""
    shutil.copytree(ROOT / "agents", root / "agents")
    for culture, title, place, food in (
        ("north", "Northern", "Norland", "rye"),
        ("south", "Southern", "Sudland", "figs"),
    ):
        folder = root / "personas" / culture
        folder.mkdir(parents=True)
        (folder / "culture.toml").write_text(CULTURE.format(name=culture, title=title, place=place, food=food))
        for i, gender in enumerate(("woman", "man")):
            given = f"{title[:4]}{'ab'[i]}"
            text = PERSONA.format(
                name=given.lower(), culture=culture, given=given, gender=gender, age=30 + i, home=f"a town in {place}"
            )
            (folder / f"{given.lower()}.toml").write_text(text)
    (root / "scenarios").mkdir()
    (root / "scenarios" / "tea.toml").write_text(SCENARIO + "".join(QUESTION.format(n=n) for n in range(1, 11)))
    (root / "outputs").mkdir()
    return root


@pytest.fixture
def park(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny workspace, and the tests' folder of the moment."""
    root = build_workspace(tmp_path / "park")
    monkeypatch.chdir(root)
    monkeypatch.delenv("CULTUREPARK_WORKSPACE", raising=False)
    return root


TEA = {"scenario": "tea", "contact": "south", "cultures": ("north",)}


def answer(request: Request) -> str | Reply:
    """Play every role by rule, from what a real model would see."""
    last = request.messages[-1].content
    if request.role == "extractor":
        turns = request.facts["turns"]
        return json.dumps(
            {
                "opinions": [
                    {"turn": t.n, "text": f"Drinking tea is good in Norland for reason {t.n} of {t.text[-8:]}."}
                    for t in turns
                ]
            }
        )
    if request.role == "verifier":
        return json.dumps(
            {"verdict": "contradict" if "bad" in last.split("Opinion:")[1] else "entail", "reason": "it says so"}
        )
    if request.role == "rewriter":
        return json.dumps({"opinion": "Drinking tea is good, as many say."})
    return f"I think tea is good, says turn {len(request.messages)} {request.seed % 10_000_000:08d}"


class Plays:
    """A model by name, for settings: `model = "tests.conftest:Plays"`."""

    identity = "plays"

    async def complete(self, request: Request) -> Reply:
        return await cp.Scripted(answer, "plays").complete(request)


class Server:
    """A local server that speaks chat completions; `reply` maps a request body to (status, headers, body)."""

    def __init__(self, reply) -> None:
        self.seen: list[dict] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.seen.append({"path": self.path, "headers": dict(self.headers), **body})
                status, headers, answer = reply(len(outer.seen), body)
                payload = json.dumps(answer).encode()
                self.send_response(status)
                for key, value in {
                    "Content-Type": "application/json",
                    "Content-Length": str(len(payload)),
                    **headers,
                }.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *args) -> None:
                """Keep quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def serve():
    """Start local servers and stop them afterwards."""
    servers = []

    def start(reply) -> Server:
        servers.append(Server(reply))
        return servers[-1]

    yield start
    for server in servers:
        server.http.shutdown()
        server.http.server_close()


def said(text: str, finish: str = "stop", **message) -> dict:
    """A chat completion's body."""
    return {
        "choices": [{"message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
    }


class Mute:
    """A model that talks but has no opinion."""

    identity = "mute"

    async def complete(self, request: Request) -> Reply:
        text = '{"opinions": []}' if request.role == "extractor" else f"Tea {request.seed}"
        return Reply(status="ok", text=text)
