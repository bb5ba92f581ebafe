"""Colours of operators in drawings: an operator has the same one on all pages."""

from zlib import crc32

OPERATORS = (
    *("UIB", "DCNv4", "DySample", "DynamicConv", "MMQA", "SE", "ECA", "CBAM", "CoordAtt", "SimAM", "EMA", "GAM"),
    *("ShuffleAttention", "LSKA", "PConv", "GSConv", "GhostModule", "RepVGG", "DSConv", "VoVGSCSP", "SPDConv"),
    *("CARAFE", "SPPCSPC", "WeightedFusion"),
)
"""Those of this package in the order of their colours: a new one goes to the end."""
_HUES = (221, 21, 160, 292, 45, 192, 0, 262, 84, 330, 175, 142)
"""In degrees: blue, orange, green, purple and so on."""
_LIGHTNESS = (53, 38, 68)
"""In per cent: further operators have the hues anew, darker and then lighter."""


def colour_of(operator: str) -> str:
    """Return the colour of an operator for CSS and SVG, by its name alone; one of a user's file may share it."""
    place = OPERATORS.index(operator) if operator in OPERATORS else crc32(operator.encode())
    lightness = _LIGHTNESS[place // len(_HUES) % len(_LIGHTNESS)]
    return f"hsl({_HUES[place % len(_HUES)]}, 80%, {lightness}%)"
