"""Run Ultralytics' command with the layers of this package, and log trainings of studies' models."""

import sys
from collections.abc import Sequence


def run(arguments: Sequence[str], *, trust: bool = False) -> None:
    """Run `yolo` with arguments, in this process.

    Args:
        trust: open checkpoints that could run code, as with `--trust` among the arguments.

    Raises:
        SpecError: an argument or a model file is wrong.
        DataError: a file is missing, or a checkpoint would run code.
        EnvironmentProblem: a file could not be downloaded.
    """
    sys.argv[:] = ["yolo", *arguments]  # in place, and first: Ultralytics keeps the list when it is imported
    from ultralytics import cfg  # noqa: PLC0415 - after that

    from nas.workflows.training_log import logged  # noqa: PLC0415 - this and the next import Ultralytics
    from trials.training import full_training, yolo_inputs  # noqa: PLC0415 - and search_spaces: registers our layers

    with yolo_inputs.mistakes_in_one_line():  # what is checked is what Ultralytics will read
        typed = [word.removesuffix(",") for word in cfg.merge_equals_args(sys.argv)]
    words, is_trusted = yolo_inputs.without_trust(yolo_inputs.without_modules(typed))
    trusted = trust or is_trusted
    sys.argv[:] = yolo_inputs.with_resumed_model(full_training.prepare_command(words))
    settings = yolo_inputs.settings_of_files(sys.argv)
    yolo_inputs.require_valid(sys.argv, settings=settings, trusted=trusted)
    yolo_inputs.require_named_model(sys.argv, settings=settings)
    sys.argv[:] = yolo_inputs.with_task(sys.argv)
    yolo_inputs.guard(sys.argv, settings=settings, trusted=trusted)
    with logged(), yolo_inputs.mistakes_in_one_line():
        cfg.entrypoint()
