"""Tabular benchmark: samplers are replayed on a table of trained architectures, to compare them in seconds."""
