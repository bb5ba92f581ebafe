"""Read the parts of a space file: slots, insertions and scaling factors; check them against the base model."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, TypeVar

from pydantic import BaseModel
from torch import Tensor

from search_spaces import fork_rules, grammar, insertions, scaling
from search_spaces.architecture import STOCK, Choice
from search_spaces.base import Base
from search_spaces.errors import SpecError, nearest, typo_of
from search_spaces.grammar import At, Entry, Insert, Macro
from search_spaces.hosts import HOSTS
from search_spaces.operators import OPERATORS, Operator, SiteKind, Value
from search_spaces.operators import modules as user_modules
from search_spaces.operators.class_operator import ClassOperator
from search_spaces.slot import ScalingFactor, Slot, built_of, incompatibility
from search_spaces.start_reader import Start, StartReader

_RESERVED_IN_ENTRY = {"name"}

Model = TypeVar("Model", bound=BaseModel)


class Reader(grammar.PartReader):
    """Reader of the parts of a file, which collects all mistakes in them.

    Args:
        base: None if it cannot be loaded; the form of the file and the names in it are checked nevertheless.
        mistakes: gets a line for each mistake.
        is_vocabulary_whole: whether all files of `modules` could be read; otherwise a name that is none of ours, nor
            nearly one, may be of those that could not.
    """

    def __init__(self, base: Base | None, mistakes: list[str], *, is_vocabulary_whole: bool = True) -> None:
        super().__init__(mistakes)
        self._base = base
        self._is_vocabulary_whole = is_vocabulary_whole
        self._variants: list[Base] = [] if base is None else [base]
        self._slots: dict[str, Slot] = {}
        self._factors: dict[str, ScalingFactor] = {}
        self._origins: dict[tuple[str, str], str] = {}
        self._owners: dict[int, tuple[tuple[int, ...], str]] = {}
        self._matched: dict[str, str] = {}
        self._same: dict[tuple[str, Choice], Choice] = {}
        self._refused: dict[str, str] = {}

    def result(self) -> tuple[Slot, ...]:
        """Return the slots, sorted by layer; one without a legal operator is a mistake."""
        for name, address in self._matched.items():
            if len(self._slots[name].choices) == 1:
                reason = self._refused.get(name)
                self._wrong(
                    address, f"{self._slots[name]} has stock as its only choice{f' ({reason})' if reason else ''}"
                )
        return tuple(sorted(self._slots.values(), key=lambda slot: (slot.layer, bool(slot.feeds))))

    def _entries(self, raw: Any, key: str, model: type[Model], form: str) -> Iterable[tuple[str, Model]]:
        """Yield the entries that have the right form, with their addresses."""
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
        """Check the parts of an entry of the wrong form: its operators and their parameters, and its layers."""
        choices = one.get("choices")
        listed = choices.items() if isinstance(choices, dict) else ()
        self._offered({str(name): given for name, given in listed if isinstance(given, dict)}, address)
        at = grammar.read(At, one["at"], f"{address}.at", []) if "at" in one else None
        if at is not None and self._base is not None:
            self._matching(at, self._base, f"{address}.at")

    def scaling_factors(self, raw: Any) -> tuple[ScalingFactor, ...]:
        """Read the scaling factors and build the base model at each value, since choices must be legal at all."""
        read = grammar.read(Macro, raw, "macro", self._mistakes)
        if read is None and isinstance(raw, dict):  # to find the mistakes of the others, too
            parts = (grammar.read(Macro, {name: value}, "macro", []) for name, value in raw.items())
            right = {name: getattr(part, name) for name, part in zip(raw, parts, strict=True) if part is not None}
            read = Macro().model_copy(update=right)
            if read == Macro():
                return ()
        if read is None:
            return ()
        if read == Macro():
            self._wrong("macro", "empty (depth, width or image_size)")
        factors = []
        for name in (scaling.DEPTH, scaling.WIDTH):
            for stage, values in (getattr(read, name) or {}).items():
                full_name = f"{name}.{stage}" if stage else name
                possible = tuple(sorted({1.0, *map(float, values)}))
                factors.append(ScalingFactor(name=full_name, values=possible, stock=1.0))
                self._try(factors[-1], f"macro.{full_name}")
        if read.image_size:
            sizes = tuple(sorted({float(size) for size in read.image_size}))
            factors.append(ScalingFactor(name=scaling.IMAGE_SIZE, values=sizes, stock=sizes[-1]))
        self._factors = {factor.name: factor for factor in factors}
        return tuple(factors)

    def _try(self, factor: ScalingFactor, address: str) -> None:
        """Build the base model at each value of a scaling factor, with the others at 1."""
        if self._base is None:
            return
        _, _, stage = factor.name.partition(".")
        stages = {self._base.stage(layer) for layer in range(len(self._base.rows) - 1)}
        if stage and stage not in stages:
            self._wrong(address, f"the base model has no such stage ({', '.join(sorted(stages))})")
            return
        for value in factor.values:
            if value == factor.stock:
                continue  # the base model, which is among the variants
            try:
                variant = self._base.scaled(((factor.name, value),))
                _ = variant.traced
            except SpecError as error:
                self._wrong(address, f"{value:g} is not possible: {error}")
            else:
                self._variants.append(variant)

    def slots(self, raw: Any) -> None:
        """Read the choices for layers of the base model."""
        for address, entry in self._entries(raw, "slots", Entry, "- at: ...\\n  choices: ..."):
            before = len(self._mistakes)
            offered = self._offered(entry.choices, address)
            if self._base is None:
                continue
            layers = self._matching(entry.at, self._base, f"{address}.at", offered)
            groups = [tuple(layers)] if entry.tie and layers else [(layer,) for layer in layers]
            groups = [group for group in groups if self._claim(group, address)]
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
            is_known = {*entry.choices} <= {STOCK.operator, *offered}
            self._place(slots, offered, address, clean=is_known and len(self._mistakes) == before)

    def insert(self, raw: Any) -> None:
        """Read the choices for layers that are inserted behind layers of the base model."""
        form = "- after: LAYER\\n  feeds: next\\n  choices: ..."
        for address, entry in self._entries(raw, "insert", Insert, form):
            before = len(self._mistakes)
            offered = self._offered(entry.choices, address)
            if self._base is None:
                continue
            slots = []
            for position, layer in enumerate(entry.after):
                mistake = self._insertion_mistake(layer, entry, self._base)
                if mistake:
                    place = f"{address}.after[{position}]" if len(entry.after) > 1 else f"{address}.after"
                    self._wrong(place, mistake)
                else:
                    slots.append(Slot(layer=layer, host="Conv", choices=(STOCK,), feeds=entry.feeds))
            is_known = {*entry.choices} <= {STOCK.operator, *offered}
            self._place(slots, offered, address, clean=is_known and len(self._mistakes) == before)

    def start(self, raw: Any) -> list[Start]:
        """Read the architectures that a search tries first; to be called after all slots and scaling factors."""
        reader = StartReader(self._slots, self._factors, self._same, self._mistakes, checked=self._base is not None)
        return reader.read(raw)

    def _insertion_mistake(self, layer: int, entry: Insert, base: Base) -> str | None:
        """Return why nothing can be inserted behind a layer, or None."""
        last = len(base.rows) - 2
        if not 0 <= layer <= last:
            return f"no such layer before the head, got {layer} (0 to {last})"
        if not isinstance(base.traced[layer].returned, Tensor):
            return f"layer {layer} is {base.rows[layer][2]}, which returns several maps"
        other = self._slots.get(insertions.behind(layer))
        if other and other.feeds != entry.feeds:
            return f"layer {layer} has an insertion already, which feeds {other.feeds}"
        try:
            insertions.splice(base.rows, {layer: (entry.feeds, [-1, 1, "nn.Identity", []])})
        except SpecError as error:
            return str(error)
        return None

    def _claim(self, group: tuple[int, ...], address: str) -> bool:
        """Record which layers are tied; False, with a mistake, if a layer is in two different groups."""
        for layer in group:
            owners, first = self._owners.setdefault(layer, (group, address))
            if owners != group:
                tied = ", ".join(map(str, owners if len(owners) > len(group) else group))
                self._wrong(address, f"layer {layer} is in {first}, too; both must tie the same layers ({tied})")
                return False
        return True

    def _offered(self, choices: Mapping[str, Mapping[str, Any]], address: str) -> dict[str, list[Choice]]:
        """Return every combination of the listed values, by operator; collect mistakes in names and values."""
        offered: dict[str, list[Choice]] = {}
        for name, given in choices.items():
            place = f"{address}.choices.{name}"
            if name == STOCK.operator:
                if given:
                    self._wrong(place, f"stock has no parameters, got {given!r} ({{}})")
                continue
            operator = self._operator(name, place)
            if operator is None:
                continue
            if wanting := [one for one in operator.required if one not in given]:
                self._mistakes.extend(f"{place}: {operator.wanting(one)}" for one in wanting)
                continue
            values = self._values(operator, given, place)
            if not {*operator.required} <= {*values}:
                continue
            combinations = product(*values.values())
            found = (Choice.of(name, dict(zip(values, combination, strict=True))) for combination in combinations)
            offered[name] = list(dict.fromkeys(found))
        return offered

    def _operator(self, name: str, place: str) -> Operator | None:
        """Return the operator of a name, or of the class of that name in a user's file; None, with a mistake, else."""
        try:
            operator = user_modules.offer(name)
        except SpecError as error:
            self._mistakes.extend(error.within(place).mistakes)
            return None
        if operator is None and (self._is_vocabulary_whole or typo_of(name, OPERATORS)):
            self._wrong(place, f"unknown operator ({nearest(name, [STOCK.operator, *OPERATORS])})")
        return operator

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
        """Add the choices of an entry to its slots; `clean` says that nothing in it is wrong or unknown so far."""
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
                legal, reason = self._legal(choices, slot)
                if not legal:
                    refusals.append(f"{slot}: {reason}")
                    self._refused[slot.name] = f"{name}: {reason}"
                self._slots[slot.name] = replace(slot, choices=(*slot.choices, *self._distinct(legal, slot)))
            if slots and len(refusals) == len(slots):
                hint = self._hint(OPERATORS[name], choices[0], slots[0])
                self._wrong(f"{address}.choices.{name}", f"fits no layer of this entry ({refusals[0]}{hint})")
                clean = False
        for empty in slots:
            self._slots.setdefault(empty.name, empty)
            if clean:  # otherwise the cause is reported already
                self._matched.setdefault(empty.name, address)

    def _hint(self, operator: Operator, choice: Choice, slot: Slot) -> str:
        """Return why an operator fits no slot, or where else it would: the end of a message, or empty.

        Where a class fits is found by trying, as everywhere.
        """
        if not isinstance(operator, ClassOperator):
            return _other_place(operator, slot)
        if older := fork_rules.of_older_parent(operator.module):
            return f"; {older}"
        parameters, (base, *_) = dict(choice.parameters), self._variants
        hosts = (layer for layer, row in enumerate(base.rows) if row[2] in HOSTS)
        layers = [str(layer) for layer in hosts if not base.incompatibility(layer, operator, parameters)]
        ways = [f"takes the place of layer{'s' if len(layers) > 1 else ''} {', '.join(layers)}"] if layers else []
        if slot.feeds is None and not base.incompatibility(slot.layer, operator, parameters, inserted=True):
            ways.append(_behind(operator, slot))
        host, _, inner = operator.name.partition("_")
        is_row = f"; it is also what {inner} in a {host} is called, so that it stands for whole blocks alone"
        return ("" if SiteKind.LAYER in operator.kinds else is_row) + _listed(ways)

    def _legal(self, choices: Sequence[Choice], slot: Slot) -> tuple[list[Choice], str]:
        """Return the choices that are legal at every value of a scaling factor, and the last reason against one."""
        legal, last = [], ""
        for choice in choices:
            reasons = (incompatibility(variant, slot, choice) for variant in self._variants)
            reason = next(filter(None, reasons), None)
            if reason is None:
                legal.append(choice)
            else:
                last = reason
        return legal, last

    def _distinct(self, choices: Sequence[Choice], slot: Slot) -> Iterable[Choice]:
        """Yield the choices without those that are the same network as one before, and remember these."""
        first: dict[Hashable, Choice] = {}
        for choice in choices:
            kept = first.setdefault(tuple(built_of(variant, slot, choice) for variant in self._variants), choice)
            if kept == choice:
                yield choice
            else:
                self._same[slot.name, choice] = kept

    def _matching(self, at: At, base: Base, address: str, offered: Iterable[str] = ()) -> list[int]:
        """Return the layers of an entry; those that join maps where it names them, or offers an operator that does."""
        rows = base.rows
        unknown = [host for host in at.host or () if host not in HOSTS]
        self._mistakes.extend(
            f"{address}.host: no such host, got {host!r} ({nearest(host, HOSTS)})" for host in unknown
        )
        if unknown:
            return []
        if at == At():
            self._mistakes.append(f"{address}: empty (section, host or layers)")
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
        is_named = at.host is not None or at.layers is not None
        operators = [OPERATORS[name] for name in offered]
        joins = is_named or any(
            SiteKind.FUSION in one.kinds and not isinstance(one, ClassOperator) for one in operators
        )
        layers = [
            layer
            for layer, row in enumerate(rows)
            if row[2] in HOSTS
            and (joins or HOSTS[row[2]].whole is not SiteKind.FUSION)
            and (at.host is None or row[2] in at.host)
            and at.section in {None, base.section(layer)}
            and (at.layers is None or layer in at.layers)
        ]
        in_range = all(0 <= layer < len(rows) and rows[layer][2] in HOSTS for layer in at.layers or ())
        if not layers and in_range:
            self._mistakes.append(f"{address}: matches no layer of the base model")
        return layers


def _other_place(operator: Operator, slot: Slot) -> str:
    """Return where an operator that fits no slot could be offered instead; empty if that is not the reason."""
    ways = []
    hosts = [host.name for host in HOSTS.values() if host.whole is SiteKind.STAGE]
    if SiteKind.STAGE in operator.kinds:
        if all(HOSTS[host].holds(operator) for host in slot.host.split(", ")):
            return ""
        ways.append(f"takes the place of {', '.join(hosts[:-1])} or {hosts[-1]}")
    if SiteKind.INSERTED in operator.kinds and slot.feeds is None:
        ways.append(_behind(operator, slot))
    return _listed(ways)


def _behind(operator: Operator, slot: Slot) -> str:
    return f"stands behind a layer, insert: [{{after: {slot.layer}, choices: {{{operator.name}: {{}}}}}}]"


def _listed(ways: Sequence[str]) -> str:
    return f"; it {', or '.join(ways)}" if ways else ""
