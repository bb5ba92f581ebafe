"""What may be asked of a search, where the machine has a say."""

import pytest

from nas import machine
from nas.request import Request, require_cores
from search_spaces.errors import SpecError


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 2)


@pytest.mark.usefixtures("two_cores")
class TestWorkers:
    def test_on_the_cpu_are_as_many_as_cores(self) -> None:
        assert Request(device="cpu").devices() == ("cpu", 2)

    def test_may_be_fewer(self) -> None:
        assert Request(device="cpu", workers=1).devices() == ("cpu", 1)

    def test_of_which_one_would_wait_for_another_are_refused(self) -> None:
        with pytest.raises(SpecError) as told:
            Request(device="cpu", workers=8).devices()
        assert str(told.value) == "workers: one needs a core, and 2 cores are free here, got 8 (--workers 2 or fewer)"

    def test_on_gpus_are_not_counted_in_cores(self) -> None:
        require_cores("0,1,2,3", 4)


def test_no_more_than_four_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 64)
    assert Request(device="cpu").devices() == ("cpu", 4)
