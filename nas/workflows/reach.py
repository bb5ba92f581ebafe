"""Check limits and targets against the least and the most that a space can reach."""

from functools import partial

from nas.settings import Settings
from nas.workflows.request import require_reachable
from trials import torch_devices
from trials.costing.cost import gflops
from trials.costing.space_costs import SpaceCosts
from trials.data.progress import Progress
from trials.evaluation import measure_costs
from trials.latency.space_latencies import SpaceLatencies


def require_reachable_limits(
    table: SpaceCosts,
    latency_table: SpaceLatencies | None,
    settings: Settings,
    *,
    check_latency: bool = True,
    measuring: Progress | None = None,
) -> None:
    """Refuse a limit or target that no architecture meets, or that all do.

    Args:
        check_latency: False while the latency table is incomplete; limits on latency are then not checked.
        measuring: called with the number of architectures measured and of all, while latencies are measured.

    Raises:
        SpecError: lists every such limit.
    """
    limit_ms, target_ms = settings.limits.latency_ms, settings.target_latency
    limits = {
        "max-gflops": ("gflops", settings.limits.gflops),
        "target-gflops": ("gflops", settings.target_gflops),
        "max-params": ("params", settings.limits.params),
        "max-latency": ("latency_ms", limit_ms if check_latency else None),
        "target-latency": ("latency_ms", target_ms if check_latency else None),
    }
    require_reachable(
        (
            (flag, value, partial(_reach, table, latency_table, figure, settings, measuring))
            for flag, (figure, value) in limits.items()
        ),
        settings.budget.deploy_size,
    )


def _reach(
    table: SpaceCosts, latency_table: SpaceLatencies | None, figure: str, settings: Settings, measuring: Progress | None
) -> tuple[float, float]:
    """Return the least and the most of a figure; a latency that is not predicted is measured, see `_measured_reach`."""
    if figure == "params":
        return table.reach(lambda layer: layer.params)
    if figure == "gflops":
        least, most = table.reach(lambda layer: layer.macs)
        return gflops(least), gflops(most)
    return latency_table.reach_ms() if latency_table is not None else _measured_reach(table, settings, measuring)


def _measured_reach(table: SpaceCosts, settings: Settings, measuring: Progress | None) -> tuple[float, float]:
    """Return the latencies in ms, on this machine, of the architectures with the fewest and the most multiply-adds.

    They are measured on one thread, as a worker measures its trials on the CPU.
    """
    classes = len(settings.classes)
    extremes = [table.extreme(lambda layer: layer.macs, cheapest=cheapest) for cheapest in (True, False)]
    measured = []
    with torch_devices.one_thread():
        for done, one in enumerate(extremes):
            if measuring is not None:
                measuring(done, len(extremes))
            costs = measure_costs(one.document(classes), settings.budget.at(one.image_size), classes)
            if costs.latency_ms is not None:
                measured.append(costs.latency_ms)
    return min(measured), max(measured)
