"""Latency tables: entries, recording, predictions and their errors; the device is simulated by a formula."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from ultralytics.nn.modules import Conv
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils.torch_utils import initialize_weights

from search_spaces import STOCK, Architecture, Choice, JoinedSpace, SearchSpace, build, space_file
from search_spaces.errors import LatencyError, SpecError
from trials import weights
from trials.devices import DeviceProfile
from trials.latency import latency_table, prediction_error, runtimes, space_latencies, timings
from trials.latency.deployed import Deployed
from trials.latency.latency_table import LatencyTable
from trials.latency.measurement import Comparison, Latency
from trials.latency.prediction_error import ErrorSummary, Observation
from trials.latency.runtimes import Runtime
from trials.latency.timings import Timing, Timings

CLASSES, SIZE = 3, 64
SPACE = """\
name: small
base: yolov5{scale}.yaml
scale: n
slots:
  - at: {layers: [2, 4]}
    choices:
      UIB: {start_kernel: [0, 3]}
      DCNv4: {}
  - at: {layers: [7]}
    choices:
      DynamicConv: {kernels: [2]}
  - at: {layers: [11]}
    choices:
      DySample: {}
insert:
  - after: [9]
    choices:
      UIB: {start_kernel: [3]}
"""
SCALING = """\
macro:
  width: [0.5, 1.0]
