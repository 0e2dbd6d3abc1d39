"""A prompt and its completion, as texts or as conversations (TRL)."""

from culturepark.corpora.importers import Importer

IMPORTER = Importer("trl", ("prompt", "completion"))
