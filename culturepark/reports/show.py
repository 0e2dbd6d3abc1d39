"""Shows a run's figures: one self-contained HTML page, and a short table for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from culturepark.records import Option

Facts = dict[str, Any]
WORST = 8  # questions of a culture that the page shows unasked
FEW = 6  # answers below which each is drawn by itself: so few are no distribution
WIDTH = 100  # columns of the terminal's table
REASONS = {
    "refusal": "the model refused to play, or spoke as a language model",
    "form": "no opinion by its form: a bullet, a preamble, a question, a fragment",
    "anchors": "it gives the speaker another age, gender or home than the card",
    "repeat": "the same dialogue had already said it in the same words",
    "irrelevant": "the verifier found that it says nothing about the seed answer",
    "contradict": "the verifier found that it contradicts the seed answer, after any rewrite",
    "unverified": "the verifier gave no usable answer",
    "unrewritten": "the rewriter gave no usable answer",
    "redundant": "another opinion of the same dialogue stands for it",
    "duplicate": "an earlier dialogue on the same question gave it in the same words",
}


def page(facts: Facts) -> str:
    """Return the facts as one HTML page that needs nothing from outside: no script, no font, no
    picture.
    """
    source = files(__package__).joinpath("report.html.j2").read_text(encoding="utf-8")
    return _environment().from_string(source).render(f=facts, reasons=REASONS, worst=WORST, few=FEW)


def _environment() -> Environment:
    found = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    found.filters |= {
        "num": number,
        "pct": percent,
        "tokens": format_tokens,
        "money": money,
        "duration": _duration,
    }
    found.filters |= {"heat": _heat, "bar": _bar, "shaded": _shade_options, "flat": _flat}
    found.filters |= {"beside_chance": compare_with_chance, "whisker": _whisker}
    return found


def compare_with_chance(row: Facts) -> str:
    """Return what a distance says, beside how far so many answers drawn from the people themselves
    would lie.

    >>> compare_with_chance({"distance": 0.6, "chance": 0.68, "answers": 3})
    'no farther than 3 answers drawn from the people themselves would lie (about 0.68)'
    >>> compare_with_chance({"distance": 0.6, "chance": 0.2, "answers": 3})
    'farther than 3 answers drawn from the people themselves would lie (about 0.20)'
    """
    farther = "farther" if row["distance"] > row["chance"] else "no farther"
    drawn = f"{row['answers']} answers drawn from the people themselves would lie"
    return f"{farther} than {drawn} (about {row['chance']:.2f})"


def _whisker(ends: tuple[float, float, float]) -> Facts | None:
    """Return an interval's ends and its figure's place on an axis from 0 to 1; None for what lies
    elsewhere.
    """
    low, value, high = ends
    if not 0 <= low <= value <= high <= 1:
        return None
    return {
        "x": f"{100 * low:.1f}",
        "wide": f"{100 * (high - low):.1f}",
        "at": f"{100 * value:.1f}",
    }


def number(value: int | None) -> str:
    """Return a count with its thousands set apart; "unknown" for None.

    >>> number(12345), number(0), number(None)
    ('12,345', '0', 'unknown')
    """
    return "unknown" if value is None else f"{value:,}"


def percent(share: float | None) -> str:
    """Return a share (0 to 1) in per cent; a dash for None, and never 0 or 100 for what is not
    quite.

    >>> percent(0.5), percent(0.001), percent(0.9999), percent(None)
    ('50%', '<1%', '>99%', '–')
    """
    if share is None:
        return "–"
    if 0 < share < 0.005:
        return "<1%"
    return ">99%" if 0.995 <= share < 1 else f"{share:.0%}"


def format_tokens(row: Facts, key: str) -> str:
    """Return a token count: "unknown" where no call told it, "at least" where only some did."""
    at_least = "at least " if row["untold"] and row[key] is not None else ""
    return at_least + number(row[key])


def money(row: Facts) -> str:
    """Return what calls cost: "unknown" where no price is known, "at least" where some calls told
    no tokens.
    """
    if row["usd"] is None:
        return "unknown"
    return ("at least " if row["unpriced"] else "") + f"${row['usd']:,.4f}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _heat(value: int, top: int) -> str:
    """Return the class of a table cell: h0 (nothing) to h5 (the most)."""
    return f"h{-(-5 * value // top)}" if top and value else "h0"


def _bar(shares: Iterable[float], steps: Iterable[int]) -> list[tuple[str, str, int]]:
    """Return left edge, width (0 to 100) and colour step of each visible part of a stacked bar."""
    left, parts = 0.0, []
    for share, step in zip(shares, steps, strict=True):
        if share > 0:
            parts.append((f"{100 * left:.2f}", f"{100 * share:.2f}", step))
        left += share
    return parts


def _shade_options(options: Sequence[Facts]) -> list[Facts]:
    """Return the options with a colour step (0 denies, 9 affirms), by degree; by order if not
    told.
    """
    degrees = [o["degree"] for o in options]
    by_degree = len(set(degrees)) == len(degrees)
    last = len(options) - 1
    places = [(d + 1) / 2 if by_degree else 1 - i / last for i, d in enumerate(degrees)]
    names = [str(Option(code=o["code"], label=o["label"])) for o in options]
    return [
        o | {"step": round(9 * p), "name": n}
        for o, p, n in zip(options, places, names, strict=True)
    ]


def _flat(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested settings as lines of key and value; what is not set is left out."""
    rows: list[tuple[str, str]] = []
    for key, value in data.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{key}.")
        elif value not in (None, [], ""):
            values = value if isinstance(value, (list, tuple)) else [value]
            rows.append((prefix + key, ", ".join(map(str, values))))
    return rows


def table(facts: Facts) -> str:
    """Return a short summary for the terminal: stages by culture and why opinions were dropped."""
    keys = ("planned", "held", "failed", "turns", "opinions", "kept", "samples")
    heads = [f"{'culture':<20}", *(f"{k:>9}" for k in keys), f"{'kept %':>8}"]
    rows = [
        f"{cut(row.get('culture', 'all'), 20):<20}"
        + "".join(f"{row.get(k, 0):>9}" for k in keys)
        + f"{percent(row['kept_share']):>8}"
        for row in (*facts["stages"], facts["total"])
    ]
    drops = [f"{reason} {sum(cultures.values())}" for reason, cultures in facts["dropped"].items()]
    failed = {k: v["total"] for k, v in facts["failures"].items() if v["total"]}
    lines = [
        f"run {facts['run']}, model {facts['model']}",
        "".join(heads),
        *rows,
        f"dropped: {', '.join(drops[:6]) + (', …' if drops[6:] else '') or 'nothing'}",
    ]
    if failed:
        lines.append("failed:  " + ", ".join(f"{k} {n}" for k, n in failed.items()))
    return "\n".join(cut(line, WIDTH) for line in lines)


def cut(text: str, width: int) -> str:
    """Return one line of at most this many characters, without any that would steer a terminal."""
    clean = "".join(c if c.isprintable() else "�" for c in text)
    return clean if len(clean) <= width else clean[: width - 1] + "…"
