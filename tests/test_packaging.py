import subprocess
import sys
from importlib.metadata import packages_distributions
from importlib.resources import files

import pytest

DISTRIBUTION = "nas-for-yolo"


@pytest.mark.parametrize("package", ["nas", "search_spaces", "trials"])
def test_packages_belong_to_no_other_distribution(package: str) -> None:
    # The default is for editable installs, which list no packages.
    assert set(packages_distributions().get(package, [DISTRIBUTION])) == {DISTRIBUTION}


def test_only_one_thop_is_installed() -> None:
    assert packages_distributions()["thop"] == ["ultralytics-thop"]


def test_package_contains_the_catalog() -> None:
    folder = files("search_spaces") / "catalog"
    assert {"v5.yaml", "v8.yaml", "v9.yaml"} <= {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("package", ["nas", "search_spaces", "trials"])
def test_package_contains_its_types(package: str) -> None:
    assert (files(package) / "py.typed").is_file()


def test_help_starts_without_heavy_imports() -> None:
    script = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from nas.cli import app\n"
        "commands = ',search,resume,status,pareto,trials,effects,export,ui,spaces,cost,clean,doctor'.split(',')\n"
        "commands += ['latency', 'latency record', 'latency error']\n"
        "for command in commands:\n"
        "    assert CliRunner().invoke(app, [*command.split(), '--help']).exit_code == 0, command\n"
        "heavy = {'torch', 'ultralytics', 'mlflow', 'optuna', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_importing_nas_is_light() -> None:
    script = "import sys, nas; assert not {'torch', 'optuna', 'mlflow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
