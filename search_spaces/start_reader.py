"""Read `start` of a space file: the architectures that a search tries first."""

from collections.abc import Mapping
from typing import Any

from search_spaces import scaling
from search_spaces.architecture import STOCK, Choice
from search_spaces.errors import SpecError, nearest
from search_spaces.grammar import PartReader
from search_spaces.slot import ScalingFactor, Slot

Start = tuple[dict[str, Choice], dict[str, float]]
"""Architecture: choices by the slot's name, and scaling factors."""


class StartReader(PartReader):
    """Reader of architectures, which collects all mistakes in them.

    Args:
        slots: of the space, by name.
        factors: scaling factors of the space, by name.
        same: the choice that a slot offers, by its name and one that was left out because it is the same network.
        mistakes: gets a line for each mistake.
        checked: whether the slots are complete; if not, only the form of the architectures is checked.
    """

    def __init__(
        self,
        slots: Mapping[str, Slot],
        factors: Mapping[str, ScalingFactor],
        same: Mapping[tuple[str, Choice], Choice],
        mistakes: list[str],
        *,
        checked: bool,
    ) -> None:
        super().__init__(mistakes)
        self._slots, self._factors, self._same, self._checked = slots, factors, same, checked

    def read(self, raw: Any) -> list[Start]:
        """Read the list of architectures."""
        if not isinstance(raw, list) or not all(isinstance(one, dict) and one for one in raw):
            self._wrong("start", f"a list of architectures is expected, got {raw!r} (- {{LAYER: {{OPERATOR: {{}}}}}})")
            return []
        return [self._architecture(one, f"start[{index}]") for index, one in enumerate(raw)]

    def _architecture(self, raw: Mapping[Any, Any], address: str) -> Start:
        picked: dict[str, Choice] = {}
        written = {name: value for name, value in raw.items() if name != scaling.MACRO}
        for name, value in written.items():
            place = f"{address}.{name}"
            choice = self._choice(value, place)
            if choice is not None:
                choice = self._same.get((str(name), choice), choice)
            if str(name) in picked:
                self._wrong(place, "appears twice")
            elif choice is not None and self._checked and self._is_offered(str(name), choice, place):
                picked[str(name)] = choice
        macro = self._factor_values(raw[scaling.MACRO], f"{address}.{scaling.MACRO}") if scaling.MACRO in raw else {}
        return picked, macro

    def _factor_values(self, raw: Any, address: str) -> dict[str, float]:
        """Return the scaling factors of an architecture, `{width.P4: 0.75}`."""
        if not isinstance(raw, dict):
            self._wrong(address, f"scaling factors with a number each are expected, got {raw!r} ({{width.P4: 0.75}})")
            return {}
        values: dict[str, float] = {}
        for name, value in raw.items():
            if name not in self._factors:
                self._wrong(f"{address}.{name}", f"no such scaling factor ({nearest(name, self._factors)})")
            elif value not in self._factors[name].values:
                possible = ", ".join(f"{each:g}" for each in self._factors[name].values)
                self._wrong(f"{address}.{name}", f"not a value in this space, got {value!r} (one of {possible})")
            else:
                values[name] = float(value)
        return values

    def _choice(self, raw: Any, address: str) -> Choice | None:
        """Return an operator with its parameters, `{UIB: {expansion: 2}}`; None, with a mistake, for another form."""
        if not isinstance(raw, dict) or len(raw) != 1 or not isinstance(next(iter(raw.values())), dict):
            self._wrong(address, f"an operator with its parameters is expected, got {raw!r} ({{UIB: {{}}}})")
            return None
        ((operator, parameters),) = raw.items()
        if operator == STOCK.operator and not parameters:
            return STOCK
        try:
            return Choice.of(operator, parameters)
        except SpecError as error:
            self._mistakes.extend(error.within(address).mistakes)
            return None

    def _is_offered(self, name: str, choice: Choice, address: str) -> bool:
        """Return whether a slot offers a choice; if not, add a mistake."""
        slot = self._slots.get(name)
        if slot is None:
            tied = next((one for one in self._slots.values() if name in map(str, one.tied)), None)
            hint = f"it is tied to slot {tied.name}" if tied else nearest(name, self._slots)
            self._wrong(address, f"no such slot ({hint})")
        elif choice not in slot.choices:
            self._wrong(address, f"{choice} is not among the choices of {slot}")
        else:
            return True
        return False
