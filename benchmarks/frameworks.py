"""The same hosted dialogues through other agent frameworks, on one local server that answers after
200 ms; aims beside the ratios.

Each peer runs in an environment of its own, made on the first run and kept below benchmarks/.peers
(or CULTUREPARK_PEERS).
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.local import running

DIALOGUES, TURNS, IN_FLIGHT, LATENCY, ROUNDS = 200, 12, 200, 0.2, 2
LIMIT = IN_FLIGHT / LATENCY  # turns a second if nothing but the server's latency took time
# dialogues of a peer that holds one at a time: its pace does not depend on how many there are
ALONE = 2
TIMEOUT = 900
SCRIPTS = Path(__file__).parent / "peers"
SDK, AIO = (
    ("openai==2.54.0",),
    ("openai[aiohttp]==2.54.0", "httpx-aiohttp==0.2.0", "aiohttp==3.14.5"),
)


@dataclass(frozen=True)
class Peer:
    """A script in benchmarks/peers, what its environment holds, and whether it is an agent
    framework.
    """

    name: str
    needs: tuple[str, ...]
    framework: bool = False
    alone: bool = False


PEERS = (
    Peer("camel", ("camel-ai==0.2.90", "mcp==1.30.0", *AIO), framework=True),
    Peer(
        "autogen", ("autogen-agentchat==0.7.5", "autogen-ext[openai]==0.7.5", *AIO), framework=True
    ),
    Peer("sotopia", ("sotopia==0.1.5", "litellm==1.80.0", "openai==1.109.1"), framework=True),
    Peer("litellm", ("litellm==1.106.2", *SDK)),
    Peer("openai", SDK),
    Peer("aio", AIO),
    Peer("published", SDK, alone=True),
    Peer("floor", ("aiohttp==3.14.5", "orjson==3.13.0")),
)


class Failed(Exception):
    """A peer that could not be installed or did not hold its dialogues, and why."""


@dataclass(frozen=True)
class Figures:
    """What one run of a script measured: CPU ms a turn, turns a second, peak MB."""

    version: str
    cpu: float
    pace: float
    peak: float


def call(command: Sequence[str | Path], env: Mapping[str, str]) -> str:
    """Run a command and return what it printed; Failed holds the last line of its complaint."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, env=dict(env)
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"not done after {TIMEOUT} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        said = [line for line in lines if line.startswith("ERROR")] or lines or ["it said nothing"]
        raise Failed(f"exit code {done.returncode}: {said[-1][:160]}")
    return done.stdout


def surroundings() -> dict[str, str]:
    """Return the environment variables of a child: ours, no key, no proxy before the local server,
    no path into our packages.
    """
    ours = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "OPENAI_BASE_URL")}
    return {**ours, "OPENAI_API_KEY": "none", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


def interpreter(peer: Peer) -> Path:
    """Return the Python of a peer's own environment, made anew when it is not there or holds other
    versions.
    """
    folder = Path(os.environ.get("CULTUREPARK_PEERS") or SCRIPTS.parent / ".peers") / peer.name
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp, needs = folder / "needs.txt", "\n".join(peer.needs)
    if not stamp.exists() or stamp.read_text() != needs:
        shutil.rmtree(folder, ignore_errors=True)
        call([sys.executable, "-m", "venv", folder], surroundings())
        call(
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *peer.needs],
            surroundings(),
        )
        stamp.write_text(needs)
    return python


def measure(
    name: str, python: Path | str, url: str, dialogues: int, in_flight: int, *more: str
) -> Figures:
    """Run a peer's script once and return its figures; `more` goes to the script as it is."""
    size = [*(str(n) for n in (dialogues, TURNS, in_flight)), *more]
    said = call([python, SCRIPTS / f"{name}.py", url, *size], surroundings()).splitlines()
    try:
        made = json.loads(said[-1])
        turns = made["turns"]
        return Figures(
            made["version"], made["cpu"] / turns * 1000, turns / made["wall"], made["peak_mb"]
        )
    except (IndexError, ValueError, KeyError) as error:
        raise Failed(f"no figures in what it printed: {error!r}") from error


