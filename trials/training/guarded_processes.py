"""Guards of `nas yolo` in the processes of a training on several GPUs, which Ultralytics starts with a file of its own.

They open the data file and checkpoints again, and they are the ones that read caches of labels.
"""

from collections.abc import Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from ultralytics.utils import dist

from search_spaces.errors import EnvironmentProblem

_BEFORE = "    cfg = DEFAULT_CFG_DICT.copy()\n"
"""Line of Ultralytics' file before which the trainer's class is loaded, and after which the trainer begins."""


def guard(arguments: Sequence[str], *, trusted: bool) -> None:
    """Let processes for further GPUs begin with the same guards, in this process from now on."""
    stock_generate = dist.generate_ddp_file

    @wraps(stock_generate)
    def generate(trainer: Any) -> str:
        file = Path(stock_generate(trainer))
        stock = file.read_text(encoding="utf-8")
        if stock.count(_BEFORE) != 1:
            raise EnvironmentProblem(
                f"{file}: this version of Ultralytics starts its processes in another way (one GPU is expected)"
            )
        call = f"guard({list(arguments)!r}, trusted={trusted}, own={str(Path(trainer.save_dir).absolute())!r})"
        lines = f"    from trials.training import yolo_inputs\n    yolo_inputs.{call}\n"
        file.write_text(stock.replace(_BEFORE, lines + _BEFORE), encoding="utf-8")
        return str(file)

    dist.generate_ddp_file = generate
