"""Measured and predicted latency: deployed models, runtimes, tables of layers."""
