"""Words in rows of users' classes that name a class, an activation, or a setting of the file."""

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from search_spaces import base as bases
from search_spaces import build, foreign_files, model_reader, named_values
from search_spaces.errors import SpecError
from search_spaces.operators import modules
from search_spaces.placed import PLACED
from trials.costing import cost

FORK = """
from torch import nn
from ultralytics.nn.modules import Detect

class NamedBasic(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.layer = nn.Conv2d(channels, channels, 1)
    def forward(self, x):
        return self.layer(x)

class Stacked(nn.Module):
    def __init__(self, ch_in, ch_out, block, count, act="relu"):
        super().__init__()
        self.enter = nn.Conv2d(ch_in, ch_out, 1)
        self.blocks = nn.Sequential(*(block(ch_out) for _ in range(count)))
        self.act = act
    def forward(self, x):
        return self.blocks(self.enter(x))

class Activated(nn.Module):
    def __init__(self, inc, ouc, act):
        super().__init__()
        self.layer, self.act = nn.Conv2d(inc, ouc, 1), act() if isinstance(act, type) else act
    def forward(self, x):
        return self.act(self.layer(x))

class Divided(nn.Module):
    def __init__(self, inc, ouc):
        super().__init__()
        self.layer = nn.Conv2d(inc, sum(ouc), 1)
    def forward(self, x):
        return self.layer(x)

class HalfHead(Detect):
    def __init__(self, nc=80, kind="half", reg_max=16, end2end=False, ch=()):
        super().__init__(nc, reg_max, end2end, ch[1:])
        self.first = nn.Conv2d(ch[0], 1, 1)
    def forward(self, x):
        return super().forward(x[1:])

class Halving(nn.Module):
    def __init__(self, c1, c2):
        super().__init__()
        self.layer = nn.Conv2d(c1, c2, 3, 2, 1)
    def forward(self, x):
        return self.layer(x)

class KeyPointHead(Detect):
    def __init__(self, nc=80, kpt_shape=(17, 3), reg_max=16, end2end=False, ch=()):
        super().__init__(nc, reg_max, end2end, ch)
        self.points = nn.ModuleList(nn.Conv2d(one, kpt_shape[0] * kpt_shape[1], 1) for one in ch)
    def forward(self, x):
        return [one(each) for one, each in zip(self.points, x)]
"""


@pytest.fixture
def fork(tmp_path: Path) -> Path:
    (tmp_path / "named.py").write_text(FORK, encoding="utf-8")
    modules.load(tmp_path / "named.py")
    return tmp_path


def built(folder: Path, row: str, head: str = "Detect, [nc]", settings: str = "") -> Any:
    rows = f"backbone:\n  - [-1, 1, Conv, [32, 3, 2]]\n  - {row}\nhead:\n  - [[1], 1, {head}]\n"
    (folder / "model.yaml").write_text(f"nc: 2\n{settings}\n{rows}", encoding="utf-8")
    return build.skeleton(model_reader.read_model(str(folder / "model.yaml"), or_counted=True).document, 2)


def test_word_that_names_a_class_of_the_file_is_that_class(fork: Path) -> None:
    layer = built(fork, "[-1, 1, Stacked, [64, NamedBasic, 3, relu]]")[1]
    assert [type(one).__name__ for one in layer.blocks] == ["NamedBasic"] * 3
    assert PLACED[layer].summary == "Stacked(32, 64, NamedBasic, 3, 'relu'): 32x128x128 to 64x128x128"


def test_word_for_an_argument_that_is_a_text_stays_one(fork: Path) -> None:
    assert built(fork, "[-1, 1, Stacked, [64, NamedBasic, 1, NamedBasic]]")[1].act == "NamedBasic"


@pytest.mark.parametrize("word", ["nn.LeakyReLU(0.1)", "torch.nn.LeakyReLU(0.1)", "nn.LeakyReLU"])
def test_activation_is_built(word: str, fork: Path) -> None:
    layer = built(fork, f"[-1, 1, Activated, [64, {word}]]")[1]
    assert isinstance(layer.act, nn.LeakyReLU)
    assert layer.act.negative_slope == (0.1 if word.endswith(")") else 0.01)


@pytest.mark.parametrize("word", ["nn.Nothing", "nn.Conv2d(3, 8, 1)", "nn.LeakyReLU(open('x'))", "relu"])
def test_other_words_name_nothing(word: str) -> None:
    assert named_values.value_of(word) is None


