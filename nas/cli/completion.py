"""Names that a shell completes: studies and spaces. Typer asks for them; errors give no completions."""

from collections.abc import Iterator
from pathlib import Path

from nas.paths import RUNS


def studies(incomplete: str) -> Iterator[str]:
    """Yield the names of studies in the default folder that begin so."""
    from nas.study import folders

    yield from sorted(name for name in folders.studies(RUNS) if name.startswith(incomplete))


def spaces(incomplete: str) -> Iterator[str]:
    """Yield the catalog's spaces and the YAML files here that begin so."""
    from search_spaces import space_names

    files = [path.name for path in Path().glob("*.yaml")]
    yield from sorted(name for name in {*space_names.catalog(), *files} if name.startswith(incomplete))
