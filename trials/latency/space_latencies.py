"""Predicted latencies of the architectures of a space, whether it is that of one base model or joined of several."""

from search_spaces import Architecture, JoinedSpace, SearchSpace, Space
from trials.latency.latency_table import LatencyTable, Workload
from trials.latency.timings import Timings


class JoinedLatencies:
    """Predictions for a joined space, with the interface of `LatencyTable`: a table for each member.

    Args:
        recorded: the device's table, for all members.
    """

    def __init__(self, space: JoinedSpace, classes: int, image_size: int, recorded: Timings) -> None:
        self.space = space
        self._tables = {
            member.short_name: LatencyTable(member, classes, image_size, recorded) for member in space.members
        }

    @property
    def of_members(self) -> tuple[LatencyTable, ...]:
        """Table of each member."""
        return tuple(self._tables.values())

    def of_member(self, architecture: Architecture) -> LatencyTable:
        """Return the table of an architecture's member."""
        return self._tables[self.space.member_name(architecture)]

    @property
    def recorded(self) -> Timings:
        """Device's table: of the members' copies the one with the most entries."""
        return max((table.recorded for table in self.of_members), key=lambda recorded: len(recorded.entries))

    def predict(self, architecture: Architecture) -> float:
        """Predict the latency of one image, in milliseconds.

        Raises:
            LatencyError: the table lacks an entry; the text names it and the command that records it.
        """
        return self.of_member(architecture).predict(architecture)

    def reach_ms(self) -> tuple[float, float]:
        """Return the lowest and the highest predicted latency in the space."""
        ends = [table.reach_ms() for table in self.of_members]
        return min(least for least, _ in ends), max(most for _, most in ends)

    @property
    def recording_command(self) -> str:
        """Commands that record all members into this table, one after the other."""
        return " && ".join(table.recording_command for table in self.of_members)

    def workloads(self) -> dict[str, Workload]:
        """Return all workloads that predictions in this space need, by key."""
        found: dict[str, Workload] = {}
        for table in self.of_members:
            found |= table.workloads()
        return found


SpaceLatencies = LatencyTable | JoinedLatencies


def table(space: Space, classes: int, image_size: int, recorded: Timings) -> SpaceLatencies:
    """Return the predicted latencies of a space from a device's table."""
    if isinstance(space, SearchSpace):
        return LatencyTable(space, classes, image_size, recorded)
    return JoinedLatencies(space, classes, image_size, recorded)
