"""What peoples answered, as rows to be tuned on: the options, as a completion begins, and the share
that gave each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from culturepark import surveys
from culturepark.errors import InputError
from culturepark.records import Culture, Distribution, Question
from culturepark.surveys import Figures
from culturepark.surveys.names import with_article
from culturepark.wording import COUNTRY, SYSTEM, opening

Surveyed = Callable[[Culture, Question], Distribution | None]
Row = dict[str, Any]


def culture_rows(
    culture: Culture, questions: Iterable[Question], surveyed: Surveyed
) -> Iterator[Row]:
    """Yield a row a question that this culture's people were asked; `surveyed` returns None where
    they never were.
    """
    for question in questions:
        if (found := surveyed(culture, question)) is not None:
            yield row(SYSTEM.format(title=culture.title), culture.name, question, found)


def country_rows(
    country: str, questions: Iterable[Question], figures: Figures | None = None
) -> Iterator[Row]:
    """Yield the same rows for one country (ISO 3166 alpha-3) of the shipped figures, or of yours.

    The prompt names the country, and `metadata.culture` holds its code, since no culture card
    speaks here. NotFound names the nearest code.
    """
    figures = figures or surveys.load_shipped()
    name = with_article(figures.country_name(country))
    for question in questions:
        if (found := figures.get(country, question.id)) is not None:
            yield row(COUNTRY.format(name=name), country, question, found)


def row(system: str, culture: str, question: Question, found: Distribution) -> Row:
    """Return `{prompt, options, codes, shares, metadata}`; an option of the card that nobody gave
    has the share 0.

    InputError for figures whose codes the question does not have: they belong to another question.
    """
    codes = [o.code for o in question.options]
    if unknown := sorted(set(found.shares) - set(codes)):
        raise InputError(
            f"question {question.id}: the figures of {', '.join(found.countries)} hold the codes"
            f" {unknown}, its options are {codes}"
        )
    return {
        "prompt": [
            {"role": "system", "content": system},
            {"role": "user", "content": question.prompt},
        ],
        "options": [opening(question, code) for code in codes],
        "codes": codes,
        "shares": [found.shares.get(code, 0.0) for code in codes],
        "metadata": {
            "culture": culture,
            "question": question.id,
            "topic": question.topic,
            "survey": found.survey,
            "countries": list(found.countries),
            "n": found.n,
            "missing": found.missing,
        },
    }
