"""Runs many jobs, a bounded number at a time, and stops them when asked to."""