"""

Formula = Callable[..., Any]


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> SearchSpace:
    return read(tmp_path_factory.mktemp("space"), SPACE)


def read(folder: Path, text: str) -> SearchSpace:
    (folder / "small.yaml").write_text(text, encoding="utf-8")
    return space_file.load(folder / "small.yaml")


def table_of(space: SearchSpace, runtime: Runtime) -> LatencyTable:
    return LatencyTable(space, CLASSES, SIZE, Timings(profile=runtime.profile, entries={}))


def recorded(space: SearchSpace, runtime: Runtime, path: Path) -> LatencyTable:
    table = table_of(space, runtime)
    assert [one.problem for one in latency_table.record(table, runtime, path) if one.problem] == []
    return table


@pytest.fixture(scope="module")
def table(space: SearchSpace, formula: Formula, tmp_path_factory: pytest.TempPathFactory) -> LatencyTable:
    """Return a recorded table; tests must not change it."""
    return recorded(space, formula(), tmp_path_factory.mktemp("table") / "table.csv")


def test_members_of_a_joined_space_share_a_table(space: SearchSpace, formula: Formula, tmp_path: Path) -> None:
    other = read(tmp_path, SPACE.replace("scale: n", "scale: s").replace("name: small", "name: larger"))
    runtime, path = formula(), tmp_path / "table.csv"
    for member in (space, other):
        recorded(member, runtime, path)
    joined = JoinedSpace(name="smalln,largers", members=(space, other))
    whole = space_latencies.table(joined, CLASSES, SIZE, timings.read(path))
    alone = [space_latencies.table(member, CLASSES, SIZE, timings.read(path)) for member in joined.members]
    for member, table in zip(joined.members, alone, strict=True):
        assert whole.predict(member.stock) == table.predict(member.stock)
    assert (
        whole.recorded.entries.keys() >= whole.workloads().keys() == alone[0].workloads().keys() | alone[1].workloads()
    )
    assert whole.reach_ms() == (min(one.reach_ms()[0] for one in alone), max(one.reach_ms()[1] for one in alone))
    assert whole.recording_command == " && ".join(table.recording_command for table in alone)


def structure(module: nn.Module) -> str:
    """Return the `repr` without numbers of batch norm, which Ultralytics sets in whole models; they take no time."""
    return re.sub(r"eps=[^,]*, momentum=[^,]*", "", repr(module))


class TestPrediction:
    def test_predictions_are_exact_if_latency_is_an_overhead_and_a_sum_over_layers(
        self, space: SearchSpace, table: LatencyTable, formula: Formula
    ) -> None:
        bold = space.of({slot.name: slot.choices[-1] for slot in space.slots})
        one = space.of({"2": space.slots[0].choices[1]})
        checked = list(prediction_error.observe(table, formula(), [space.stock, one, bold]))
        assert [one.error for one in checked] == pytest.approx([0, 0, 0], abs=1e-5)
        assert len({round(one.measured_ms, 4) for one in checked}) == 3
        assert all(one.steady for one in checked)

    def test_the_stock_model_is_predicted_as_measured(self, space: SearchSpace, table: LatencyTable) -> None:
        assert table.predict(space.stock) == pytest.approx(table.stock_ms)
        assert table.factor == pytest.approx(1.5, rel=1e-4)

    def test_scaling_factors_change_the_latency_of_all_layers(self, formula: Formula, tmp_path: Path) -> None:
        runtime, space = formula(), read(tmp_path, SPACE.partition("  - at: {layers: [7]}")[0] + SCALING)
        table = recorded(space, runtime, tmp_path / "table.csv")
        narrow = space.of({"2": space.slots[0].choices[1]}, {"width": 0.5})
        (checked,) = prediction_error.observe(table, runtime, [narrow])
        assert checked.error == pytest.approx(0, abs=1e-4)
        assert checked.measured_ms < table.stock_ms

    def test_the_latency_of_a_slot_is_that_of_all_its_layers(self, space: SearchSpace, table: LatencyTable) -> None:
        for slot in space.slots:
            for choice in slot.choices:
                more = table.slot_ms(slot, choice) - table.slot_ms(slot, STOCK)
                alone = table.predict(space.of({slot.name: choice})) - table.stock_ms
                assert more == pytest.approx(alone, abs=1e-9)

    def test_missing_entry_of_a_latency_table_is_an_error(self, space: SearchSpace, formula: Formula) -> None:
        with pytest.raises(LatencyError) as caught:
            table_of(space, formula("bench")).predict(space.stock)
        assert str(caught.value) == (
            "the latency table bench lacks yolov5n as a whole, 3 classes for 1x3x64x64 "
            "(on the device: nas latency record --space small --scale n --classes 3 --deploy-size 64 "
            "--runtime formula --threads 1 --device-name bench adds what is missing)"
        )


RECORDED = {
    "the start of a graph": "9d22018c7b6414b3",
    "yolov5n as a whole, 3 classes": "697ac0cd03857432",
    "SPPF": "08ba084a2be9b072",
    "Detect": "14868e0c9fbd0ee1",
    "C3 with UIB": "335390f4154e8528",
    "DynamicConv(kernels=2) for Conv": "addbe7d37b521044",
    "DySample for nn.Upsample": "5b1f08c7b007848a",
}


class TestWorkloads:
    def test_equal_layers_share_an_entry(self, formula: Formula, tmp_path: Path) -> None:
        (tmp_path / "twins.yaml").write_text(
            "nc: 3\nbackbone:\n  - [-1, 1, Conv, [16, 3, 2]]\n  - [-1, 1, C2f, [16]]\n  - [-1, 1, C2f, [16]]\n"
            "  - [-1, 1, Conv, [16, 3, 2]]\n  - [-1, 1, C2f, [16]]\nhead:\n  - [[4], 1, Detect, [nc]]\n"
        )
        slots = "slots:\n  - at: {layers: [1, 2, 4]}\n    choices: {UIB: {}}\n"
        space = read(tmp_path, f"name: twins\nbase: {tmp_path}/twins.yaml\n{slots}")
        table, uib = table_of(space, formula()), Choice.of("UIB", {})
        first, second, smaller = (table.layer(layer, STOCK).key for layer in (1, 2, 4))
        assert first == second != smaller
        first, second, smaller = (table.layer(layer, uib).key for layer in (1, 2, 4))
        assert first == second != smaller
        assert len(table.workloads()) == 1 + 1 + 5 + 2  # the start, the model, its distinct layers, those with a UIB

    def test_an_operator_in_a_host_is_timed_with_the_whole_layer(self, space: SearchSpace, formula: Formula) -> None:
        table = table_of(space, formula())
        part = table.layer(4, Choice.of("UIB", {}))
        module = part.deploy().module
        assert part.description == "C3 with UIB"
        assert type(module).__name__ == "C3"
        assert sum(type(inner).__name__ == "UIB" for inner in module.modules()) == 2

    def test_deployed_layers_equal_those_of_the_built_model(self, space: SearchSpace, formula: Formula) -> None:
        table = table_of(space, formula())
        architecture = space.of({slot.name: slot.choices[-1] for slot in space.slots})
        model: Any = Deployed.model(architecture.document(CLASSES), CLASSES, SIZE).module
        for part, layer in zip(table.layers(architecture), model.model, strict=True):
            assert structure(part.deploy().module) == structure(layer)

    def test_workload_keys_contain_nothing_specific_to_the_process(
        self, space: SearchSpace, formula: Formula, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(latency_table, "_digest", repr)
        for key in table_of(space, formula()).workloads():
            assert "object at 0x" not in key
            assert "function" not in key

    @pytest.mark.parametrize("change", ["inplace", "loading", "training", "batch norm"])
    def test_workload_keys_do_not_depend_on_the_state_of_the_process(
        self, change: str, space: SearchSpace, formula: Formula, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = list(table_of(space, formula()).workloads())
        match change:
            case "inplace":  # what Ultralytics makes of the activation that it shares when it loads a checkpoint
                monkeypatch.setattr(Conv.default_act, "inplace", True)
            case "loading":
                weights.keep(build.model(space.stock.document(CLASSES), CLASSES), {}, tmp_path / "weights.pt")
                load_checkpoint(tmp_path / "weights.pt")
            case "training":
                build.model(space.stock.document(CLASSES), CLASSES).train()
            case _:
                made = build.skeleton

                def skeleton(*arguments: Any) -> nn.Sequential:
                    layers = made(*arguments)
                    initialize_weights(layers)  # as in whole models
                    return layers

                monkeypatch.setattr(build, "skeleton", skeleton)
        assert list(table_of(space, formula()).workloads()) == before

    def test_workload_keys_are_those_of_recorded_tables(self, space: SearchSpace, formula: Formula) -> None:
        """Tables of older versions stay valid: these keys are of the first version."""
        keys = {part.description: key for key, part in table_of(space, formula()).workloads().items()}
        assert {what: keys[what] for what in RECORDED} == RECORDED

    @pytest.mark.slow
    def test_workload_keys_are_the_same_in_another_process(
        self, space: SearchSpace, formula: Formula, tmp_path: Path
    ) -> None:
        (tmp_path / "small.yaml").write_text(SPACE, encoding="utf-8")
        script = (
            "import sys; from search_spaces import space_file; from trials.latency.latency_table import LatencyTable\n"
            f"space = space_file.load(sys.argv[1]); print(*LatencyTable(space, {CLASSES}, {SIZE}, None).workloads())"
        )
        printed = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "small.yaml")],
            env={"PYTHONPATH": ":".join(filter(None, sys.path)), "YOLO_OFFLINE": "true", "PYTHONHASHSEED": "7"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert printed.stdout.split() == list(table_of(space, formula()).workloads())


class TestRecording:
    def test_each_workload_is_recorded_once_and_the_reference_first(
        self, space: SearchSpace, formula: Formula, tmp_path: Path
    ) -> None:
        runtime, path = formula(), tmp_path / "new" / "table.csv"
        table = table_of(space, runtime)
        progress = list(latency_table.record(table, runtime, path))
        assert [one.done for one in progress] == list(range(1, len(table.workloads()) + 1))
        assert {one.total for one in progress} == {len(progress)}
        assert runtime.asked[0].startswith("C3 for 1x32x16x16")
        assert timings.read(path).entries.keys() == table.workloads().keys()

    def test_an_interrupted_recording_resumes(self, space: SearchSpace, formula: Formula, tmp_path: Path) -> None:
        path, first, second = tmp_path / "table.csv", formula(), formula()
        first.interrupted_after = 5
        with pytest.raises(KeyboardInterrupt):
            recorded(space, first, path)
        assert len(timings.read(path).entries) == 5
        table = recorded(space, second, path)
        assert len(second.asked) == len(table.workloads()) - 5
        assert set(first.asked).isdisjoint(second.asked)
        assert list(tmp_path.iterdir()) == [path]

    def test_slower_machine_does_not_change_recorded_entries(self, table: LatencyTable) -> None:
        """The formula's comparisons run at half the speed of its single measurements."""
        (concat,) = {entry.median_ms for entry in table.recorded.entries.values() if entry.description == "Concat"}
        assert concat - table.overhead_ms == pytest.approx(0.01)

    def test_recording_with_another_profile_is_refused(
        self, space: SearchSpace, formula: Formula, tmp_path: Path
    ) -> None:
        recorded(space, formula(), tmp_path / "table.csv")
        with pytest.raises(LatencyError, match=r"threads 2, not 1 \(latencies of two profiles are never mixed"):
            recorded(space, formula(threads=2), tmp_path / "table.csv")

    def test_a_layer_that_does_not_run_is_reported_and_the_rest_is_recorded(
        self, space: SearchSpace, formula: Formula, tmp_path: Path
    ) -> None:
        runtime = formula()
        runtime.refuses = "DySample"
        table = table_of(space, runtime)
        problems = [one.problem for one in latency_table.record(table, runtime, tmp_path / "t.csv") if one.problem]
        assert problems == ["inference of DySample for nn.Upsample for 1x128x2x2 failed: no such operation"]
        assert table.predict(space.of({"2": space.slots[0].choices[1]})) > 0
        with pytest.raises(LatencyError, match="lacks DySample for "):
            table.predict(space.of({"11": Choice.of("DySample", {})}))

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["torch", "onnxruntime", "openvino"])
    def test_latency_is_recorded_and_predicted_on_a_real_runtime(
        self, name: str, space: SearchSpace, tmp_path: Path
    ) -> None:
        pytest.importorskip(name)
        runtime = runtimes.open_runtime(name)
        table = recorded(space, runtime, tmp_path / "table.csv")
        bold = space.of({slot.name: slot.choices[-1] for slot in space.slots})
        (checked,) = prediction_error.observe(table, runtime, [bold])
        assert abs(checked.error) < 2


