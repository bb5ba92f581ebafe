"""Exact cost of an architecture: parameters and multiply-adds of the deployed model, layer by layer."""
