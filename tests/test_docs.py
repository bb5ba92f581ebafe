"""Check that what the documents print works as printed."""

import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest
import torch
import yaml
from pydantic import BaseModel

import nas
from nas.algorithms.successive_halving import Stopping
from nas.records import trial_attributes
from nas.records.record import Record
from nas.settings import Judging, Pretrained, RunSettings, SealedImages, Settings
from nas.study import ablations, confirmation
from nas.study.folders import HOLDOUT
from nas.study.score_cache import _JUDGED_SUFFIX, CachedTraining
from nas.study.study_file import Identity, StudyFile
from nas.study.trained_again import calibration_of
from nas.workflows.calibrate import LONGER
from search_spaces import OPERATORS, auxiliary, build, foreign_files, model_reader, yaml_text
from search_spaces.operators import modules
from search_spaces.space_file import load, parse
from trials.accuracy.judged import _KINDS, JUDGED
from trials.budget import Budget, Limits, Recipe
from trials.contracts import cases, operator_contract
from trials.costing import cost
from trials.data.holdout import Holdout
from trials.devices import DeviceProfile
from trials.latency import timings
from trials.provenance import Provenance
from trials.scores import Costs, Ending, Epoch

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="the documents are not part of the wheel")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_ops.py").write_text(blocks("docs/operators.md", "python")[0], encoding="utf-8")
    (tmp_path / "faster.yaml").write_text(blocks("docs/operators.md", "yaml")[0], encoding="utf-8")
    return tmp_path


def test_operator_of_the_tutorial_is_searched(folder: Path) -> None:
    space = load(folder / "faster.yaml")
    assert {name for slot in space.slots for name in slot.operators} == {"stock", "FasterBlock", "UIB"}
    choices = {slot.name: slot.of("FasterBlock")[0] for slot in space.slots}
    model = build.model(space.of(choices).document(3), 3)
    model.train()(torch.rand(2, 3, 64, 64))


def test_operator_of_the_tutorial_keeps_every_promise(folder: Path) -> None:
    (record,) = modules.load(folder / "my_ops.py")
    found = cases.of_operator(record)
    assert len(found) > 3
    assert [failure for case in found for failure in operator_contract.check(case)] == []


def test_space_files_in_the_documentation_are_valid() -> None:
    whole, heading = blocks("README.md", "yaml")[0], "name: x\nbase: yolo11{scale}.yaml\nscale: n\n"
    assert parse(yaml_text.parse_yaml(whole)).slots
    first, further = [block for block in blocks("docs/spaces.md", "yaml") if "choices:" in block]
    assert parse(yaml_text.parse_yaml(first)).slots
    space = parse(yaml_text.parse_yaml(heading + further.replace("modules: [my_ops.py]", "modules: []")))
    assert len(space.scaling_factors) == 4
    assert [slot.name for slot in space.slots] == ["2", "after-9"]


def test_every_operator_and_parameter_is_documented() -> None:
    page = (ROOT / "docs/spaces.md").read_text(encoding="utf-8")
    for record in OPERATORS.values():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{record.name}` |")]
        assert all(f"`{parameter.name}`" in row for parameter in record.parameters)


def test_parameters_of_the_auxiliary_branch_are_documented() -> None:
    page = (ROOT / "docs/published.md").read_text(encoding="utf-8")
    for scale in "tsmce":
        document = auxiliary.with_branch(model_reader.model_document(f"yolov9{scale}.yaml"))
        original = {**document, "head": [*document["head"][:-1], [*document["head"][-1][:2], "DualDDetect", ["nc"]]]}
        for built in (document, original):
            params = sum(parameter.numel() for parameter in build.skeleton(built, 80).parameters())
            assert f"{params:,}" in page


def test_figures_of_the_article_in_the_documentation_are_counted() -> None:
    page = (ROOT / "docs/published.md").read_text(encoding="utf-8")
    (built,) = re.findall(r"\| right operators, as built \| ([\d,]+) \| ([\d.]+) \|", page)
    (deployed,) = re.findall(r"\| right operators, deployed \| ([\d,]+) \| ([\d.]+) \|", page)
    document = model_reader.model_document("yolov9c-mmqa")
    for stated, counted in (
        (built, cost.measure(auxiliary.with_branch(document), 1, 640, deployed=False)),
        (deployed, cost.measure(document, 1, 640)),
    ):
        assert stated == (f"{counted.params:,}", f"{counted.gflops:.1f}")


def test_foreign_modules_are_documented() -> None:
    page = (ROOT / "docs/published.md").read_text(encoding="utf-8")
    read = {
        name
        for row in re.findall(r"^\| `(.+?)\|", page, re.MULTILINE)
        for name in re.findall(r"(?:nn\.)?[A-Z]\w+", row)
    }
    assert read >= set(foreign_files.FOREIGN_MODULES) - {"Silence"}


PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").rglob("*.md"))),
)


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), link
        assert not anchor or target.suffix != ".md" or anchor in anchors(target), link


def test_readme_links_every_page() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = [page for page in PAGES if page != "README.md" and not page.startswith("docs/tasks/")]
    assert [page for page in pages if f"({page})" not in text] == []
    home = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    tasks = [page.removeprefix("docs/") for page in PAGES if page.startswith("docs/tasks/")]
    assert [page for page in tasks if f"({page})" not in home] == []


@pytest.mark.parametrize("package", ["nas", "trials"])
def test_drawing_of_rooms_has_the_order_of_the_layers_contract(package: str, project: dict[str, Any]) -> None:
    (drawing,) = [block for block in blocks("docs/architecture.md", "text") if block.startswith(f"{package}/\n")]
    (layers,) = [
        contract["layers"]
        for contract in project["tool"]["importlinter"]["contracts"]
        if contract.get("containers") == [package]
    ]
    rooms = [[name for name in re.split(r"[ |]+", layer) if (ROOT / package / name).is_dir()] for layer in layers]
    places = [[drawing.index(f"  {name}/") for name in layer] for layer in rooms if layer]
    assert all(max(above) < min(below) for above, below in pairwise(places))
    assert len(re.findall(r"^  \w+/", drawing, re.MULTILINE)) == sum(map(len, rooms))


def test_drawing_of_search_spaces_has_every_module() -> None:
    (drawing,) = [block for block in blocks("docs/architecture.md", "text") if block.startswith("search_spaces/\n")]
    names = {path.name for path in (ROOT / "search_spaces").glob("*.py")} - {"__init__.py"}
    assert set(re.findall(r"\w+\.py", drawing)) == names


@pytest.fixture(scope="module")
def stored_names() -> set[str]:
    """The names in backquotes of the section on stored names."""
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    section = page.partition("## Names that stored data rely on")[2].partition("\n## ")[0]
    return set(re.findall(r"`([^`]+)`", section))


@pytest.mark.parametrize(
    "stored",
    [
        StudyFile,
        Identity,
        Settings,
        SealedImages,
        Judging,
        Pretrained,
        Holdout,
        RunSettings,
        Stopping,
        Limits,
        Budget,
        Recipe,
    ],
    ids=lambda each: each.__name__,
)
def test_keys_of_study_json_are_listed(stored: type[BaseModel], stored_names: set[str]) -> None:
    assert {name for name, field in stored.model_fields.items() if not field.exclude} <= stored_names


@pytest.mark.parametrize(
    "stored",
    [Record, Costs, Epoch, Provenance, CachedTraining, DeviceProfile],
    ids=lambda each: each.__name__,
)
def test_keys_of_records_epochs_and_tables_are_listed(stored: type[Any], stored_names: set[str]) -> None:
    assert {field.name for field in fields(stored)} <= stored_names


def test_names_of_studies_beside_a_search_are_listed(stored_names: set[str]) -> None:
    names = [confirmation.name_of(""), ablations.name_of("", 7), calibration_of(""), f"{calibration_of('')}-x{LONGER}"]
    assert {re.sub(r"\d+$", "<trial>", name) if "ablate" in name else name for name in names} <= stored_names
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    for name, seed in (("-confirm", confirmation.FIRST_SEED), ("-ablate-<trial>", ablations.FIRST_SEED)):
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        assert row.endswith(f"| that of the search + {seed} |")


def test_files_of_a_holdout_and_of_judged_trainings_are_listed(stored_names: set[str]) -> None:
    assert {HOLDOUT, JUDGED, _JUDGED_SUFFIX, *_KINDS} <= stored_names


def test_columns_of_latency_tables_are_listed(stored_names: set[str]) -> None:
    assert set(timings.COLUMNS) <= stored_names


def test_user_attributes_and_endings_are_listed(stored_names: set[str]) -> None:
    attributes = {value for name, value in vars(trial_attributes).items() if name.isupper()}
    assert {name if name != trial_attributes.RUNG else "rung:<epoch>" for name in attributes} <= stored_names
    assert {ending.value for ending in Ending} <= stored_names


def test_tags_in_mlflow_are_listed(stored_names: set[str]) -> None:
    sources = [*(ROOT / "nas/tracking").glob("*.py"), ROOT / "nas/workflows/training_log.py"]
    found = {tag for path in sources for tag in re.findall(r'"(nas\.[a-z_]+)"', path.read_text(encoding="utf-8"))}
    loggers = {"nas.execution", "nas.worker"}
    assert found
    assert found - loggers <= stored_names


@pytest.mark.parametrize(
    "name",
    [
        "trials.weights.rebuilt",
        "search_spaces.operators.record.Source",
        "search_spaces.operators.modules._blank",
        *(f"{record.module.__module__}.{record.module.__qualname__}" for record in OPERATORS.values()),
        *(f"search_spaces.pgi.{name}" for name in ("PGIModel", "DualDetect", "AuxiliaryLayer")),
    ],
)
def test_paths_in_stored_files_lead_to_functions_and_classes(name: str) -> None:
    assert callable(pkgutil.resolve_name(name))


