"""What surveys say: figures shipped with the package, and a reader for the official releases.

    shipped()                 the 15 countries × 50 items of CulturePark
    read(path)                the same from your own copy of the World Values Survey, wave 7
    hofstede(code)            Hofstede's six dimensions of one country or region
    dimensions()              all of them

Figures are shares, counts and means; no respondent's answers are shipped.
"""

from __future__ import annotations

from culturepark.grounding.figures import Figures, shipped
from culturepark.grounding.regions import dimensions, hofstede
from culturepark.grounding.wvs import read

__all__ = ["Figures", "dimensions", "hofstede", "read", "shipped"]
