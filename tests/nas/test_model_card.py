"""Model card: names that a user or a file has chosen are text in it."""

from dataclasses import replace

from nas.deployment.model_card import ModelCard
from nas.records.record import Record

HOSTILE = "<img src=x> [click](http://evil.example) | `x`"


def test_names_are_neither_html_nor_links() -> None:
    model = Record(trial=3, state="complete", map50_95=0.5, picks={}, summary=HOSTILE)
    card = ModelCard(
        title=HOSTILE,
        base=HOSTILE,
        model=model,
        stock=None,
        scored=HOSTILE,
        verdict=[HOSTILE],
        operators={"Mine": HOSTILE},
        usage=[],
        files={},
    )
    text = card.text()
    assert text.count("click") == 6
    assert text.count(r"\<img src=x\> \[click\](http://evil.example) \| \`x\`") == 6
    assert "<img" not in text.replace(r"\<img", "")


def test_stock_model_of_a_member_is_named() -> None:
    model = Record(trial=3, state="complete", map50_95=0.5, picks={}, summary="v8n: UIB 4", member="v8n")
    stock = replace(model, trial=0, summary="v8n: stock", role="stock")
    text = ModelCard(
        title="mine, trial 3",
        base="yolov8n",
        model=model,
        stock=stock,
        scored="",
        verdict=[],
        operators={"UIB": "MobileNetV4"},
        usage=[],
        files={},
    ).text()
    assert "| | this model | stock model of v8n |" in text
    assert "A YOLO detector: yolov8n, with other operators in it: UIB 4." in text
