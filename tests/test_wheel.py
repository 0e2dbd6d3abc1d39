"""An installed wheel works in an empty folder, on every Python that the project claims, with no
extra installed.
"""

import os
import re
import subprocess
import sys
import tomllib
from functools import partial
from itertools import chain
from pathlib import Path

import pytest
from conftest import ROOT
from test_docs import SAMPLE, blocks

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CLAIMED = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
HERE = "{}.{}".format(*sys.version_info)
SECTIONS = (
    "Two commands",
    "From Python",
    "Your own people",
)  # of the README: what needs no extra and no endpoint
KEPT = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "CULTUREPARK"))}
call = partial(subprocess.run, check=True, capture_output=True, text=True)


def interpreter(version):
    """Return the Python of this version: the running one, one on PATH, or one of pyenv's; None
    where there is none.
    """
    if version == HERE:
        return sys.executable
    on_path = (Path(folder) / f"python{version}" for folder in os.environ["PATH"].split(os.pathsep))
    pyenv = Path(os.environ.get("PYENV_ROOT", "nowhere")).glob(
        f"versions/{version}.*/bin/python{version}"
    )
    return next((p for p in chain(on_path, pyenv) if p.is_file() and answers(p, version)), None)


def answers(python, version):
    """Say whether this is such a Python: a shim may stand for one that is not installed."""
    code = "import sys, venv, sqlite3; print('{}.{}'.format(*sys.version_info))"
    return (
        subprocess.run([python, "-c", code], capture_output=True, text=True).stdout.strip()
        == version
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    call([sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "-q", "-w", str(folder)])
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module", params=CLAIMED)
def installed(request, wheel, tmp_path_factory):
    """Return the environment variables of somebody who has installed the wheel alone."""
    python = interpreter(request.param)
    if python is None:
        pytest.skip(f"there is no Python {request.param} on this machine")
    home = tmp_path_factory.mktemp("installed")
    call([python, "-m", "venv", "--without-pip", str(home)])
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(home / "bin/python"),
        "install",
        "-q",
        "--no-compile",
    ]
    call([*pip, "-c", str(ROOT / "constraints.txt"), str(wheel)])
    return KEPT | {
        "PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "VIRTUAL_ENV": str(home),
    }


def section(title):
    """Return what a reader of this section of the README types, line by line shell or a whole
    Python program.
    """
    text = re.search(
        rf"^## {title}\n(.*?)^## ", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )[1]
    return [
        (kind, body)
        for kind, body in blocks("README.md", "bash", "python")
        if body in text and "make" not in body
    ]


def test_the_readmes_first_commands_run_on_the_base_install_of_every_python(installed, tmp_path):
    for kind, body in chain.from_iterable(map(section, SECTIONS)):
        args = (
            ["python", "-c", body]
            if kind == "python"
            else ["sh", "-ec", body.replace("{sample}", SAMPLE)]
        )
        done = subprocess.run(args, cwd=tmp_path, env=installed, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    told = call(
        ["python", "-c", "import culturepark; print(culturepark.__file__)"],
        cwd=tmp_path,
        env=installed,
    ).stdout
    assert (
        told.startswith(installed["VIRTUAL_ENV"])
        and (tmp_path / "outputs/first/corpus/trl/train.jsonl").exists()
    )
    assert (tmp_path / "outputs/first/report/report.html").exists()


@pytest.mark.parametrize("installed", [HERE], indirect=True)
@pytest.mark.parametrize(
    ("flags", "extra"),
    [
        ("--to trl,hub", "hub"),
        ("--model local/tiny", "tune"),
        ("--model local/some/base", "tune"),
        ("--seat arabic=local/tiny", "tune"),
        ("--model anthropic/claude", "litellm"),
    ],
)
def test_what_the_base_install_lacks_is_named_before_the_first_call(
    installed, tmp_path, flags, extra
):
    args = ["culturepark", "run", "lacking", "-c", "arabic", "-n", "1", *flags.split()]
    done = subprocess.run(args, cwd=tmp_path, env=installed, capture_output=True, text=True)
    assert done.returncode in (1, 2) and f"pip install 'culturepark[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "outputs/lacking").exists()
