"""What the parts of a space file mean: slots, insertions, dials, and what a search starts with."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, TypeVar

from pydantic import BaseModel
from torch import Tensor

from search_spaces import grammar, insertions, scaling
from search_spaces.architecture import STOCK, Choice
from search_spaces.base import Base
from search_spaces.errors import SpecError, nearest
from search_spaces.grammar import At, Entry, Insert, Macro
from search_spaces.hosts import HOSTS
from search_spaces.operators import OPERATORS, Operator, Value
from search_spaces.space import ScalingFactor, Slot, incompatibility

_RESERVED_IN_ENTRY = {"name"}

Model = TypeVar("Model", bound=BaseModel)
Start = tuple[dict[str, Choice], dict[str, float]]
"""An architecture: choices by the slot's name, and dials."""


class Reader:
    """Reads the parts of a file and collects what is wrong with them.

    Args:
        base: None if the file names none that can be loaded; forms and names are checked all the same.
    """

    def __init__(self, base: Base | None, mistakes: list[str]) -> None:
        self._base, self._mistakes = base, mistakes
        self._variants: list[Base] = [] if base is None else [base]
        self._slots: dict[str, Slot] = {}
        self._dials: dict[str, ScalingFactor] = {}
        self._origins: dict[tuple[str, str], str] = {}
        self._owners: dict[int, tuple[tuple[int, ...], str]] = {}
        self._matched: dict[str, str] = {}

    def finished(self) -> tuple[Slot, ...]:
        """The slots, by layer; one that nothing can stand in is a mistake."""
        for name, address in self._matched.items():
            if len(self._slots[name].choices) == 1:
                self._wrong(address, f"{self._slots[name]} is left with nothing but stock")
        return tuple(sorted(self._slots.values(), key=lambda slot: (slot.layer, bool(slot.feeds))))

    def _wrong(self, address: str, told: str) -> None:
        self._mistakes.append(f"{address}: {told}")

    def _entries(self, raw: Any, key: str, model: type[Model], form: str) -> Iterable[tuple[str, Model]]:
        """The entries that have the right form, with their addresses."""
        if not isinstance(raw, list) or not raw:
            self._wrong(key, f"a list of entries is expected, got {raw!r} ({form})")
            return
        for index, one in enumerate(raw):
            address = f"{key}[{index}]"
            if isinstance(one, dict):
                for reserved in sorted(_RESERVED_IN_ENTRY & set(one)):
                    self._wrong(f"{address}.{reserved}", "not yet; this key is reserved")
                one = {name: value for name, value in one.items() if name not in _RESERVED_IN_ENTRY}  # noqa: PLW2901
            entry = grammar.read(model, one, address, self._mistakes)
            if entry is not None:
                yield address, entry
            elif isinstance(one, dict):
                self._check_parts(one, address)

    def _check_parts(self, one: Mapping[Any, Any], address: str) -> None:
        """Check what stands in an entry of the wrong form: its operators and their parameters, and its layers."""
        choices = one.get("choices")
        listed = choices.items() if isinstance(choices, dict) else ()
        self._offered({str(name): given for name, given in listed if isinstance(given, dict)}, address)
        at = grammar.read(At, one["at"], f"{address}.at", []) if "at" in one else None
        if at is not None and self._base is not None:
            self._matching(at, self._base, f"{address}.at")

    def scaling_factors(self, raw: Any) -> tuple[ScalingFactor, ...]:
        """The choices about the model as a whole. Each is tried, since slots must be legal at all of them."""
        read = grammar.read(Macro, raw, "macro", self._mistakes)
        if read is None and isinstance(raw, dict):  # a wrong dial hides no other's mistakes
            parts = (grammar.read(Macro, {name: value}, "macro", []) for name, value in raw.items())
            right = {name: getattr(part, name) for name, part in zip(raw, parts, strict=True) if part is not None}
            read = Macro().model_copy(update=right)
            if read == Macro():
                return ()
        if read is None:
            return ()
        if read == Macro():
            self._wrong("macro", "says nothing (depth, width or image_size)")
        dials = []
        for name in (scaling.DEPTH, scaling.WIDTH):
            for stage, values in (getattr(read, name) or {}).items():
                dial = f"{name}.{stage}" if stage else name
                dials.append(ScalingFactor(name=dial, values=tuple(sorted({1.0, *map(float, values)})), stock=1.0))
                self._try(dials[-1], f"macro.{dial}")
        if read.image_size:
            sizes = tuple(sorted({float(size) for size in read.image_size}))
            dials.append(ScalingFactor(name=scaling.IMAGE_SIZE, values=sizes, stock=sizes[-1]))
        self._dials = {dial.name: dial for dial in dials}
        return tuple(dials)

    def _try(self, dial: ScalingFactor, address: str) -> None:
        """Build the base model at each value of a dial, the others at rest."""
        if self._base is None:
            return
        _, _, stage = dial.name.partition(".")
        stages = {self._base.stage(layer) for layer in range(len(self._base.rows) - 1)}
        if stage and stage not in stages:
            self._wrong(address, f"the base model has no such stage ({', '.join(sorted(stages))})")
            return
        for value in dial.values:
            if value == dial.stock:
                continue  # the base itself, which is among the variants
            try:
                variant = self._base.scaled(((dial.name, value),))
                _ = variant.traced
            except SpecError as error:
                self._wrong(address, f"{value:g} is not possible: {error}")
            else:
                self._variants.append(variant)

    def slots(self, raw: Any) -> None:
        """What may stand in the base model's layers."""
        for address, entry in self._entries(raw, "slots", Entry, "- at: ...\\n  choices: ..."):
            before = len(self._mistakes)
            offered = self._offered(entry.choices, address)
            if self._base is None:
                continue
            layers = self._matching(entry.at, self._base, f"{address}.at")
            groups = [tuple(layers)] if entry.tie and layers else [(layer,) for layer in layers]
            groups = [group for group in groups if self._owned(group, address)]
            rows = self._base.rows
            slots = [
                Slot(
                    layer=group[0],
                    tied=group[1:],
                    host=", ".join(dict.fromkeys(rows[layer][2] for layer in group)),
                    choices=(STOCK,),
                )
                for group in groups
            ]
            self._place(slots, offered, address, clean=len(self._mistakes) == before)

    def insert(self, raw: Any) -> None:
        """What may be added behind the base model's layers."""
        form = "- after: LAYER\\n  feeds: next\\n  choices: ..."
        for address, entry in self._entries(raw, "insert", Insert, form):
            before = len(self._mistakes)
            offered = self._offered(entry.choices, address)
            if self._base is None:
                continue
            slots = []
            for position, layer in enumerate(entry.after):
                told = self._uninsertable(layer, entry, self._base)
                if told:
                    place = f"{address}.after[{position}]" if len(entry.after) > 1 else f"{address}.after"
                    self._wrong(place, told)
                else:
                    slots.append(Slot(layer=layer, host="Conv", choices=(STOCK,), feeds=entry.feeds))
            self._place(slots, offered, address, clean=len(self._mistakes) == before)

    def start(self, raw: Any) -> list[Start]:
        """The architectures that a search tries first."""
        if not isinstance(raw, list) or not all(isinstance(one, dict) and one for one in raw):
            self._wrong("start", f"a list of architectures is expected, got {raw!r} (- {{LAYER: {{OPERATOR: {{}}}}}})")
            return []
        return [self._architecture(one, f"start[{index}]") for index, one in enumerate(raw)]

    def _architecture(self, raw: Mapping[Any, Any], address: str) -> Start:
        picked: dict[str, Choice] = {}
        picks = {name: said for name, said in raw.items() if name != scaling.MACRO}
        for name, said in picks.items():
            place = f"{address}.{name}"
            choice = self._said(said, place)
            if str(name) in picked:
                self._wrong(place, "stands twice")
            elif choice is not None and self._base is not None and self._carried(str(name), choice, place):
                picked[str(name)] = choice
        return picked, self._turned(raw[scaling.MACRO], f"{address}.{scaling.MACRO}") if scaling.MACRO in raw else {}

    def _turned(self, raw: Any, address: str) -> dict[str, float]:
        """What an architecture's dials stand at, `{width.P4: 0.75}`."""
        if not isinstance(raw, dict):
            self._wrong(address, f"dials with a number each are expected, got {raw!r} ({{width.P4: 0.75}})")
            return {}
        turned: dict[str, float] = {}
        for name, value in raw.items():
            if name not in self._dials:
                self._wrong(f"{address}.{name}", f"no such dial ({nearest(name, self._dials)})")
            elif value not in self._dials[name].values:
                known = ", ".join(f"{each:g}" for each in self._dials[name].values)
                self._wrong(f"{address}.{name}", f"not among the values of the dial, got {value!r} (one of {known})")
            else:
                turned[name] = float(value)
        return turned

    def _said(self, said: Any, address: str) -> Choice | None:
        """An operator with its parameters, `{UIB: {expansion: 2}}`."""
        if not isinstance(said, dict) or len(said) != 1 or not isinstance(next(iter(said.values())), dict):
            self._wrong(address, f"an operator with its parameters is expected, got {said!r} ({{UIB: {{}}}})")
            return None
        ((operator, parameters),) = said.items()
        if operator == STOCK.operator and not parameters:
            return STOCK
        try:
            return Choice.of(operator, parameters)
        except SpecError as error:
            self._mistakes.extend(error.within(address).mistakes)
            return None

    def _carried(self, name: str, choice: Choice, address: str) -> bool:
        """Whether a slot offers a choice."""
        slot = self._slots.get(name)
        if slot is None:
            tied = next((one for one in self._slots.values() if name in map(str, one.tied)), None)
            told = f"it goes by slot {tied.name}" if tied else nearest(name, self._slots)
            self._wrong(address, f"no such slot ({told})")
        elif choice not in slot.choices:
            self._wrong(address, f"{choice} is not among the choices of {slot}")
        else:
            return True
        return False

    def _uninsertable(self, layer: int, entry: Insert, base: Base) -> str | None:
        """Why nothing can be inserted behind a layer, or None."""
        last = len(base.rows) - 2
        if not 0 <= layer <= last:
            return f"no such layer before the head, got {layer} (0 to {last})"
        if not isinstance(base.traced[layer].returned, Tensor):
            return f"layer {layer} is {base.rows[layer][2]}, which returns several maps"
        known = self._slots.get(insertions.behind(layer))
        if known and known.feeds != entry.feeds:
            return f"layer {layer} has an insertion already, which feeds {known.feeds}"
        try:
            insertions.splice(base.rows, {layer: (entry.feeds, [-1, 1, "nn.Identity", []])})
        except SpecError as error:
            return str(error)
        return None

    def _owned(self, group: tuple[int, ...], address: str) -> bool:
        """Note which layers stand together; a layer cannot be tied and free at once."""
        for layer in group:
            owners, first = self._owners.setdefault(layer, (group, address))
            if owners != group:
                tied = ", ".join(map(str, owners if len(owners) > len(group) else group))
                self._wrong(address, f"layer {layer} stands in {first} too; both must tie the same layers ({tied})")
                return False
        return True

    def _offered(self, choices: Mapping[str, Mapping[str, Any]], address: str) -> dict[str, list[Choice]]:
        """Every combination of listed values, by operator; mistakes in names and values are collected."""
        offered: dict[str, list[Choice]] = {}
        for name, given in choices.items():
            place = f"{address}.choices.{name}"
            if name == STOCK.operator:
                if given:
                    self._wrong(place, f"stock has no parameters, got {given!r} ({{}})")
                continue
            if name not in OPERATORS:
                self._wrong(place, f"unknown operator ({nearest(name, [STOCK.operator, *OPERATORS])})")
                continue
            values = self._values(OPERATORS[name], given, place)
            combinations = product(*values.values())
            found = (Choice.of(name, dict(zip(values, combination, strict=True))) for combination in combinations)
            offered[name] = list(dict.fromkeys(found))
        return offered

    def _values(self, operator: Operator, given: Mapping[str, Any], place: str) -> dict[str, list[Value]]:
        values: dict[str, list[Value]] = {}
        for name, listed in given.items():
            options = listed if isinstance(listed, list) else [listed]
            if not options:
                self._wrong(f"{place}.{name}", "an empty list offers nothing (a value or several)")
            for option in options:
                try:
                    values.setdefault(name, []).append(operator.parameter(name).check(option))
                except SpecError as error:
                    self._mistakes.extend(error.within(f"{place}.{name}").mistakes)
                    if f"no parameter {name!r}" in str(error):
                        break
        return {name: options for name, options in values.items() if options}

    def _place(self, slots: Sequence[Slot], offered: Mapping[str, list[Choice]], address: str, *, clean: bool) -> None:
        """Add what an entry offers to its slots."""
        for name, choices in offered.items():
            refusals = []
            for empty in slots:
                slot = self._slots.get(empty.name, empty)
                if (slot.name, name) in self._origins:
                    first = self._origins[slot.name, name]
                    self._wrong(f"{address}.choices.{name}", f"{slot} has {name} already, from {first}")
                    clean = False
                    continue
                self._origins[slot.name, name] = address
                legal, told = self._legal(choices, slot)
                if not legal:
                    refusals.append(f"{slot}: {told}")
                self._slots[slot.name] = replace(slot, choices=(*slot.choices, *legal))
            if slots and len(refusals) == len(slots):
                self._wrong(f"{address}.choices.{name}", f"fits no layer of this entry ({refusals[0]})")
                clean = False
        for empty in slots:
            self._slots.setdefault(empty.name, empty)
            if clean:  # else the cause has a line already
                self._matched.setdefault(empty.name, address)

    def _legal(self, choices: Sequence[Choice], slot: Slot) -> tuple[list[Choice], str]:
        """The choices that every site of the slot accepts at every turn of a dial, and the last reason against one."""
        legal, told = [], ""
        for choice in choices:
            reasons = (incompatibility(variant, slot, choice) for variant in self._variants)
            reason = next(filter(None, reasons), None)
            if reason is None:
                legal.append(choice)
            else:
                told = reason
        return legal, told

    def _matching(self, at: At, base: Base, address: str) -> list[int]:
        """The layers that an entry is about."""
        rows = base.rows
        strangers = [host for host in at.host or () if host not in HOSTS]
        self._mistakes.extend(
            f"{address}.host: no such host, got {host!r} ({nearest(host, HOSTS)})" for host in strangers
        )
        if strangers:
            return []
        if at == At():
            self._mistakes.append(f"{address}: says nothing (section, host or layers)")
            return []
        for position, layer in enumerate(at.layers or ()):
            if not 0 <= layer < len(rows):
                self._mistakes.append(
                    f"{address}.layers[{position}]: no such layer, got {layer} (0 to {len(rows) - 1})"
                )
            elif rows[layer][2] not in HOSTS:
                self._mistakes.append(
                    f"{address}.layers[{position}]: layer {layer} is {rows[layer][2]}, which hosts no operator"
                )
        layers = [
            layer
            for layer, row in enumerate(rows)
            if row[2] in HOSTS
            and (at.host is None or row[2] in at.host)
            and at.section in {None, base.section(layer)}
            and (at.layers is None or layer in at.layers)
        ]
        in_range = all(0 <= layer < len(rows) and rows[layer][2] in HOSTS for layer in at.layers or ())
        if not layers and in_range:
            self._mistakes.append(f"{address}: matches no layer of the base model")
        return layers
