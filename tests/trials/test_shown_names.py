"""Names of classes in Ultralytics' messages, under the guards of `nas yolo`."""

import logging

import pytest
from ultralytics.utils import LOGGER, colorstr

from trials.training import yolo_inputs


@pytest.mark.usefixtures("guards_end")
def test_control_characters_in_messages_are_text_and_colours_stay(caplog: pytest.LogCaptureFixture) -> None:
    LOGGER.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO, LOGGER.name):
            yolo_inputs.guard()
            LOGGER.info(f"{colorstr('val:')} %s%11i", "car\0\x1b[2J\x1b]0;title\a", 7)
    finally:
        LOGGER.removeHandler(caplog.handler)
    assert caplog.messages == [colorstr("val:") + r" car\x00\x1b[2J\x1b]0;title\x07" + f"{7:>11}"]
