"""A process that shares the work of another ends with it, whatever ended that one."""

import os
from multiprocessing import parent_process
from threading import Thread


def follow_parent() -> None:
    """Ends this process, which `multiprocessing` began, as soon as its parent is gone. Work that no one waits for is
    not cleaned up after: what it wrote is what a killed process leaves."""
    Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
