"""Writes the dataset card: what the corpus is, where it comes from, what was dropped, by culture."""

from __future__ import annotations

from typing import Any

from culturepark.journal import Journal
from culturepark.records import MARKS
from culturepark.settings import Settings
from culturepark.workspace import Workspace

TEMPLATED = (
    "**The text was written by CulturePark's embedded engine: it is templated.** It shows the pipeline and serves as a "
    "reproducible baseline. It is not how people speak; a corpus meant to read like people needs a real model."
)
MODELLED = "The text was written by the model `{model}` playing persona cards. It is synthetic: no real person said it."


def render(journal: Journal, workspace: Workspace, settings: Settings, name: str) -> str:
    """Return the card as Markdown with the front matter of a Hugging Face dataset."""
    splits = dict(journal.count("SELECT split, COUNT(*) FROM samples GROUP BY split"))
    total = sum(splits.values())
    size = next(f"n<{m}" if m == "1K" else f"{low}<n<{m}" for low, m, top in
                (("", "1K", 1_000), ("1K", "10K", 10_000), ("10K", "100K", 100_000), ("100K", "1M", 10**12)) if total < top)  # fmt: skip
    files = "\n".join(
        f"  - split: {s}\n    path: data/{s}-*.parquet" for s in ("train", "validation", "test") if s in splits
    )
    made = TEMPLATED if settings.model == "embedded" else MODELLED.format(model=settings.model)
    pack = workspace.scenario(settings.scenario)
    return f"""---
pretty_name: {_plain(name)}
language: [en]
size_categories: ["{size}"]
tags: [synthetic, culturepark, cultural-alignment]
configs:
- config_name: default
  data_files:
{files}
---
# {_plain(name)}

{made}

{total} fine-tuning samples from {_held(journal)} dialogues, made with CulturePark (method: Li et al., NeurIPS 2024, arXiv 2405.15145).
Each row asks one survey question and answers it with an option and an opinion that a persona gave in a dialogue.
No question stands in two splits: {", ".join(f"{s} {splits.get(s, 0)}" for s in ("train", "validation", "test"))}.

Seeds: {pack.title}. {pack.source}.
Norms and customs come from authored cards; they describe what many people keep, not what any person is.

## Kept and dropped, by culture

{_drops(journal)}

{_marked(journal)}## Settings

model `{settings.model}` · seed {settings.seed} · {settings.turns} turns · modes {", ".join(settings.modes)} · styles {", ".join(settings.styles)} ·
stance {settings.stance} · embedder {settings.refine.embedder} · at most {settings.refine.clusters} opinions a dialogue
"""


def _held(journal: Journal) -> int:
    return int(journal.count("SELECT COUNT(*) FROM scenes WHERE status = 'done'")[0][0])


def _drops(journal: Journal) -> str:
    """Return a Markdown table: a row a culture, a column a reason."""
    rows = journal.count("SELECT culture, dropped, COUNT(*) FROM opinions GROUP BY culture, dropped")
    reasons = sorted({reason for _, reason, _ in rows if reason})
    cells = {(culture, reason): n for culture, reason, n in rows}
    head = "| culture | kept | " + " | ".join(reasons) + " |\n|---|" + "---|" * (len(reasons) + 1)
    body = [
        f"| {culture} | {cells.get((culture, ''), 0)} | "
        + " | ".join(str(cells.get((culture, r), 0)) for r in reasons)
        + " |"
        for culture in sorted({c for c, _, _ in rows})
    ]
    return "\n".join([head, *body])


def _marked(journal: Journal) -> str:
    """Return a section on turns of which something was cut off, by culture and by model; nothing where there are none."""
    tables = {by: journal.marked_turns(by) for by in ("culture", "model")}
    if not any(row["marked"] for row in tables["culture"]):
        return ""
    about = (
        "Of some replies only a part is the speaker's turn: an unfinished end (trimmed), what the model said as somebody else "
        "(other voice) and the rounds of a loop but the first (looped) were cut off. Opinions come from what was left."
    )
    return (
        "\n\n".join(["## Turns that were cut", about, *(_marked_table(by, rows) for by, rows in tables.items())])
        + "\n\n"
    )


def _marked_table(by: str, rows: list[dict[str, Any]]) -> str:
    head = f"| {by} | turns | marked | share | {' | '.join(m.replace('_', ' ') for m in MARKS)} |\n|---|" + "---|" * (
        3 + len(MARKS)
    )
    cells = (
        [
            row[by] or "not named",
            row["turns"],
            row["marked"],
            f"{row['marked'] / row['turns']:.1%}",
            *(row[m] for m in MARKS),
        ]
        for row in rows
    )
    return "\n".join([head, *("| " + " | ".join(map(str, row)) + " |" for row in cells)])


def _plain(name: str) -> str:
    return "".join(c for c in name if c.isalnum() or c in "-_. ")
