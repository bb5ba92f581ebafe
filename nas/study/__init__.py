"""A study: its folder and `study.json`, Optuna's storage, the stock model's training, the score cache, the export."""
