"""What surveys say: answers of real peoples, from the shipped figures or from the user's own release."""

from culturepark.grounding.figures import Figures, shipped
from culturepark.grounding.scores import dimensions, hofstede
from culturepark.grounding.wvs import read

__all__ = ["Figures", "dimensions", "hofstede", "read", "shipped"]
