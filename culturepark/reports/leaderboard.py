"""Shows a board: one self-contained page with plots, JSON, LaTeX tables and lines for a terminal,
every number with its samples.
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
from culturepark.evaluation.board import Board, Cell, Entry, Row, Table
from culturepark.evaluation.measure import Figure
from culturepark.reports import samples
from culturepark.reports.curves import figure, ticks
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


def write(folder: Path, board: Board, sources: Mapping[tuple[str, str, str], Path]) -> Path:
    """Write a linked board and its samples to `folder`; return the page. Another board there is
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
        _fill(partial, board, sources)
        folder.mkdir(exist_ok=True)
        for name in FILES:
            recover(folder / name)
            move(partial / name, folder / name)
    except OSError as error:
        raise ParkError(f"cannot write the board to {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder / "leaderboard.html"


def _fill(place: Path, board: Board, sources: Mapping[tuple[str, str, str], Path]) -> None:
    for table in board.tables:
        for entry in table.models:
            samples.write(place, table, entry, sources[entry.run, table.benchmark, entry.model])
    texts = (board.model_dump_json(indent=1) + "\n", latex(board), page(board))
    for name, text in zip((name for name in FILES if name != "samples"), texts, strict=True):
        (place / name).write_text(text, encoding="utf-8", newline="\n")


def linked(board: Board) -> Board:
    """Return the board with every figure and model leading to its samples, relative to the board's
    folder.
    """
    return board.model_copy(update={"tables": tuple(map(_linked, board.tables))})


def _linked(table: Table) -> Table:
    entries = {e.label: e for e in table.models}

    def row(r: Row) -> Row:
        cells = (
            c.model_copy(
                update={"samples": samples.link(table.benchmark, entries[c.model], r.culture)}
            )
            for c in r.cells
        )
        return r.model_copy(update={"cells": tuple(cells)})

    models = tuple(
        e.model_copy(update={"samples": samples.link(table.benchmark, e)}) for e in table.models
    )
    return table.model_copy(
        update={
            "models": models,
            "rows": tuple(map(row, table.rows)),
            "others": tuple(map(row, table.others)),
        }
    )


# --------------------------------------------------------------------- page


def page(board: Board) -> str:
    """Return a linked board as one HTML page that needs nothing from outside: no script, no font,
    no picture.
    """
    made = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {"num": number, "pct": percent, "figure": figure}
    made.globals |= {
        "mark": lambda row, model: mark(row, model, board.against),
        "verdict": verdict,
        "repeats": repeats,
    }
    source = files(__package__).joinpath("leaderboard.html.j2").read_text(encoding="utf-8")
    tables = [
        {"table": t, "panels": panels(t.rows), "others": panels(t.others), "how": how(t)}
        for t in board.tables
    ]
    models = list(dict.fromkeys(e.label for t in board.tables for e in t.models))
    return made.from_string(source).render(b=board, tables=tables, models=models, marks=MARKS)


def panels(rows: Sequence[Row]) -> list[Facts]:
    """Return the rows figure by figure: its cultures, what is noted of it, and a plot for each
    culture on shared axes.
    """
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.name, row.subset), []).append(row)
    return [_panel(name, subset, held) for (name, subset), held in found.items()]


