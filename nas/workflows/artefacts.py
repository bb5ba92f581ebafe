"""Accuracy, latency and size of a trial's model as the files that runtimes run, in several precisions.

The figures of a file are of that file: the graph that is timed is the graph whose mAP is measured, by the same runtime
with the same settings, and by the code that validates PyTorch's model. They are stored beside it as soon as they are
known, in `artefacts.json`, and are not measured again while model, data and device stay as they were.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from nas.deployment import artefacts, formats
from nas.deployment.artefacts import RUNTIMES, TORCH, Artefact
from nas.records.record import Record
from nas.study import latency_tables
from nas.study.export import Exported
from nas.study.study import Study
from search_spaces import build
from search_spaces.errors import EnvironmentProblem, LatencyError, SpecError, StudyError
from search_spaces.files import read_mapping, write_atomically
from search_spaces.stored_model import read as read_stored
from trials.data import calibration_images, image_files
from trials.devices import CPU, DeviceProfile
from trials.latency.backends import BACKENDS, ExecutionSettings
from trials.latency.deployed import Deployed, DeployedGraph
from trials.latency.latency_table import LatencyTable
from trials.latency.precision import FP32, Calibration, require
from trials.latency.runtimes import LocalRuntime

FIGURES = "artefacts.json"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Files that are wanted of a model, and how they are run.

    Attributes:
        check: measure mAP50-95 and latency of each.
        size: of images, in pixels; None for the size for which the search counted costs.
        on_step: called with what begins, in words.
    """

    formats: tuple[str, ...]
    precisions: tuple[str, ...] = (FP32,)
    check: bool = True
    size: int | None = None
    threads: int = 1
    device: str = CPU
    calibration: Calibration = field(default_factory=Calibration)
    on_step: Callable[[str], None] = lambda _: None

    @classmethod
    def of(cls, formats: str, precisions: str, **options: Any) -> "Wanted":
        """Return what comma-separated names of formats and precisions ask for.

        Raises:
            SpecError: lists every wrong name.
        """
        mistakes: list[str] = []
        found: list[tuple[str, ...]] = []
        for words, read in ((formats, artefacts.require_formats), (precisions, _require_precisions)):
            try:
                found.append(read([word.strip() for word in words.split(",") if word.strip()]))
            except SpecError as error:
                mistakes += error.mistakes
        if mistakes:
            raise SpecError(mistakes)
        return cls(formats=found[0], precisions=found[1] or (FP32,), **options)


def _require_precisions(names: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(require(name) for name in names))


def best_trained(study: Study, fingerprint: str) -> Record | None:
    """Return the first trial of an architecture whose weights are saved; None if there is none."""
    trials = [one for one in study.records() if one.fingerprint == fingerprint and one.finished]
    return next((one for one in trials if study.files(one.trial).weights.is_file()), None)


def measure(study: Study, exported: Exported, wanted: Wanted) -> Iterator[Artefact]:
    """Write the files of an exported model and measure them; PyTorch's model in float32 comes first.

    A file that cannot be made or run is an artefact with the reason, and the others are measured.

    Raises:
        StudyError: the trial's weights were not saved.
        DataError: the training images cannot be read.
    """
    if exported.weights is None:
        raise StudyError(
            f"trial {exported.record.trial}: its weights were not saved, so there is nothing to convert; train it "
            f"(nas train {study.name} --trial {exported.record.trial})"
        )
    one = _Measuring(study, exported, exported.weights, wanted)
    torch = one.of_torch()
    yield torch
    for name in wanted.formats:
        for precision in wanted.precisions:
            found = one.of_file(name, precision)
            known = found.map50_95 is not None and torch.map50_95 is not None
            yield replace(found, difference=(found.map50_95 or 0) - (torch.map50_95 or 0)) if known else found


