"""Trains models on a corpus: on this machine (`tune`, `scpo`) or at a service (`hosted`)."""

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

MATRIX = 40  # held-out rows per culture that every model is scored on


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
    """Tune one model per culture on a corpus and return their folders, each with weights, manifest,
    card and curves.

    `objective` is sft, dpo, orpo, kto, shares, mix, or `package.module:NAME` of an Objective of
    your own; `corpus` a run (exported if necessary), or a file or folder of JSONL in TRL's formats;
    `base` a folder, a hub name, or `tiny`. `how` holds the other fields of a Recipe (rank, lr, …).
    Unfinished models are continued, finished ones left. The job's page is `report.html` beside the
    models.
    """
    from culturepark.local_models import machine
    from culturepark.reports import tuned
    from culturepark.training import job

    def read_inputs() -> tuple[Recipe, Path, Any, Any]:
        """Return recipe, folder, rows and rows beside them; one process reads for all."""
        recipe = recipes.build_recipe({"objective": objective, "base": base, **how}, preset)
        source, home = locate_rows(corpus, recipe.reads, workspace, out)
        place = locate_output(home, name or build_default_name(recipe), home / "models")
        rows = _read_corpus(source, recipe.reads, culture)
        if not (form := load_objective(recipe.objective).beside):
            return recipe, place, rows, None
        beside = locate_rows(corpus, form, workspace, out)[0]
        return recipe, place, rows, _read_corpus(beside, form, culture)

    with machine.enter_launch(how.get("device")):
        recipe, place, rows, beside = machine.run_in_first(read_inputs)
        folders = job.tune(rows, recipe, place, tell, fresh=fresh, opinions=beside)
    if machine.is_first():
        tuned.write_report(place, folders)
    return folders


def build_default_name(recipe: Recipe) -> str:
    """Return a job's name by default: its objective, and what distinguishes it."""
    parts = [
        recipe.objective.replace(":", "."),
        *(["modal"] if recipe.answers == "modal" else []),
        *(["pooled"] if recipe.pooled else []),
    ]
    return "-".join(parts)


def locate_rows(
    corpus: Run | str | Path, form: str, workspace: str | Path | None, out: str | Path | None
) -> tuple[Path, Path]:
    """Return the path of the rows of a format, and the folder below which models are kept.

    A run is exported to that format if necessary; a folder's models are kept below outputs/.
    """
    run = corpus if isinstance(corpus, Run) else _find_run(corpus, workspace, out)
    if run is not None:
        return _export_form(run, form), run.folder
    path = Path(str(corpus)).expanduser()
    home = locate_output(find_workspace(workspace), path.resolve().stem, out)
    return path / form if (path / form).is_dir() else path, home


def _export_form(run: Run, form: str) -> Path:
    """Return the path of a run's rows in a format, exported if they are missing or older than the
    run.

    A corpus with a folder per culture keeps them.
    """
    folder, journal = run.corpus / form, run.folder / "journal.sqlite"
    recover(folder)
    if folder.is_dir() and folder.stat().st_mtime_ns >= journal.stat().st_mtime_ns:
        return folder
    by_culture = folder.is_dir() and any(
        p.is_dir() and not p.name.startswith("_") for p in folder.iterdir()
    )
    return export(run, (form,), by_culture=by_culture)[form]


def _find_run(
    corpus: str | Path, workspace: str | Path | None, out: str | Path | None
) -> Run | None:
    """Return the run of this name or folder; None if it is a file or folder of rows."""
    path = Path(corpus).expanduser()
    if (path / "run.toml").is_file():
        return resume(path, workspace=workspace)
    if path.exists():
        return None
    if path.parent != Path():
        raise InputError(f"no corpus and no run at {path}")
    return resume(locate_output(find_workspace(workspace), str(corpus), out), workspace=workspace)


def _read_corpus(source: Path, form: str, culture: str | None) -> Any:
    from culturepark.training import rows

    return rows.read_corpus(source, form, culture)


def matrix(
    models: str | Path,
    corpus: Run | str | Path,
    split: str = "test",
    *,
    workspace: str | Path | None = None,
    out: str | Path | None = None,
    rows: int = MATRIX,
) -> Any:
    """Score every tuned model in a folder on every culture's rows of a split; return a Matrix and
    write it as matrix.json.

    `rows` is the maximum per culture. The test split holds questions that no model was tuned on.
    """
    from culturepark.local_models import manifest
    from culturepark.reports import tuned
    from culturepark.training import matrix as matrices

    folders = manifest.find_folders(models)
    answers = _read_corpus(locate_rows(corpus, "trl", workspace, out)[0], "trl", None)
    distributions = _read_corpus(locate_rows(corpus, "shares", workspace, out)[0], "shares", None)
    options: dict[str, list[str]] = {
        r["metadata"]["question"]: r["options"]
        for s in distributions.rows.values()
        for part in s.values()
        for r in part
    }
    part: Mapping[str, Any] = {
        c: answers.select(split, c)[:rows] for c in answers.cultures() if answers.select(split, c)
    }
    if not part:
        raise InputError(
            f"no rows in the split {split!r} of {answers.title}; there are:"
            f" {', '.join(answers.rows)}"
        )
    table = matrices.compare_models(folders, part, options).model_copy(
        update={"corpus": answers.title, "split": split}
    )
    place = folders[0].parent
    write_text(place / "matrix.json", table.model_dump_json(indent=1))
    tuned.write_report(place, folders)
    return table


def is_first_process() -> bool:
    """Return whether this process writes and prints: accelerate and torchrun start several."""
    from culturepark.local_models.machine import is_first

    return is_first()


def describe_models(folders: list[Path]) -> dict[str, Any]:
    """Return a job's folder and page, and each model's name, folder and figures, as JSON-able
    data.
    """
    from culturepark.local_models import manifest

    models = [(folder, manifest.read(folder)) for folder in folders]
    place = folders[0].parent
    return {
        "folder": str(place),
        "report": str(place / "report.html"),
        "models": [
            {"name": m.name, "folder": str(folder), "scores": m.scores} for folder, m in models
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
    """Train and judge reward models steered to countries (SCPO); return a Result per model, with
    its margins on held-out pairs.

    `data` is a file of votes, scored conversations or preferences, or the word simulated; `terms`
    holds the fields of Terms (tau, beta, lr, steps, …), `how` countries, variants, seeds, shares,
    taus, betas, keep, fresh and tell.
    """
    from culturepark.training import scpo as work

    settings = work.build_terms(preset, base=base, **(terms or {}))
    return work.run(data, locate_output(find_workspace(workspace), name, out), settings, **how)


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
    hosted` shows the cost and asks first. Call it again to continue: no job is started twice.
    """
    from culturepark.executor import pool
    from culturepark.training import hosted as work

    folder, place, title = locate_upload(corpus, method, name, workspace, out)
    plan = work.plan(
        folder, model, method=method, suffix=title if suffix is None else suffix, **how
    )
    return pool.run_loop(work.tune(plan, place, key=key))


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
    elif (run := _find_run(corpus, workspace, out)) is None:
        raise InputError(
            f"{folder} is no run and holds no train.jsonl, nor does a folder of it for each culture"
        )
    else:
        home, folder = run.folder, locate_rows(run, FOLDERS[method], workspace, out)[0]
    place = locate_output(home, name, home / "models")
    return folder, place, home.name if name == "hosted" else f"{home.name}-{name}"
