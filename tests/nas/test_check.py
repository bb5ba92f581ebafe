"""`nas check` and its parts: worker processes, cache, estimate of a search."""

import json
import multiprocessing
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

from nas.cli import app
from nas.workflows import check, estimate, timing
from nas.workflows.check import Progress
from nas.workflows.check_cache import CheckCache
from nas.workflows.estimate import Estimate
from nas.workflows.planned_search import PlannedSearch
from nas.workflows.request import Request
from search_spaces import OPERATORS, SearchSpace, model_reader, pgi, space_file, space_names
from search_spaces.errors import EstimateError
from search_spaces.operators import Operator, modules
from trials.contracts import cases, model_contract, operator_contract
from trials.contracts.case import Case
from trials.data import digit_scenes

TINY_V9 = """
nc: 3
anchors: 3
backbone:
  - [-1, 1, Silence, []]
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, MMQARepNCSPELAN4, [32, 16, 8, 1]]
  - [-1, 1, ADown, [32]]
  - [-1, 1, RepNCSPELAN4, [32, 16, 8, 1]]
  - [-1, 1, ADown, [32]]
  - [-1, 1, RepNCSPELAN4, [32, 32, 16, 1]]
  - [-1, 1, ADown, [32]]
  - [-1, 1, RepNCSPELAN4, [32, 32, 16, 1]]
head:
  - [-1, 1, SPPELAN, [32, 16]]
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [[-1, 7], 1, Concat, [1]]
  - [-1, 1, RepNCSPELAN4, [32, 32, 16, 1]]
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [[-1, 5], 1, Concat, [1]]
  - [-1, 1, RepNCSPELAN4, [32, 32, 16, 1]]
  - [5, 1, RepNCSPELAN4, [32, 32, 16, 1]]
  - [[17, 13, 10, 16, 13, 10], 1, DualDDetect, [nc]]
"""

MY_OPS = """
import os

import torch
from torch import Tensor, nn

from search_spaces.operators import Operator, Parameter, SiteKind


class Mine(nn.Module):
    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Frozen(Mine):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + x.new_zeros(int(x.shape[2]), 1)


class Killing(Mine):
    def forward(self, x: Tensor) -> Tensor:
        os._exit(3)


def record(name: str, module: type) -> Operator:
    return Operator(
        name=name,
        module=module,
        parameters=(Parameter(name="kernel", default=3, allowed=(1, 3)),),
        kinds=(SiteKind.BLOCK,),
        build=lambda site, *, kernel: module(site.c_in, kernel),
        incompatibility=lambda site, _: None if site.c_in == site.c_out else "it keeps the channels",
        reference="none",
    )


MINE, FROZEN, KILLING = record("Mine", Mine), record("Frozen", Frozen), record("Killing", Killing)
"""

