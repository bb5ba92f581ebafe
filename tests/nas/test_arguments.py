"""Wrong values on the command line or in `nas.search`: one line each, status 2, nothing written."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, get_args, get_type_hints

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner, Result

import nas
from nas import ranges, spelling
from nas.cli import app, arguments
from nas.workflows.option import declared
from nas.workflows.request import Request
from nas.workflows.search_options import SearchOptions
from search_spaces.errors import SpecError

LONG = "9" * 400
TEXTS = ("", " ", LONG, "x" * 300, "a\nb", "\udcff")
NUMBERS = ("", "x", LONG, f"-{LONG}", f"{LONG}.5", "1e400", "nan", "inf", "-inf", "9" * 5000, "0x10", "1 2")
SMALL = {  # by what a number counts, besides those
    "trial": ("-1", "4294967296"),
    "gpus_per_worker": ("-1", "1.5"),
    "seed": ("-1", "4294967296", "1.5"),
    "image_size": ("0", "-32", "100", "31", "1000000"),
    "deploy_size": ("0", "-32", "100", "31", "1000000"),
    "base_epochs": ("-1", "4294967296"),
    "noise": ("-0.1",),
    "eta": ("0", "1", "-1"),
    "trial_memory": ("0", "1", "-8G", "9999999T"),
    "timeout": ("0", "-5", "0s", "90000h", "1d"),
    "trial_timeout": ("0", "-5", "0h"),
    "max_params": ("0", "-1", "0.0M"),
}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command with the words that one types for it."""
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, (*path, name))
        elif name != "yolo":  # Ultralytics' own
            yield (*path, name), command


def wrong_values() -> dict[tuple[tuple[str, ...], str], tuple[str, ...]]:
    """Return wrong values for each option of each command."""
    found = {}
    for path, command in commands(typer.main.get_command(app)):
        types = get_type_hints(command.callback)
        for option in command.params:
            if option.param_type_name != "option" or option.is_flag:
                continue
            numeric = (set(get_args(types[option.name])) or {types[option.name]}) & {int, float}
            small = SMALL.get(option.name, ("0", "-1") if numeric and option.name in ranges.RANGES else ())
            found[path, option.opts[0]] = (*(NUMBERS if numeric else TEXTS), *small)
    return found


ALL = wrong_values()
OPTIONS = declared(SearchOptions)


@pytest.mark.parametrize(("path", "option"), ALL, ids=[" ".join((*path, option)) for path, option in ALL])
def test_wrong_value_of_any_option_of_any_command_is_one_line(
    path: tuple[str, ...], option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with_units = option.strip("-").replace("-", "_") in arguments.UNITS
    values = ALL[path, option]
    together = [[value] for value in values] if with_units else [list(values)]  # each of them is answered
    for several in together:
        for typed in ([part for value in several for part in (option, value)], [f"{option}={v}" for v in several]):
            result = run(*path, *typed)
            assert result.exit_code == 2, (typed, result.output)
            assert isinstance(result.exception, SystemExit), (typed, result.exception)
            lines = result.stderr.splitlines()
            assert len(lines) == len(several), (lines, several)
            assert all(line.startswith(f"{option.strip('-')}: ") and len(line) < 250 for line in lines), lines
            assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_all_commands_are_tested() -> None:
    assert {" ".join(path) for path, _ in ALL} >= {"search", "resume", "confirm", "cost", "bench", "latency record"}


@pytest.mark.parametrize("typed", ["", " ", "x" * 300, "\udcff"])
def test_an_impossible_study_name_is_one_line(typed: str) -> None:
    result = run("pareto", typed)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)


def test_all_mistakes_of_a_command_line_are_reported_at_once() -> None:
    typed = "search --seed 4294967296 --image-size 0 --epochs 0 --max-gflops nan data=coco.yaml --imgsz 64"
    assert run(*typed.split()).stderr.splitlines() == [
        "seed: input should be at most 2147483647, got 4294967296 (from 0 to 2147483647)",
        "image-size: input should be at least 32, got 0 (from 32 to 8192 px, in steps of 32)",
        "epochs: input should be at least 1, got 0 (from 1 to 100000)",
        "max-gflops: input should be a finite number, got nan (above 0 to 1e+09)",
        "'data=coco.yaml': options of nas begin with two dashes (did you mean --data coco.yaml?)",
        "--imgsz: nas search has no such option (did you mean --image-size 64?)",
    ]


OTHER_WORDS = {
    "search data=coco.yaml": "--data coco.yaml",
    "search imgsz=64": "--image-size 64",
    "search model=yolov8n.pt": "--space v8 --scale n --weights yolov8n.pt",
    "search model=yolo11s.yaml": "--space v11 --scale s)",
    "search model=mine.yaml": "nas spaces derive mine.yaml",
    "search epochs=3": "--epochs 3",
    "search batch=4": "--batch 4",
    "search device=0": "--device 0",
    "search project=runs": "--runs runs",
    "search name=mine": "--study mine",
    "search pretrained=a.pt": "--weights a.pt",
    "search nonsense=1": "nas search --help",
    "search --imgsz 64": "--image-size 64",
    "search --img-size 64": "--image-size 64",
    "search --img 64": "--image-size 64",
    "search --batch-size 4": "--batch 4",
    "search --gpu 0": "--device 0",
    "search --gpu=0": "--device 0",
    "search --model yolov8n.yaml": "--space v8 --scale n)",
    "search --epoch 3": "--epochs 3",
    "search --trails 3": "--trials 3",
    "search -imgsz 64": "--image-size 64",
    "search --from_scratch": "--from-scratch",
    "cost model=yolov8n.yaml": "nas cost yolov8n.yaml",
    "cost yolov8n.yaml imgsz=640": "--image-size 640",
    "check model=my.yaml": "--model my.yaml",
    "check data=my.yaml": "--data my.yaml",
    "pareto study=mine": "nas pareto mine",
    "status name=mine": "nas status mine",
    "spaces v9 imgsz=64": "--deploy-size 64",
    "latency record imgsz=64": "--deploy-size 64",
    "resume mine --gpu 0": "--device 0",
    "train data=coco8.yaml": "nas yolo train",
    "data=coco8.yaml": "nas search --data",
}


