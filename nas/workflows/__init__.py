"""A command's work without its face: plan a search, run it, estimate its hours, check a space, confirm a front."""
