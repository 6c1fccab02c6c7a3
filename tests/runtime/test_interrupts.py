import asyncio
import signal
import threading

import pytest

from lvdm_rt.interrupts import held_back

SIGNALS = (signal.SIGINT, signal.SIGTERM)


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


def test_every_signal_of_the_block_is_handled_once():
    seen: list[int] = []
    handlers = {n: signal.signal(n, lambda n, _: seen.append(n)) for n in SIGNALS}
    try:
        with held_back():
            for number in (*SIGNALS, *SIGNALS):
                signal.raise_signal(number)
        assert sorted(seen) == sorted(SIGNALS)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def test_one_handler_that_raises_does_not_lose_the_other_signal():
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda n, _: seen.append(n))
    try:
        with pytest.raises(KeyboardInterrupt), held_back():  # noqa: PT012 - where it is raised counts
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
        assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_ignored_signal_stays_ignored_and_hides_no_other():
    seen: list[int] = []
    handlers = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda n, _: seen.append(n)),
    }
    try:
        with held_back():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
        assert seen == [signal.SIGTERM]
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def test_a_signal_between_the_two_handlers_leaves_both_as_they_were(monkeypatch):
    plain, installed = signal.signal, []

    def interrupted(number, handler):
        before = plain(number, handler)
        installed.append(number)
        if len(installed) == 1:
            raise KeyboardInterrupt
        return before

    before = {number: signal.getsignal(number) for number in SIGNALS}
    monkeypatch.setattr(signal, "signal", interrupted)
    with pytest.raises(KeyboardInterrupt), held_back():
        pass
    assert {number: signal.getsignal(number) for number in SIGNALS} == before


def test_an_event_loop_is_told_once():
    told: list[int] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, told.append, signal.SIGTERM)
        with held_back():
            signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(0.05)
        loop.remove_signal_handler(signal.SIGTERM)

    asyncio.run(run())
    assert told == [signal.SIGTERM]
