"""Worker processes that end with the process that started them, whatever ended it."""

import os
from multiprocessing import parent_process
from threading import Thread


def follow_parent() -> None:
    """Let this process, which `multiprocessing` started, end as soon as its parent has ended. Files that it has written
    stay, as after a kill."""
    Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
