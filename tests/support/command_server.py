"""Runs commands in processes of their own, forked from this one, which has imported what they import.

    python command_server.py        a line of JSON for each command on stdin, one for what became of it on stdout

A command so takes no seconds for importing torch. `command.py` speaks to it.
"""

import json
import os
import resource
import runpy
import signal
import sys
import threading
import traceback
from importlib import import_module
from typing import Any

IMPORTED = (
    "pocketdiffusion.build",
    "pocketdiffusion.cli.app",
    "pocketdiffusion.compare",
    "pocketdiffusion.reports.compare",
    "pocketdiffusion.search",
)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    requests = os.fdopen(os.dup(0))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):
        os.dup2(nowhere, stream)
    for module in IMPORTED:
        import_module(module)
    assert threading.active_count() == 1  # a fork has the thread that forks, and no other
    for line in requests:
        print(json.dumps(serve(json.loads(line))), file=answers)


def serve(request: dict[str, Any]) -> dict[str, Any]:
    """Runs one command, and kills it when its time is over."""
    pipes = [os.pipe() for _ in ("stdout", "stderr")]
    child = os.fork()
    if child == 0:
        for stream, (_, end) in enumerate(pipes, 1):
            os.dup2(end, stream)
        os.closerange(pipes[0][0], pipes[1][1] + 1)
        run(request)
    said = ["", ""]

    def read(place: int) -> None:
        with os.fdopen(pipes[place][0], encoding="utf-8") as stream:
            said[place] = stream.read()

    readers = [threading.Thread(target=read, args=(place,)) for place in (0, 1)]
    for (_, end), reader in zip(pipes, readers, strict=True):
        os.close(end)
        reader.start()
    timer = threading.Timer(request["timeout"], os.kill, (child, signal.SIGKILL))
    timer.start()
    _, status = os.waitpid(child, 0)
    timer.cancel()
    for thread in (*readers, timer):
        thread.join()
    return {"returncode": os.waitstatus_to_exitcode(status), "stdout": said[0], "stderr": said[1]}


def run(request: dict[str, Any]) -> None:
    """`python -m pocketdiffusion` as `request` says; never returns."""
    os.chdir(request["cwd"])
    if request["file_size"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_size"],) * 2)
    sys.argv = ["pocketdiffusion", *request["arguments"]]
    code = 1
    try:
        runpy.run_module("pocketdiffusion", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
