"""Records of a Pareto front that are recommended: the most accurate, the knee, the cheapest."""

from collections.abc import Collection, Sequence

from nas.algorithms.pareto import OBJECTIVES, knee_point, main_cost
from nas.records.record import Record, point_of

BEST = ("map", "knee", "cheapest")


def recommended(front: Sequence[Record], objectives: Sequence[str], best: str) -> Record:
    """Return a record of a front that is not empty.

    Args:
        objectives: of the study.
        best: `map`, the most accurate; `knee`, the best compromise; `cheapest`, the one with the least cost.
    """
    cost_name = main_cost(objectives)
    match best:
        case "map":
            return max(front, key=lambda record: record.map50_95 or 0.0)
        case "cheapest":
            return min(front, key=lambda record: getattr(record, cost_name) or 0.0)
        case _:
            plane = ("map50_95", cost_name)
            points = [point_of(record, plane) for record in front]
            return front[knee_point(points, [OBJECTIVES[name] for name in plane])]


def finalists(
    front: Sequence[Record], objectives: Sequence[str], judged: Collection[int], records: Sequence[Record]
) -> list[Record]:
    """Return the records whose models MLflow gets: recommended ones of the front, and those that fresh seeds judged.

    Not the whole front: it may have dozens of members, of 100 MB each.

    Args:
        objectives: of the study.
        judged: numbers of trials with a verdict.
        records: of all trials.
    """
    chosen = [recommended(front, objectives, best) for best in BEST] if front else []
    chosen += [record for record in records if record.trial in judged]
    return list({record.trial: record for record in chosen}.values())
