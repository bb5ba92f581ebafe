"""Names that constructors in forks of YOLO give to the channels before and behind a layer, and to repeats."""

import ast
from collections.abc import Sequence
from contextlib import suppress
from inspect import Parameter, getsource, signature
from textwrap import dedent
from typing import Any

from torch import nn


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_INPUT = _words(
    """
    c1 c_in cin ch_in ch_in1 dim_in in_c in_ch in_chan in_channel in_channels in_chans in_dim in_dims
    in_features in_planes in_size inc inchannel inchannels inchans inp inplanes input_channel input_channels
    input_dim n_in nc_in nin
    ch_list channel_list channels_list chs in_ch_list in_channel_list in_channels_list in_chs inc_list inchs incs
    """
)
_OUTPUT = _words(
    """
    c2 c_out ch_out ch_out1 cout dim_out n_out nout ouc oup out_c out_ch out_chan out_channel out_channels
    out_chans out_dim out_dims out_features out_planes out_size outc outchannel outchannels outchans outplanes
    output_channel output_channels output_dim planes
    """
)
_SAME = _words(
    """
    c c_ ch chan channel channels chn d_model dim dims embed_dim embedding_dim feature_dim features gate_channel
    gate_channels k_channels n_channels n_feat n_feats nf num_channels num_features planes
    """
)
_REPEATS = frozenset({"n", "num", "num_blocks", "n_blocks", "num_repeat", "num_repeats", "number", "repeat", "repeats"})
_COUNT = frozenset({"length", "n_input", "n_inputs", "num_in", "num_input", "num_inputs", "num_maps"})
_KERNEL = frozenset({"k", "k_size", "kernel", "kernel_size", "ks", "ksize"})


_BY_POSITION = {Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD}


def arguments(module: type[nn.Module]) -> list[Parameter]:
    """Return the parameters of a class's constructor, those by name alone last; none if it does not say.

    Of one that takes `**kwargs` alone, what its source takes from them; of one that hands `*args` or `**kwargs` on to
    the class that it is derived from, also those of that class.
    """
    found = _parameters(module)
    if [one.kind for one in found] == [Parameter.VAR_KEYWORD]:
        return _taken_from(found[0].name, module)
    named = [one for one in found if one.kind in _BY_POSITION] + _handed_on(module, found)
    return sorted(
        [*named, *(one for one in found if one.kind is Parameter.KEYWORD_ONLY)],
        key=lambda one: one.kind is Parameter.KEYWORD_ONLY,
    )


def hides_its_arguments(module: type[nn.Module]) -> bool:
    """Return whether a constructor takes `**kwargs` alone, and its source does not say which."""
    return [one.kind for one in _parameters(module)] == [Parameter.VAR_KEYWORD] and not arguments(module)


def _parameters(module: type[nn.Module]) -> list[Parameter]:
    try:
        return list(signature(module.__init__).parameters.values())[1:]
    except (TypeError, ValueError):
        return []


def _taken_from(mapping: str, module: type[nn.Module]) -> list[Parameter]:
    """Return what a constructor takes from its `**kwargs`: channels before it, channels behind it, then the others.

    That are `kwargs["dim"]`, `kwargs.get("dim", 64)`, `kwargs.pop("dim")`, and with `super().__init__(**kwargs)` the
    parameters of the class that it is derived from.
    """
    found: dict[str, Parameter] = {}
    nodes = (node for node in _inside(module) if isinstance(node, ast.Subscript | ast.Call))
    for node in sorted(nodes, key=lambda one: (one.lineno, one.col_offset)):
        match node:
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=str(key))) if name == mapping:
                found.setdefault(key, _by_name(key))
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=name), attr="get" | "pop" as method),
                args=[ast.Constant(value=str(key)), *others],
            ) if name == mapping:
                with suppress(ValueError):  # of no literal; the constructor has it
                    default = ast.literal_eval(others[0]) if others else None if method == "get" else Parameter.empty
                    found.setdefault(key, _by_name(key, default))
            case ast.Call(
                func=ast.Attribute(value=ast.Call(func=ast.Name(id="super")), attr="__init__"),
                keywords=[*_, ast.keyword(arg=None, value=ast.Name(id=name))],
            ) if name == mapping:
                inherited = _of_parent(module)
                found |= {one.name: _by_name(one.name, one.default) for one in inherited if one.name not in found}
    return sorted(found.values(), key=lambda one: (not is_input(one.name), not is_output(one.name, after="")))


