"""Options of a search are declared once; the command line, Python, the help and the document follow."""

import inspect
import json
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import nas
from nas.algorithms.pareto import OBJECTIVES
from nas.algorithms.rewards import Reward
from nas.bench.optimizers import ABLATIONS, MEMBERS, OPTIMIZERS
from nas.cli import app, benching
from nas.settings import Sampler
from nas.study.study import Study
from nas.workflows import presets, search_options
from nas.workflows.deployment_options import DeploymentOptions
from nas.workflows.option import declared, markdown
from nas.workflows.plan import Plan
from nas.workflows.presets import PRESETS
from nas.workflows.request import Request
from nas.workflows.search_options import SearchOptions
from search_spaces.errors import SpecError
from trials.budget import Precision
from trials.data.datasets import DIGITS

OPTIONS = declared(SearchOptions)
PAGE = Path(__file__).parents[2] / "docs" / "options.md"


def found(command: str) -> Any:
    return typer.main.get_command(app).commands[command]  # type: ignore[attr-defined]


def parameters(command: str) -> dict[str, Any]:
    return {one.name: one for one in found(command).params}


def shown(command: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("COLUMNS", "80")
    return CliRunner().invoke(app, [command, "--help"]).stdout.splitlines()


def joined(lines: list[str]) -> str:
    """Return the text of a help, without its frames and line breaks."""
    return " ".join(" ".join(lines).replace("│", " ").split())


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Requests that `nas search` makes, in place of plans."""
    made: list[Request] = []

    def refuse(request: Request, **_: object) -> Plan:
        made.append(request)
        raise SpecError("no plan in this test")

    monkeypatch.setattr(Plan, "of", refuse)
    return made


class TestCommandLine:
    def test_every_option_is_a_flag(self) -> None:
        flags = {spelled for one in parameters("search").values() for spelled in one.opts}
        assert flags == {one.flag for one in OPTIONS.values()} | {"--dry-run", "--yes", "--format"}

    def test_flags_of_search_are_stable(self) -> None:
        assert " ".join(one.flag for one in OPTIONS.values()) == (
            "--space --scale --modules --refine --stock-only --data --holdout --weights --from-scratch --trials "
            "--hours --timeout --trial-timeout --trial-memory --workers --device --workers-per-device --ray "
            "--gpus-per-worker --no-cache --preset --fraction --val-images --epochs --base-epochs --calibrate "
            "--image-size --batch --precision --deterministic --seed --eta --first-rung --seeds --objectives "
            "--deploy-size --latency --reward --target-gflops --target-latency --sampler --max-gflops "
            "--max-params --max-latency --study --storage --system-metrics --runs"
        )

    @pytest.mark.parametrize(("typed", "fraction"), [("2%", 0.02), (".8", 0.8), ("1", 1.0)])
    def test_share_of_images_has_the_range_of_its_option(
        self, typed: str, fraction: float, requests: list[Request]
    ) -> None:
        CliRunner().invoke(app, ["search", "--fraction", typed])
        assert [request.fraction for request in requests] == [fraction]

    def test_search_without_flags_requests_the_defaults(self, requests: list[Request]) -> None:
        CliRunner().invoke(app, ["search"])
        (request,) = requests
        assert request == Request(runs=str(nas.RUNS))

    def test_search_passes_every_value_to_the_request(self, requests: list[Request]) -> None:
        typed = {
            **{name: ("x", "x") for name, one in OPTIONS.items() if one.is_text},
            **{name: (str(n), n) for n, name in enumerate(("workers", "epochs", "base_epochs", "batch", "seed"), 2)},
            **{name: (str(n), n) for n, name in enumerate(("trials", "eta", "first_rung", "seeds"), 10)},
            **dict.fromkeys(("target_gflops", "target_latency", "max_gflops", "max_latency"), ("2.5", 2.5)),
            "gpus_per_worker": ("0.5", 0.5),
            "hours": ("8", 8.0),
            "image_size": ("64", 64),
            "deploy_size": ("96", 96),
            "from_scratch": ("", True),
            "cache": ("", False),
            "system_metrics": ("", True),
            "deterministic": ("", True),
            "workers_per_device": ("2", 2),
            "timeout": ("90s", 90.0),
            "trial_timeout": ("1h", 3600.0),
            "holdout": ("15%", 0.15),
            "fraction": ("0.1", 0.1),
            "val_images": ("500", 500),
            "trial_memory": ("1G", 2**30),
            "max_params": ("2.5M", 2_500_000),
            "preset": ("thorough", "thorough"),
            "precision": ("bf16", "bf16"),
            "reward": ("tunas", "tunas"),
            "sampler": ("tpe", "tpe"),
            "modules": ("my_ops.py, fork", ("my_ops.py", "fork")),
            "objectives": ("map50, params", ("map50", "params")),
        }
        assert typed.keys() == OPTIONS.keys() - {"calibrate", "stock_only"}  # which exclude others
        CliRunner().invoke(
            app, ["search", *(p for name, (t, _) in typed.items() for p in (OPTIONS[name].flag, t) if p)]
        )
        (request,) = requests
        others = {"calibrate": False, "stock_only": False}
        assert vars(request) == {name: value for name, (_, value) in typed.items()} | others

    def test_search_passes_calibrate_to_the_request(self, requests: list[Request]) -> None:
        CliRunner().invoke(app, ["search", "--calibrate"])
        (request,) = requests
        assert request == Request(runs=str(nas.RUNS), calibrate=True)

    @pytest.mark.parametrize("command", ["resume", "check", "confirm"])
    def test_other_commands_share_types_and_readers_of_options(self, command: str) -> None:
        here, of_search = parameters(command), parameters("search")
        shared = here.keys() & {one.argument for one in OPTIONS.values()}
        other = {
            "space",
            "scale",
            "eta",
            "cache",
            "study",
            "runs",
            "seeds",
            "precision",
        }  # they mean something else there
        shared -= other
        assert len(shared) >= 4
        types, types_of_search = (typing.get_type_hints(found(one).callback) for one in (command, "search"))
        for name in shared:
            assert types[name] == types_of_search[name]
            assert here[name].metavar == of_search[name].metavar
            assert here[name].default == of_search[name].default


COMMANDS = {
    ("check",): {"space", "scale", "data", "deploy_size"},
    ("spaces", "show"): {"scale", "classes", "deploy_size"},
    ("spaces", "derive"): {"scale"},
    ("cost",): {"scale", "classes"},
    ("latency", "record"): {"space", "scale", "classes", "deploy_size", "data"},
    ("latency", "show"): {"space", "scale", "classes", "deploy_size", "data"},
    ("latency", "predict"): {"space", "scale", "classes", "deploy_size", "data"},
}


class TestHelp:
    @pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
    def test_options_of_a_model_have_one_description(self, words: tuple[str, ...]) -> None:
        command = typer.main.get_command(app)
        for word in words:
            command = command.commands[word]  # type: ignore[attr-defined]
        described: dict[str, Any] = {one.name: one for one in command.params}
        for name in COMMANDS[words]:
            searched = name == "data" and words == ("check",)
            option = (OPTIONS if searched else declared(DeploymentOptions))[name].option
            text = described[name].help.partition(" \\[default")[0]
            assert text.replace("[b]", "`").replace("[/b]", "`") == option.help
            assert described[name].metavar == option.metavar

    def test_help_has_the_numbers_of_the_presets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def numbers(field: str) -> str:
            return ", ".join(f"{name} {getattr(preset, field)}" for name, preset in PRESETS.items())

        text = joined(shown("search", monkeypatch))
        scratch = ", ".join(str(preset.scratch_epochs) for preset in PRESETS.values())
        assert f"[default: {numbers('epochs')}; from scratch {scratch}; fewer for more than 2400 images]" in text
        assert f"[default: {numbers('base_epochs')}; fewer for more than 2400 images]" in text
        assert f"[default: all, but at most {numbers('most_images')}]" in text
        assert f"[default: {numbers('image_size')}]" in text
        assert ", ".join(PRESETS) == "quick, standard, thorough"
        assert "quick, standard or thorough" in text

    def test_help_of_check_has_the_numbers_of_the_usual_presets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        quick, standard = PRESETS[presets.DEMONSTRATION], PRESETS[presets.USUAL]
        text = joined(shown("check", monkeypatch))
        assert f"[default: {quick.epochs} for digits, else {standard.epochs}]" in text
        assert f"[default: {quick.image_size} for digits, else {standard.image_size}]" in text

    def test_help_names_the_defaults_of_a_request(self, monkeypatch: pytest.MonkeyPatch) -> None:
        text = joined(shown("search", monkeypatch))
        demonstration, usual = (Request(data=data).run("cpu", 1).trials for data in ("digits", "mine.yaml"))
        assert f"[default: {demonstration} for digits, else {usual}]" in text

    @pytest.mark.parametrize("command", ["search", "check", "confirm", "resume"])
    def test_help_fits_in_80_columns(self, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
        lines = shown(command, monkeypatch)
        assert max(map(len, lines)) <= 80

    def test_help_of_search_has_examples(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lines = shown("search", monkeypatch)
        assert any("nas search --data my/data.yaml" in line for line in lines)
        assert any("--base-epochs" in line and len(line[28:].strip(" │")) > 30 for line in lines)


@pytest.mark.parametrize(
    "command", ["", "check", "confirm", "bench", "data", "models", "latency predict", "spaces show"]
)
def test_help_imports_no_slow_modules(command: str) -> None:
    script = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from nas.cli import app\n"
        f"assert CliRunner().invoke(app, [*{command.split()}, '--help']).exit_code == 0\n"
        "assert not {'torch', 'ultralytics', 'mlflow', 'optuna', 'numpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    "command", ["search --space v99", "check --space v99", "spaces v99", "latency error --space v99"]
)
def test_a_space_that_does_not_exist_is_refused_without_pytorch(command: str) -> None:
    script = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from nas.cli import app\n"
        f"result = CliRunner().invoke(app, {command.split()})\n"
        "assert result.exit_code == 2\n"
        "assert 'torch' not in sys.modules\n"
        "print(result.stderr, end='')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == "space: no such space or file, got 'v99' (did you mean 'v9'? or a path)\n"


WRONG_CALLS = {
    "nas.search(space='v99', trials=0)": (
        "trials: input should be at least 1, got 0 (from 1 to 1000000)\n"
        "space: no such space or file, got 'v99' (did you mean 'v9'? or a path)"
    ),
    "nas.search(spaces='v9')": "spaces: nas.search has no such argument, got 'v9' (did you mean 'space'?)",
    "nas.search(runs=None)": "runs: a path is expected, got None",
    "nas.resume('none', device=0, data=3)": "device: input should be a text, got 0\ndata: a path is expected, got 3",
    "nas.resume('none')": "study: no study 'none' in runs/nas (there are none yet; `nas search` makes one)",
    "nas.confirm('none', epochs='2', top=0)": (
        "epochs: input should be a whole number, got '2' (from 1 to 100000)\n"
        "top: input should be at least 1, got 0 (from 1 to 1000)"
    ),
    "nas.ablate('none', trial='7')": (
        "trial: input should be a whole number, got '7' (the number of a trial; nas trials STUDY lists them)"
    ),
    "nas.open_study(7)": "study: its name is expected, got 7 (such as 'v9t-digits'; of an open study: study.name)",
}


def test_wrong_calls_are_refused_without_pytorch(tmp_path: Path) -> None:
    script = (
        "import json, sys, nas\n"
        "from search_spaces.errors import SpecError\n"
        "found = {}\n"
        f"for call in {list(WRONG_CALLS)}:\n"
        "    try:\n"
        "        eval(call)\n"
        "    except SpecError as error:\n"
        "        found[call] = str(error)\n"
        "assert not {'torch', 'optuna'} & set(sys.modules)\n"
        "print(json.dumps(found))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert json.loads(done.stdout) == WRONG_CALLS


class TestPython:
    def test_search_has_every_option_as_a_keyword(self) -> None:
        found = inspect.signature(nas.search).parameters
        assert list(found) == list(OPTIONS)
        for name, parameter in found.items():
            assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
            assert parameter.default == getattr(SearchOptions(), name)

    def test_types_of_python_search_are_the_declared_ones(self) -> None:
        types = typing.get_type_hints(nas.search, localns={"Study": Study})
        assert types == typing.get_type_hints(SearchOptions) | {"return": Study}

    def test_resume_takes_options_of_a_search_with_their_types(self) -> None:
        types = typing.get_type_hints(nas.resume, localns={"Study": Study})
        declared_types = typing.get_type_hints(SearchOptions)
        assert {name: declared_types[name] for name in types if name not in {"study", "trust", "return"}} == {
            name: kind for name, kind in types.items() if name not in {"study", "trust", "return"}
        }
        typed = set(parameters("resume"))
        assert types.keys() - {"return"} == typed - {"shown"}  # the format of what the command prints

    def test_docstring_of_search_describes_every_option(self) -> None:
        lines = (nas.search.__doc__ or "").splitlines()
        for name in OPTIONS:
            assert any(line.startswith(f"    {name}: ") and len(line) > 30 for line in lines)

    def test_a_request_has_the_declared_fields_and_no_others(self) -> None:
        assert list(vars(Request())) == list(OPTIONS)

    def test_presets_are_the_allowed_names(self) -> None:
        assert OPTIONS["preset"].choices == tuple(PRESETS)

    def test_samplers_are_those_of_the_settings_and_can_be_replayed(self) -> None:
        samplers = OPTIONS["sampler"].choices
        assert samplers == tuple(Sampler)
        assert set(samplers) == OPTIMIZERS.keys() - ABLATIONS.keys() - MEMBERS.keys()
        assert set(benching.SAMPLERS.split(",")) <= OPTIMIZERS.keys()

    def test_rewards_are_those_of_the_formulas(self) -> None:
        assert OPTIONS["reward"].choices == tuple(Reward)
        assert f"{', '.join(Reward).replace(', linear', ' or linear')}." in OPTIONS["reward"].option.help

    def test_precisions_are_those_of_a_budget(self) -> None:
        assert OPTIONS["precision"].choices == typing.get_args(Precision)

    def test_objectives_in_the_help_are_all_and_the_default_is_among_them(self) -> None:
        names = ", ".join(OBJECTIVES).replace(", latency_ms", " and latency_ms")
        assert f"out of {names}." in OPTIONS["objectives"].option.help
        assert set(OPTIONS["objectives"].default) <= OBJECTIVES.keys()

    def test_demonstration_data_is_the_built_in_data_set(self) -> None:
        assert search_options.DEMONSTRATION_DATA == DIGITS

    def test_classes_are_exported_and_imported_late(self) -> None:
        script = (
            "import sys, nas\n"
            "from nas.workflows import search_options\n"
            "assert not {'torch', 'optuna', 'mlflow', 'typer', 'pydantic'} & set(sys.modules)\n"
            "assert all(hasattr(nas, name) for name in nas.__all__)\n"
            "assert nas.Study.__name__ == 'Study' and 'torch' in sys.modules\n"
            "assert not hasattr(nas, 'Nonsense')\n"
        )
        subprocess.run([sys.executable, "-c", script], check=True)


def _wrong_calls() -> None:
    """Never called: mypy reports each comment below as unused if the line is not the error that it names."""
    nas.search(trials="3")  # type: ignore[arg-type]
    nas.search(imgsz=64)  # type: ignore[call-arg]
    nas.search("v9")  # type: ignore[call-arg]
    nas.search(sampler="other")  # type: ignore[arg-type]
    nas.resume("study", epochs=3)  # type: ignore[call-arg]
    found: int = nas.search(space=Path("mine.yaml"), runs="here", objectives=["map50"])  # type: ignore[assignment]
    assert found


@pytest.mark.skipif(not PAGE.is_file(), reason="the documents are not part of the wheel")
def test_options_page_equals_the_declaration() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page[page.index("## ") :] == markdown(SearchOptions).rstrip("\n") + "\n"
