"""The flags that verbs share, and how they become settings and runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from culturepark.options import LENGTH, MODELS, PACE, WHO

if TYPE_CHECKING:
    from culturepark.options import Setting
    from culturepark.runs import Run

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def together(*options: Decorator) -> Decorator:
    """Return one decorator of several."""

    def apply(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return apply


class FieldOptions(NamedTuple):
    """Options of a model's fields, made when their command is used: settings load pydantic, and
    `culturepark --help` must be instant.
    """

    make: Callable[[], list[click.Option]]


class Sectioned(click.Command):
    """A command whose help has its options in sections: those of `titled`, the others first. Its
    options may be FieldOptions.
    """

    _held: list[Any]

    @property
    def params(self) -> list[click.Parameter]:
        """The parameters, those of fields among them."""
        if any(isinstance(held, FieldOptions) for held in self._held):
            made = [
                held.make() if isinstance(held, FieldOptions) else [held] for held in self._held
            ]
            self._held = [param for part in made for param in part]
        return self._held

    @params.setter
    def params(self, params: list[click.Parameter]) -> None:
        self._held = params

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, section by section."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for param in self.get_params(ctx):
            if (
                isinstance(param, click.Option)
                and (record := param.get_help_record(ctx)) is not None
            ):
                sections.setdefault(getattr(param, "section", "Options"), []).append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def group_options(title: str, *options: Decorator) -> Decorator:
    """Return one decorator of several options, which stand below a title in the command's help."""

    def apply(function: Callable[..., Any]) -> Callable[..., Any]:
        given = len(getattr(function, "__click_params__", ()))
        function = together(*options)(function)
        for param in function.__click_params__[given:]:  # type: ignore[attr-defined]
            param.section = title
        return function

    return apply


def field_options(read: Callable[[], Iterable[Setting]]) -> Decorator:
    """Return a decorator that gives a Sectioned command the options of fields."""

    def make() -> list[click.Option]:
        return [option for setting in read() for option in make_options(setting)]

    def apply(function: Callable[..., Any]) -> Callable[..., Any]:
        function.__dict__.setdefault("__click_params__", []).append(FieldOptions(make))
        return function

    return apply


def make_options(setting: Setting) -> list[click.Option]:
    """Return the options of a field: none, one, or one per key of a dict whose keys are known."""
    if setting.kind is dict and setting.choices:
        named = zip(setting.options, setting.choices, strict=True)
        about = [
            setting.help.replace("per role", f"of the {k.replace('_', ' ')}")
            for k in setting.choices
        ]
        return [
            _make_option(setting, (flag, f"{key}_model"), text)
            for (flag, key), text in zip(named, about, strict=True)
        ]
    if not setting.options:
        return []
    if setting.kind is bool:
        *short, long = setting.options
        return [_make_option(setting, (*short, f"{long}/--no-{long[2:]}", setting.name))]
    return [_make_option(setting, (*setting.options, setting.name))]


def _make_option(setting: Setting, names: tuple[str, ...], about: str = "") -> click.Option:
    many = setting.kind is tuple or (setting.kind is dict and not setting.choices)
    option = click.Option(
        names,
        default=None,
        help=about or setting.help,
        metavar=setting.metavar or "|".join(setting.choices) or None,
        multiple=many,
        type=setting.kind if setting.kind in (int, float) else None,
        shell_complete=lambda ctx, param, typed: [
            c for c in setting.choices if c.startswith(typed)
        ],
    )
    option.section = setting.section  # type: ignore[attr-defined]
    return option


def settings_of(*sections: str, names: Iterable[str] = ()) -> Decorator:
    """Return a decorator that gives a Sectioned command the options of a run's settings, by the
    sections or the names of their fields.
    """

    def read() -> Iterable[Setting]:
        from culturepark.options import read_settings
        from culturepark.settings import Settings

        known = read_settings(Settings).values()
        # One that stands alone needs no section of its own.
        alone = [s._replace(section="Options") for s in known if s.name in names]
        return [s for s in known if s.section in sections] + alone

    return field_options(read)


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
licence_flag = settings_of(names=("licence",))
workspace_flag = click.option(
    "--workspace", "-w", metavar="FOLDER", help="Where agents/, personas/ and scenarios/ are."
)
run_argument = click.argument("run", metavar="RUN")
survey_flag = settings_of(names=("survey",))
out_flag = click.option(
    "--out", metavar="FOLDER", help="Keep runs below FOLDER instead of the workspace's outputs/."
)
drive_flags = together(
    settings_of(PACE),
    group_options(
        PACE,
        click.option(
            "--price",
            "prices",
            multiple=True,
            metavar="MODEL=IN/OUT",
            help="A model's price, USD per million tokens.",
        ),
        click.option(
            "--api-key",
            "key",
            metavar="KEY",
            help="Key of --model's provider (better: its environment variable).",
        ),
    ),
)


def server_flags(port: int, request: int) -> Decorator:
    """Return the options of every server on this machine: its port, its key, and what it takes at
    most (MiB, seconds).
    """
    return together(
        click.option(
            "--port",
            type=click.IntRange(0, 65_535),
            default=port,
            show_default=True,
            metavar="N",
            help="Port on 127.0.0.1; 0 takes a free one.",
        ),
        click.option(
            "--key-env",
            metavar="NAME",
            help="Ask every caller for the key in this environment variable.",
        ),
        click.option(
            "--max-request",
            type=click.IntRange(1),
            default=request,
            show_default=True,
            metavar="MIB",
            help="Size of a request, at most.",
        ),
        click.option(
            "--idle",
            type=click.FloatRange(0, min_open=True),
            default=120.0,
            show_default=True,
            metavar="SECONDS",
            help="Close connections that are silent for so long.",
        ),
    )


