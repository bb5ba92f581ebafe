"""Samplers of Optuna that propose only architectures that are within limits and new."""
