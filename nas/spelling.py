"""Find the option that is meant by the name that another tool has for it, or by a misspelled one."""

import difflib
from collections.abc import Collection, Mapping
from types import MappingProxyType

ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "imgsz": ("image_size", "deploy_size"),
        "img": ("image_size", "deploy_size"),
        "img_size": ("image_size", "deploy_size"),
        "size": ("image_size", "deploy_size"),
        "resolution": ("image_size", "deploy_size"),
        "batch_size": ("batch",),
        "bs": ("batch",),
        "gpu": ("device",),
        "gpus": ("device",),
        "cuda": ("device",),
        "devices": ("device",),
        "model": ("space", "study"),
        "cfg": ("model", "space"),
        "dataset": ("data",),
        "project": ("runs",),
        "output": ("out", "runs"),
        "save_dir": ("out", "runs"),
        "name": ("study",),
        "exp": ("study",),
        "pretrained": ("weights",),
        "checkpoint": ("weights",),
        "n_trials": ("trials",),
        "num_trials": ("trials",),
        "n_jobs": ("workers", "jobs"),
        "num_workers": ("workers",),
        "jobs": ("workers",),
        "time": ("timeout",),
        "amp": ("precision",),
        "half": ("precision",),
        "dtype": ("precision",),
        "nc": ("classes",),
        "num_classes": ("classes",),
        "random_seed": ("seed",),
        "json": ("format",),
        "csv": ("format",),
        "cache": ("no_cache",),
    }
)
"""Names that Ultralytics, YOLOv5 and other tools use, with the options of nas, preferred ones first."""

_NEAR = 0.6


def nearest_option(word: str, options: Collection[str]) -> str | None:
    """Return the option that a name stands for, or the most similar one; None if none is similar.

    Args:
        word: name as it was typed.
        options: names of the options, with underscores.
    """
    name = word.strip("-").lower().replace("-", "_")
    if name in options:
        return name
    for alias in ALIASES.get(name, ()):
        if alias in options:
            return alias
    return next(iter(difflib.get_close_matches(name, options, n=1, cutoff=_NEAR)), None)