PROFILE = DeviceProfile(
    name="board", processor="Cortex-A78", runtime="onnxruntime", version="1.20", threads=4, torch="2.5"
)
TIMING = Timing(
    key="1f", description="C3 with UIB(a=1, b=2)", input_shapes="1x8x4x4", median_ms=1.25, spread_ms=0.1, p90_ms=1.5,
    iterations=100, steady=True,
)  # fmt: skip
FILE = """\
# name: board
# processor: Cortex-A78
# runtime: onnxruntime
# version: 1.20
# threads: 4
# torch: 2.5
# precision: fp32
# governor: 
key,what,received,median_ms,spread_ms,p90_ms,passes,steady
1f,"C3 with UIB(a=1, b=2)",1x8x4x4,1.25,0.1,1.5,100,yes
"""  # noqa: W291 - a system without a governor


class TestFile:
    def test_text_of_a_timings_file(self) -> None:
        assert Timings(profile=PROFILE, entries={"1f": TIMING}).text == FILE

    def test_a_written_table_is_read_back(self, tmp_path: Path) -> None:
        written = Timings(profile=PROFILE, entries={"1f": TIMING})
        written.write(tmp_path / "board.csv")
        assert timings.read(tmp_path / "board.csv") == written
        assert timings.device_names(tmp_path) == ["board"]

    def test_all_mistakes_of_a_timings_file_are_listed(self, tmp_path: Path) -> None:
        path = tmp_path / "bad.csv"
        rows = ["1,a,b,nan,0,1,9,yes", "2,a,b,1,1", "3,a,b,0,0,0,9,no", "4,a,b,1,0,1,9,maybe", "5,a,b,1,0,1,9,no"]
        rows += ["6,a,b,1,0,1e300,9,no", "7,a,b,1,0,1,-9,no"]
        path.write_text(FILE.partition("1f")[0] + "\n".join(rows) + "\n", encoding="utf-8")
        with pytest.raises(SpecError) as caught:
            timings.read(path)
        assert str(caught.value).splitlines() == [
            f"{path}: line 10: median_ms: milliseconds are expected, got 'nan'",
            f"{path}: line 11: 8 values are expected",
            f"{path}: line 12: median_ms: a latency is above 0",
            f"{path}: line 13: steady: yes or no is expected, got 'maybe'",
            f"{path}: line 15: p90_ms: milliseconds are expected, got '1e300'",
            f"{path}: line 16: passes: a number of timed passes is expected, got '-9'",
        ]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a,b\n1,2\n", "above the columns `# NAME: VALUE` is expected for name, processor, runtime"),
            *(
                (
                    FILE.replace("# threads: 4", f"# threads: {wrong}"),
                    f"threads: a whole number is expected, got '{wrong}'",
                )
                for wrong in ("four", "0", "-1", "1000000")
            ),
            (FILE.replace("median_ms", "latency"), "the columns are expected to be key,what,received,median_ms"),
        ],
    )
    def test_invalid_timings_file_is_an_error(self, text: str, message: str, tmp_path: Path) -> None:
        (tmp_path / "x.csv").write_text(text, encoding="utf-8")
        with pytest.raises(SpecError) as caught:
            timings.read(tmp_path / "x.csv")
        assert message in str(caught.value)

    def test_a_comparison_is_scaled_to_the_recorded_reference(self) -> None:
        candidate = Latency(median_ms=9.0, spread_ms=0.9, p90_ms=18.0, iterations=40)
        reference = Latency(median_ms=6.0, spread_ms=0.0, p90_ms=6.0, iterations=50)
        compared = Comparison(candidate=candidate, reference=reference, ratio=1.5, drift=0.2)
        timing = Timing.of_comparison("k", "what", "1x1", compared, reference_ms=2.0)
        assert (timing.median_ms, timing.spread_ms, timing.p90_ms, timing.iterations) == pytest.approx((3, 0.3, 6, 40))
        assert not timing.steady


