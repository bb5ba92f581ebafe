"""Optuna samplers that propose only architectures that are within limits and new."""
