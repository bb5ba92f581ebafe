"""`nas`, and a worker of it, that write a line to a file when an epoch begins and when its checkpoint is written.

`benchmarks/torture.py` starts it. TORTURE_TRACE names the file, a line of JSON each: `event` (`begun` or `saved`),
`training` (the identity of the training, the same in every process that continues it), `epoch`, `losses`.
All else is real, but that four workers are allowed on fewer cores.

Of several machines TORTURE_MACHINE names this one, as does `machine` in each line. Their workers store the checkpoint
of every epoch for the others, as they do of epochs that take half a minute, and write a line with `stored` then.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from trials import machine
from trials.file_names import CHECKPOINT

_cores = machine.cores
machine.cores = lambda: max(4, _cores())


def _trace(event: str, training: str, epoch: int, losses: Any = None) -> None:
    values = {"training": training, "epoch": epoch, "losses": losses}
    line = json.dumps({"event": event, **values, "process": os.getpid(), "machine": os.environ.get("TORTURE_MACHINE")})
    number = os.open(os.environ["TORTURE_TRACE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(number, f"{line}\n".encode())  # one call: whole, or not there
    finally:
        os.close(number)


def _run_worker() -> None:
    from nas.execution import shared_trials, worker  # noqa: PLC0415 - PyTorch, which `nas` itself does not need
    from nas.study.shared_study import SharedStudy  # noqa: PLC0415
    from trials.training.checkpoint import Checkpoint  # noqa: PLC0415
    from trials.training.short_training import ShortTraining  # noqa: PLC0415

    write, run_callbacks, publish = Checkpoint.write, ShortTraining.run_callbacks, SharedStudy.publish_at_once
    saved: list[tuple[str, int]] = []

    def traced_write(self: Checkpoint, training: Any) -> None:
        write(self, training)
        last = training.epochs_done[-1]
        saved[:] = [(self.identity, last.epoch)]
        _trace("saved", self.identity, last.epoch, dict(last.losses))

    def traced_publish(self: SharedStudy, file: Path) -> None:
        publish(self, file)
        if file.name == CHECKPOINT and saved:
            _trace("stored", *saved[0])

    def traced_callbacks(self: ShortTraining, event: str) -> None:
        if event == "on_train_epoch_start" and self.checkpoint is not None:
            _trace("begun", self.checkpoint.identity, self.epoch + 1)
        run_callbacks(self, event)

    Checkpoint.write = traced_write  # type: ignore[method-assign]
    ShortTraining.run_callbacks = traced_callbacks  # type: ignore[method-assign]
    if "TORTURE_MACHINE" in os.environ:
        SharedStudy.publish_at_once = traced_publish  # type: ignore[method-assign]
        vars(shared_trials).update(_CHECKPOINT_SECONDS=0.0, _STORING_SHARE=float("inf"))
    worker.main()


def _run_command() -> None:
    from nas.cli import main  # noqa: PLC0415 - not in a worker
    from nas.execution import supervisor  # noqa: PLC0415

    supervisor.WORKER = (sys.executable, "-P", __file__, "--worker")
    main()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        del sys.argv[1]
        _run_worker()
    else:
        try:
            _run_command()
        except KeyboardInterrupt:  # while it imports
            sys.exit(130)