def _handed_on(module: type[nn.Module], own: Sequence[Parameter]) -> list[Parameter]:
    """Return the parameters that a constructor takes by `*args` or `**kwargs` and hands on to that of its parent.

    Those that it takes by `*args` alone are by position only, those by `**kwargs` alone by name only.
    """
    sequence = next((one.name for one in own if one.kind is Parameter.VAR_POSITIONAL), None)
    mapping = next((one.name for one in own if one.kind is Parameter.VAR_KEYWORD), None)
    for node in _inside(module) if sequence or mapping else ():
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Call(func=ast.Name(id="super")), attr="__init__")):
                by_position = any(_is(one.value, sequence) for one in node.args if isinstance(one, ast.Starred))
                by_name = any(one.arg is None and _is(one.value, mapping) for one in node.keywords)
                if not by_position and not by_name:
                    return []
                taken = {*(one.name for one in own), *(one.arg for one in node.keywords)}
                left = _of_parent(module)[len(node.args) - by_position :]
                kind = _KIND[by_position, by_name]
                return [one.replace(kind=kind) for one in left if one.name not in taken]
    return []


_KIND = {
    (True, False): Parameter.POSITIONAL_ONLY,
    (False, True): Parameter.KEYWORD_ONLY,
    (True, True): Parameter.POSITIONAL_OR_KEYWORD,
}


def _is(node: ast.expr, name: str | None) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _inside(module: type[nn.Module]) -> list[ast.AST]:
    """Return the nodes of a constructor's source; none where it has no source."""
    try:
        return list(ast.walk(ast.parse(dedent(getsource(module.__init__)))))
    except (OSError, TypeError, SyntaxError):
        return []


def _of_parent(module: type[nn.Module]) -> list[Parameter]:
    """Return the parameters of the constructor that `super().__init__` is in that of a class."""
    owner = next(one for one in module.__mro__ if "__init__" in vars(one))
    after = module.__mro__[module.__mro__.index(owner) + 1 :]
    parent = next(one for one in after if "__init__" in vars(one))
    return arguments(parent) if parent is not nn.Module and issubclass(parent, nn.Module) else []


def _by_name(name: str, default: Any = Parameter.empty) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default)


def names_of(module: type[nn.Module], given: Sequence[Any]) -> tuple[str, ...]:
    """Return the names of the arguments that a constructor takes by name alone, the last of those that are given."""
    names = arguments(module)
    if takes_any(module) or len(given) > len(names):
        return ()
    return tuple(one.name for one in names[: len(given)] if one.kind is Parameter.KEYWORD_ONLY)


def takes_any(module: type[nn.Module]) -> bool:
    """Return whether a class's constructor takes any number of arguments by position, `*args`."""
    try:
        found = signature(module.__init__).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(one.kind is Parameter.VAR_POSITIONAL for one in found)


def is_input(name: str) -> bool:
    """Return whether a parameter is the number of channels before the layer, or before and behind it."""
    return name.casefold() in _INPUT | _SAME


def is_output(name: str, *, after: str) -> bool:
    """Return whether a parameter is the number of channels behind the layer.

    Args:
        after: name of the parameter before it: behind `inc`, but not behind `dim`, `channel` is the output's.
    """
    return name.casefold() in (_OUTPUT | _SAME if after.casefold() in _INPUT else _OUTPUT)


def is_count(name: str) -> bool:
    """Return whether a parameter is the number of maps that the layer reads."""
    return name.casefold() in _COUNT


def is_repeats(name: str) -> bool:
    """Return whether a parameter is the number of inner blocks."""
    return name.casefold() in _REPEATS


def is_kernel(name: str) -> bool:
    """Return whether a parameter is the size of a kernel."""
    return name.casefold() in _KERNEL
