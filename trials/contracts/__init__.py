"""Contracts of operators and models, which `nas check` verifies: shapes, gradients, costs, records, exports."""
