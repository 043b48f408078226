"""Rewrites change torch modules in place, so that tracing yields operators that a backend can lower whole.

The folder is the registry: `fused_attention` names export/rewrites/fused_attention.py, which states its rule and where
it must not fire, and holds

    apply(module) -> int     changes the module in place and returns the number of modules changed
    MARKS                    the operator that it leaves in the traced program, by the kind of site that it stands for;
                             a tuple of operators where the rewrite leaves some sites of a kind as they are
    BODIES                   of each such operator, the function of ATen's operators that it computes; for backends
                             that do not lower it whole, and left out by a rewrite that is of no use to those
    SCALE_RULES              of each such operator, how powers of two go through it (float16/scale_propagation.py):
                             "attention" or "norm"; one without a rule takes and gives results as they are
    kept(module) -> dict     before `apply`: the modules that are of its kind and that it leaves alone, counted by the
                             reason, as `{"normalises its queries": 2}`; left out where there cannot be any
    CHANGES                  only of a rewrite that changes the model: what it changes, in words for the report
    FLOOR_DB                 with it: the least PSNR (dB) of the changed module, by measurement
"""

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from math import inf
from typing import Any

from torch import nn

from pocketdiffusion.runtime.errors import ProofError


def apply_rewrites(module: nn.Module, names: Iterable[str]) -> dict[str, int]:
    """Applies each rewrite in turn, in place. Returns the sites that each changed."""
    return {name: import_module(f"{__name__}.{name}").apply(module) for name in names}


def kept_sites(module: nn.Module, names: Iterable[str]) -> dict[str, dict[str, int]]:
    """What each rewrite leaves alone, by reason; before they are applied. A rewrite that leaves nothing is left out."""
    rewrites = {name: import_module(f"{__name__}.{name}") for name in names}
    found = {name: rewrite.kept(module) for name, rewrite in rewrites.items() if hasattr(rewrite, "kept")}
    return {name: reasons for name, reasons in found.items() if reasons}


def changes(names: Iterable[str]) -> dict[str, str]:
    """The rewrites among `names` that change the model, and what each changes."""
    modules = {name: import_module(f"{__name__}.{name}") for name in names}
    return {name: module.CHANGES for name, module in modules.items() if hasattr(module, "CHANGES")}


def changed_floor_db(names: Iterable[str]) -> float:
    """The least PSNR of a module that these rewrites change: the lowest of theirs, infinite where none does."""
    return min((import_module(f"{__name__}.{name}").FLOOR_DB for name in changes(names)), default=inf)


def marks(names: Iterable[str]) -> dict[str, tuple[Any, ...]]:
    """The operators that these rewrites leave in a traced program, by kind of site: of each kind, those of them all."""
    found: dict[str, tuple[Any, ...]] = {}
    for name in names:
        for kind, mark in import_module(f"{__name__}.{name}").MARKS.items():
            more = mark if isinstance(mark, tuple) else (mark,)
            found[kind] = tuple(dict.fromkeys((*found.get(kind, ()), *more)))
    return found


def bodies(names: Iterable[str]) -> dict[Any, Callable[..., Any]]:
    """What these rewrites' operators compute, as a table of decompositions."""
    modules = (import_module(f"{__name__}.{name}") for name in names)
    return {mark: body for module in modules for mark, body in getattr(module, "BODIES", {}).items()}


def scale_rules(names: Iterable[str]) -> dict[str, str]:
    """Return the rule of scale of these rewrites' operators, "attention" or "norm", by the name of each operator
    without its namespace."""
    modules = (import_module(f"{__name__}.{name}") for name in names)
    found = {mark: rule for module in modules for mark, rule in getattr(module, "SCALE_RULES", {}).items()}
    return {str(mark._schema.name).rpartition("::")[2]: rule for mark, rule in found.items()}


def check_sites(graph: str, expected: Mapping[str, int], found: Mapping[str, int]) -> None:
    """Raises ProofError unless every kind of site was found as often as the model's configuration says."""
    for kind in sorted({*expected, *found}):
        want, have = expected.get(kind, 0), found.get(kind, 0)
        if want != have:
            raise ProofError(f"{graph}: the graph has {have} {kind} sites where its configuration makes {want}")
