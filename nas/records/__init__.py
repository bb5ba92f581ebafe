"""One trial as a row (`Record`), the names of its files, and the attributes that Optuna stores of it."""
