"""Shows a comparison of models: one self-contained page with plots, JSON, LaTeX tables and lines
for a terminal, every number with its samples.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from textwrap import wrap
from typing import Any

from jinja2 import Environment, StrictUndefined

from culturepark.atomic import move, recover
from culturepark.errors import InputError, ParkError
from culturepark.evaluation.comparison import (
    BenchmarkTable,
    ComparedModel,
    Comparison,
    FigureCell,
    FigureRow,
)
from culturepark.evaluation.measure import Figure
from culturepark.reports import samples
from culturepark.reports.curves import choose_ticks, format_figure
from culturepark.reports.show import WIDTH, cut, number, percent

Facts = dict[str, Any]
FILES = (
    "leaderboard.json",
    "leaderboard.tex",
    "samples",
    "leaderboard.html",
)  # the page last: with it, all is there
LEFT, RIGHT, TOP, STEP = 112, 330, 8, 18  # the frame of a plot, and the height of a model's row
WORSE, BETTER = "▼", "▲"
ONCE = (
    r"$\dagger$: one training, or a model as it is; what is found holds for these weights, not for"
    r" the recipe that made them."
)
MARKS = {"high": "higher is better", "low": "lower is better", "": "neither way is better"}
TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{c: f"\\{c}" for c in "$&#_%"},
}


def write(
    folder: Path, comparison: Comparison, sources: Mapping[tuple[str, str, str], Path]
) -> Path:
    """Write a linked comparison and its samples to `folder`; return the page. Another one there is
    replaced, nothing else.

    `sources` are the folders of the results by run, benchmark and model. InputError where the
    folder is a run's, ParkError where it cannot be written.
    """
    if (folder / "run.toml").exists():
        raise InputError(f"{folder} is a run; give the board another name (--name)")
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _fill(partial, comparison, sources)
        folder.mkdir(exist_ok=True)
        for name in FILES:
            recover(folder / name)
            move(partial / name, folder / name)
    except OSError as error:
        raise ParkError(f"cannot write the board to {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder / "leaderboard.html"


def _fill(
    place: Path, comparison: Comparison, sources: Mapping[tuple[str, str, str], Path]
) -> None:
    for table in comparison.tables:
        for entry in table.models:
            samples.write(place, table, entry, sources[entry.run, table.benchmark, entry.model])
    texts = (
        comparison.model_dump_json(indent=1) + "\n",
        render_latex(comparison),
        render_page(comparison),
    )
    for name, text in zip((name for name in FILES if name != "samples"), texts, strict=True):
        (place / name).write_text(text, encoding="utf-8", newline="\n")


def link_samples(comparison: Comparison) -> Comparison:
    """Return the comparison with every figure and model leading to its samples in its folder."""
    return comparison.model_copy(update={"tables": tuple(map(_link_table, comparison.tables))})


def _link_table(table: BenchmarkTable) -> BenchmarkTable:
    entries = {e.label: e for e in table.models}

    def row(r: FigureRow) -> FigureRow:
        cells = (
            c.model_copy(
                update={"samples": samples.link_page(table.benchmark, entries[c.model], r.culture)}
            )
            for c in r.cells
        )
        return r.model_copy(update={"cells": tuple(cells)})

    models = tuple(
        e.model_copy(update={"samples": samples.link_page(table.benchmark, e)})
        for e in table.models
    )
    return table.model_copy(
        update={
            "models": models,
            "rows": tuple(map(row, table.rows)),
            "others": tuple(map(row, table.others)),
        }
    )


# --------------------------------------------------------------------- page


def render_page(comparison: Comparison) -> str:
    """Return a linked comparison as one HTML page that needs nothing from outside: no script, no
    font, no picture.
    """
    made = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {"num": number, "pct": percent, "figure": format_figure}
    made.globals |= {
        "mark": lambda row, model: mark_better(row, model, comparison.against),
        "verdict": describe_winner,
        "repeats": describe_repeats,
    }
    source = files(__package__).joinpath("leaderboard.html.j2").read_text(encoding="utf-8")
    tables = [
        {
            "table": t,
            "panels": group_panels(t.rows),
            "others": group_panels(t.others),
            "how": describe_setup(t),
        }
        for t in comparison.tables
    ]
    models = list(dict.fromkeys(e.label for t in comparison.tables for e in t.models))
    return made.from_string(source).render(b=comparison, tables=tables, models=models, marks=MARKS)


def group_panels(rows: Sequence[FigureRow]) -> list[Facts]:
    """Return the rows figure by figure: its cultures, what is noted of it, and a plot for each
    culture on shared axes.
    """
    found: dict[tuple[str, str], list[FigureRow]] = {}
    for row in rows:
        found.setdefault((row.name, row.subset), []).append(row)
    return [_build_panel(name, subset, held) for (name, subset), held in found.items()]


def _build_panel(name: str, subset: str, rows: Sequence[FigureRow]) -> Facts:
    notes: dict[str, list[str]] = {}
    for row in rows:
        if row.note:
            notes.setdefault(row.note, []).append(row.culture or "all")
    axis = _build_axis([c for r in rows for c in r.cells])
    plots = [
        _build_plot(r, axis)
        for r in rows
        if axis and any(c.figure.value is not None for c in r.cells)
    ]
    return {
        "name": name,
        "subset": subset,
        "title": f"{name} ({subset})" if subset else name,
        "better": rows[0].better,
        "what": rows[0].what,
        "rows": rows,
        "notes": list(notes.items()),
        "axis": axis,
        "plots": plots,
    }


def _build_axis(cells: Sequence[FigureCell]) -> Facts | None:
    ends = [
        v for c in cells for v in (c.figure.value, c.figure.low, c.figure.high) if v is not None
    ]
    if not ends:
        return None
    marks = choose_ticks(min(ends), max(ends))
    axis = {"low": marks[0], "high": marks[-1]}
    return axis | {"ticks": [(_place_across(v, axis), f"{v:.6g}".replace("-", "−")) for v in marks]}


def _place_across(value: float, axis: Facts) -> str:
    return f"{LEFT + (RIGHT - LEFT) * (value - axis['low']) / (axis['high'] - axis['low']):.1f}"


def _build_plot(row: FigureRow, axis: Facts) -> Facts:
    """Return what a plot of one culture draws: a dot and a whisker a model."""
    dots = []
    for i, cell in enumerate(c for c in row.cells if c.figure.value is not None):
        f = cell.figure
        whisker = (
            (_place_across(f.low, axis), _place_across(f.high, axis))
            if f.low is not None and f.high is not None
            else None
        )
        dots.append(
            {
                "model": cell.model,
                "short": cut(cell.model, 17),
                "y": TOP + STEP * i + STEP // 2,
                "whisker": whisker,
                "x": _place_across(f.value or 0.0, axis),
                "says": describe_cell(cell),
                "href": cell.samples,
                "wins": cell.model == row.winner,
            }
        )
    base = TOP + STEP * len(dots)
    return {"culture": row.culture or "all", "dots": dots, "base": base, "height": base + 22}


def describe_cell(cell: FigureCell) -> str:
    """Return a figure in words, with its interval, spread and number of units."""
    f = cell.figure
    interval = (
        f", 95% interval {format_figure(f.low)} to {format_figure(f.high)}"
        if f.low is not None
        else ""
    )
    spread = (
        f", ± {format_figure(f.spread)} over {f.seeds} {describe_repeats(f)}"
        if f.spread is not None
        else ""
    )
    return f"{cell.model}: {format_figure(f.value)}{interval}{spread}, {f.n:,} {f.what}" + (
        f" ({f.reason})" if f.reason else ""
    )


def describe_repeats(f: Figure) -> str:
    """Return what a figure is a mean over: trainings, seeds of one, or both.

    >>> describe_repeats(Figure(name="x", value=1, seeds=6, trainings=3))
    'seeds (3 trainings)'
    """
    if f.trainings == 1:
        return "seeds"
    return "trainings" if f.trainings == f.seeds else f"seeds ({f.trainings} trainings)"


def mark_better(row: FigureRow, model: str, against: str) -> str:
    """Return whether a model was found better or worse than the one that all were compared with."""
    for pair in row.pairs:
        if (
            against
            and pair.better
            and model != against
            and {pair.first, pair.second} == {model, against}
        ):
            return BETTER if pair.better == model else WORSE
    return ""


def describe_winner(row: FigureRow) -> str:
    """Return who wins a row, in words."""
    if row.winner:
        return f"{row.winner} (these weights)" if row.winning == "weights" else row.winner
    if not row.pairs:
        return "not compared"
    return (
        f"none: {', '.join(row.tied)} are not told apart"
        if row.tied
        else "none"
        if row.better
        else "–"
    )


def describe_setup(table: BenchmarkTable) -> list[tuple[str, str]]:
    """Return how the models were asked, as lines; where they differ, each value once."""
    lines: dict[str, list[str]] = {}
    for entry in table.models:
        same = entry.setup.keys() & entry.options.keys()  # an option may have the name of a setting
        options = {
            f"option {key}" if key in same else key: value for key, value in entry.options.items()
        }
        for key, value in {**entry.setup, **options}.items():
            text = (
                _format_setting(value)
                if key != "peoples"
                else "; ".join(f"{k} {v}" for k, v in value.items())
            )
            if value not in (None, "", [], (), {}):
                lines.setdefault(key, []).append(text)
    return [(key, " / ".join(dict.fromkeys(values))) for key, values in lines.items()]


def _format_setting(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


# -------------------------------------------------------------------- LaTeX


def render_latex(comparison: Comparison) -> str:
    """Return one table a headline figure, models by cultures; it needs the packages booktabs and
    graphicx.
    """
    tables = [
        _render_tabular(comparison, t, p) for t in comparison.tables for p in group_panels(t.rows)
    ]
    return (
        "% Needs \\usepackage{booktabs,graphicx}; names may need XeLaTeX or LuaLaTeX.\n"
        + "\n".join(tables)
    )


def escape_latex(text: str) -> str:
    r"""Return text as LaTeX shows it.

    >>> escape_latex("a_b & 5% {x}")
    'a\\_b \\& 5\\% \\{x\\}'
    """
    plain = "".join(c if c.isprintable() else " " for c in text)
    return "".join(TEX.get(c, c) for c in plain)


def _render_tabular(comparison: Comparison, table: BenchmarkTable, panel: Facts) -> str:
    rows: Sequence[FigureRow] = panel["rows"]
    heads = " & ".join(["model", *(escape_latex(r.culture or "all") for r in rows)])
    lines = [
        " & ".join([_format_name(e), *(_format_value(r, e.label) for r in rows)]) + r" \\"
        for e in table.models
    ]
    wide = len(rows) > 4
    parts = [
        r"\begin{table*}[t]",
        r"\centering\footnotesize",
        rf"\caption{{{_write_caption(comparison, table, panel)}}}",
    ]
    parts += [r"\resizebox{\textwidth}{!}{%"] if wide else []
    parts += [
        rf"\begin{{tabular}}{{l*{{{len(rows)}}}{{c}}}}",
        r"\toprule",
        heads + r" \\",
        r"\midrule",
        *lines,
        r"\bottomrule",
    ]
    return "\n".join([*parts, r"\end{tabular}" + ("}" if wide else ""), r"\end{table*}", ""])


def _format_name(entry: ComparedModel) -> str:
    """Return a model's name, with a dagger where it is one set of weights."""
    return escape_latex(entry.label) + (r"$^\dagger$" if entry.trainings == 1 else "")


