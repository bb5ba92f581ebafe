"""Model card: names that a user or a file has chosen are text in it."""

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
