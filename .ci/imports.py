"""Import every module of the three packages, and each package's modules in an order of their own.

An import that works only after another one, such as in a circle, fails for half of the orders.
"""

import importlib
import pkgutil
import subprocess
import sys

PACKAGES = ("search_spaces", "trials", "nas")


def main() -> None:
    """Import all modules in both alphabetical orders; a process each."""
    if len(sys.argv) > 1:
        for name in sys.argv[1:]:
            importlib.import_module(name)
        return
    names = [
        info.name
        for package in PACKAGES
        for info in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")
    ]
    for order in (names, names[::-1]):
        subprocess.run([sys.executable, __file__, *order], check=True)
    print(f"{len(names)} modules imported by Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
