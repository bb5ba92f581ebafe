"""Checks of `nas yolo` before Ultralytics reads files, and what it keeps Ultralytics from doing."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics.data.build import check_source
from ultralytics.nn import tasks
from ultralytics.utils import LOGGER, ROOT, YAML

from search_spaces.errors import DataError, EnvironmentProblem, SpecError
from search_spaces.operators import Source
from search_spaces.operators import modules as user_modules
from search_spaces.stored_model import StoredModel
from trials.training import yolo_inputs

pytestmark = pytest.mark.usefixtures("no_module_is_trusted")

MODEL = """
nc: 2
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
head:
  - [[1], 1, Detect, [nc]]
"""
DATA = """
path: nowhere
train: images
val: images
names: [a]
download: |
  open("ran.txt", "w").close()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.yaml").write_text(MODEL, encoding="utf-8")
    (tmp_path / "data.yaml").write_text(DATA, encoding="utf-8")
    return tmp_path


class TestModelAndDataFiles:
    def test_model_and_data_files_without_mistakes_are_accepted(self, folder: Path) -> None:
        pose = MODEL.replace("Detect, [nc]", "Pose, [nc, [17, 3]]")
        (folder / "pose.yaml").write_text(pose, encoding="utf-8")
        yolo_inputs.require_valid(["yolo", "train", "model=model.yaml", "data=coco8.yaml", "epochs=1"])
        yolo_inputs.require_valid(["pose", "train", "model=pose.yaml", "model=yolov8n.yaml", "model=yolo11n.pt"])

    @pytest.mark.parametrize(
        ("before", "after", "message"),
        [
            ("[[1], 1, Detect", "[1, 1, Detect", "head[0]: Detect reads a list of layers, got 1 ([1])"),
            ("Conv, [32, 3, 2]", "Conv, [32, 3, 2, 1, 7]", "backbone[1]: Conv cannot be built of [32, 3, 2, 1, 7]: "),
            ("Conv, [32", "nn.Conv2d, [3", "backbone[1]: nn.Conv2d cannot take 16x128x128: "),
            ("Conv, [32", "check_requirements, [32", "backbone[1]: check_requirements is no layer"),
            ("head:", "body:", "not a model YAML"),
        ],
    )
    def test_a_model_that_cannot_be_built_is_refused(self, before: str, after: str, message: str, folder: Path) -> None:
        (folder / "model.yaml").write_text(MODEL.replace(before, after), encoding="utf-8")
        with pytest.raises(SpecError) as caught:
            yolo_inputs.require_valid(["yolo", "train", "model=model.yaml"])
        (mistake,) = caught.value.mistakes
        assert mistake.startswith(f"model.yaml: {message}")

    def test_download_of_a_data_file_is_not_executed(self, folder: Path) -> None:
        with pytest.raises(DataError, match=r"data.yaml: path: no such folder: .*`download` is not followed"):
            yolo_inputs.require_valid(["yolo", "train", "data=data.yaml"])
        assert not (folder / "ran.txt").exists()

    @pytest.mark.parametrize("value", ["$(touch ran-code.txt)", "mine", "mine.pt", "7"])
    def test_initial_weights_that_are_nowhere_are_refused(self, value: str) -> None:
        """Ultralytics would look for them in the network."""
        with pytest.raises(DataError, match="no such file, and no checkpoint that Ultralytics publishes"):
            yolo_inputs.require_valid(["yolo", "train", f"pretrained={value}"])
        for right in ("True", "false", "None", "yolo26n.pt"):
            yolo_inputs.require_valid(["yolo", "train", f"pretrained={right}"])

    @pytest.mark.parametrize("argument", ["model=0.5", "distill_model=-1e3"])
    def test_a_number_in_the_place_of_a_model_is_refused(self, argument: str) -> None:
        with pytest.raises(DataError, match=rf"{argument}: a number \(a checkpoint or a model file is expected\)"):
            yolo_inputs.require_valid(["yolo", "train", argument])

    def test_a_folder_in_the_place_of_a_file_is_refused(self, folder: Path) -> None:
        (folder / "made.yaml").mkdir()
        for key in ("model", "data", "cfg"):
            with pytest.raises(DataError, match=r"made\.yaml: a folder"):
                yolo_inputs.require_valid(["yolo", "train", f"{key}=made.yaml"])
        yolo_inputs.require_valid(["yolo", "val", f"model={'x' * 5000}.yaml", "data=made"])

    @pytest.mark.parametrize(
        ("key", "value"), [("project", "/etc"), ("name", "a/../../../b"), ("save_dir", "src"), ("project", "../x")]
    )
    def test_a_file_of_settings_does_not_choose_where_results_are_written(
        self, key: str, value: str, folder: Path
    ) -> None:
        (folder / "args.yaml").write_text(f"epochs: 3\n{key}: {value}\n")
        words = ["yolo", "train", "cfg=args.yaml"]
        with pytest.raises(SpecError, match=f"{key}: a file of settings may not choose where results are written"):
            yolo_inputs.require_valid(words)
        yolo_inputs.require_valid([*words, f"{key}=mine"])
        (folder / "args.yaml").write_text("project: mine\nname: first\nsave_dir: null\n")
        yolo_inputs.require_valid(words)

    def test_a_file_of_settings_names_no_augmentations(self, folder: Path) -> None:
        (folder / "args.yaml").write_text("augmentations: [{transform: {__class_fullname__: Blur}}]\n")
        words = ["yolo", "train", "cfg=args.yaml"]
        with pytest.raises(SpecError, match=r"augmentations: a file of settings may not name any.*--trust"):
            yolo_inputs.require_valid(words)
        yolo_inputs.require_valid(words, trusted=True)
        (folder / "args.yaml").write_text("augmentations: null\n")
        yolo_inputs.require_valid(words)

    def test_numbers_of_more_than_ten_digits_are_refused(self, folder: Path) -> None:
        (folder / "args.yaml").write_text(f"batch: {10**15}\n")
        for words in ([f"batch={10**30}"], [f"seed=-{10**30}"], ["cfg=args.yaml"]):
            with pytest.raises(SpecError, match=r"(batch|seed): a number of [13]\d digits"):
                yolo_inputs.require_valid(["yolo", "export", *words])
        yolo_inputs.require_valid(["yolo", "train", f"seed={2**32 - 1}", "name=20261129153000"])

    @pytest.mark.parametrize("batch", ["0", "1e-3", "0.5", "-1"])
    def test_a_batch_of_less_than_an_image_is_for_trainings(self, batch: str) -> None:
        for words in (["val"], ["predict"], ["mode=val"]):
            with pytest.raises(SpecError, match="batch: one image or more, got"):
                yolo_inputs.require_valid(["yolo", *words, f"batch={batch}"])
        yolo_inputs.require_valid(["yolo", "train", f"batch={batch}"])
        yolo_inputs.require_valid(["yolo", "val", "batch=8", "batch=many"])

    @pytest.mark.parametrize(
        "words", [["train", "data=a.yaml"], ["detect", "val", "model=None"], ["source=a.png"], ["train", "cfg=a.yaml"]]
    )
    def test_a_command_for_a_model_names_one(self, words: list[str], folder: Path) -> None:
        """Ultralytics would fetch one."""
        (folder / "a.yaml").write_text("epochs: 3\n")
        with pytest.raises(SpecError, match=r"model: none is given, .*model=yolo26n\.pt"):
            yolo_inputs.require_named_model(["yolo", *words])
        yolo_inputs.require_named_model(["yolo", *words, "model=a.pt"])

    @pytest.mark.parametrize("words", [[], ["checks"], ["settings", "tensorboard=True"], ["help"], ["cfg", "x=1"]])
    def test_other_commands_need_no_model(self, words: list[str]) -> None:
        yolo_inputs.require_named_model(["yolo", *words])

    def test_a_file_of_settings_may_name_the_model(self, folder: Path) -> None:
        (folder / "args.yaml").write_text("model: mine.pt\n")
        yolo_inputs.require_named_model(["yolo", "train", "cfg=args.yaml"])

    def test_settings_without_a_name_are_refused(self, folder: Path) -> None:
        (folder / "args.yaml").write_text("epochs: 3\nnull: 4\n1: 2\n")
        with pytest.raises(SpecError, match=r"args\.yaml: None: not the name of a setting\nargs\.yaml: 1: ") as caught:
            yolo_inputs.require_valid(["yolo", "train", "cfg=args.yaml"])
        assert len(caught.value.mistakes) == 2

    @pytest.mark.parametrize("value", ["[a.yaml,b.yaml]", "('a.yaml', 'b.yaml')"])
    def test_several_data_sets_are_refused(self, value: str) -> None:
        """Ultralytics would start its own command for each of them, which checks nothing."""
        with pytest.raises(DataError, match="one is expected"):
            yolo_inputs.require_valid(["yolo", "train", "model=yolov8n.yaml", f"data={value}"])


