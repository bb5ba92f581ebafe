"""Trust in a ranking as a list under headings for readers who do not know `nas trust`."""

from nas.report.trust import Trust

HEADINGS = {
    "images": "Images",
    "noise": "Noise",
    "tells": "What a search tells apart",
    "confirm": "What a confirmation tells apart",
    "shrinks": "Expected of the front",
    "measured": "Found with fresh seeds",
    "slope": "Longer training",
    "order": "Order of short and long trainings",
    "budget": "Advised for another search",
}
"""Headings of what `nas trust` prints under short names."""


def trust_list(trust: Trust) -> tuple[list[str], list[tuple[str, str]]]:
    """Return what to conclude, one sentence each, and what it rests on, by heading."""
    advice = trust.recommendation()
    budgets = [line.removeprefix("budget: ") for line in advice if line.startswith("budget: ")]
    parts = [*trust.parts(), *(("budget", text) for text in budgets)]
    conclusions = [line for line in advice if not line.startswith("budget: ")]
    return conclusions, [("Ranking", trust.basis), *((HEADINGS[name], text) for name, text in parts)]
