"""End a command at an interrupt (Ctrl-C), even if Python loses it or a library hides it; a second one ends it at
once."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN = 0.01  # seconds until a lost interrupt is raised again


@contextmanager
def hear_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt at the first interrupt within the block, even if a library turns it into another error.
    The second one ends the process by the signal; the next export removes the files that it leaves incomplete. For the
    main thread only. If interrupts are ignored, as in background jobs of a shell, they still are."""
    heard = False

    def hear(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        heard = True
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    hook, sys.unraisablehook = sys.unraisablehook, _hear_again
    alarm = signal.signal(signal.SIGALRM, hear)
    signal.signal(signal.SIGINT, hear)
    try:
        yield
    except BaseException as error:
        if not heard:
            raise
        # Python 3.11 remembers an interrupt during exec() of a string, as imports use it, and exits by it at the end;
        # the next exec() clears it.
        exec("")
        raise KeyboardInterrupt from error
    finally:
        sys.unraisablehook = hook
        signal.signal(signal.SIGALRM, alarm)
        if not heard:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _hear_again(unraisable: "sys.UnraisableHookArgs") -> None:
    """Raise a lost interrupt again by an alarm. Python loses it in a destructor or a callback of a weak reference,
    where nothing can be raised. Other exceptions there are printed as Python prints them."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, AGAIN)
    else:
        sys.__unraisablehook__(unraisable)
