"""Find the file of a user in which a class or a function stands: a file that was loaded, or one of a folder."""

from collections.abc import Callable, Sequence
from functools import cache
from sys import modules

from nas.deployment.source_file import SourceFile
from search_spaces.operators import modules as user_modules
from search_spaces.operators import packages, user_classes
from search_spaces.operators.record import Source


def finder(sources: Sequence[Source], change: Callable[[str, str], str]) -> Callable[[str], SourceFile | None]:
    """Return a function that finds the file of a module in which a user's text runs; None for any other module.

    Args:
        sources: texts that have been loaded.
        change: returns the text to be copied, of the module's name and its text.
    """

    @cache
    def of(source: Source, file: str) -> SourceFile:
        module, files = _place(source), _files(source)
        if not files:  # what it imports from beside it, it gets from Ultralytics' modules
            return SourceFile.of(f"{packages.SIBLINGS}.{module}", source.path.name, change(module, source.text))
        is_package = file == packages.INIT or any(one.startswith(f"{file}.") for one in files)
        name = module if file == packages.INIT else f"{module}.{file}"
        label = f"{source.path.name}/{file.replace('.', '/')}"
        label += f"/{packages.INIT}.py" if is_package and file != packages.INIT else ".py"
        return SourceFile.of(name, label, change(name, files.get(file, "")), package=is_package)

    def find(module: str) -> SourceFile | None:
        for source in sources:
            file = _file_in(source, module)
            if file is not None:
                return of(source, file)
        return None

    return find


def _files(source: Source) -> dict[str, str]:
    """Return the texts of a folder's files by dotted name; empty for a single file."""
    module = modules[user_modules.module_name(source)]
    return {} if "" in user_classes.parts_of(module) else dict(vars(module)["FILES"])


def _place(source: Source) -> str:
    """Return the module in which a text runs."""
    name = user_modules.module_name(source)
    return f"{packages.PARENT}.{name}" if _files(source) else name


def _file_in(source: Source, module: str) -> str | None:
    """Return the file of a text that a module's name means, as the text runs or as files in it name each other."""
    files, place = _files(source), _place(source)
    if module == place:
        return packages.INIT
    inside = module.removeprefix(f"{place}.")
    if inside != module:
        return inside if inside in files else None
    return packages.file_named(module, source.path.name, files) if files else None
