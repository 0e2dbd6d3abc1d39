"""The verb that holds models of several runs against one another: `compare`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from culturepark.api.runs import resume
from culturepark.api.work import report
from culturepark.errors import InputError, NotFound
from culturepark.evaluation import comparison, result
from culturepark.evaluation.card import check_code_allowed
from culturepark.evaluation.comparison import Comparison
from culturepark.workspace import find_workspace, locate_output

NAME, BOARD = "compare", Path("evals/board")


def compare(
    *runs: str | Path,
    name: str | None = None,
    against: str | None = None,
    workspace: str | Path | None = None,
    out: str | Path | None = None,
    code: bool = False,
) -> Comparison:
    """Hold all results in these runs against one another; return the comparison and write it (see
    `locate_comparison`).

    A run is a folder, or the name of one below outputs/. There come to be leaderboard.html, .json
    and .tex, and the samples that every number leads to. `against` compares every model with one
    alone, so that fewer p-values are corrected. `code` lets results of kinds of one's own be read
    by their code. InputError where a run holds no result, or a damaged one.
    """
    from culturepark.reports import leaderboard

    folders = _name_runs([_find_run(run, workspace, out) for run in runs])
    if not folders:
        raise InputError("nothing to compare: name at least one run")
    sources = {called: result.find_results(folder) for called, folder in folders.items()}
    for called, found in sources.items():
        if not found:
            raise InputError(
                f"no results in the run {folders[called]}: evaluate a model there first, for"
                f" example `culturepark evaluate {called} vsm13 --model embedded`"
            )
    held, where = [], {}
    for called, source in (
        (called, folder) for called, found in sources.items() for folder in found
    ):
        one = result.read(source)
        check_code_allowed((one.kind,), str(source), code=code)
        held.append(
            comparison.measure_result(
                called, one, result.load_attempts(source), partial(result.load_attempts, source)
            )
        )
        where[called, one.benchmark, one.model] = source
    made = leaderboard.link_samples(comparison.build_comparison(held, against))
    leaderboard.write(
        locate_comparison(*runs, name=name, workspace=workspace, out=out), made, where
    )
    for folder in folders.values() if name is None and len(folders) == 1 else ():
        if (folder / "run.toml").is_file():
            report(resume(folder, workspace=workspace))  # it links to the board
    return made


def locate_comparison(
    *runs: str | Path,
    name: str | None = None,
    workspace: str | Path | None = None,
    out: str | Path | None = None,
) -> Path:
    """Return where the board of these runs is: in a run of its own where there is one and no name,
    else in outputs/<name>/.
    """
    folders = list(dict.fromkeys(_find_run(run, workspace, out).resolve() for run in runs))
    if name is None and len(folders) == 1:
        return folders[0] / BOARD
    folder = locate_output(find_workspace(workspace), name or NAME, out)
    if (folder / "evals").is_dir() or (folder / "run.toml").is_file():
        raise InputError(f"{folder} is a run; give the board another name")
    return folder


def _find_run(run: str | Path, workspace: str | Path | None, out: str | Path | None) -> Path:
    """Return the folder of a run: this one, or that of this name below outputs/; NotFound names the
    nearest.
    """
    path = Path(run).expanduser()
    if (path / "evals").is_dir() or (path / "run.toml").is_file():
        return path
    if path.parent != Path():
        raise InputError(f"no run at {path}")
    folder = locate_output(find_workspace(workspace), path.name, out)
    if not folder.is_dir():
        raise NotFound("run", path.name, str(folder.parent), _list_runs(folder.parent))
    return folder


def _list_runs(outputs: Path) -> set[str]:
    """Return the names of the runs below a folder: those that hold dialogues and those that hold
    evaluations.
    """
    found = (*outputs.glob("*/run.toml"), *outputs.glob("*/evals"))
    return {path.parent.name for path in found if not path.parent.name.startswith(".")}


def _name_runs(folders: Sequence[Path]) -> dict[str, Path]:
    """Return the folders, each once, by a name that no other one has."""
    made: dict[str, Path] = {}
    for folder in dict.fromkeys(f.resolve() for f in folders):
        made[next(called for called in _number_names(folder.name) if called not in made)] = folder
    return made


def _number_names(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}-{n}" for n in range(2, 1_000_000))