settings_flags = together(
    settings_of(WHO, LENGTH, MODELS),
    group_options(
        LENGTH,
        click.option(
            "--config", metavar="FILE", help="Settings from a TOML file; flags override it."
        ),
    ),
)
format_flags = together(
    click.option(
        "--to",
        "formats",
        multiple=True,
        metavar="A,B",
        default=("trl,openai",),
        show_default=True,
        help=(
            "Export formats: trl, openai, hub (Parquet; needs culturepark[hub]), llamafactory; dpo,"
            " kto, openai-dpo (pairs); shares (the survey's)."
        ),
    ),
    click.option("--by-culture", is_flag=True, help="A folder of files for each culture too."),
)


def read_flags(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings given by flags: lists split, pairs read, absent ones left out."""
    from culturepark.options import read_settings
    from culturepark.settings import Settings

    given = {k: v for k, v in flags.items() if v not in (None, ())}
    for name, setting in read_settings(Settings).items():
        if setting.kind is dict and setting.choices:
            keys = [key for key in setting.choices if f"{key}_model" in given]
            given |= {name: {key: given.pop(f"{key}_model") for key in keys}} if keys else {}
        elif setting.kind is dict and name in given:
            given[name] = read_pairs(setting, given[name])
        elif setting.kind is tuple and isinstance(given.get(name), tuple):
            given[name] = tuple(filter(None, split_names(given[name])))
    if "prices" in given:
        given["endpoints"] = dict(map(price, given.pop("prices")))
    return given


def read_pairs(setting: Setting, texts: Iterable[str]) -> dict[str, Any]:
    """Read KEY=VALUE, given once or several times, for a field that holds a table."""
    flag, form = setting.options[-1], setting.metavar
    pairs = dict(pair(flag, text, form) for text in texts)
    numbers = form.endswith("=RATE")
    return {k: rate(k, v) if numbers else v for k, v in pairs.items()}


def list_names(given: Sequence[str]) -> tuple[str, ...]:
    """Read A,B, given once or several times: the names, each once, without the spaces around
    them.
    """
    return tuple(dict.fromkeys(split_names(given)))


def split_names(given: Iterable[str]) -> list[str]:
    """Read A,B, given at once (`-c a,b`) or one by one (`-c a -c b`)."""
    return [name.strip() for text in given for name in text.split(",")]


def pair(flag: str, text: str, form: str) -> tuple[str, str]:
    """Read NAME=VALUE."""
    name, found, value = text.rpartition("=")
    if not found or not name or not value:
        raise click.UsageError(f"{flag} {text!r}: write {form}")
    return name, value


def rate(kind: str, text: str) -> float:
    """Read the rate of KIND=RATE."""
    try:
        return float(text)
    except ValueError:
        raise click.UsageError(
            f"--fault {kind}={text!r}: write KIND=RATE, for example contradiction=0.05"
        ) from None


def price(text: str) -> tuple[str, dict[str, float]]:
    """Read MODEL=PROMPT/COMPLETION, USD per million tokens."""
    name, costs = pair("--price", text, "MODEL=IN/OUT")
    try:
        prompt, completion = map(float, costs.split("/"))
    except ValueError:
        raise click.UsageError(
            f"--price {text!r}: write MODEL=IN/OUT, for example openai/gpt-4o-mini=0.15/0.60"
        ) from None
    return name, {"prompt_price": prompt, "completion_price": completion}


def find_run(
    run: str, out: str | None, workspace: str | None, flags: Mapping[str, Any] | None = None
) -> Run:
    """Return the run of this name or folder, driven as the flags say."""
    from pathlib import Path

    from culturepark import api
    from culturepark.workspace import find_workspace, locate_output

    folder = Path(run)
    folder = (
        folder
        if (folder / "run.toml").exists() or folder.parent != Path()
        else locate_output(find_workspace(workspace), run, out)
    )
    given = read_flags(flags or {})
    return api.resume(folder, workspace=workspace, **given)


def open_run(
    name: str,
    resume: bool,
    fresh: bool,
    out: str | None,
    workspace: str | None,
    flags: dict[str, Any],
    replay: str | None = None,
) -> Run:
    """Start a run, with --resume reopen one as it was, or with --replay play another one's
    journal.
    """
    from culturepark import api
    from culturepark.llm import tracing

    tracing.export_spans()
    config = flags.pop("config", None)
    given = read_flags(flags)
    if replay is not None:
        if given or config or resume:
            raise click.UsageError(
                "--replay takes settings, cards and answers from the replayed run; give no others"
            )
        return api.replay(
            name, find_run(replay, out, workspace).folder, workspace=workspace, out=out, fresh=fresh
        )
    if resume:
        from culturepark.settings import LOOSE

        if config or fresh or set(given) - {*LOOSE, "endpoints", "key"}:
            raise click.UsageError(
                "--resume goes on with the settings in run.toml; only how it is driven and capped"
                f" may change ({', '.join('--' + k.replace('_', '-') for k in LOOSE)}, --price)"
            )
        return find_run(name, out, workspace, flags)
    return api.start(name, config, workspace=workspace, out=out, fresh=fresh, **given)
