"""Settings that a block of a user's file has from the block that it replaces, as if its name stood in the row."""

from collections.abc import Iterable, Mapping
from typing import Any

from search_spaces.operators.record import Parameters, Site

SETTINGS: Mapping[str, type] = {"shortcut": bool, "g": int, "e": float, "c3k": bool, "attn": bool, "lk": bool}
"""Arguments of Ultralytics' blocks, by the names that forks use for theirs, too, and their types."""
STOCK = "stock"
"""Value of such an argument: that of the replaced block; where there is none, the constructor's default."""


def arguments_at(site: Site, given: Iterable[tuple[str, str]], parameters: Parameters) -> dict[str, Any]:
    """Return the arguments with which a class is built at a site.

    Args:
        site: a block, or a place without one.
        given: arguments that the site gives, each with the attribute of the site.
        parameters: the others, by name.
    """
    left_alone = {name for name, value in parameters.items() if name in SETTINGS and value == STOCK}
    return {
        **{name: getattr(site, attribute) for name, attribute in given},
        **{name: value for name, value in site.stock if name in left_alone},
        **{name: value for name, value in parameters.items() if name not in left_alone},
    }
