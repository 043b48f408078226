"""An opener that counts the engines that are open: each session, interpreter or program by a weak reference."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import ref

from pocketdiffusion.runtime.bundle.bundle import Bundle
from pocketdiffusion.runtime.engines import open_graph
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.runner import Array, Runner


@dataclass
class OpenEngines:
    """Opens graphs as `open_graph` does. `events` has (what, graph, engines that are open) for each opening and each
    call. The call number `fails`, from 1, gets an input of a wrong shape, so that the runner itself refuses it."""

    fails: int = 0
    events: list[tuple[str, str, int]] = field(default_factory=list)
    engines: list[Any] = field(default_factory=list)

    def __call__(self, bundle: Bundle, name: str, format: str) -> Runner:
        runner = open_graph(bundle, name, format)
        self.engines += [ref(engine) for engine in engines_of(runner)]
        self.events.append(("open", name, self.count()))
        return _Counted(runner.spec, runner, name, self)

    def count(self) -> int:
        """Return how many engines are open."""
        return sum(engine() is not None for engine in self.engines)

    def opened(self) -> list[str]:
        """Return the graphs in the order of their openings."""
        return [name for what, name, _ in self.events if what == "open"]

    def most(self) -> int:
        """Return the largest number of engines that were open at once."""
        return max(count for _, _, count in self.events)


@dataclass(frozen=True)
class _Counted:
    spec: GraphSpec
    inner: Runner
    name: str
    counts: OpenEngines

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.counts.events.append(("call", self.name, self.counts.count()))
        if sum(what == "call" for what, _, _ in self.counts.events) == self.counts.fails:
            inputs = {name: array[None] for name, array in inputs.items()}
        return self.inner(inputs)


def engines_of(runner: Any) -> Iterator[Any]:
    """Yield the object of the engine's own library that a runner holds."""
    inner = getattr(runner, "inner", runner)
    held = [getattr(inner, name) for name in ("session", "interpreter", "program", "model") if hasattr(inner, name)]
    assert len(held) == 1, f"{type(inner).__name__} has no engine, or several"
    yield held[0]