def test_row_that_begins_with_a_list_follows_the_channels_before_it(fork: Path) -> None:
    assert PLACED[built(fork, "[-1, 1, Divided, [[16, 48]]]")[1]].channels == 64


def test_row_of_a_head_may_name_settings_of_the_file(fork: Path) -> None:
    layers = built(fork, "[-1, 1, Conv, [32]]", "KeyPointHead, [nc, kpt_shape]", "kpt_shape: [5, 2]")
    assert layers[-1].points[0].out_channels == 10


@pytest.mark.parametrize("key", ["channels", "ch"])
def test_model_for_other_images_is_counted_with_their_channels(key: str, fork: Path) -> None:
    built(fork, "[-1, 1, Conv, [32]]", settings=f"{key}: 6")
    document = model_reader.model_document(str(fork / "model.yaml"))
    assert cost.measure(document, 2, 64, deployed=False).layers[0].params == 6 * 32 * 9 + 2 * 32
    with pytest.raises(SpecError, match="channels: images of 3 channels are searched on, got 6"):
        bases.load(str(fork / "model.yaml"), "")


@pytest.mark.parametrize(
    ("written", "expected"),
    [([48, 1], (32, 48, 1)), ([48, 3, 1, 1], (32, 48, 3)), ([32, 32, 1], (32, 32, 1))],
)
def test_bare_convolution_may_leave_out_its_input(
    written: list[int], expected: tuple[int, ...], tmp_path: Path
) -> None:
    layer = built(tmp_path, f"[-1, 1, nn.Conv2d, {written}]")[1]
    assert (layer.in_channels, layer.out_channels, layer.kernel_size[0]) == expected


def test_folded_convolution_may_leave_out_its_input(tmp_path: Path) -> None:
    layer = built(tmp_path, "[-1, 1, RepConv, [48, 3, 1]]")[1]
    assert (layer.c1, layer.c2) == (32, 48)
    assert sum(one.numel() for one in layer.parameters()) == 32 * 48 * (9 + 1) + 2 * 2 * 48


def test_maximum_of_yolov7_is_read_without_anchors(tmp_path: Path) -> None:
    assert built(tmp_path, "[-1, 1, MP, []]")[1].kernel_size == 2
    with pytest.raises(SpecError, match="unknown module 'MP'"):
        built(tmp_path, "[-1, 1, MP, [256]]")


def test_head_may_predict_on_fewer_maps_than_it_reads(fork: Path) -> None:
    rows = "backbone:\n  - [-1, 1, Conv, [32, 3, 2]]\n  - [-1, 1, Conv, [64, 3, 2]]\n"
    (fork / "model.yaml").write_text(f"nc: 2\n{rows}head:\n  - [[0, 1], 1, HalfHead, [nc, all]]\n", encoding="utf-8")
    document = model_reader.model_document(str(fork / "model.yaml"))
    head: Any = build.skeleton(document, 2)[-1]
    assert len(head.cv2) == 1
    assert cost.measure(document, 2, 64).gflops > 0


def test_message_says_that_a_layer_is_repeated(fork: Path) -> None:
    with pytest.raises(SpecError, match=r"tried as Halving\(32, 64\), 3 times: "):
        built(fork, "[-1, 3, Halving, [64]]")


def test_key_of_the_files_own_is_no_typing_error_of_one_that_is_there(fork: Path) -> None:
    built(fork, "[-1, 1, Conv, [32]]", settings="na: 10")
    text = (fork / "model.yaml").read_text(encoding="utf-8").replace("nc: 2", "mc: 2")
    (fork / "model.yaml").write_text(text.replace("na: 10", ""), encoding="utf-8")
    with pytest.raises(SpecError, match="mc: no setting of a model file \\(did you mean 'nc'"):
        model_reader.read_model(str(fork / "model.yaml"))


def test_bare_convolution_of_no_form_is_left_to_pytorch() -> None:
    document: dict[str, Any] = {
        "nc": 2,
        "backbone": [[-1, 1, "nn.Conv2d", ["x"]]],
        "head": [[[0], 1, "Detect", ["nc"]]],
    }
    assert foreign_files.translate(document).document["backbone"] == document["backbone"]
