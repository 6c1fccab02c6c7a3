import signal
import threading

import pytest

from lvdm_rt.interrupts import held_back


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_end_of_the_block(kind):
    seen: list[str] = []
    before = signal.signal(kind, lambda *_: seen.append("handled"))
    try:
        with held_back():
            signal.raise_signal(kind)
            seen.append("block")
        seen.append("after")
        assert seen == ["block", "handled", "after"]
        assert signal.getsignal(kind) is not before
    finally:
        signal.signal(kind, before)


def test_ctrl_c_in_the_block_raises_behind_it():
    finished = False
    with pytest.raises(KeyboardInterrupt), held_back():  # noqa: PT012 - where it is raised counts
        signal.raise_signal(signal.SIGINT)
        finished = True
    assert finished
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_in_the_block_is_not_lost_and_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(OSError, match="full"), held_back():
        raise OSError("full")
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_threads_may_use_it():
    ran: list[bool] = []

    def work() -> None:
        with held_back():
            ran.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ran == [True]