def _panel(name: str, subset: str, rows: Sequence[Row]) -> Facts:
    notes: dict[str, list[str]] = {}
    for row in rows:
        if row.note:
            notes.setdefault(row.note, []).append(row.culture or "all")
    axis = _axis([c for r in rows for c in r.cells])
    plots = [
        _plot(r, axis) for r in rows if axis and any(c.figure.value is not None for c in r.cells)
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


def _axis(cells: Sequence[Cell]) -> Facts | None:
    ends = [
        v for c in cells for v in (c.figure.value, c.figure.low, c.figure.high) if v is not None
    ]
    if not ends:
        return None
    marks = ticks(min(ends), max(ends))
    axis = {"low": marks[0], "high": marks[-1]}
    return axis | {"ticks": [(_across(v, axis), f"{v:.6g}".replace("-", "−")) for v in marks]}


def _across(value: float, axis: Facts) -> str:
    return f"{LEFT + (RIGHT - LEFT) * (value - axis['low']) / (axis['high'] - axis['low']):.1f}"


def _plot(row: Row, axis: Facts) -> Facts:
    """Return what a plot of one culture draws: a dot and a whisker a model."""
    dots = []
    for i, cell in enumerate(c for c in row.cells if c.figure.value is not None):
        f = cell.figure
        whisker = (
            (_across(f.low, axis), _across(f.high, axis))
            if f.low is not None and f.high is not None
            else None
        )
        dots.append(
            {
                "model": cell.model,
                "short": cut(cell.model, 17),
                "y": TOP + STEP * i + STEP // 2,
                "whisker": whisker,
                "x": _across(f.value or 0.0, axis),
                "says": spoken(cell),
                "href": cell.samples,
                "wins": cell.model == row.winner,
            }
        )
    base = TOP + STEP * len(dots)
    return {"culture": row.culture or "all", "dots": dots, "base": base, "height": base + 22}


def spoken(cell: Cell) -> str:
    """Return a figure in words, with its interval, spread and number of units."""
    f = cell.figure
    interval = f", 95% interval {figure(f.low)} to {figure(f.high)}" if f.low is not None else ""
    spread = f", ± {figure(f.spread)} over {f.seeds} {repeats(f)}" if f.spread is not None else ""
    return f"{cell.model}: {figure(f.value)}{interval}{spread}, {f.n:,} {f.what}" + (
        f" ({f.reason})" if f.reason else ""
    )


def repeats(f: Figure) -> str:
    """Return what a figure is a mean over: trainings, seeds of one, or both.

    >>> repeats(Figure(name="x", value=1, seeds=6, trainings=3))
    'seeds (3 trainings)'
    """
    if f.trainings == 1:
        return "seeds"
    return "trainings" if f.trainings == f.seeds else f"seeds ({f.trainings} trainings)"


def mark(row: Row, model: str, against: str) -> str:
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


def verdict(row: Row) -> str:
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


def how(table: Table) -> list[tuple[str, str]]:
    """Return how the models were asked, as lines; where they differ, each value once."""
    lines: dict[str, list[str]] = {}
    for entry in table.models:
        same = entry.setup.keys() & entry.options.keys()  # an option may have the name of a setting
        options = {
            f"option {key}" if key in same else key: value for key, value in entry.options.items()
        }
        for key, value in {**entry.setup, **options}.items():
            text = (
                _text(value)
                if key != "peoples"
                else "; ".join(f"{k} {v}" for k, v in value.items())
            )
            if value not in (None, "", [], (), {}):
                lines.setdefault(key, []).append(text)
    return [(key, " / ".join(dict.fromkeys(values))) for key, values in lines.items()]


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


# -------------------------------------------------------------------- LaTeX


def latex(board: Board) -> str:
    """Return one table a headline figure, models by cultures; it needs the packages booktabs and
    graphicx.
    """
    tables = [_tabular(board, t, p) for t in board.tables for p in panels(t.rows)]
    return (
        "% Needs \\usepackage{booktabs,graphicx}; names may need XeLaTeX or LuaLaTeX.\n"
        + "\n".join(tables)
    )


def tex(text: str) -> str:
    r"""Return text as LaTeX shows it.

    >>> tex("a_b & 5% {x}")
    'a\\_b \\& 5\\% \\{x\\}'
    """
    plain = "".join(c if c.isprintable() else " " for c in text)
    return "".join(TEX.get(c, c) for c in plain)


def _tabular(board: Board, table: Table, panel: Facts) -> str:
    rows: Sequence[Row] = panel["rows"]
    heads = " & ".join(["model", *(tex(r.culture or "all") for r in rows)])
    lines = [
        " & ".join([_named(e), *(_value(r, e.label) for r in rows)]) + r" \\" for e in table.models
    ]
    wide = len(rows) > 4
    parts = [
        r"\begin{table*}[t]",
        r"\centering\footnotesize",
        rf"\caption{{{_caption(board, table, panel)}}}",
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


def _named(entry: Entry) -> str:
    """Return a model's name, with a dagger where it is one set of weights."""
    return tex(entry.label) + (r"$^\dagger$" if entry.trainings == 1 else "")


def _value(row: Row, model: str) -> str:
    """Return a cell: the figure, bold for a winner, and its interval in small."""
    cell = row.cell(model)
    if cell is None or cell.figure.value is None:
        return "--"
    value = f"${_plain(cell.figure.value)}$"
    value = rf"\boldmath{value}" if row.winner == model else value
    low, high = cell.figure.low, cell.figure.high
    interval = (
        ""
        if low is None or high is None
        else rf" {{\scriptsize $[{_plain(low)}, {_plain(high)}]$}}"
    )
    return f"{{{value}}}{interval}"


def _plain(value: float) -> str:
    """Return a figure for LaTeX's mathematics."""
    return figure(value).replace("−", "-").replace(",", "{,}")


def _caption(board: Board, table: Table, panel: Facts) -> str:
    counts = [c.figure.n for r in panel["rows"] for c in r.cells]
    n = f"{min(counts):,}" if min(counts) == max(counts) else f"{min(counts):,} to {max(counts):,}"
    told = dict(how(table))
    asked = "; ".join(
        f"{key} {told[key]}" for key in ("method", "respondents", "count", "seeds") if key in told
    )
    said = (
        f"{table.title}: {panel['title']} ({MARKS[panel['better']]}), n = {n} {panel['what']}."
        f" {asked + '. ' if asked else ''}In brackets 95% intervals (jackknife, Student's t) over"
        f" {panel['what']} and, of models of several trainings, over these; bold: better than every"
        f" other model that was asked alike, p < {board.alpha:g} in a paired test after Holm's"
        f" correction over {board.comparisons:,} comparisons."
    )
    once = any(e.trainings == 1 for e in table.models)
    return tex(said) + (rf" {ONCE}" if once else "")


# ----------------------------------------------------------------- terminal


def told(board: Board) -> str:
    """Return the board for a terminal: models by cultures for each headline figure, `*` for a
    winner, `~` for the best when tied.
    """
    lines = [line for t in board.tables for line in _lines(board, t)]
    lines += [
        f"{board.comparisons} comparisons, p < {board.alpha:g} after Holm's correction. * wins; ~"
        " not told apart from the best"
        + (f"; {BETTER} {WORSE} better, worse than {board.against}" if board.against else "")
    ]
    return "\n".join(
        [
            *(cut(line, WIDTH) for line in lines),
            *(part for note in board.notes for part in _wrapped(note)),
        ]
    )


def _wrapped(text: str, indent: str = "") -> list[str]:
    return wrap(cut(text, len(text)), WIDTH, initial_indent=indent, subsequent_indent=indent)


def _lines(board: Board, table: Table) -> list[str]:
    lines = [f"{table.benchmark}: {table.title}"]
    lines += [
        f"  {cut(e.label, 23):<24}{_many(e):<14}{e.items:>7} items, "
        + ", ".join(f"{n} {status}" for status, n in e.counts.items() if n)
        for e in table.models
    ]
    for panel in panels(table.rows):
        lines += [f"  {panel['title']} ({MARKS[panel['better']]})"]
        for start in range(0, len(panel["rows"]), 6):
            rows = panel["rows"][start : start + 6]
            lines += [f"  {'':<24}" + "".join(f"{cut(r.culture or 'all', 11):>12}" for r in rows)]
            lines += [
                f"  {cut(e.label, 23):<24}"
                + "".join(f"{_brief(r, e.label, board.against):>12}" for r in rows)
                for e in table.models
            ]
    return [*lines, *(part for w in table.warnings for part in _wrapped(w, "  ")), ""]


def _many(entry: Entry) -> str:
    return f"{entry.trainings} trainings" if entry.trainings > 1 else "these weights"


def _brief(row: Row, model: str, against: str) -> str:
    cell = row.cell(model)
    sign = "*" if row.winner == model else "~" if model in row.tied else ""
    return "–" if cell is None else figure(cell.figure.value) + sign + mark(row, model, against)
