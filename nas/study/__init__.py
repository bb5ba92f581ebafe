"""Study: folder and `study.json`, Optuna's storage, records, scoring, stock model training, score cache, export."""