def test_citation_has_the_version_and_licence_of_the_package(project: dict[str, Any]) -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["version"] == nas.__version__
    assert citation["license"] == project["project"]["license"]


def test_hooks_of_pre_commit_are_the_tools_of_make_lint() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    hooks = {hook["entry"].removesuffix(" --force-exclude") for hook in repository["hooks"]}
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nlint:")[2].partition("\n\n")[0]
    assert hooks == {line.removesuffix(" --check") for line in re.findall(r"\t\$\(BIN\)/(.+)", recipe)}


def test_requirements_have_lowest_versions(project: dict[str, Any]) -> None:
    stubs = {"types-PyYAML"}
    extras = project["project"]["optional-dependencies"]
    requirements = project["project"]["dependencies"] + extras["dev"]
    assert {requirement for requirement in requirements if ">=" not in requirement} == stubs
    assert set(extras["docs"]) <= set(extras["dev"])


def test_tests_of_the_threats_exist() -> None:
    named = set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs" / "security.md").read_text(encoding="utf-8")))
    assert len(named) > 30
    texts = {file: (ROOT / file).read_text(encoding="utf-8") for file, _ in named}
    assert not [f"{file}::{name}" for file, name in named if f"def {name}(" not in texts[file]]
    rows = [
        line
        for line in (ROOT / "docs" / "security.md").read_text(encoding="utf-8").splitlines()
        if "| threat |" in line
    ]
    assert len(rows) == 6


def test_every_threat_has_a_test() -> None:
    sections = (
        (ROOT / "docs" / "security.md").read_text(encoding="utf-8").split("| threat | what stops it | test |\n")[1:]
    )
    threats = [line for section in sections for line in section.partition("\n\n")[0].splitlines()[1:]]
    assert threats
    assert not [line for line in threats if "`tests/" not in line.rpartition(" | ")[2]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="pip install 'nas-for-yolo[docs]'")
    built = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(built)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return built


def test_site_has_every_page(site: Path) -> None:
    pages = [page.removeprefix("docs/").removesuffix(".md") for page in PAGES if page != "README.md"]
    assert [page for page in pages if not (site / f"{page}.html").is_file()] == []


def test_site_loads_nothing_from_a_network(site: Path) -> None:
    loaded = r"""<(?:script|img|iframe|link(?![^>]*rel="?(?:canonical|next|prev)))[^>]*(?:src|href)="?(?:https?:)?//"""
    for page in [*site.rglob("*.html"), *site.rglob("*.svg")]:
        text = page.read_text(encoding="utf-8")
        assert re.findall(loaded, text) == [], page
        assert "@font-face" not in text, page
    for style in site.rglob("*.css"):
        assert re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")) == [], style


def test_pictures_are_small_and_drawn_by_a_script() -> None:
    figures = ROOT / "docs" / "figures"
    pictures = [path for path in figures.iterdir() if path.suffix in {".svg", ".png"}]
    assert sum(path.stat().st_size for path in pictures) < 2_000_000
    script = "".join(path.read_text(encoding="utf-8") for path in figures.glob("*.py"))
    stems = {re.sub(r"-(light|dark|linear|mnasnet|mnasnet-hard|tunas)$", "", path.stem) for path in pictures}
    assert [stem for stem in stems if f'"{stem}' not in script] == []


def test_script_that_forwards_to_tensorboard_writes_every_point(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[object, ...]] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            self.folder = folder

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def add_scalar(self, *point: object) -> None:
            written.append((self.folder, *point))

    class Client:
        def __init__(self, uri: str) -> None:
            assert uri == "sqlite:///runs/nas/mlflow.db"

        def get_experiment_by_name(self, name: str) -> SimpleNamespace:
            return SimpleNamespace(experiment_id=name)

        def search_runs(self, experiments: list[str], query: str) -> list[SimpleNamespace]:
            assert (experiments, query) == (["nas/v9"], "tags.`nas.study` = 'v9t-digits'")
            run = SimpleNamespace(run_id="r", run_name="trial-0000")
            return [SimpleNamespace(info=run, data=SimpleNamespace(metrics={"map50_95": 0.4}))]

        def get_metric_history(self, run: str, _metric: str) -> list[SimpleNamespace]:
            return [SimpleNamespace(value=0.4, step=3, timestamp=5000)] if run == "r" else []

    page = (ROOT / "docs/mlflow.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"<!-- forward -->\n```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(MlflowClient=Client))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    exec(script, {})  # noqa: S102 - of our own page
    assert written == [("runs/tensorboard/trial-0000", "map50_95", 0.4, 3, 5.0)]
