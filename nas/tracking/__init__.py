"""Tracking in MLflow: a parent run per study, a child run per trial, notes and figures of the Pareto front."""
