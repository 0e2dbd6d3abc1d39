"""A prompt, the answer that is chosen and the one that is rejected (TRL)."""

from culturepark.corpora.importers import Importer

IMPORTER = Importer("dpo", ("prompt", "chosen", "rejected"))
