"""What operators and models promise, asked by `nas check`: shapes, gradients, costs, records, exports."""