def _format_value(row: FigureRow, model: str) -> str:
    """Return a cell: the figure, bold for a winner, and its interval in small."""
    cell = row.cell(model)
    if cell is None or cell.figure.value is None:
        return "--"
    value = f"${_format_number(cell.figure.value)}$"
    value = rf"\boldmath{value}" if row.winner == model else value
    low, high = cell.figure.low, cell.figure.high
    interval = (
        ""
        if low is None or high is None
        else rf" {{\scriptsize $[{_format_number(low)}, {_format_number(high)}]$}}"
    )
    return f"{{{value}}}{interval}"


def _format_number(value: float) -> str:
    """Return a figure for LaTeX's mathematics."""
    return format_figure(value).replace("−", "-").replace(",", "{,}")


def _write_caption(comparison: Comparison, table: BenchmarkTable, panel: Facts) -> str:
    counts = [c.figure.n for r in panel["rows"] for c in r.cells]
    n = f"{min(counts):,}" if min(counts) == max(counts) else f"{min(counts):,} to {max(counts):,}"
    told = dict(describe_setup(table))
    asked = "; ".join(
        f"{key} {told[key]}" for key in ("method", "respondents", "count", "seeds") if key in told
    )
    said = (
        f"{table.title}: {panel['title']} ({MARKS[panel['better']]}), n = {n} {panel['what']}."
        f" {asked + '. ' if asked else ''}In brackets 95% intervals (jackknife, Student's t) over"
        f" {panel['what']} and, of models of several trainings, over these; bold: better than every"
        f" other model that was asked alike, p < {comparison.alpha:g} in a paired test after Holm's"
        f" correction over {comparison.comparisons:,} comparisons."
    )
    once = any(e.trainings == 1 for e in table.models)
    return escape_latex(said) + (rf" {ONCE}" if once else "")


