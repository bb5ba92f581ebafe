import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from nas.settings import Settings
from nas.study.folders import existing, studies, study_folder
from nas.study.study import Study
from nas.study.study_file import StudyFile
from search_spaces.errors import SpecError, StudyError

MakeStudy = Callable[..., Study]


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a b", "/tmp", "a\n"])  # noqa: S108 - a name that is refused
def test_study_name_never_leads_out_of_its_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="make a name"):
        study_folder(name, tmp_path)


def test_a_missing_study_names_the_nearest(make_study: MakeStudy, tmp_path: Path) -> None:
    make_study("v9t-digits")
    with pytest.raises(SpecError) as caught:
        existing("v9t-digit", tmp_path / "runs")
    assert "did you mean 'v9t-digits'?" in str(caught.value)


def test_settings_are_equal_after_write_and_read(make_study: MakeStudy) -> None:
    study = make_study()
    assert StudyFile.read(study.folder) == study.file


def test_differences_name_each_setting_with_both_values(make_study: MakeStudy) -> None:
    one = make_study("one").settings
    two = one.model_copy(update={"budget": one.budget.model_copy(update={"epochs": 9}), "scale": "s"})
    assert one.differences(two) == ["scale: t there, s here", "budget.epochs: 3 there, 9 here"]
    assert one.differences(one) == []


@pytest.mark.parametrize("objectives", [("map50_95", "flops"), ("gflops", "gflops"), ()])
def test_objectives_are_valid_and_different(make_study: MakeStudy, objectives: tuple[str, ...]) -> None:
    fields = make_study().settings.model_dump() | {"objectives": objectives}
    with pytest.raises(ValidationError):
        Settings.model_validate(fields)


def test_studies_are_those_with_a_study_file(make_study: MakeStudy, tmp_path: Path) -> None:
    make_study("one")
    (tmp_path / "runs" / "half").mkdir()
    assert studies(tmp_path / "runs") == ["one"]


def test_partly_created_study_is_no_study(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"study\.json is missing"):
        StudyFile.read(tmp_path)


@pytest.mark.parametrize(
    "changed",
    [
        {"members": ["v8n", "../../elsewhere"]},
        {"confirms": "../elsewhere"},
        {"member_weights": [{"name": "a.pt", "digest": "", "classes": 2, "member": "../x", "path": "a.pt"}]},
    ],
)
def test_names_in_a_study_file_that_become_folders_lead_nowhere_else(
    make_study: MakeStudy, changed: dict[str, Any]
) -> None:
    path = make_study().folder / "study.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**fields, "settings": fields["settings"] | changed}), encoding="utf-8")
    with pytest.raises(StudyError, match=r"study\.json: cannot be read: .*should match pattern"):
        StudyFile.read(path.parent)
