"""The verbs, each a thin layer over a function of `culturepark.api`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from culturepark.cli.compare import compare
from culturepark.cli.evaluate import evaluate
from culturepark.cli.flags import (
    Sectioned,
    as_json,
    drive_flags,
    find_run,
    format_flags,
    licence_flag,
    list_names,
    open_run,
    out_flag,
    pair,
    run_argument,
    server_flags,
    settings_flags,
    split_names,
    together,
    workspace_flag,
)
from culturepark.cli.lessons import chat, exam
from culturepark.cli.progress import aloud, progress, say
from culturepark.cli.serve import merge, serve, warn
from culturepark.cli.terminal import echo
from culturepark.cli.tune import matrix, tune
from culturepark.registry import IMPORTERS

# Only click is imported here: `culturepark --help` must be instant. click rather than typer, whose
# import alone costs more than the whole budget (see benchmarks/startup.py).


class Command(click.Group):
    """The command group: turns the park's errors into one message and an exit code."""

    command_class = Sectioned

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Keep the order of the work."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest verb when there is none of this name."""
        if (
            args
            and args[0] not in self.commands
            and not args[0].startswith("-")
            and not ctx.resilient_parsing
        ):
            from culturepark.errors import nearest

            raise click.UsageError(f"no verb {args[0]!r}. {nearest(args[0], self.commands)}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=Command, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="culturepark", prog_name="culturepark")
def cli() -> None:
    """Persona-driven agents from different cultures converse; their dialogues become fine-tuning
    corpora.

    Start with `culturepark run demo`: simulate, refine, export and report on the embedded engine,
    no key needed.
    """
    click.get_current_context().with_resource(aloud())


@cli.command()
@click.argument("folder")
@as_json
def init(folder: str, as_json: bool) -> None:
    """Write a workspace: agents/, personas/ and scenarios/ to make your own."""
    from culturepark import api

    made = api.init(folder)
    say(
        {"workspace": str(made)},
        as_json,
        f"{made}: ready. Edit its cards, then: cd {made} && culturepark check && culturepark run"
        " first",
    )


@cli.command()
@workspace_flag
@as_json
def check(workspace: str | None, as_json: bool) -> None:
    """Check every card and prompt; list every mistake at once."""
    from culturepark import api

    found = api.check(workspace)
    say(
        found,
        as_json,
        "{workspace}: {roles} roles, {cultures} cultures, {personas} personas, {scenarios}"
        " scenarios with {questions} questions; all sound".format(**found),
    )


@cli.command()
@click.argument("role")
@click.option("--culture", "-c", metavar="NAME")
@click.option("--persona", "-p", metavar="NAME")
@click.option("--question", "-q", metavar="ID")
@click.option("--scenario", metavar="NAME", help="Pack that the question is from.")
@click.option("--turn", type=int, metavar="N", help="Which turn of the dialogue, from 0.")
@click.option("--style", type=click.Choice(["guided", "free"]), default="guided", show_default=True)
@click.option("--delegates", type=int, metavar="N", help="Delegates at the table (default 1).")
@click.option(
    "--opinion",
    metavar="TEXT",
    default="Many people see it that way.",
    help="For the verifier and rewriter.",
)
@workspace_flag
@as_json
def show(role: str, workspace: str | None, as_json: bool, **flags: Any) -> None:
    """Show exactly what a model is sent for ROLE at a turn."""
    from culturepark import api

    request = api.show(role, workspace=workspace, **flags)
    sent = {
        "temperature": request.temperature,
        "max_tokens": request.max_tokens,
        "stop": list(request.stop),
        "messages": [{"role": m.role, "content": m.content} for m in request.messages],
    }
    body = "\n\n".join(f"[{m.role}]\n{m.content}" for m in request.messages)
    stop = f", stops at {', '.join(map(repr, request.stop))}" if request.stop else ""
    how = f"temperature {request.temperature}, at most {request.max_tokens} tokens{stop}"
    say(sent, as_json, f"{body}\n\n({how})")


def _format_marked_turns(done: dict[str, Any]) -> str:
    """Return how many turns are marked, where any are."""
    n = done["marked_turns"]
    return f" ({n} turn{'s' if n != 1 else ''} marked: the report says why)" if n else ""


def _failures(done: dict[str, Any]) -> str:
    """Return how many dialogues failed and the main reason, where any did."""
    return "".join(f"; {failure}" for failure in done["failures"])


def run_command(function: Callable[..., None]) -> Callable[..., None]:
    """Give a verb the flags with which a run is started or reopened."""
    return together(
        click.argument("name", metavar="NAME"),
        click.option(
            "--resume",
            is_flag=True,
            help="Go on with the run NAME (or folder) exactly as it was started.",
        ),
        click.option("--fresh", is_flag=True, help="Throw away an earlier run of this name first."),
        settings_flags,
        drive_flags,
        workspace_flag,
        out_flag,
        as_json,
    )(function)


@cli.command()
@run_command
def simulate(
    name: str,
    resume: bool,
    fresh: bool,
    workspace: str | None,
    out: str | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Hold the dialogues of the run NAME."""
    from culturepark import api

    run = open_run(name, resume, fresh, out, workspace, flags)
    with progress(as_json) as show_event:
        done = api.simulate(run, show_event)
    say(
        done | {"run": str(run.folder)},
        as_json,
        f"{run.folder}: {done['dialogues']} dialogues, {done['turns']}"
        f" turns{_format_marked_turns(done)}{_failures(done) or ', 0 failed'}",
    )


@cli.command()
@run_argument
@drive_flags
@workspace_flag
@out_flag
@as_json
def refine(run: str, workspace: str | None, out: str | None, as_json: bool, **flags: Any) -> None:
    """Extract, verify, rewrite and thin out the opinions of RUN."""
    from culturepark import api

    found = find_run(run, out, workspace, flags)
    with progress(as_json) as show_event:
        done = api.refine(found, show_event)
    kept = f"{done['kept']} kept, {done['samples']} samples{_failures(done)}"
    say(
        done | {"run": str(found.folder)},
        as_json,
        f"{found.folder}: {done['opinions']} opinions, {kept}",
    )


@cli.command()
@run_argument
@format_flags
@click.option(
    "--from",
    "source",
    metavar="FILE",
    help="Read the corpus from this file (CSV, TSV, JSON Lines, JSON); RUN is its name.",
)
@click.option("--as", "importer", metavar="NAME", help=f"How: {', '.join(IMPORTERS)}.")
@click.option(
    "--columns",
    multiple=True,
    metavar="OURS=THEIRS",
    help="Which column is which: prompt=frage,completion=antwort.",
)
@click.option("--culture", metavar="NAME", help="Whose answers these are, where rows don't say.")
@licence_flag
@workspace_flag
@out_flag
@as_json
def export(
    run: str,
    formats: tuple[str, ...],
    source: str | None,
    licence: str | None,
    workspace: str | None,
    out: str | None,
    as_json: bool,
    by_culture: bool,
    **how: Any,
) -> None:
    """Write the corpus of RUN, or of a FILE of yours, in the formats that trainers read."""
    from culturepark import api

    columns = (pair("--columns", c, "OURS=THEIRS") for c in split_names(how.pop("columns")))
    how |= {"columns": dict(columns)}
    if source is None:
        if given := [name for name, value in how.items() if value]:
            flag = {"importer": "as"}.get(given[0], given[0])
            raise click.UsageError(f"--{flag} says how a file is read: give it with --from FILE")
        opened_run = find_run(run, out, workspace, {"licence": licence})
        written = api.export(opened_run, list_names(formats), by_culture=by_culture)
    else:
        asked = click.get_current_context().get_parameter_source("formats")
        default = asked == click.core.ParameterSource.DEFAULT
        where = {"workspace": workspace, "out": out, "licence": licence}
        written = api.export(
            run,
            None if default else list_names(formats),
            by_culture=by_culture,
            source=source,
            **where,
            **how,
        )
    say(
        {k: str(v) for k, v in written.items()},
        as_json,
        "\n".join(f"{name}: {path}" for name, path in written.items()),
    )


@cli.command()
@run_argument
@workspace_flag
@out_flag
@as_json
def report(run: str, workspace: str | None, out: str | None, as_json: bool) -> None:
    """Write one self-contained page (and JSON) about RUN."""
    from culturepark import api

    page = api.report(find_run(run, out, workspace))
    say({"report": str(page)}, as_json, str(page))


@cli.command()
@click.argument("sample", metavar="ID")
@click.option("--run", required=True, metavar="RUN", help="The run's name or folder.")
@workspace_flag
@out_flag
@as_json
def explain(sample: str, run: str, workspace: str | None, out: str | None, as_json: bool) -> None:
    """Walk from a sample (or opinion) back to its seed, personas, turns, verdicts, rewrite and
    split.
    """
    from culturepark import api

    found = api.explain(find_run(run, out, workspace), sample)
    say(found, as_json, api.format_lineage(found))


@cli.command()
@run_command
@click.option(
    "--pilot",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    metavar="N",
    help="Dialogues a culture to hold first.",
)
def estimate(
    name: str,
    resume: bool,
    fresh: bool,
    workspace: str | None,
    out: str | None,
    as_json: bool,
    pilot: int,
    **flags: Any,
) -> None:
    """Hold the first dialogues of the run NAME and print a band of what the whole run will cost.

    The pilot is paid for and is the beginning of the run: `culturepark run NAME` with the same
    settings goes on from it.
    """
    from culturepark import api, forecast

    found = open_run(name, resume, fresh, out, workspace, flags)
    with progress(as_json) as show_event:
        made = api.estimate(found, pilot, show_event)
    say(made | {"run": str(found.folder)}, as_json, forecast.format_forecast(made))


@cli.command()
@run_argument
@click.option("--role", metavar="ROLE", help="Only this role's calls.")
@click.option("--model", metavar="NAME", help="Only models whose name holds this.")
@click.option(
    "--top",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    metavar="N",
    help="How many of each list.",
)
@click.option(
    "--call",
    type=click.IntRange(1),
    metavar="ID",
    help="Show this one call whole, thoughts included.",
)
@workspace_flag
@out_flag
@as_json
def calls(run: str, workspace: str | None, out: str | None, as_json: bool, **chosen: Any) -> None:
    """Show the model calls of RUN by role and model: the slowest, the dearest, the failed, and the
    bill.
    """
    from culturepark import api
    from culturepark.reports.calls import format_call, format_calls

    found = api.calls(find_run(run, out, workspace), **chosen)
    say(found, as_json, format_call(found) if chosen["call"] else format_calls(found))


RUN_EXAMPLES = """\b
Examples:
  culturepark run first --cultures arabic,korean --dialogues 4
  culturepark run real --model openai/gpt-4o-mini --price openai/gpt-4o-mini=0.15/0.60 --max-usd 5
  culturepark run real --resume --max-usd 10
  culturepark run mine --workspace mypark --scenario tea --samples 100
  culturepark run again --replay real
"""


@cli.command(epilog=RUN_EXAMPLES)
@run_command
@format_flags
@click.option(
    "--replay",
    metavar="RUN",
    help="Take settings, cards and every answer from RUN's journal: no model is asked.",
)
def run(
    name: str,
    resume: bool,
    fresh: bool,
    workspace: str | None,
    out: str | None,
    as_json: bool,
    formats: tuple[str, ...],
    by_culture: bool,
    replay: str | None,
    **flags: Any,
) -> None:
    """Do it all: simulate, refine, export and report the run NAME."""
    from culturepark import api

    wanted = list_names(formats)
    api.exporters(wanted)  # before the run's folder is made
    found = open_run(name, resume, fresh, out, workspace, flags, replay)
    with progress(as_json) as show_event:
        api.run(found, on_event=show_event, formats=wanted, by_culture=by_culture)
    with found.open_store(write=False) as journal:
        failures = api.describe_failures(journal)
        done: dict[str, Any] = {**api.counts(journal), "failures": failures}
    page, spare = found.folder / "report" / "report.html", done["kept"] - done["samples"]
    more = f" ({spare} more were kept than asked for; they stay in the journal)" if spare else ""
    say(
        done
        | {
            "spare": spare,
            "run": str(found.folder),
            "corpus": str(found.corpus),
            "report": str(page),
        },
        as_json,
        f"{done['dialogues']} dialogues{_format_marked_turns(done)} → {done['opinions']} opinions →"
        f" {done['samples']} samples{more}{_failures(done)}\ncorpus: {found.corpus}\nreport:"
        f" {page}",
    )


@cli.command()
@click.option(
    "--serve-model",
    "models",
    multiple=True,
    metavar="NAME",
    help="Names it answers to (default: embedded).",
)
@click.option(
    "--latency", type=float, default=0.0, metavar="SECONDS", help="Wait so long before each answer."
)
@click.option("--rpm", type=int, metavar="N", help="Answer more requests a minute with 429.")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="KIND=RATE",
    help=(
        "429, 500, 503, hang, reset, truncated, drip, schema, "
        "notjson, empty, length, refusal, filter, expire."
    ),
)
@click.option("--seed", type=int, default=0, metavar="N", help="Seed of the faults.")
@click.option(
    "--batch-seconds", type=float, default=0.0, metavar="SECONDS", help="How long a batch takes."
)
@click.option(
    "--tune-seconds",
    type=float,
    default=0.0,
    metavar="SECONDS",
    help="How long a fine-tuning job takes.",
)
@click.option(
    "--max-file",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    metavar="MIB",
    help="Size of one file, at most.",
)
@click.option(
    "--max-files",
    type=click.IntRange(1),
    default=1024,
    show_default=True,
    metavar="MIB",
    help="Size of all files, at most.",
)
@server_flags(8765, request=32)
@click.option("--workspace", "-w", metavar="FOLDER", deprecated="requests bring their own facts")
def serve_embedded(
    port: int,
    models: tuple[str, ...],
    latency: float,
    rpm: int | None,
    faults: tuple[str, ...],
    seed: int,
    key_env: str | None,
    batch_seconds: float,
    tune_seconds: float,
    max_request: int,
    max_file: int,
    max_files: int,
    idle: float,
    workspace: str | None,
) -> None:
    """Serve the embedded engine on this machine over OpenAI's protocol, for trying out hosted runs
    and other clients.

    Chat and text completions, embeddings, models, files, batches and fine-tuning jobs (which train
    nothing); faults on demand, by share or by the header `X-Fault: KIND`.
    """
    from culturepark.cli.flags import pair, rate
    from culturepark.keys import named_key
    from culturepark.serving.limits import MIB, ServerLimits
    from culturepark.testing.server import Server

    key = named_key("--key-env", key_env)
    shares = {
        kind: rate(kind, text) for kind, text in (pair("--fault", t, "KIND=RATE") for t in faults)
    }
    server = Server(
        models=models or ("embedded",),
        faults=shares,
        latency=latency,
        rpm=rpm,
        key=key,
        port=port,
        seed=seed,
        batch_seconds=batch_seconds,
        tune_seconds=tune_seconds,
        keep=False,
        limits=ServerLimits(max_request * MIB, max_file * MIB, max_files * MIB, idle),
        tell=warn,
    )
    with server:
        echo(
            f"{server.url} answers as {', '.join(models or ('embedded',))}; its text is templated."
            " Ctrl-C stops it."
        )
        echo(
            f"culturepark run try --model openai/{(models or ('embedded',))[0]} --base-url"
            f" {server.url}"
        )
        server.wait()


for verb in (tune, matrix, evaluate, compare, chat, exam, serve, merge):
    cli.add_command(verb)
