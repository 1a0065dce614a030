"""Signals that end a process: they unwind it, so that nothing is left behind, but never within a swap."""

import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AGAIN_S = 0.01  # how long after a place that lost the exception it is raised again


class Stopped(BaseException):
    """The process was told to end. `signal`: by which number; 128 more is the exit code."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = number


@dataclass(slots=True)
class _State:
    """How many blocks hold signals back, the signal that waits for their end, and the one that was lost."""

    held: int = 0
    waiting: int = 0
    lost: int = 0


_STATE = _State()


def install() -> None:
    """Make the signals raise, in the main thread; one that is ignored (nohup) stays so."""
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _told)
    sys.unraisablehook = _unraisable


@contextmanager
def unstopped() -> Generator[None]:
    """A block that ends before a signal is obeyed. Of signals that `install` made raise only."""
    _STATE.held += 1
    try:
        yield
    finally:
        _STATE.held -= 1
        if _STATE.waiting and not _STATE.held:
            number, _STATE.waiting = _STATE.waiting, 0
            if threading.current_thread() is threading.main_thread():
                _raise(number)
            else:  # it is the main thread's to obey
                signal.raise_signal(number)


def _told(number: int, frame: FrameType | None) -> None:
    if _STATE.held:
        _STATE.waiting = number
    else:
        _raise(number)


def _unraisable(lost: "sys.UnraisableHookArgs") -> None:
    """Raise a signal's exception again where Python drops it: in a finalizer or the collector's callback.

    Anything else that is dropped is told as always.
    """
    if isinstance(lost.exc_value, Stopped | KeyboardInterrupt):
        _STATE.lost = getattr(lost.exc_value, "signal", signal.SIGINT)
        signal.signal(signal.SIGALRM, _again)
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
    else:
        sys.__unraisablehook__(lost)


def _again(number: int, frame: FrameType | None) -> None:
    lost, _STATE.lost = _STATE.lost, 0
    if lost:
        _told(lost, frame)


def _raise(number: int) -> None:
    raise KeyboardInterrupt if number == signal.SIGINT else Stopped(number)