# ----------------------------------------------------------------- terminal


def format_comparison(comparison: Comparison) -> str:
    """Return the comparison for a terminal: models by cultures for each headline figure, `*` for a
    winner, `~` for the best when tied.
    """
    lines = [line for t in comparison.tables for line in _format_table(comparison, t)]
    lines += [
        f"{comparison.comparisons} comparisons, p < {comparison.alpha:g} after Holm's correction."
        " * wins; ~ not told apart from the best"
        + (
            f"; {BETTER} {WORSE} better, worse than {comparison.against}"
            if comparison.against
            else ""
        )
    ]
    return "\n".join(
        [
            *(cut(line, WIDTH) for line in lines),
            *(part for note in comparison.notes for part in _wrap_note(note)),
        ]
    )


def _wrap_note(text: str, indent: str = "") -> list[str]:
    return wrap(cut(text, len(text)), WIDTH, initial_indent=indent, subsequent_indent=indent)


def _format_table(comparison: Comparison, table: BenchmarkTable) -> list[str]:
    lines = [f"{table.benchmark}: {table.title}"]
    lines += [
        f"  {cut(e.label, 23):<24}{_format_trainings(e):<14}{e.items:>7} items, "
        + ", ".join(f"{n} {status}" for status, n in e.counts.items() if n)
        for e in table.models
    ]
    for panel in group_panels(table.rows):
        lines += [f"  {panel['title']} ({MARKS[panel['better']]})"]
        for start in range(0, len(panel["rows"]), 6):
            rows = panel["rows"][start : start + 6]
            lines += [f"  {'':<24}" + "".join(f"{cut(r.culture or 'all', 11):>12}" for r in rows)]
            lines += [
                f"  {cut(e.label, 23):<24}"
                + "".join(f"{_format_cell(r, e.label, comparison.against):>12}" for r in rows)
                for e in table.models
            ]
    return [*lines, *(part for w in table.warnings for part in _wrap_note(w, "  ")), ""]


def _format_trainings(entry: ComparedModel) -> str:
    return f"{entry.trainings} trainings" if entry.trainings > 1 else "these weights"


def _format_cell(row: FigureRow, model: str, against: str) -> str:
    cell = row.cell(model)
    sign = "*" if row.winner == model else "~" if model in row.tied else ""
    return (
        "–"
        if cell is None
        else format_figure(cell.figure.value) + sign + mark_better(row, model, against)
    )
