"""Writes the dataset card: what the corpus is, how it is loaded, where it comes from, its licence,
what was dropped, by culture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from culturepark import surveys
from culturepark.errors import InputError
from culturepark.markdown import format_code, format_inline, render_front_matter
from culturepark.records import MARKS, SPLITS
from culturepark.settings import Settings
from culturepark.store import RunStore
from culturepark.store.counts import (
    MarkedTurns,
    count_all,
    count_marked_turns,
    count_opinions,
    count_personas,
    count_splits,
)
from culturepark.workspace import Workspace

TEMPLATED = (
    "**The text was written by CulturePark's embedded engine: it is templated.** It shows the"
    " pipeline and serves as a reproducible baseline. It is not how people speak; a corpus meant to"
    " read like people needs a real model."
)
MODELLED = (
    "The text was written by the model {model} playing persona cards. It is synthetic: no real"
    " person said it."
)
SIZES = (("n<1K", 1_000), ("1K<n<10K", 10_000), ("10K<n<100K", 100_000), ("100K<n<1M", 1_000_000))
# Identifiers that the hub knows for what a corpus is likely to be given away under; others are
# named as `other`.
LICENCES = frozenset(
    "apache-2.0 mit cc cc0-1.0 cc-by-2.0 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0"
    " cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0"
    " cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0"
    " odc-by odbl pddl openrail gpl-3.0 llama2 llama3 llama3.1 llama3.2 llama3.3 gemma other"
    " unknown".split()
)
UNCHOSEN = (
    "No licence has been chosen for this corpus; `culturepark export RUN --licence cc-by-4.0`, for"
    " example, chooses one."
)
TERMS = """CulturePark's own licence (Apache-2.0) covers the program and the cards that come with it, not this corpus. A model's
provider may restrict what its text is used for. Question wording is CulturePark's own; the shares behind the answers are of the
World Values Survey, whose data files may not be redistributed: get them, and their terms of use, at worldvaluessurvey.org."""  # noqa: E501


TAGS = ("synthetic", "culturepark", "cultural-alignment")


@dataclass(frozen=True)
class Card:
    """What stands on the card of every format of a corpus: `rows` how many records it has,
    `licence` as the hub has it; languages that nobody named are none.
    """

    title: str
    rows: int
    licence: Mapping[str, str]
    text: str
    language: tuple[str, ...] = ("en",)
    tags: tuple[str, ...] = TAGS


def render(store: RunStore, workspace: Workspace, settings: Settings, name: str) -> Card:
    """Return what is said of a run's corpus in whatever format. Text from cards and settings is
    escaped.
    """
    splits = {count.split: count.samples for count in count_splits(store)}
    made = (
        TEMPLATED
        if settings.model == "embedded"
        else MODELLED.format(model=format_code(settings.model))
    )
    pack = workspace.scenario(settings.scenario)
    licence = (
        f"This corpus is given away under {format_code(settings.licence)}."
        if settings.licence
        else UNCHOSEN
    )
    text = f"""{made}

{sum(splits.values())} fine-tuning samples from {count_all(store).dialogues} dialogues, made with CulturePark (method: Li et al., NeurIPS 2024, arXiv 2405.15145).
Each row asks one survey question and answers it with an option and an opinion that a persona gave in a dialogue.
{_seats(settings)}No question stands in two splits: {", ".join(f"{s} {splits.get(s, 0)}" for s in SPLITS)}.

Seeds: {format_inline(pack.title)}. {format_inline(pack.source)}.
Norms and customs come from authored cards; they describe what many people keep, not what any person is.

## Licence

{licence} {TERMS}

## What to know before use

{_describe_limits(store, workspace, settings)}

## Kept and dropped, by culture

{_drops(store)}

{_describe_marked_turns(store)}## Settings

