"""Sits surveys and labels texts: says the answer that a persona's card holds, and one drawn by
chance where none does.

It knows nothing of surveys' results or of what texts mean, and so is the chance row of every table
that it stands in, save where personas hold views: there it shows how well a culture's cards stand
for its people.
"""

from __future__ import annotations

from culturepark.records import Request, stream


def answer_survey(request: Request) -> str:
    """Answer with the number of the option that is the respondent's view (facts `view`), else of
    any (facts `options`).
    """
    codes, view = list(request.facts["options"]), request.facts.get("view")
    return str(stream(request.seed, request.index, "sit").choice(codes) if view is None else view)


def choose_label(request: Request) -> str:
    """Answer with any of the labels (facts `labels`)."""
    return str(stream(request.seed, request.index, "label").choice(list(request.facts["labels"])))


def compute_option_probs(request: Request) -> tuple[float, ...]:
    """Return the distribution over a request's options: all on the respondent's view, else every
    option alike.
    """
    count, view = len(request.options), request.facts.get("view")
    codes = list(request.facts.get("options", ()))
    if view is None or len(codes) != count:
        return (1 / count,) * count
    return tuple(float(code == view) for code in codes)
