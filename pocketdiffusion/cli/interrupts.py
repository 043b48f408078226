"""An interrupt (Ctrl-C) ends a command wherever it comes, also where Python loses it or a library hides it."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN = 0.01  # seconds until an interrupt that was lost comes again


@contextmanager
def hear_interrupts() -> Iterator[None]:
    """Whatever error an interrupt within it became, as in pydantic's serializers, leaves it as KeyboardInterrupt. For
    the main thread. Where interrupts are ignored, as in a shell's background jobs, they still are."""
    heard = False

    def hear(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        heard = True
        signal.default_int_handler(number, frame)

    handler, hook = signal.getsignal(signal.SIGINT), sys.unraisablehook
    sys.unraisablehook = send_again
    raises = handler is signal.default_int_handler
    if raises:
        signal.signal(signal.SIGINT, hear)
    try:
        yield
    except KeyboardInterrupt:
        # Python 3.11 remembers one that came while a string was executed, as imports do it, and then dies of it
        # whatever is said; the next string makes it forget.
        exec("")
        raise
    except Exception as error:
        if heard:
            raise KeyboardInterrupt from error
        raise
    finally:
        sys.unraisablehook = hook
        if raises:
            signal.signal(signal.SIGINT, handler)


def send_again(unraisable: "sys.UnraisableHookArgs") -> None:
    """Sends the interrupt again that Python lost because it came in a destructor or in the callback of a weak
    reference, where nothing can be raised. Whatever else is lost there is shown as Python shows it."""
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
        return
    main = threading.main_thread().ident
    assert main is not None
    again = threading.Timer(AGAIN, signal.pthread_kill, (main, signal.SIGINT))
    again.daemon = True  # a command that ends before ends as it would
    again.start()
