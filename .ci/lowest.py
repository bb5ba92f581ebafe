"""Print the lowest version of each requirement that pyproject.toml allows, one pip requirement a line.

`name>=1.2,<2` becomes `name==1.2`; a requirement without a lower bound stays as it is.

    python .ci/lowest.py [EXTRA ...]
"""

import re
import sys
import tomllib
from pathlib import Path


def main() -> None:
    """Print the requirements of the package and of the named extras."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [project["optional-dependencies"][extra] for extra in sys.argv[1:]]
    for requirement in sum(extras, project["dependencies"]):
        print(lowest(requirement))


def lowest(requirement: str) -> str:
    """Return a requirement with its lower bound as the only version."""
    return re.sub(r">=\s*([^,;\s]+)[^;]*", r"==\1", requirement)


if __name__ == "__main__":
    main()
