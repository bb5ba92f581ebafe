"""`benchmarks/corpus.py`: what it says of each file."""

from pathlib import Path

import pytest

from benchmarks import corpus

ROWS = {
    "built": "[-1, 1, Conv, [8, 3, 2]]",
    "float-width": "[-1, 1, Conv, [31.5, 3, 2]]",
    "unknown": "[-1, 1, Gate, []]\n  - [-1, 1, Other, []]",
    "wrong-call": "[-1, 1, Conv, [8, 3, 2, 1, 1, 1, 1, 1, 1]]",
}


@pytest.mark.parametrize(
    ("name", "outcome", "addresses"),
    [
        ("built", corpus.BUILT, []),
        ("float-width", corpus.BUILT, ["backbone[0]: Conv has 32 channels"]),
        ("unknown", corpus.REFUSED, ["backbone[0]: unknown module 'Gate'", "backbone[1]: unknown module 'Other'"]),
        ("wrong-call", corpus.REFUSED, ["backbone[0]: Conv cannot be built of"]),
    ],
)
def test_every_line_names_its_file_once(name: str, outcome: str, addresses: list[str], tmp_path: Path) -> None:
    path = tmp_path / f"{name}.yaml"
    text = f"nc: 2\nbackbone:\n  - {ROWS[name]}\nhead:\n  - [[-1], 1, Detect, [nc]]\n"
    path.write_text(text, encoding="utf-8")
    verdict = corpus.read(path)
    assert verdict.outcome == outcome
    for line, address in zip(verdict.why.splitlines(), addresses, strict=True):
        assert line.startswith(f"{name}.yaml: {address}")


def test_file_is_printed_in_front_of_what_is_wrong_in_it() -> None:
    verdict = corpus.Verdict(file="a/b.yaml", outcome=corpus.REFUSED, why="b.yaml: backbone[0]: x\nb.yaml: head[0]: y")
    assert corpus._shown(verdict) == "backbone[0]: x; head[0]: y"


def test_parameters_are_those_of_the_files_repository_if_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "five.yaml"
    text = "nc: 2\nanchors: 3\nbackbone:\n  - [-1, 1, Conv, [8, 3, 2]]\nhead:\n  - [[0], 1, Detect, [nc, anchors]]\n"
    path.write_text(text, encoding="utf-8")
    printed, trained = (corpus.read(path, as_printed=one).params for one in (True, False))
    assert printed == 8 * 3 * 9 + 16 + 3 * 7 * (8 + 1) < trained
