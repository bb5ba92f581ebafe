"""Measures what another host sends: `python -m trials.timing_server`, started by `trials.latency.runtimes` through ssh.

A line of JSON on stdin is a question, a line on stdout its answer; the end of stdin is the end.
"""

import base64
import json
import os
import sys
from dataclasses import asdict
from typing import IO, Any

from search_spaces.errors import EnvironmentProblem, LatencyError
from trials.devices import DeviceProfile
from trials.latency import measurement
from trials.latency.backends import BACKENDS, Where
from trials.latency.runtimes import Here


def serve(questions: IO[str], answers: IO[str]) -> None:
    """Answer until there are no more questions."""
    for line in questions:
        try:
            answer = _answer(json.loads(line))
        except EnvironmentProblem as problem:
            answer = {"environment": str(problem)}
        except LatencyError as error:
            answer = {"error": str(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _answer(asked: dict[str, Any]) -> dict[str, Any]:
    backend, where = BACKENDS[asked["runtime"]], Where(threads=asked["threads"], device=asked["device"])
    if asked["question"] == "profile":
        profile: DeviceProfile = Here(backend, where, asked["device_name"]).profile
        return asdict(profile)
    graphs = [base64.b64decode(graph) for graph in asked["graphs"]]
    passes = [backend.prepare_graph(graph, where, what=asked["what"]) for graph in graphs]
    return asdict(measurement.timed(*passes) if asked["question"] == "measure" else measurement.compare(*passes))


if __name__ == "__main__":
    answering = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what third parties print is no answer
    serve(sys.stdin, answering)
