"""Runs that a slow server created twice."""

from collections.abc import Sequence

from nas.tracking.mlflow_runs import Run


def without_doubles(runs: Sequence[Run]) -> list[Run]:
    """Return the runs of a study without those that were created twice, which are deleted in MLflow.

    A slow server may create a run after its client has stopped waiting, and has asked again. Of two runs of a trial, or
    of the study, the one stays that has more in it, else the older one.

    Args:
        runs: by start time.
    """
    best: dict[str, Run] = {}
    for run in runs:
        whose = run.tags.get("nas.trial", "") if "nas.training" not in run.tags else run.id
        best[whose] = max(best.get(whose, run), run, key=Run.content)
    chosen = {run.id for run in best.values()}
    for run in runs:
        if run.id not in chosen:
            run.delete()
    return [run for run in runs if run.id in chosen]
