"""Names that constructors in forks of YOLO give to the channels before and behind a layer, and to repeats."""

from collections.abc import Sequence
from inspect import Parameter, signature
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
    c c_ ch chan channel channels chn d_model dim dims embed_dim feature_dim features gate_channel
    gate_channels k_channels n_channels n_feat n_feats nf num_channels num_features planes
    """
)
_REPEATS = frozenset({"n", "num", "num_blocks", "n_blocks", "num_repeat", "num_repeats", "number", "repeat", "repeats"})
_COUNT = frozenset({"length", "n_input", "n_inputs", "num_in", "num_input", "num_inputs", "num_maps"})
_KERNEL = frozenset({"k", "k_size", "kernel", "kernel_size", "ks", "ksize"})


_BY_POSITION = {Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD}


def arguments(module: type[nn.Module]) -> list[Parameter]:
    """Return the parameters of a class's constructor, those by name alone last; none if it does not say."""
    try:
        found = list(signature(module.__init__).parameters.values())[1:]
    except (TypeError, ValueError):
        return []
    return [one for one in found if one.kind in _BY_POSITION] + [
        one for one in found if one.kind is Parameter.KEYWORD_ONLY
    ]


def constructed(module: type[nn.Module], given: Sequence[Any]) -> nn.Module:
    """Build a layer of arguments in the order of `arguments`: those by name alone get their names."""
    names = arguments(module)
    first = sum(one.kind in _BY_POSITION for one in names)
    if takes_any(module) or len(given) > len(names):
        return module(*given)
    by_name = {names[position].name: given[position] for position in range(first, len(given))}
    return module(*given[:first], **by_name)


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
