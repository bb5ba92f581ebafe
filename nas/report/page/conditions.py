"""Conditions of a search that a report states: its data set, and all that determines its scores."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nas.records.record import Record
from nas.records.stored_outcome import PROVENANCE
from nas.report.page.reported import Reported
from search_spaces.errors import NasError


def sizes(study: Reported) -> str:
    """Return numbers of images, boxes and classes; of classes alone if the data set is gone, or has changed."""
    classes = len(study.settings.classes)
    try:
        data = study.data_set()
    except NasError:  # the part with the detections says why
        return f"{classes} classes"
    is_same = data.fingerprint == study.settings.data_fingerprint
    return data.summary.line(classes) if is_same else f"{classes} classes"


def conditions(study: Reported, records: Sequence[Record]) -> dict[str, str]:
    """Return what determines the scores, by heading: settings, and what the trainings recorded.

    Trials of several machines may have trained under several conditions; each is shown.
    """
    settings = study.settings
    trained = [_provenance(study, record) for record in records if record.finished]
    found = {
        "space": f"{settings.space}, hash {settings.space_hash}",
        "seed": f"{settings.budget.seed} of proposals and trainings",
        "data": f"{settings.data}, fingerprint {settings.data_fingerprint}",
        "device": _each(trained, _device),
        "code": _each(trained, _code),
        "versions": _each(trained, _versions),
    }
    return {name: text for name, text in found.items() if text}


def _provenance(study: Reported, record: Record) -> Mapping[str, Any]:
    """Return the recorded provenance of a trial; empty if none is on this machine."""
    stored = (study.files(record.trial).read_outcome() or {}).get(PROVENANCE)
    return stored if isinstance(stored, Mapping) else {}


def _each(trained: Sequence[Mapping[str, Any]], text: Callable[[Mapping[str, Any]], str]) -> str:
    """Return the different texts of the trainings, each once."""
    return "; ".join(dict.fromkeys(text(one) for one in trained if one))


def _device(provenance: Mapping[str, Any]) -> str:
    return f"{provenance.get('device', '')}, threads of a training on a CPU: {provenance.get('threads', '')}"


def _code(provenance: Mapping[str, Any]) -> str:
    commit = provenance.get("commit")
    return f"hash {provenance.get('code', '')}{f', commit {commit}' if commit else ''}"


def _versions(provenance: Mapping[str, Any]) -> str:
    versions = provenance.get("versions")
    return ", ".join(f"{name} {number}" for name, number in versions.items()) if isinstance(versions, Mapping) else ""
