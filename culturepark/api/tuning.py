"""The verbs that make models of a corpus: here (`tune`), or at a service (`hosted`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from culturepark.api.runs import resume
from culturepark.api.work import export
from culturepark.atomic import recover, write_text
from culturepark.errors import InputError
from culturepark.events import Tell
from culturepark.runs import Run
from culturepark.training import recipe as recipes
from culturepark.training.objective import load_objective
from culturepark.training.recipe import Recipe
from culturepark.workspace import find_workspace, locate_output

MATRIX = 40  # held-out rows a culture that are held against every model


def tune(
    objective: str,
    corpus: Run | str | Path,
    base: str | None = None,
    *,
    name: str | None = None,
    preset: str | None = None,
    culture: str | None = None,
    workspace: str | Path | None = None,
    out: str | Path | None = None,
    fresh: bool = False,
    tell: Tell = lambda stage, figures: None,
    **how: Any,
) -> list[Path]:
    """Tune a model a culture on a corpus and return their folders, each with weights, manifest,
    card and curves.

    `objective` is sft, dpo, orpo, kto, shares, mix, or `package.module:NAME` of an Objective of
    your own; `corpus` a run (exported where it is not
    yet), or a file or folder of JSONL in TRL's formats; `base` a folder, a hub name, or `tiny`.
    `how` holds the other fields of a Recipe (rank, lr, …). What was begun goes on; what is whole is
    left. The job's page is `report.html` beside the models.
    """
    from culturepark.local_models import machine
    from culturepark.reports import tuned
    from culturepark.training import job

    def ready() -> tuple[Recipe, Path, Any, Any]:
        """Find and read all that is worked on; under accelerate or torchrun one process does, for
        all.
        """
        told = recipes.build({"objective": objective, "base": base, **how}, preset)
        source, home = located(corpus, told.reads, workspace, out)
        place = locate_output(home, name or default(told), home / "models")
        rows = _read(source, told.reads, culture)
        if not (form := load_objective(told.objective).beside):
            return told, place, rows, None
        return told, place, rows, _read(located(corpus, form, workspace, out)[0], form, culture)

    with machine.enter_launch(how.get("device")):
        told, place, held, beside = machine.run_in_first(ready)
        made = job.tune(held, told, place, tell, fresh=fresh, opinions=beside)
    if machine.is_first():
        tuned.write(place, made)
    return made


def default(told: Recipe) -> str:
    """Return what a job is called unless it is told: its objective, and what sets it apart."""
    parts = [
        told.objective.replace(":", "."),
        *(["modal"] if told.answers == "modal" else []),
        *(["pooled"] if told.pooled else []),
    ]
    return "-".join(parts)


def located(
    corpus: Run | str | Path, form: str, workspace: str | Path | None, out: str | Path | None
) -> tuple[Path, Path]:
    """Return where the rows of a form are, and the folder below which models are kept.

    A run is exported to that form where it is not yet; a folder's models are kept below outputs/.
    """
    run = corpus if isinstance(corpus, Run) else _run(corpus, workspace, out)
    if run is not None:
        return _exported(run, form), run.folder
    path = Path(str(corpus)).expanduser()
    return (path / form if (path / form).is_dir() else path), locate_output(
        find_workspace(workspace), path.resolve().stem, out
    )


def _exported(run: Run, form: str) -> Path:
    """Return where a run's rows of a form are, exported anew where they are not yet, or were before
    the run last went on.

    A corpus that was parted by culture stays so.
    """
    folder, journal = run.corpus / form, run.folder / "journal.sqlite"
    recover(folder)
    if folder.is_dir() and folder.stat().st_mtime_ns >= journal.stat().st_mtime_ns:
        return folder
    parted = folder.is_dir() and any(
        p.is_dir() and not p.name.startswith("_") for p in folder.iterdir()
    )
    return export(run, (form,), by_culture=parted)[form]


def _run(corpus: str | Path, workspace: str | Path | None, out: str | Path | None) -> Run | None:
    """Return the run of this name or folder; None where it is a file or folder of rows."""
    path = Path(corpus).expanduser()
    if (path / "run.toml").is_file():
        return resume(path, workspace=workspace)
    if path.exists():
        return None
    if path.parent != Path():
        raise InputError(f"no corpus and no run at {path}")
    return resume(locate_output(find_workspace(workspace), str(corpus), out), workspace=workspace)


def _read(source: Path, form: str, culture: str | None) -> Any:
    from culturepark.training import rows

    return rows.read(source, form, culture)


def matrix(
    models: str | Path,
    corpus: Run | str | Path,
    split: str = "test",
    *,
    workspace: str | Path | None = None,
    out: str | Path | None = None,
    rows: int = MATRIX,
) -> Any:
    """Hold every tuned model in a folder against every culture's rows of a split; return a Matrix
    and keep it as matrix.json.

    `rows` bounds the rows a culture. The test split holds questions that nobody was tuned on.
    """
    from culturepark.local_models import manifest
    from culturepark.reports import tuned
    from culturepark.training import matrix as matrices

    folders = manifest.find_folders(models)
    held = _read(located(corpus, "trl", workspace, out)[0], "trl", None)
    found = _read(located(corpus, "shares", workspace, out)[0], "shares", None)
    options: dict[str, list[str]] = {
        r["metadata"]["question"]: r["options"]
        for s in found.rows.values()
        for part in s.values()
        for r in part
    }
    part: Mapping[str, Any] = {
        c: held.of(split, c)[:rows] for c in held.cultures() if held.of(split, c)
    }
    if not part:
        raise InputError(
            f"no rows in the split {split!r} of {held.title}; there are: {', '.join(held.rows)}"
        )
    made = matrices.compare(folders, part, options).model_copy(
        update={"corpus": held.title, "split": split}
    )
    place = folders[0].parent
    write_text(place / "matrix.json", made.model_dump_json(indent=1))
    tuned.write(place, folders)
    return made


def first() -> bool:
    """Say whether this is the process that writes and speaks: under accelerate or torchrun there
    are several.
    """
    from culturepark.local_models.machine import is_first as one

    return one()


def graduates(made: list[Path]) -> dict[str, Any]:
    """Return what a job made, as plain data: its folder and page, and each model's name, folder and
    last figures.
    """
    from culturepark.local_models import manifest

    held = [(folder, manifest.read(folder)) for folder in made]
    place = made[0].parent
    return {
        "folder": str(place),
        "report": str(place / "report.html"),
        "models": [
            {"name": m.name, "folder": str(folder), "scores": m.scores} for folder, m in held
        ],
    }


def scpo(
    data: str | Path,
    base: str | None = None,
    *,
    preset: str | None = None,
    name: str = "scpo",
    workspace: str | Path | None = None,
    out: str | Path | None = None,
    terms: Mapping[str, Any] | None = None,
    **how: Any,
) -> list[Any]:
    """Train and judge reward models steered to countries (SCPO); return a Result a model, with its
    margins on held-out pairs.

    `data` is a file of votes, scored conversations or preferences, or the word simulated; `terms`
    holds the fields of Terms (tau, beta, lr, steps, …), `how` countries, variants, seeds, shares,
    taus, betas, keep, fresh and tell.
    """
    from culturepark.training import scpo as work

    told = work.build_terms(preset, base=base, **(terms or {}))
    return work.run(data, locate_output(find_workspace(workspace), name, out), told, **how)


def hosted(
    corpus: str | Path,
    model: str,
    *,
    method: str = "sft",
    name: str = "hosted",
    suffix: str | None = None,
    key: str | None = None,
    workspace: str | Path | None = None,
    out: str | Path | None = None,
    **how: Any,
) -> dict[str, dict[str, Any]]:
    """Tune `model` (PROVIDER/NAME) on a corpus at a fine-tuning service and return the manifests by
    culture.

    `how` holds epochs, batch_size, lr, beta, seed, price (USD per million training tokens), max_usd
    and base_url. Files are uploaded and jobs started (and paid for) at once; `culturepark tune
    hosted` shows the cost and asks first. What was begun goes on: no job is started twice.
    """
    from culturepark.executor import pool
    from culturepark.training import hosted as work

    folder, place, title = locate_upload(corpus, method, name, workspace, out)
    made = work.plan(
        folder, model, method=method, suffix=title if suffix is None else suffix, **how
    )
    return pool.run_loop(work.tune(made, place, key=key))


def locate_upload(
    corpus: str | Path, method: str, name: str, workspace: str | Path | None, out: str | Path | None
) -> tuple[Path, Path, str]:
    """Return where the rows for a service are, where its models go, and what to call them; a run is
    exported where it is not yet.
    """
    from culturepark.training.hosted.uploads import FOLDERS, find_jobs

    folder = Path(corpus).expanduser()
    if find_jobs(folder):
        within = next((p for p in folder.resolve().parents[:3] if (p / "run.toml").is_file()), None)
        home = within or locate_output(find_workspace(workspace), folder.resolve().name, out)
    elif (run := _run(corpus, workspace, out)) is None:
        raise InputError(
            f"{folder} is no run and holds no train.jsonl, nor does a folder of it for each culture"
        )
    else:
        home, folder = run.folder, located(run, FOLDERS[method], workspace, out)[0]
    place = locate_output(home, name, home / "models")
    return folder, place, home.name if name == "hosted" else f"{home.name}-{name}"
