"""Tuning: corpora become culture-specific models, here or at a service that offers it."""
