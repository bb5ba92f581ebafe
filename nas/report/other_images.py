"""Say how many images trainings read that repeat those of a search, beside the search's own: pure functions."""

from trials.budget import Subset


def images_in_words(before: Subset | None, after: Subset | None) -> str:
    """Return how many images trainings read, for a plan; empty if they and the search train on all.

    Args:
        before: images of the search; None for all.
        after: images of the trainings.
    """
    if before != after:
        return f"{_changes(before, after)} as in the search"
    if after is None or after.train == after.of_train:
        return ""
    return f"{after.train} of {after.of_train} to train on, as in the search (--fraction 1: on all)"


def change_in_words(before: Subset | None, after: Subset | None) -> str:
    """Return how many images trainings read, if the search has read others; empty if it has not."""
    return f"with {_changes(before, after)}" if before != after else ""


def _changes(before: Subset | None, after: Subset | None) -> str:
    whole = after or before
    assert whole is not None  # noqa: S101 - one of them is a subset
    every = whole.of_train, whole.of_val
    old, new = (every if one is None else (one.train, one.val) for one in (before, after))
    pairs = zip(new, old, ("to train on", "to validate on"), strict=True)
    parts = [f"{here} images {purpose}, not {there}" for here, there, purpose in pairs if here != there]
    return ", ".join(parts) or f"{new[0]} of {whole.of_train} images to train on, not the same"