SPACE = """
name: mine
base: yolov8{scale}.yaml
scale: n
modules: [my_ops.py]
slots:
  - {at: {layers: [4, 6]}, choices: {Mine: {kernel: [1, 3]}}}
macro: {depth: [0.67, 1.0]}
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("NAS_CACHE", str(folder))
    return folder


@pytest.fixture
def my_ops(tmp_path: Path) -> Path:
    path = tmp_path / "my_ops.py"
    path.write_text(MY_OPS, encoding="utf-8")
    return path


@pytest.fixture
def mine(my_ops: Path) -> dict[str, Operator]:
    return {operator.name: operator for operator in modules.load(my_ops)}


@pytest.fixture
def space(my_ops: Path) -> Path:
    path = my_ops.parent / "space.yaml"
    path.write_text(SPACE, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digit_scenes.draw(tmp_path_factory.mktemp("scenes"), train=12, val=4)


def one_case(operator: Operator) -> Case:
    return cases.of_operator(operator)[0]


def nas(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check the operator contract alone, in this process instead of workers."""

    def run(
        found: Sequence[Case],
        cache: CheckCache,  # noqa: ARG001 - the signature of the real one
        *,
        workers: int | None = None,  # noqa: ARG001 - the same
    ) -> Generator[Progress, None, None]:
        failures = tuple(failure for case in found for failure in operator_contract.check(case))
        yield Progress(cases=len(found), module_done=len(found), done=len(found), failures=failures)

    monkeypatch.setattr(check, "run", run)


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Return numbers instead of timing."""

    def at_once(space: SearchSpace, search: PlannedSearch, cache: CheckCache, *, report: object) -> Estimate:  # noqa: ARG001 - the real signature
        return Estimate(trials=search.trials, workers=search.workers, stock=60.0, costliest=90.0, machine="a machine")

    monkeypatch.setattr(estimate, "measure", at_once)


def test_workers_find_failures_and_cache_passed_cases(mine: dict[str, Operator], cache: Path) -> None:
    asked = [one_case(mine["Mine"]), one_case(mine["Frozen"])]
    first = list(check.run(asked, CheckCache.of_user(), workers=1))
    assert (first[0].done, first[-1].done) == (0, 2)
    (failure,) = [failure for progress in first for failure in progress.failures]
    assert (failure.operator, failure.promise) == ("Frozen", "export")
    assert list(json.loads((cache / "checks.json").read_text()).values()) == ["Mine"]
    again = check.run(asked, CheckCache.of_user(), workers=1)
    assert next(again) == Progress(cases=2, module_done=1, done=1)
    again.close()
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_an_operator_that_kills_the_process_is_named(mine: dict[str, Operator]) -> None:
    asked = [one_case(mine["Mine"]), one_case(mine["Killing"])]
    reports = list(check.run(asked, CheckCache(None), workers=1))
    (failure,) = [failure for progress in reports for failure in progress.failures]
    assert (failure.operator, failure.seen) == ("Killing", "it ends the process (exit code 3)")
    assert reports[-1].done == 2


def test_passed_cases_are_not_checked_again(mine: dict[str, Operator]) -> None:
    asked = cases.of_operator(mine["Mine"])
    stored = CheckCache(None)
    stored.add(dict.fromkeys((check._key(case, check.digest("Mine")) for case in asked), "Mine"))
    assert list(check.run(asked, stored)) == [Progress(cases=len(asked), module_done=len(asked), done=len(asked))]


def test_an_operator_with_another_source_is_checked_again(mine: dict[str, Operator], my_ops: Path) -> None:
    before = check.digest(mine["Mine"].name)
    OPERATORS.pop("Mine"), OPERATORS.pop("Frozen"), OPERATORS.pop("Killing")
    my_ops.write_text(MY_OPS + "\n# better\n", encoding="utf-8")
    modules.load(my_ops)
    assert check.digest("Mine") != before


def test_the_digest_of_an_operator_covers_all_files_that_it_imports() -> None:
    record = OPERATORS["DCNv4"]
    names = {file.name for file in check._files({record.module.__module__})}
    assert {"dcnv4.py", "export.py", "record.py"} <= names
    assert "uib.py" not in names


def test_layers_with_equal_sites_are_one_case(mine: dict[str, Operator]) -> None:
    case = one_case(mine["Mine"])
    assert check._key(case, "0") == check._key(Case(**{**vars(case), "places": ("elsewhere",)}), "0")
    assert check._key(case, "0") != check._key(Case(**{**vars(case), "c_in": 5}), "0")


def test_chunks_share_the_work() -> None:
    asked = cases.of_operator(OPERATORS["DynamicConv"])
    chunks = check._chunks(asked, 2)
    assert len(chunks) % 2 == 0
    assert max(map(len, chunks)) <= check._CHUNK
    assert sorted(map(repr, asked)) == sorted(repr(case) for chunk in chunks for case in chunk)


def test_a_damaged_cache_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "checks.json"
    for text in ("", "[1]", '{"a":'):
        path.write_text(text)
        stored = CheckCache(path)
        assert "a" not in stored
    stored.add({"a": "passed"})
    assert CheckCache(path)["a"] == "passed"


def test_two_processes_share_a_cache_file(tmp_path: Path) -> None:
    one, other = CheckCache(tmp_path / "checks.json"), CheckCache(tmp_path / "checks.json")
    one.add({"a": "passed"})
    other.add({"b": {"seconds": 2.0}})
    assert all(key in CheckCache(tmp_path / "checks.json") for key in "ab")


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    stored = CheckCache(tmp_path / "file" / "checks.json")
    stored.add({"a": 1})
    assert "a" in stored


def test_estimated_hours_are_rounds_of_trials(data: Path, space: Path) -> None:
    search = PlannedSearch.of(Request(data=str(data), trials=5, workers=2, epochs=3, batch=8), space_file.load(space))
    assert (search.budget.image_size, search.budget.deploy_size, search.budget.batch) == (320, 640, 8)
    assert search.base is not None
    estimated = Estimate(trials=5, workers=2, stock=3600, costliest=1800, base=900, machine="")
    assert estimated.hours == (1.75, 3.25)


@pytest.mark.usefixtures("at_once")
def test_good_operator_of_a_file_passes_the_check(my_ops: Path) -> None:
    result = nas("check", "--operator", f"{my_ops}:Mine", "--format", "json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["operators"] == ["Mine"]
    assert {"C2f", "RepNCSPELAN4"} <= set(document["stands"]["Mine"])
    assert document["failures"] == []
    assert "keep every promise" in result.stderr


@pytest.mark.usefixtures("at_once")
def test_a_broken_promise_is_a_line_and_status_1(my_ops: Path) -> None:
    my_ops.write_text(MY_OPS.replace("return self.conv(x)\n", "return self.conv(x).detach()\n"), encoding="utf-8")
    result = nas("check", "--operator", f"{my_ops}:Mine")
    assert result.exit_code == 1
    (line, *_) = [line for line in result.stdout.splitlines() if ": gradient: " in line]
    assert line.startswith("layers ")
    assert "Mine at " in line
    assert line.endswith("gradient: the output is cut off from the graph (`detach`, `no_grad`, `.data`?)")
    assert "Gradients reach every parameter and every channel of the input." in result.stderr


@pytest.mark.usefixtures("at_once")
def test_an_operator_without_any_site_fails(my_ops: Path) -> None:
    my_ops.write_text(MY_OPS.replace("None if site.c_in == site.c_out else ", ""), encoding="utf-8")
    result = nas("check", "--operator", f"{my_ops}:Mine")
    assert result.exit_code == 1
    assert result.stdout.startswith("Mine: stands: nowhere: its `incompatibility` refuses all ")


@pytest.mark.usefixtures("at_once")
def test_package_that_a_class_needs_is_named_beside_what_a_site_refuses(tmp_path: Path) -> None:
    text = "from torch import nn\nfrom no_package import scan\n\nclass Scanned(nn.Module):\n    def forward(self, x):\n"
    (tmp_path / "own.py").write_text(f"{text}        return scan(x)\n", encoding="utf-8")
    result = nas("check", "--operator", f"{tmp_path / 'own.py'}:Scanned")
    assert result.exit_code == 1
    (line,) = [one for one in result.stdout.splitlines() if one.startswith("Scanned: stands: nowhere: ")]
    assert "Conv 3x3: it keeps channels and size of the map; Conv 3x3 in groups: with 32 channels it cannot be" in line
    assert "it needs scan of no_package, which is not here (no package no_package is installed; " in line


@pytest.mark.usefixtures("at_once", "untimed")
def test_a_space_is_printed_as_json(space: Path, data: Path) -> None:
    flags = ("--data", data, "--deploy-size", 64, "--trials", 4, "--workers", 2, "--max-gflops", "0.08")
    result = nas("check", "--space", space, *flags, "--format", "json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert (document["cases"], document["failures"]) == (4, [])
    assert [slot["slot"] for slot in document["outlook"]["slots"]] == ["4", "6"]
    assert document["outlook"]["gflops"][0] < document["outlook"]["stock_gflops"] <= document["outlook"]["gflops"][1]
    assert 0 < document["outlook"]["within"] < 1
    assert document["effort"]["hours"] == [2 / 60, 3 / 60]


@pytest.mark.usefixtures("at_once", "untimed")
def test_a_space_is_printed_as_a_table(space: Path, data: Path) -> None:
    result = nas("check", "--space", space, "--data", data, "--deploy-size", 64, "--trials", 4, "--workers", 2)
    assert result.exit_code == 0, result.stderr
    assert "median" in result.stdout
    assert "estimate  about 2.8 min (2 to 3 min): a trial of the stock model takes 60 s" in result.stderr
    assert "on a machine" in result.stderr


@pytest.mark.usefixtures("at_once")
def test_a_training_that_cannot_begin_is_reported_with_the_rest(
    space: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> NoReturn:
        raise EstimateError("a timed training failed: ValueError: Expected more than 1 value")

    monkeypatch.setattr(timing, "_measure", failing)
    result = nas("check", "--space", space, "--data", data, "--device", "cpu", "--format", "json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert (document["failures"], document["effort"]) == ([], None)
    assert document["problem"] == "no estimate: a timed training failed: ValueError: Expected more than 1 value"


WRONG = {
    "nothing to check": ([], "one of --space, --operator and --model is expected"),
    "two things to check": (
        ["--space", "v9", "--model", "x.yaml"],
        "one of --space, --operator and --model is expected",
    ),
    "an unknown model": (["--model", "yolov9c-mqa"], "no such file or model (did you mean 'yolov9c-mmqa'?)"),
    "an unknown space": (["--space", "v99"], "did you mean 'v9'?"),
    "an unknown operator": (["--operator", "UIBB"], "did you mean 'UIB'?"),
    "a missing file": (["--operator", "nope.py:X"], "nope.py: cannot be read"),
    "another name": (["--operator", "MY_OPS:Min"], "my_ops.py has no 'Min' (did you mean 'Mine'?)"),
    "a size": (["--space", "v9", "--image-size", "100"], "image-size: input should be a multiple of 32, got 100"),
    "a negative limit": (["--space", "v9", "--max-gflops", "-1"], "max-gflops: input should be greater than 0"),
    "a limit out of reach": (["--space", "v9", "--max-gflops", "0.1"], "max-gflops: outside what the space can reach"),
    "missing data": (["--space", "v9", "--data", "nope.yaml"], "nope.yaml: no such file"),
    "a GPU that is not there": (["--space", "v9", "--device", "77"], "device: no GPU 77 here"),
}


@pytest.mark.parametrize(("flags", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_input_of_check_is_one_line_and_status_2(
    flags: list[str], message: str, my_ops: Path, data: Path
) -> None:
    flags = [flag.replace("MY_OPS", str(my_ops)) for flag in flags]
    result = nas("check", *flags, *(() if "--data" in flags else ("--data", data)))
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", [*space_names.catalog(), "v9:c"])
def test_a_catalog_space_keeps_every_promise(name: str, data: Path) -> None:
    space, _, scale = name.partition(":")
    flags = ("--scale", scale) if scale else ()
    small = ("--data", data, "--image-size", 64, "--deploy-size", 64, "--batch", 2)
    result = nas("check", "--space", space, *flags, *small, "--format", "json")
    assert json.loads(result.stdout)["failures"] == []
    assert result.exit_code == 0


class TestModel:
    """A file as a whole, and the operators in it."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        """A small model in the YOLOv9 repository's dialect, with attention where no space would offer it."""
        path = tmp_path / "tiny.yaml"
        path.write_text(TINY_V9)
        return path

    def test_good_model_passes_the_check(self, file: Path) -> None:
        result = nas("check", "--model", file, "--no-cache", "--workers", 1, "--format", "json")
        assert result.exit_code == 0, result.stderr
        document = json.loads(result.stdout)
        assert (document["cases"], document["failures"]) == (1, [])
        assert [note.partition(":")[0] for note in document["notes"]] == ["MMQARepNCSPELAN4", "DualDDetect"]
        assert "note: layer 3: a space would not offer MMQA: the attention matrix grows" in result.stderr

    def test_mistakes_of_the_whole_model_are_reported(self, file: Path) -> None:
        file.write_text(TINY_V9.replace("[[-1, 7], 1, Concat", "[[-1, 5], 1, Concat"))
        result = nas("check", "--model", file, "--no-cache", "--workers", 1)
        assert result.exit_code == 2
        assert "head[2]: Concat cannot take 32x16x16 and 32x32x32: " in result.stderr

    def test_auxiliary_half_that_changes_predictions_when_dropped_is_reported(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def wrong(model: nn.Module) -> nn.Module:
            dropped = pgi_drop(model)
            with torch.no_grad():
                dropped.model[-1].cv3[0][-1].bias += 1
            return dropped

        pgi_drop = pgi.drop_auxiliary
        monkeypatch.setattr(pgi, "drop_auxiliary", wrong)
        document = model_reader.model_document(str(file))
        assert [failure.promise for failure in model_contract.check(document)] == ["auxiliary"]
