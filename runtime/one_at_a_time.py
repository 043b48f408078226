"""Open the engines of graphs one after the other, so that memory never holds two: the option --low-memory."""

from collections.abc import Callable, Mapping
from traceback import clear_frames
from weakref import ref

from pocketdiffusion.runtime.bundle.bundle import Bundle
from pocketdiffusion.runtime.engines import Opener, find_graph
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.memory import return_freed_memory, returning_large_blocks
from pocketdiffusion.runtime.runner import Array, Runner


class LateRunner:
    """A Runner that opens its engine at a call, and keeps it open until another graph of the same opener is called, a
    call fails, or this runner is freed."""

    def __init__(self, opener: Opener, bundle: Bundle, name: str, format: str, last: "list[ref[LateRunner]]") -> None:
        """Remember what to open. `last` is shared by all runners of one opener: it has the runner that was called last,
        as a weak reference, so that it is freed with its stage. Raise ProofError if the bundle has no such graph."""
        self.spec: GraphSpec = find_graph(bundle, name, format).spec
        self._open: Callable[[], Runner] = lambda: opener(bundle, name, format)
        self._last = last
        self._inner: Runner | None = None

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        try:
            if self._inner is None:
                self._close_last()
                self._inner = self._open()
                self._last[:] = [ref(self)]
            with returning_large_blocks():
                return self._inner(inputs)
        except BaseException as error:
            self._inner = None
            _forget_locals(error)
            raise

    def _close_last(self) -> None:
        """Free the engine that is open, if any, and return its memory to the system."""
        for runner in filter(None, (each() for each in self._last)):
            runner._inner = None
        self._last.clear()
        return_freed_memory()


def one_at_a_time(opener: Opener) -> Opener:
    """Return an opener of the same graphs, of which at most one is open at a time: at a call, the engine of the graph
    that was called before is freed, if it is another graph. Calls in a row of one graph open it once.

    Runners raise the errors of `opener` when they are called. After an error no engine is open, also while the caller
    still handles it."""
    last: list[ref[LateRunner]] = []
    return lambda bundle, name, format: LateRunner(opener, bundle, name, format, last)


def _forget_locals(error: BaseException | None) -> None:
    """Clear the local variables of all functions that ended with `error` or with an error that led to it: they refer to
    the engine, and the traceback would keep it as long as the error is handled."""
    while error is not None:
        clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
