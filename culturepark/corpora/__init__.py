"""The corpus: kept opinions become samples and pairs, are split by question, and written in the
formats that trainers read.

`country_rows(country, questions)` yields the rows of the format `shares` for one country of a
survey.
"""

from __future__ import annotations

from culturepark.corpora.shares import country_rows

__all__ = ["country_rows"]