@pytest.mark.parametrize(("typed", "meant"), OTHER_WORDS.items(), ids=OTHER_WORDS.keys())
def test_options_of_other_tools_suggest_those_of_nas(typed: str, meant: str) -> None:
    result = run(*typed.split())
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert meant in line


def test_every_alias_names_an_existing_option() -> None:
    there = {
        option.opts[0].strip("-").replace("-", "_")
        for _, command in commands(typer.main.get_command(app))
        for option in command.params
    }
    assert {ours for several in spelling.ALIASES.values() for ours in several} <= there


class TestEarlyChecks:
    """`--dry-run` refuses what the search would break at."""

    @pytest.fixture
    def p6(self, tmp_path: Path) -> Path:
        """A space of a model whose smallest map is 64 times smaller than the image."""
        path = tmp_path / "p6.yaml"
        text = "name: p6\nbase: yolov8{scale}-p6.yaml\nscale: n\nslots: [{at: {layers: [2]}, choices: {UIB: {}}}]\n"
        path.write_text(text)
        return path

    def test_image_size_must_be_a_multiple_of_the_stride(self, p6: Path, tmp_path: Path) -> None:
        result = run("search", "--space", str(p6), "--image-size", "96", "--dry-run", "--runs", str(tmp_path / "runs"))
        assert result.exit_code == 2
        assert result.stderr.splitlines() == [
            "image-size: input should be a multiple of 64, the stride of yolov8{scale}-p6.yaml, got 96 (64 or 128)"
        ]

    def test_runs_folder_must_be_creatable(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for runs in (tmp_path / "file", tmp_path / "file" / "runs"):
            result = run("search", "--dry-run", "--runs", str(runs))
            assert result.exit_code == 2
            assert result.stderr == f"{runs}: cannot be written to ({tmp_path / 'file'}); choose another --runs\n"

    def test_first_rung_must_be_before_the_last_epoch(self, tmp_path: Path) -> None:
        result = run("search", "--dry-run", "--eta", "3", "--first-rung", "3", "--runs", str(tmp_path))
        assert result.exit_code == 2
        assert result.stderr == (
            "first-rung: input should be less than the epochs of a trial, got 3 (a trial has 3 epochs)\n"
        )


class TestPythonArguments:
    """`nas.search`: the same answers, under the names of its arguments."""

    WRONG: ClassVar[dict[str, tuple[Any, ...]]] = {
        **{
            name: (0, -1, 10**400, 10**5000, float("nan"), float("inf"), "3", True, 1.5, [])
            for name, allowed in ranges.RANGES.items()
            if name in Request.__dataclass_fields__ and allowed.whole and allowed.least > 0
        },
        "seed": (-1, 2**32, 10**400, float("nan"), "0"),
        "base_epochs": (-1, 10**400, True),
        "image_size": (0, -32, 31, 100, 10**6, 64.0),
        "timeout": (0, -1.0, float("nan"), float("inf"), 10**400, "8h"),
        "max_gflops": (0, 0.0, -1.0, float("nan"), float("inf"), "7"),
        "target_latency": (0.0, float("nan")),
        **{name: ("", " ", "x" * 300, "a\0b", 3, "\udcff") for name, one in OPTIONS.items() if one.kinds >= {str}},
        **{name: ("no", 0, 1, []) for name, one in OPTIONS.items() if one.is_switch},
        "objectives": ((), "map50_95"),
    }

    @pytest.mark.parametrize("name", WRONG)
    def test_wrong_python_arguments_are_refused_with_name_and_value(self, name: str) -> None:
        for value in self.WRONG[name]:
            with pytest.raises(SpecError) as error:
                nas.search(**{name: value})
            (line,) = error.value.mistakes
            assert line.startswith(f"{name.replace('_', '-')}: ")
            assert "input should " in line or "a path is expected" in line
            assert "got " in line

    def test_unknown_argument_suggests_the_most_similar_one(self) -> None:
        with pytest.raises(SpecError) as error:
            nas.search(**dict[str, Any](imgsz=64, trails=3, model="yolov8n.yaml", nonsense=1))
        assert error.value.mistakes == (
            "imgsz: nas.search has no such argument, got 64 (did you mean 'image_size'?)",
            "trails: nas.search has no such argument, got 3 (did you mean 'trials'?)",
            "model: nas.search has no such argument, got 'yolov8n.yaml' (did you mean 'space'?)",
            "nonsense: nas.search has no such argument, got 1 (help(nas.search) lists them)",
        )

    def test_defaults_of_a_request_are_allowed_values(self) -> None:
        Request()
