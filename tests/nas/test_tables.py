from math import log, sqrt
from pathlib import Path

import numpy as np
import pytest

from nas.bench.tables import Table, read_yolobench
from search_spaces.errors import SpecError

HEADER = "model_name,mAP_0.5:0.95,ov_latency,vim3_latency"
RIGHT = "yolo5n_160,0.3,0.01,0.02"


def written(folder: Path, *lines: str) -> Path:
    path = folder / "table.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("yolo3d1w25_160", ("yolo3", 1.0, 0.25, 160.0)),
        ("yolo4d33w75_480", ("yolo4", 0.33, 0.75, 480.0)),
        ("yolo8d67w5_192", ("yolo8", 0.67, 0.5, 192.0)),
        ("yolo6l-d6w1_320", ("yolo6l", 0.6, 1.0, 320.0)),
        ("yolo5n_480", ("yolo5", 0.33, 0.25, 480.0)),
        ("yolo7s_480", ("yolo7", 0.33, 0.5, 480.0)),
        ("yolo8m_480", ("yolo8", 0.67, 0.75, 480.0)),
        ("yolo3l_480", ("yolo3", 1.0, 1.0, 480.0)),
    ],
)
def test_yolobench_model_name_is_parsed(tmp_path: Path, name: str, parsed: tuple[object, ...]) -> None:
    table = read_yolobench(written(tmp_path, HEADER, f"{name},0.4,0.5,0.6"), "vim3_latency")
    assert tuple(values[0] for values in table.columns.values()) == parsed
    assert (table.names, table.cost_names) == ((name,), ("vim3_latency",))
    assert (table.accuracies[0], table.costs[0, 0]) == (0.4, log(0.6))


def test_continuous_features_are_logarithms_from_0_to_1(trained: Path) -> None:
    table = read_yolobench(trained)
    candidates = table.candidates()
    continuous = candidates.features.continuous
    assert continuous.shape == (216, 5)  # depth, width, resolution, and the cost on two devices
    assert (continuous.min(axis=0) == 0).all()
    assert (continuous.max(axis=0) == 1).all()
    half = table.columns["width"].index(0.5)
    assert continuous[half, 1] == pytest.approx(0.5)  # halfway from a quarter to the whole
    assert (candidates.costs == table.costs).all()
    assert table.candidates("objectives").features.continuous.shape == (216, 4)
    assert table.candidates("none").features.continuous.shape == (216, 3)


def test_device_with_gaps_is_no_feature(trained: Path, tmp_path: Path) -> None:
    header, first, *others = trained.read_text(encoding="utf-8").splitlines()
    cells = first.split(",")
    cells[header.split(",").index("pi4_ort_latency")] = ""
    gap = written(tmp_path, header, ",".join(cells), *others)
    assert (read_yolobench(gap).figures == read_yolobench(gap).costs).all()
    assert read_yolobench(trained).figures.shape == (216, 2)


def test_categorical_rows_share_equal_texts() -> None:
    table = Table(
        names=("a", "b", "c"),
        columns={"neck": ("fpn", "pan", "fpn"), "head": ("one", "one", "two")},
        accuracies=np.array([0.1, 0.2, 0.3]),
        costs=np.array([[1.0, 2.0], [2.0, 1.0], [3.0, 3.0]]),
        figures=np.array([[1.0, 2.0], [2.0, 1.0], [3.0, 3.0]]),
        cost_names=("gflops", "latency_ms"),
    )
    candidates = table.candidates()
    categorical = candidates.features.categorical
    assert categorical.max() == pytest.approx(1 / sqrt(2), rel=1e-12)
    assert categorical @ categorical.T == pytest.approx(np.array([[1, 0.5, 0.5], [0.5, 1, 0], [0.5, 0, 1]]))
    assert candidates.features.continuous.shape == candidates.costs.shape == (3, 2)
    assert table.codes.tolist() == [[0, 0], [1, 0], [0, 1]]


def test_permutation_moves_accuracies_and_optionally_costs(trained: Path) -> None:
    table = read_yolobench(trained)
    reverse = np.arange(len(table))[::-1]
    assert (table.permuted(reverse, with_costs=False).costs == table.costs).all()
    both = table.permuted(reverse, with_costs=True)
    assert (both.accuracies == table.accuracies[::-1]).all()
    assert (both.costs == table.costs[::-1]).all()
    assert (both.figures == table.figures[::-1]).all()
    assert both.columns == table.columns


WRONG = {
    "an unknown cost": (
        "ov_latncy",
        (HEADER, RIGHT),
        "line 1: no column of latencies is called 'ov_latncy' (did you mean 'ov_latency'?)",
    ),
    "no accuracies": (
        "ov_latency",
        ("model_name,ov_latency", "yolo5n_160,0.1"),
        "line 1: no column 'mAP_0.5:0.95' (one such as YOLOBench's VOC_scratch_100epochs.csv)",
    ),
    "none": (
        "ov_latency",
        ("model_name,mAP_0.5:0.95", "yolo5n_160,0.1"),
        "line 1: no column of latencies, 'ov_latency' or another (one such as YOLOBench's VOC_scratch_100epochs.csv)",
    ),
    "no rows": ("ov_latency", (HEADER,), "there are no rows (one such as YOLOBench's VOC_scratch_100epochs.csv)"),
}


@pytest.mark.parametrize(("cost", "lines", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_yolobench_files_are_refused(tmp_path: Path, cost: str, lines: tuple[str, ...], message: str) -> None:
    path = written(tmp_path, *lines)
    with pytest.raises(SpecError) as refused:
        read_yolobench(path, cost)
    assert str(refused.value) == f"{path}: {message}"


def test_all_mistakes_of_a_table_are_reported_at_once(tmp_path: Path) -> None:
    lines = (
        HEADER,
        RIGHT,
        "yolo9n_160,37.3,0.01,0.02",
        RIGHT,
        "yolo5s_160,0.3,0,0.02",
        "yolo5n_320,0.3,1e+308,0.02",
        "yolo5m_160",
        "yolo5l_0,0.3,1,1",
    )
    path = written(tmp_path, *lines)
    with pytest.raises(SpecError) as refused:
        read_yolobench(path)
    models = "models are called such as yolo3d1w25_160, yolo6l-d33w5_320 or yolo5n_480"
    assert str(refused.value).splitlines() == [
        f"{path}: line 3: model_name: no model of YOLOBench's, got 'yolo9n_160' ({models})",
        f"{path}: line 3: mAP_0.5:0.95: no accuracy, got '37.3' (a number from 0 to 1)",
        f"{path}: line 4: model_name: 'yolo5n_160' is there twice (one row for each model)",
        f"{path}: line 5: ov_latency: no latency, got '0' (a number above 0, at most 1,000,000,000)",
        f"{path}: line 6: ov_latency: no latency, got '1e+308' (a number above 0, at most 1,000,000,000)",
        f"{path}: line 7: mAP_0.5:0.95: no accuracy, got '' (a number from 0 to 1)",
        f"{path}: line 7: ov_latency: no latency, got '' (a number above 0, at most 1,000,000,000)",
        f"{path}: line 8: model_name: no resolution, got 'yolo5l_0' (from 1 to 8192 pixels)",
    ]


def test_missing_yolobench_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "nope.csv"
    with pytest.raises(SpecError) as refused:
        read_yolobench(path)
    assert str(refused.value) == f"{path}: no such file (one such as YOLOBench's VOC_scratch_100epochs.csv)"
