"""Exact cost of architectures: parameters and multiply-adds of the deployed model, layer by layer."""