model {format_code(settings.model)} · seed {settings.seed} · {settings.turns} turns · modes {", ".join(settings.modes)} · styles {", ".join(settings.styles)} ·
stance {settings.stance} · embedder {format_code(settings.refine.embedder)} · at most {settings.refine.clusters} opinions per dialogue
"""  # noqa: E501
    return Card(name, sum(splits.values()), name_licence(settings.licence), text)


def name_licence(licence: str | None) -> dict[str, str]:
    """Return a licence as the hub's front matter has it: an identifier that it knows, or `other`
    and the name.
    """
    if licence is None or licence in LICENCES:
        return {"license": licence or "unknown"}
    return {"license": "other", "license_name": licence}


def page(card: Card, about: str, subsets: Mapping[str, Mapping[str, str]], rows: str) -> str:
    """Return the card of one folder as Markdown with the front matter of a Hugging Face dataset.

    `about` says what its format is; `subsets` map a name to the file of each split, the first is
    loaded by default; `rows` is the hash of these files. It stands in every subset's description,
    because `load_dataset` keeps what it has read under what the card says and the folder's own
    name: cards that said the same would give one folder's rows for another's.
    """
    first = next(iter(subsets))
    configs = [
        {
            "config_name": name,
            "description": f"rows {rows}",
            **({"default": True} if name == first else {}),
            "data_files": [{"split": split, "path": path} for split, path in files.items()],
        }
        for name, files in subsets.items()
    ]
    head = render_front_matter(
        {
            "pretty_name": card.title,
            **card.licence,
            **({"language": [*card.language]} if card.language else {}),
            "size_categories": [next((size for size, top in SIZES if card.rows < top), "1M<n<10M")],
            "tags": [*card.tags],
            "configs": configs,
        }
    )
    others = ", ".join(format_code(name) for name in list(subsets)[1:])
    more = f"\nIts other subsets are loaded by name: {others}.\n" if others else ""
    use = (
        f'{about}\n\n```python\nfrom datasets import load_dataset\n\nrows = load_dataset("FOLDER") '
        f" # this folder\n```\n{more}"
    )
    return f"{head}\n# {format_inline(card.title)}\n\n{use}\n{card.text}"


def _describe_limits(store: RunStore, workspace: Workspace, settings: Settings) -> str:
    """Return what limits what a corpus shows: whose figures seeded it, and whom its splits
    share.
    """
    several, everybody = count_personas(store)
    lines = [
        f"Splits part questions, not people: {several} of {everybody} personas speak in more than"
        " one split. A held-out question is new, its speaker need not be."
    ]
    if any(card.survey for card in workspace.cultures.values()):
        lines += [
            f"What people answered: {_figures(settings)}.",
            (
                "The shipped personas' views follow the survey's shares: how near this corpus comes"
                " to them is by construction, and no finding."
            ),
        ]
    return "\n".join(f"- {line}" for line in lines)


def _figures(settings: Settings) -> str:
    """Return what names the survey figures; a release that has gone since is named all the same."""
    try:
        figures = surveys.load_survey(settings.survey)
    except InputError:
        return f"{format_inline(Path(str(settings.survey)).name)}, which cannot be read any more"
    return (
        f"{format_inline(figures.survey)} ({format_inline(figures.source)}),"
        f" {figures.describe_weights()}"
    )


def _seats(settings: Settings) -> str:
    """Say who sits at the table, where that is more than the usual two."""
    if settings.delegates == 1:
        return ""
    return (
        f"{1 + settings.delegates} people talk in each dialogue: a main contact and"
        f" {settings.delegates} delegates, across cultures each of another culture. A row's culture"
        " is its speaker's.\n"
    )


def _drops(store: RunStore) -> str:
    """Return a Markdown table: a row per culture, a column per reason."""
    rows = count_opinions(store)
    reasons = sorted({reason for _, reason, _ in rows if reason})
    cells = {(culture, reason): n for culture, reason, n in rows}
    head = "| culture | kept | " + " | ".join(reasons) + " |\n|---|" + "---|" * (len(reasons) + 1)
    body = [
        f"| {format_inline(culture)} | {cells.get((culture, ''), 0)} | "
        + " | ".join(str(cells.get((culture, r), 0)) for r in reasons)
        + " |"
        for culture in sorted({c for c, _, _ in rows})
    ]
    return "\n".join([head, *body])


def _describe_marked_turns(store: RunStore) -> str:
    """Return a section on turns of which something was cut off, by culture and by model; nothing
    where there are none.
    """
    cultures, models = count_marked_turns(store, "culture"), count_marked_turns(store, "model")
    if not any(row.marked for row in cultures):
        return ""
    about = (
        "Of some replies only a part is the speaker's turn: an unfinished end (trimmed), what the"
        " model said as somebody else (other voice) and the rounds of a loop but the first (looped)"
        " were cut off. Opinions come from what was left."
    )
    return (
        "\n\n".join(
            [
                "## Turns that were cut",
                about,
                _marked_table("culture", cultures),
                _marked_table("model", models),
            ]
        )
        + "\n\n"
    )


def _marked_table(by: str, rows: list[MarkedTurns]) -> str:
    head = (
        f"| {by} | turns | marked | share | {' | '.join(m.replace('_', ' ') for m in MARKS)}"
        " |\n|---|" + "---|" * (3 + len(MARKS))
    )
    cells = (
        [
            row.whose or "not named",
            row.turns,
            row.marked,
            f"{row.marked / row.turns:.1%}",
            *row.marks.values(),
        ]
        for row in rows
    )
    return "\n".join(
        [
            head,
            *("| " + " | ".join(format_inline(str(cell)) for cell in row) + " |" for row in cells),
        ]
    )
