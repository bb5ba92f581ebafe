"""Settings that a class of a user's file takes from the layer that it replaces, as if its name stood in the row."""

from collections.abc import Iterable, Mapping
from typing import Any

from search_spaces.operators.record import Parameters, Site, Value

_OTHER_NAMES = {
    "stride": "s",
    "groups": "g",
    **dict.fromkeys(("kernel", "kernel_size", "k_size", "ksize", "ks"), "k"),
}
"""Names of forks for some of Ultralytics' settings."""
SETTINGS: Mapping[str, type] = {
    **dict.fromkeys(("k", "s", "g", "n", "c3", "c4", "area", *_OTHER_NAMES), int),
    **dict.fromkeys(("e", "mlp_ratio"), float),
    **dict.fromkeys(("shortcut", "c3k", "attn", "lk", "a2", "residual"), bool),
}
"""Arguments of a class that the replaced layer may have, too, and their types."""
STOCK = "stock"
"""Value of such an argument: what the row of the replaced layer gives, or else the constructor's default."""


def arguments_at(
    site: Site, given: Iterable[tuple[str, str]], defaults: Mapping[str, Value], parameters: Parameters
) -> dict[str, Any]:
    """Return the arguments with which a class is built at a site.

    Args:
        site: a layer, or a place without one.
        given: arguments that the site gives, each with the attribute of the site.
        defaults: of the constructor, where it has them, for arguments that the replaced layer may have, too.
        parameters: the others, by name.
    """
    arguments, stock = {name: getattr(site, attribute) for name, attribute in given}, dict(site.stock)
    for name, value in parameters.items():
        setting, has_default = _OTHER_NAMES.get(name, name), name in defaults
        if name not in SETTINGS or value != STOCK:
            arguments[name] = value
        elif setting in stock and not (has_default and setting in site.unwritten):
            arguments[name] = stock[setting]
        elif has_default:
            arguments[name] = defaults[name]
    return arguments
