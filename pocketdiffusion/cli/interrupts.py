"""An interrupt (Ctrl-C) ends a command, also where Python loses it or a library hides it; a second one at once."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN = 0.01  # seconds until an interrupt that was lost comes again


@contextmanager
def hear_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt at the first interrupt within the block, whatever error a library makes of it. The second
    one ends the process by the signal: what it leaves half written is found by the next export. For the main thread.
    Where interrupts are ignored, as in a shell's background jobs, they still are."""
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
        # Python 3.11 remembers one that came while a string was executed, as imports do it, and then dies of it
        # whatever is said; the next string makes it forget.
        exec("")
        raise KeyboardInterrupt from error
    finally:
        sys.unraisablehook = hook
        signal.signal(signal.SIGALRM, alarm)
        if not heard:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _hear_again(unraisable: "sys.UnraisableHookArgs") -> None:
    """Let an interrupt come again by an alarm that Python lost, since it came in a destructor or in the callback of a
    weak reference, where nothing can be raised. Whatever else is lost there is shown as Python shows it."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, AGAIN)
    else:
        sys.__unraisablehook__(unraisable)
