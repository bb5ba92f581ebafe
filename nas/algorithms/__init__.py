"""Numerical algorithms: Pareto front, hypervolume, Gaussian process, expected improvement, successive halving, rewards.

No Optuna, no files, no architectures: every function takes arrays or tuples and returns them.
"""