def middle(runs: Sequence[Figures], pick: Callable[[Figures], float]) -> float:
    """Return the median of one figure."""
    return statistics.median(map(pick, runs))


def row(name: str, runs: Sequence[Figures], ratios: str = "") -> str:
    """Return a peer's line of the table."""
    cpu, pace, peak = (
        middle(runs, pick) for pick in (lambda f: f.cpu, lambda f: f.pace, lambda f: f.peak)
    )
    return (
        f"{name:10} {runs[0].version:>9} {cpu:9.2f} {pace:9.1f} {pace / LIMIT:9.1%} {peak:8.0f}"
        f" {ratios}".rstrip()
    )


def main() -> None:
    """Print a row a peer, then how CulturePark stands to the best framework and to the published
    way.
    """
    found: dict[str, list[tuple[Figures, Figures]]] = {peer.name: [] for peer in PEERS}
    absent: dict[str, str] = {}
    pythons: dict[str, Path] = {}
    for peer in PEERS:  # all before the first measurement, so that no installation runs beside one
        try:
            pythons[peer.name] = interpreter(peer)
        except Failed as why:
            absent[peer.name] = f"cannot be installed: {why}"
    with running(latency=LATENCY) as url:
        for _ in range(ROUNDS):
            for peer in PEERS:
                if peer.name in absent:
                    continue
                ours = measure("park", sys.executable, url, DIALOGUES, IN_FLIGHT)
                size = (ALONE, 1) if peer.alone else (DIALOGUES, IN_FLIGHT)
                try:
                    found[peer.name].append(
                        (ours, measure(peer.name, pythons[peer.name], url, *size))
                    )
                except Failed as why:
                    absent[peer.name] = f"failed: {why}"
    show({name: pairs for name, pairs in found.items() if pairs and name not in absent}, absent)


def show(found: Mapping[str, Sequence[tuple[Figures, Figures]]], absent: Mapping[str, str]) -> None:
    """Print the table of pairs (ours, theirs) and the peers that gave none, then the ratios with
    their aims.
    """
    print(
        f"{DIALOGUES} dialogues of {TURNS} turns, {IN_FLIGHT} in flight, {LATENCY * 1000:.0f} ms"
        f" latency, limit {LIMIT:,.0f} turns/s; published: {ALONE} dialogues, one call at a time;"
        f" medians of {ROUNDS}"
    )
    print(
        f"{'':10} {'version':>9} {'CPU ms/t':>9} {'turns/s':>9} {'of limit':>9} {'peak MB':>8}"
        f" {'CPU: its/ours':>14} {'turns/s: ours/its':>18}"
    )
    own = [ours for pairs in found.values() for ours, _ in pairs]
    if own:
        print(row("park", own))
    costs, holds = dict[str, float](), dict[str, float]()
    for peer in PEERS:
        if peer.name in absent:
            print(f"{peer.name:10} {absent[peer.name]}")
            continue
        pairs = found[peer.name]
        costs[peer.name] = statistics.median(theirs.cpu / ours.cpu for ours, theirs in pairs)
        holds[peer.name] = statistics.median(ours.pace / theirs.pace for ours, theirs in pairs)
        ratios = f"{costs[peer.name]:13.2f}x {holds[peer.name]:17.2f}x"
        print(row(peer.name, [theirs for _, theirs in pairs], ratios))
    frameworks = {
        peer.name: [theirs for _, theirs in found[peer.name]]
        for peer in PEERS
        if peer.framework and peer.name in found
    }
    if frameworks:
        low = min(frameworks, key=lambda name: middle(frameworks[name], lambda f: f.cpu))
        high = max(frameworks, key=lambda name: middle(frameworks[name], lambda f: f.pace))
        print(
            f"best framework: {low} costs {costs[low]:.2f}x our CPU a turn (aim: at least 4x); "
            f"we hold {holds[high]:.2f}x the turns/s of {high} (aim: at least 2.3x)"
        )
    else:
        print("best framework: none ran, so there is no ratio")
    if "published" in holds:
        print(f"published way: we hold {holds['published']:.0f}x its turns/s (aim: at least 150x)")
    else:
        print("published way: it did not run, so there is no ratio")