class _Measuring:
    """Files of one model, one after the other."""

    def __init__(self, study: Study, exported: Exported, weights: Path, wanted: Wanted) -> None:
        self._study, self._wanted, self._folder, self._weights = study, wanted, exported.folder, weights
        self._architecture = study.architecture(exported.record)
        self._size = wanted.size or exported.deploy_size
        self._trained_size = study.settings.budget.at(self._architecture.image_size).image_size
        self._data = exported.folder / "data.yaml"
        self._end_to_end = build.is_end_to_end(self._architecture.document(len(study.settings.classes)))
        trained = study.files(exported.record.trial).weights  # of a model without operators the export is Ultralytics'
        stored = read_stored(trained)
        if stored is None:
            raise StudyError(f"{trained}: no weights of a trial")
        self._model = artefacts.fused(stored, end_to_end=self._end_to_end)
        self._identity = {
            "weights": hashlib.sha256(weights.read_bytes()).hexdigest(),
            "data": study.settings.data_fingerprint,
            "size": self._size,
        }

    def of_torch(self) -> Artefact:
        """Measure PyTorch's model in float32."""
        found = Artefact(format=TORCH, precision=FP32, path=self._weights, bytes=self._weights.stat().st_size)
        if not self._wanted.check:
            return found
        settings = self._execution(FP32)
        return self._stored(found, settings, lambda: self._of_torch(found, settings))

    def of_file(self, name: str, precision: str) -> Artefact:
        """Write and measure the file of a format in a precision."""
        backend, settings = BACKENDS[RUNTIMES[name]], self._execution(precision)
        path = self._folder / f"weights-{backend.name}-{precision}.onnx"
        try:
            backend.require()
            backend.require_precision(settings)
            found = Artefact(format=name, precision=precision, path=path, note=backend.caveat(settings))
            return self._stored(found, settings, lambda: self._of_file(found, path, settings))
        except (LatencyError, EnvironmentProblem, SpecError) as error:
            return artefacts.cannot(name, precision, error)

    def _of_torch(self, found: Artefact, settings: ExecutionSettings) -> Artefact:
        self._wanted.on_step("torch: measuring mAP50-95 and latency")
        measured = formats.torch_accuracy(
            self._weights, self._data, self._size, self._trained_size, end_to_end=self._end_to_end
        )
        found = replace(found, map50_95=measured.map50_95, note=measured.remark)
        return self._timed(found, Deployed.of(self._model, self._size), settings)

    def _of_file(self, found: Artefact, path: Path, settings: ExecutionSettings) -> Artefact:
        backend, what = BACKENDS[RUNTIMES[found.format]], f"{found.format}, {found.precision}"
        self._wanted.on_step(f"{what}: writing {path.name}")
        samples = ([image] for image in calibration_images.samples(self._images(), self._size))
        graph = artefacts.write(self._model, path, backend, execution=settings, size=self._size, samples=samples)
        found = replace(found, bytes=path.stat().st_size)
        if not self._wanted.check:
            return found
        self._wanted.on_step(f"{what}: measuring mAP50-95")
        module = artefacts.in_runtime(graph, self._model, backend, settings)
        measured = formats.accuracy(module, self._data, self._size, end_to_end=self._end_to_end)
        self._wanted.on_step(f"{what}: measuring latency")
        described = DeployedGraph(graph=graph, description=f"one {self._size} px image")
        return self._timed(replace(found, map50_95=measured), described, settings)

    def _timed(self, found: Artefact, deployed: Deployed | DeployedGraph, settings: ExecutionSettings) -> Artefact:
        """Time a model; in turns with the stock model where a latency table predicts it."""
        with LocalRuntime(artefacts.backend_of(found.format), settings) as runtime:
            table = self._table(runtime.profile)
            if table is None:
                latency = runtime.measure(deployed)
                return replace(found, measured_ms=latency.median_ms, steady=latency.steady)
            compared = runtime.compare(deployed, table.stock_model.deploy())
            return replace(
                found,
                predicted_ms=table.predict(self._architecture),
                measured_ms=compared.ratio * table.stock_ms,
                steady=compared.steady,
            )

    def _table(self, profile: DeviceProfile) -> LatencyTable | None:
        """Return a table of this device, runtime and precision that predicts the architecture; None without one."""
        space, classes = self._study.space.member_of(self._architecture), len(self._study.settings.classes)
        return latency_tables.predicting(self._architecture, space, classes, self._size, profile)

    def _images(self) -> list[str]:
        data = self._study.data_set()
        return self._wanted.calibration.chosen(image_files.find(data.train, Path()))

    def _execution(self, precision: str) -> ExecutionSettings:
        wanted = self._wanted
        return ExecutionSettings(
            threads=wanted.threads, device=wanted.device, precision=precision, calibration=wanted.calibration
        )

    def _stored(self, found: Artefact, settings: ExecutionSettings, measured: Callable[[], Artefact]) -> Artefact:
        """Return stored figures of the same model on the same device; otherwise measure, and store them."""
        file, key = self._folder / FIGURES, f"{found.format}-{found.precision}"
        with LocalRuntime(artefacts.backend_of(found.format), settings) as runtime:
            identity = {**self._identity, "profile": asdict(runtime.profile)}
        stored = read_mapping(file).get(key, {}) if file.is_file() else {}
        if stored.get("identity") == identity and found.path is not None and found.path.exists():
            return _from_json(found, stored)
        result = measured()
        if self._wanted.check:
            others = read_mapping(file) if file.is_file() else {}
            figures = {name: value for name, value in asdict(result).items() if name in _FIGURES}
            write_atomically(file, json.dumps({**others, key: {"identity": identity, **figures}}, indent=1))
        return result


_FIGURES = ("bytes", "map50_95", "predicted_ms", "measured_ms", "steady")


def _from_json(found: Artefact, stored: Mapping[str, Any]) -> Artefact:
    return replace(found, **{name: stored[name] for name in _FIGURES})