def observations(*pairs: tuple[float, float]) -> list[Observation]:
    stock = Architecture(base="yolov5{scale}.yaml", scale="n", picks=())
    return [Observation(architecture=stock, predicted_ms=p, measured_ms=m, steady=m > 5) for p, m in pairs]


class TestErrorSummary:
    def test_predictions_that_are_too_high_have_a_positive_bias(self) -> None:
        accuracy = ErrorSummary.of(observations((11, 10), (22, 20), (3.3, 3), (1.5, 1)))
        figures = (accuracy.median_error, accuracy.bias, accuracy.p90_error)
        assert figures == pytest.approx((0.1, 0.1, 0.38))
        assert (accuracy.candidates, accuracy.tau, accuracy.steady) == (4, 1, 2)

    def test_error_summary_needs_two_candidates(self) -> None:
        with pytest.raises(LatencyError, match="2 candidates or more are expected, got 1"):
            ErrorSummary.of(observations((1, 1)))

    @pytest.mark.parametrize(
        ("second", "tau"), [([1, 2, 3, 4], 1), ([4, 3, 2, 1], -1), ([2, 1, 3, 4], 4 / 6), ([1, 1, 1, 1], 0)]
    )
    def test_kendalls_tau_equals_reference_values(self, second: list[float], tau: float) -> None:
        assert prediction_error.kendall_tau([1, 2, 3, 4], second) == pytest.approx(tau)

    @given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=9))
    def test_kendalls_tau_is_symmetric(self, pairs: list[tuple[int, int]]) -> None:
        first, second = [float(a) for a, _ in pairs], [float(b) for _, b in pairs]
        tau = prediction_error.kendall_tau(first, second)
        assert tau == prediction_error.kendall_tau(second, first)
        assert prediction_error.kendall_tau([-a for a in first], second) == -tau
