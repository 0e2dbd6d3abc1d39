"""A conversation whose last message is the answer to learn (OpenAI's chat fine-tuning)."""

from culturepark.corpora.importers import Importer

IMPORTER = Importer("trl", ("messages",))
