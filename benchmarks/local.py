"""The server that the hosted benchmarks ask: culturepark's own, in a process of its own, so that
only the client is measured.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

ROOT = Path(__file__).parents[1]
TOKENS = 60  # of an answer, about
SCRIPT = """
import json, sys
from culturepark.testing.server import Server
from culturepark.testing.templated import CannedAnswer
with Server(CannedAnswer(int(sys.argv[1])), models=("canned",), keep=False, **json.loads(sys.argv[2])) as server:
    print(server.url, flush=True)
    sys.stdin.read()  # it ends when whoever started it does
"""  # noqa: E501


@contextmanager
def running(*, latency: float, **more: Any) -> Iterator[str]:
    """Start the server with canned answers and yield its URL (http://127.0.0.1:PORT/v1); `more`
    goes to `Server` as it is.
    """
    options = json.dumps({"latency": latency, **more})
    command = [sys.executable, "-c", SCRIPT, str(TOKENS), options]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError(f"the local server did not start: exit code {process.wait()}")
            yield url
        finally:
            process.kill()


def counts(url: str) -> dict[str, Any]:
    """Return what a running server has counted: requests, how many were in flight at once, and so
    on.
    """
    opener = build_opener(ProxyHandler({}))  # no proxy stands before this machine's own server
    with opener.open(url.removesuffix("/v1") + "/counts", timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)
    return found
