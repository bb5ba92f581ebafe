"""Try the readings of a user's class in its row: the first with which it takes the maps that arrive is built."""

from contextlib import suppress
from itertools import product

from search_spaces import constructors, fork_rules, one_by_one, unplaced
from search_spaces.class_row import ClassRow, built, call
from search_spaces.constructors import Reading
from search_spaces.errors import SpecError, in_one_line
from search_spaces.placed import Placed
from search_spaces.trace import Feature


def first_that_works(row: ClassRow) -> tuple[Placed, Feature]:
    """Return the first layer that takes the maps which arrive, and what it returns.

    Raises:
        SpecError: no reading works, or the class asks for what none can give, such as a library that is absent.
    """
    failed: list[str] = []
    several = len(row.received) if row.place.reads_list and not row.is_head else 1
    for single, reading in product(one_by_one.ways(row.found.module, several), _readings(row)):
        try:
            works = built(row, reading, single=single)
        except Exception as error:
            if isinstance(error, ImportError | SpecError) or type(error) is NameError:  # no other reading helps
                raise SpecError(f"{row.found.name} of {row.found.file}: {in_one_line(error)}") from error
            failed.append(f"as {call(row, reading, single=single)}: {in_one_line(error)}")
            continue
        scaled = constructors.with_scaled_output(reading, works[0].channels, row.arguments, row.place)
        if scaled is not None and row.told is None:
            with suppress(Exception):  # the one without scaling works
                works = built(row, scaled, single=single)
        return works
    raise SpecError(unplaced.message(row, failed))


def _readings(row: ClassRow) -> list[Reading]:
    """Return the readings to try, in order: the one that the model file asks for, or else all that are possible."""
    module = row.found.module
    if row.told is not None:
        options = [constructors.as_told(row.told, row.arguments, row.place)]
    else:
        possible = constructors.head_readings if row.is_head else constructors.readings
        blocks = _as_block(row)
        others = possible(module, row.arguments, row.place)
        options = [*blocks, *(one for one in others if one.arguments not in [block.arguments for block in blocks])]
    options = [constructors.with_named_values(one, module) for one in options]
    if row.found.source is None:  # what our layers take is known: another reading would only hide a wrong argument
        return options[:1]
    return options


def _as_block(row: ClassRow) -> list[Reading]:
    """Return the reading of a class that forks' parsers take as a block of Ultralytics."""
    block = fork_rules.block_of(row.found)
    arguments = fork_rules.as_block(row.found, block, row.arguments, row.scale) if block else row.arguments
    return constructors.as_block(block, row.found.module, arguments, row.place)