class _Opens:
    """Object that writes a file into the working directory when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("ran.txt", "w")


class TestCheckpoints:
    @pytest.fixture
    def checkpoint(self, folder: Path) -> Path:
        torch.save({"model": _Opens()}, folder / "foreign.pt")
        (folder / "args.yaml").write_text("task: detect\nmodel: foreign.pt\n")
        return folder / "foreign.pt"

    @pytest.mark.parametrize(
        "argument", ["model=foreign.pt", "pretrained=foreign.pt", "resume=foreign.pt", "cfg=args.yaml"]
    )
    def test_a_pickle_with_other_classes_is_refused(self, argument: str, checkpoint: Path) -> None:
        with pytest.raises(DataError, match=r"foreign.pt: .*neither Ultralytics' nor ours \(io.open\).*--trust"):
            yolo_inputs.require_valid(["predict", argument])
        assert not (checkpoint.parent / "ran.txt").exists()

    def test_a_checkpoint_to_resume_is_the_model_where_none_is_named(self, checkpoint: Path) -> None:
        """Ultralytics would download one first."""
        words = ["yolo", "train", f"resume={checkpoint}"]
        assert yolo_inputs.with_resumed_model(words) == [*words, f"model={checkpoint}"]
        for others in (["resume=foreign.pt", "model=a.pt"], ["resume=True"], ["resume=other.pt"], []):
            assert yolo_inputs.with_resumed_model(others) == others

    def test_a_file_to_resume_exists(self, folder: Path) -> None:
        (folder / "last").touch()
        yolo_inputs.require_valid(["train", "resume=True", "resume=last"])
        with pytest.raises(DataError, match="other: no such file"):
            yolo_inputs.require_valid(["train", "resume=other"])

    def test_a_download_that_fails_is_a_line(self) -> None:
        with pytest.raises(EnvironmentProblem, match="yolo: no network"), yolo_inputs.mistakes_in_one_line():
            raise ConnectionError("no network")

    def test_a_package_that_is_not_installed_is_a_line(self) -> None:
        with pytest.raises(EnvironmentProblem, match="the package nowhere_at_all"), yolo_inputs.mistakes_in_one_line():
            importlib.import_module("nowhere_at_all")

    def test_errors_that_ultralytics_raises_are_a_line_and_others_are_not(self) -> None:
        with pytest.raises(SpecError, match="yolo: Unsupported image type"), yolo_inputs.mistakes_in_one_line():
            check_source(object())
        with pytest.raises(TypeError, match="of ours"), yolo_inputs.mistakes_in_one_line():
            raise TypeError("of ours")

    def test_trust_allows_a_pickle_with_other_classes(self, checkpoint: Path) -> None:
        arguments, trusted = yolo_inputs.without_trust(["predict", f"model={checkpoint}", "--trust"])
        assert arguments == ["predict", f"model={checkpoint}"]
        yolo_inputs.require_valid(arguments, trusted=trusted)

    def test_ultralytics_checkpoints_of_any_task_are_accepted(self, folder: Path) -> None:
        torch.save({"model": tasks.ClassificationModel("yolov8n-cls.yaml", verbose=False)}, folder / "classifier.pt")
        yolo_inputs.require_valid(["predict", "model=classifier.pt"])

    def test_operators_of_a_file_that_is_not_named_are_not_executed(self, folder: Path) -> None:
        source = Source(path=Path("theirs.py"), text="open('ran.txt', 'w')")
        stored = StoredModel(document={}, names={}, sources=(source,), sizes=(), rows=())
        stored.write(folder / "weights.pt")
        with pytest.raises(DataError, match=r"operators of theirs.py.*--modules"):
            yolo_inputs.require_valid(["val", "model=weights.pt"])
        user_modules.trust(source)
        yolo_inputs.require_valid(["val", "model=weights.pt"])
        assert not (folder / "ran.txt").exists()


class TestGuard:
    @pytest.fixture(autouse=True)
    def _guarded(self, folder: Path, guards_end: None) -> None:  # noqa: ARG002 - the working directory
        yolo_inputs.guard()

    def test_a_download_is_removed_from_a_data_file(self) -> None:
        assert YAML.load("data.yaml") == {"path": "nowhere", "train": "images", "val": "images", "names": ["a"]}

    def test_ultralytics_files_stay_unchanged(self) -> None:
        assert "download" in YAML.load(ROOT / "cfg" / "datasets" / "coco8.yaml")
        assert YAML.load("model.yaml", append_filename=True)["yaml_file"] == "model.yaml"

    def test_model_file_of_nested_aliases_is_refused(self, folder: Path) -> None:
        several = ["a: &a [x, x, x, x, x, x, x, x, x]"]
        several += [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
        (folder / "endless.yaml").write_text("\n".join(several), encoding="utf-8")
        with pytest.raises(SpecError, match="aliases repeat more than"):
            YAML.load("endless.yaml")

    def test_a_classifier_does_not_download_a_backbone(self) -> None:
        rows = {"backbone": [[-1, 1, "TorchVision", [512, "resnet18", "DEFAULT", True, 2]]]}
        with pytest.raises(SpecError, match="TorchVision downloads weights"):
            tasks.ClassificationModel({"nc": 2, **rows, "head": [[-1, 1, "Classify", ["nc"]]]}, verbose=False)


OPERATOR = """
from torch import nn
from search_spaces.operators import Operator, SiteKind

