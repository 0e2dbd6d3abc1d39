"""Inspect's own OpenAI-compatible provider sits our benchmarks: with the openai SDK that it asks
for, or one clear refusal.
"""

import os
import subprocess
import sys
from importlib.metadata import version

import pytest
from conftest import ROOT

import culturepark as cp

NEW = tuple(map(int, version("openai").split(".")[:2])) >= (3, 4)
SIT = (
    "eval",
    "culturepark/vsm13",
    "-T",
    "cultures=korean",
    "-T",
    "count=2",
    "--model",
    "openai-api/park/embedded",
    "--display",
    "plain",
)


def sit(folder, url):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PARK_BASE_URL": url, "PARK_API_KEY": "none"}
    return subprocess.run(
        [sys.executable, "-m", "inspect_ai", *SIT],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
    )


@pytest.mark.skipif(
    not NEW, reason="Inspect's provider asks for openai 3.4 or later, and an older one is installed"
)
def test_inspects_own_provider_sits_a_benchmark_of_ours(tmp_path):
    with cp.Server() as server:
        done = sit(tmp_path, server.url)
    assert done.returncode == 0 and "openai-api/park/embedded" in done.stdout, (
        done.stdout + done.stderr
    )


@pytest.mark.skipif(NEW, reason="an openai that Inspect's provider takes is installed")
def test_with_an_older_openai_inspect_says_which_it_needs(tmp_path):
    done = sit(tmp_path, "http://127.0.0.1:9/v1")
    assert "3.4.0" in done.stdout + done.stderr
