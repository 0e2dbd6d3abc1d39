"""An installed wheel works in an empty folder: the cards are inside it."""

import os
import subprocess
import sys
import zipfile

from conftest import ROOT


def test_a_wheel_runs_from_an_empty_folder(tmp_path):
    wheels, site, empty = tmp_path / "wheels", tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "-q", "-w", str(wheels)],
        check=True,
        capture_output=True,
    )
    zipfile.ZipFile(next(wheels.glob("*.whl"))).extractall(site)
    args = [sys.executable, "-m", "culturepark", "run", "first", "-c", "korean", "-n", "2"]
    done = subprocess.run(args, cwd=empty, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (empty / "outputs/first/corpus/hub/README.md").exists() and (
        empty / "outputs/first/report/report.html"
    ).exists()
    assert (site / "culturepark/shipped/personas/korean/culture.toml").exists()