class Brought(nn.Identity):
    pass

BROUGHT = Operator(name="Brought", module=Brought, parameters=(), kinds=(SiteKind.LAYER,), build=lambda site: Brought(),
                   reference="")
"""


def test_modules_option_is_loaded_and_removed_from_the_arguments(folder: Path) -> None:
    (folder / "one.py").write_text(OPERATOR, encoding="utf-8")
    for words in (["--modules", "one.py"], ["--modules=one.py"], ["modules=one.py"]):
        assert yolo_inputs.without_modules(["yolo", "train", *words, "epochs=1"]) == ["yolo", "train", "epochs=1"]
    with pytest.raises(SpecError, match=r"modules\[0\]: .*two.py: cannot be read"):
        yolo_inputs.without_modules(["yolo", "--modules", "two.py"])


def test_file_of_a_folder_that_cannot_be_read_is_warned_of(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", logger=LOGGER.name)
    (folder / "parts").mkdir()
    (folder / "parts" / "one.py").write_text("from torch import nn\nclass Whole(nn.Module): ...\n", encoding="utf-8")
    (folder / "parts" / "two.py").write_bytes(b"# \xff\n")
    yolo_inputs.without_modules(["yolo", "--modules", "parts"])
    assert caplog.messages[-1].startswith("parts/two.py is left out: not a text file (UTF-8 is expected")


class TestHeadOfAUser:
    """A model file whose head is a class of the user's file, whose name does not say the task."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        (tmp_path / "own.py").write_text(
            "from torch import nn\nfrom ultralytics.nn.modules import Detect\n\n"
            "class Own(Detect):\n    pass\n\nclass Other(nn.Module):\n    pass\n",
            encoding="utf-8",
        )
        user_modules.load(tmp_path / "own.py")
        path = tmp_path / "mine.yaml"
        rows = "backbone:\n  - [-1, 1, Conv, [16, 3, 2]]\n  - [-1, 1, Conv, [16, 3, 2]]\n"
        path.write_text(f"nc: 2\n{rows}head:\n  - [[0, 1], 1, Own, [nc]]\n", encoding="utf-8")
        return path

    def test_task_is_added_where_none_is_given(self, path: Path) -> None:
        command = ["yolo", "train", f"model={path}"]
        assert yolo_inputs.with_task(command) == [*command, "task=detect"]
        assert yolo_inputs.with_task([*command, "task=segment"]) == [*command, "task=segment"]
        path.write_text(path.read_text(encoding="utf-8").replace("Own", "Detect"), encoding="utf-8")
        assert yolo_inputs.with_task(command) == command

    def test_head_that_cannot_be_trained_is_refused(self, path: Path) -> None:
        yolo_inputs.require_valid([f"model={path}"])
        path.write_text(path.read_text(encoding="utf-8").replace("Own", "Other"), encoding="utf-8")
        with pytest.raises(
            SpecError, match=r"mine.yaml: head\[0\]: Other of own.py is no subclass of Ultralytics' Detect"
        ):
            yolo_inputs.require_valid([f"model={path}"])
