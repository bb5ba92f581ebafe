"""Data sets: the built-in digit scenes, a user's data.yaml, its images decoded once for all trials."""
