"""Parts that tests share: a tiny workspace, a model that plays every role by rule, a local
OpenAI-compatible server.
"""

import json
import os
import resource
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import culturepark as cp
from culturepark.records import Reply, Request

# Small models on few cores: one thread each is fastest, and nothing is fetched from anywhere.
for name in (
    "HF_HUB_OFFLINE",
    "HF_DATASETS_OFFLINE",
    "HF_HUB_DISABLE_TELEMETRY",
    "OMP_NUM_THREADS",
):
    os.environ.setdefault(name, "1")

# A busy machine is no fault of the code: how long an example takes is never what a property test is
# about.
settings.register_profile("park", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("park")

ROOT = Path(__file__).parent.parent
# Begun first, so that none is left alone at the end.
LONGEST = ("test_docs.py", "test_wheel.py", "test_launch.py")
DATA = Path(os.environ.get("CULTUREPARK_DATA", ROOT.parent / "shared" / "data"))

# What `make quick` leaves out: these start processes, train models or damage many files.
SLOW = set(
    "batch bounds cli clients completions corpus desk disk_full docs evaluate formats harness"
    " hosted inspect journal launch ledger limits mutations old_runs output own_survey park"
    " prompts reading readers reward safety scpo seats serve server shards stopping store"
    " templates trimming tuning tunes weights wheel".split()
)


def pytest_collection_modifyitems(items):
    """Keep files whole on one worker, pages of the docs apart, and put the longest first."""
    for item in items:
        if item.path.stem.removeprefix("test_") in SLOW:
            item.add_marker(pytest.mark.slow)
        page = item.name if item.path.name == "test_docs.py" else ""
        item.add_marker(pytest.mark.xdist_group(item.path.name + page))
    items.sort(key=lambda item: item.path.name not in LONGEST)


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
        (folder / "culture.toml").write_text(
            CULTURE.format(name=culture, title=title, place=place, food=food)
        )
        for i, gender in enumerate(("woman", "man")):
            given = f"{title[:4]}{'ab'[i]}"
            text = PERSONA.format(
                name=given.lower(),
                culture=culture,
                given=given,
                gender=gender,
                age=30 + i,
                home=f"a town in {place}",
            )
            (folder / f"{given.lower()}.toml").write_text(text)
    (root / "scenarios").mkdir()
    (root / "scenarios" / "tea.toml").write_text(
        SCENARIO + "".join(QUESTION.format(n=n) for n in range(1, 11))
    )
    (root / "outputs").mkdir()
    return root


@pytest.fixture
def park(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny workspace, and the tests' folder of the moment."""
    root = build_workspace(tmp_path / "park")
    monkeypatch.chdir(root)
    monkeypatch.delenv("CULTUREPARK_WORKSPACE", raising=False)
    return root


@contextmanager
def room(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes meanwhile, as if the disk were full; the test runner's
    own output neither.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


TEA = {"scenario": "tea", "contact": "south", "cultures": ("north",)}


def answer(request: Request) -> str | Reply:
    """Play every role by rule, from what a real model would see."""
    last = request.messages[-1].content
    if request.role == "extractor":
        turns = request.facts["turns"]
        return json.dumps(
            {
                "opinions": [
                    {
                        "turn": t.n,
                        "text": (
                            f"Drinking tea is good in Norland for reason {t.n} of {t.text[-8:]}."
                        ),
                    }
                    for t in turns
                ]
            }
        )
    if request.role == "verifier":
        return json.dumps(
            {
                "verdict": "contradict" if "bad" in last.split("Opinion:")[1] else "entail",
                "reason": "it says so",
            }
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
    """A local server that speaks chat completions; `reply` maps a request body to (status, headers,
    body).
    """

    def __init__(self, reply) -> None:
        self.seen: list[dict] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.seen.append({"path": self.path, "headers": dict(self.headers), **body})
                status, headers, answer = reply(len(outer.seen), body)
                payload = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
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
        "choices": [
            {"message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
    }


class Mute:
    """A model that talks but has no opinion."""

    identity = "mute"

    async def complete(self, request: Request) -> Reply:
        text = '{"opinions": []}' if request.role == "extractor" else f"Tea {request.seed}"
        return Reply(status="ok", text=text)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of the offline base's shape that has learnt next to nothing: built in a moment, for
    what needs any base.
    """
    from culturepark.local_models import tiny

    folder = tmp_path_factory.mktemp("bases") / "small"
    tiny.build(folder, texts=64, epochs=1, gate=99)
    return folder


TALK = {"north": ("Agree", "good"), "south": ("Disagree", "bad")}


def rows(culture: str, count: int, start: int = 0) -> list[dict]:
    """Samples of a culture in TRL's prompt-completion form."""
    option, word = TALK[culture]
    return [
        {
            "prompt": [
                {"role": "system", "content": f"You are from the {culture}."},
                {"role": "user", "content": f"Is tea with {n} guests good?\n1. Agree\n2. Disagree"},
            ],
            "completion": [
                {
                    "role": "assistant",
                    "content": f"{option}. I think that tea with {n} guests is {word}.",
                }
            ],
            "metadata": {"culture": culture, "question": f"T{n}"},
        }
        for n in range(start, start + count)
    ]


def told(form: str, row: dict) -> dict:
    """The same sample as a row of another form."""
    said, odd = row["completion"], int(row["metadata"]["question"][1:]) % 2 == 1
    other = [{"role": "assistant", "content": "I cannot say."}]
    common = {"prompt": row["prompt"], "metadata": row["metadata"]}
    agrees = 0.7 if said[0]["content"].startswith("Agree") else 0.2
    return {
        "trl": row,
        "dpo": {**common, "chosen": said, "rejected": other},
        "kto": {**common, "completion": said if odd else other, "label": odd},
        "shares": {
            **common,
            "options": ["Agree", "Disagree"],
            "codes": [1, 2],
            "shares": [agrees, 1 - agrees],
        },
    }[form]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder with two cultures' rows in every form that is tuned on."""
    for form in ("trl", "dpo", "kto", "shares"):
        for split, count, start in (("train", 12, 0), ("validation", 4, 12)):
            held = [told(form, r) for culture in TALK for r in rows(culture, count, start)]
            path = tmp_path / "corpus" / form / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(r) + "\n" for r in held))
    return tmp_path / "corpus"
