"""A study from elsewhere with links: nothing is written to what they lead to."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nas.cli import app
from nas.study.links import links_out, require_writable_within
from nas.study.study import Study
from nas.workflows import running
from nas.workflows.fsck_repair import _repair
from search_spaces.errors import StudyError

MakeStudy = Callable[..., Study]

LINKS: Mapping[str, str] = {
    "trials": "folder",
    "trials/0001": "folder",
    "trials/0001/progress.jsonl": "file",
    "trials/0001/ultralytics/weights/last.pt": "file",
    "base": "folder",
    "workers/0.log": "missing",
    "export": "folder",
}


@pytest.fixture(params=LINKS)
def linked(make_study: MakeStudy, tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Study, Path]:
    """A study with a link out of it, and that link."""
    study, outside = make_study(), tmp_path / "outside"
    (outside / "folder" / "nested").mkdir(parents=True)
    (outside / "file").write_text("a user's file", encoding="utf-8")
    link = study.folder / request.param
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside / LINKS[request.param])
    return study, link


def repaired(study: Study) -> None:
    _repair(study.folder, lambda _: None)


def test_study_with_a_link_out_of_it_is_not_written_to(linked: tuple[Study, Path]) -> None:
    study, link = linked
    outside = link.readlink().parent
    before = sorted(outside.rglob("*"))
    line = f"^{link}: a link out of the study, to {link.readlink()}, which a search would write to .*$"
    writing: tuple[Callable[[Study], object], ...] = (running.supervise, repaired)
    for write in writing:
        with pytest.raises(StudyError, match=line):
            write(study)
    result = CliRunner().invoke(app, ["resume", study.name, "--runs", str(study.folder.parent)])
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith(f"{link}: a link out of the study, ")
    assert sorted(outside.rglob("*")) == before
    assert (outside / "file").read_text(encoding="utf-8") == "a user's file"


def test_links_within_a_study_and_to_it_are_no_links_out(make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study()
    (study.folder / "trials" / "0001").mkdir(parents=True)
    (study.folder / "trials" / "0002").symlink_to("0001")
    (study.folder / "export").mkdir()
    (study.folder / "export" / "images").symlink_to(tmp_path)
    (tmp_path / "linked").symlink_to(study.folder)
    assert list(links_out(study.folder)) == list(links_out(tmp_path / "linked")) == []
    (study.folder / "base").symlink_to(study.folder.with_name(f"{study.name}-confirm"))
    (study.folder / "loop").symlink_to("loop")
    assert list(links_out(study.folder)) == [study.folder / "base"]


@pytest.mark.parametrize(
    "link", ["export", "export/trial-0001", "export/trial-0001/model.yaml", "export/trial-0001/a/b"]
)
def test_export_does_not_write_through_a_link_out_of_the_study(
    make_study: MakeStudy, tmp_path: Path, link: str
) -> None:
    study, outside = make_study(), tmp_path / "outside"
    outside.mkdir()
    path = study.folder / link
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(outside)
    with pytest.raises(StudyError, match=f"^{path}: a link out of the study, to {outside}, which would be written to "):
        require_writable_within(study.folder, study.folder / "export" / "trial-0001")
    (tmp_path / "linked").symlink_to(study.folder)
    require_writable_within(tmp_path / "linked", tmp_path / "linked" / "full" / "trial-0001")
