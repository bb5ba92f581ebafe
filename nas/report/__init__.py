"""Verdicts on a study, as text."""
