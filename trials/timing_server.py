"""Timing server: measures ONNX graphs for another machine, `python -m trials.timing_server`.

`trials.latency.runtimes` starts it through ssh. A line of JSON on stdin is a request, a line on stdout its response
(`trials.latency.messages`); it ends at the end of stdin.
"""

import json
import os
import sys
from dataclasses import asdict
from typing import IO, Any

from search_spaces.errors import EnvironmentProblem, LatencyError
from trials.devices import DeviceProfile
from trials.latency import measurement, messages
from trials.latency.backends import BACKENDS, ExecutionSettings
from trials.latency.runtimes import LocalRuntime


def serve(requests: IO[str], responses: IO[str]) -> None:
    """Answer requests until their stream ends."""
    for line in requests:
        try:
            response = _response(json.loads(line))
        except EnvironmentProblem as problem:
            response = {"environment": str(problem)}
        except LatencyError as error:
            response = {"error": str(error)}
        responses.write(json.dumps(response) + "\n")
        responses.flush()


def _response(request: dict[str, Any]) -> dict[str, Any]:
    backend = BACKENDS[request["runtime"]]
    execution = ExecutionSettings(threads=request["threads"], device=request["device"])
    if request["question"] == "profile":
        profile: DeviceProfile = LocalRuntime(backend, execution, request["device_name"]).profile
        return asdict(profile)
    graphs = messages.unpack(request["graphs"])
    runs = [backend.prepare_graph(graph, execution, description=request["what"]) for graph in graphs]
    protocol = measurement.protocol_for(execution.device)
    if request["question"] == "measure":
        return messages.latency_to_json(measurement.benchmark(*runs, protocol=protocol))
    return messages.comparison_to_json(measurement.compare(*runs, protocol=protocol))


if __name__ == "__main__":
    responses = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what third parties print is no response
    serve(sys.stdin, responses)
