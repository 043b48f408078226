"""Rewrites change torch modules in place, so that the traced program has operators that a backend can lower directly.

The folder is the registry: `fused_attention` names export/rewrites/fused_attention.py, which states its rule and where
it must not fire, and defines

    apply(module) -> int     change the module in place; return the number of modules changed
    MARKS                    by kind of site, the operator that replaces it in the traced program; a tuple of
                             operators if the rewrite leaves some sites of a kind unchanged
    BODIES                   of each such operator, its function in ATen's operators, for backends without a lowering
                             of their own; left out by a rewrite that is of no use to those
    SCALE_RULES              of each such operator, how powers of two pass through it (float16/scale_propagation.py):
                             "attention" or "norm"; an operator without a rule reads and returns unscaled values
    IN_PARTS                 True for a rewrite that computes layers in parts, whose results are those of the module
                             without it: scales are computed without it, and its layers have no tensor of their own
    kept(module) -> dict     before `apply`: {reason: count} of the modules of its kind that it does not change, such
                             as `{"normalises its queries": 2}`; left out if there cannot be any
    CHANGES                  only of a rewrite that changes the model: a description of the change, for the report
    FLOOR_DB                 with it: the least PSNR (dB) of the changed module, by measurement; the lowest
                             that `verify` accepts is quantize.floors.CHANGED_DB

Targets name the rewrites of an artifact in the order in which they are applied; one that no target names is never used.
A kind in MARKS is a kind of Component.sites: the parts of families (families/parts) count a new one first.
"""

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from math import inf
from typing import Any

from torch import nn

from pocketdiffusion.runtime.errors import ProofError


def apply_rewrites(module: nn.Module, names: Iterable[str]) -> dict[str, int]:
    """Apply each rewrite in turn, in place. Return {name: number of modules changed}."""
    return {name: import_module(f"{__name__}.{name}").apply(module) for name in names}


def kept_sites(module: nn.Module, names: Iterable[str]) -> dict[str, dict[str, int]]:
    """Return {name: {reason: count}} of the sites that each rewrite does not change; call it before they are applied.
    Rewrites without such sites are left out."""
    rewrites = {name: import_module(f"{__name__}.{name}") for name in names}
    found = {name: rewrite.kept(module) for name, rewrite in rewrites.items() if hasattr(rewrite, "kept")}
    return {name: reasons for name, reasons in found.items() if reasons}


def changes(names: Iterable[str]) -> dict[str, str]:
    """Return {name: description} of those rewrites in `names` that change the model's function, such as tanh_gelu."""
    modules = {name: import_module(f"{__name__}.{name}") for name in names}
    return {name: module.CHANGES for name, module in modules.items() if hasattr(module, "CHANGES")}


def changed_floor_db(names: Iterable[str]) -> float:
    """Return the least PSNR (dB) that a module must have after these rewrites: the lowest of their floors, inf if none
    changes the model."""
    return min((import_module(f"{__name__}.{name}").FLOOR_DB for name in changes(names)), default=inf)


def marks(names: Iterable[str]) -> dict[str, tuple[Any, ...]]:
    """Return, by kind of site, all operators that these rewrites leave in a traced program."""
    found: dict[str, tuple[Any, ...]] = {}
    for name in names:
        for kind, mark in import_module(f"{__name__}.{name}").MARKS.items():
            more = mark if isinstance(mark, tuple) else (mark,)
            found[kind] = tuple(dict.fromkeys((*found.get(kind, ()), *more)))
    return found


def bodies(names: Iterable[str]) -> dict[Any, Callable[..., Any]]:
    """Return the functions of these rewrites' operators, as a table of decompositions."""
    modules = (import_module(f"{__name__}.{name}") for name in names)
    return {mark: body for module in modules for mark, body in getattr(module, "BODIES", {}).items()}


def scale_rules(names: Iterable[str]) -> dict[str, str]:
    """Return {operator: "attention" or "norm"}, how powers of two pass through these rewrites' operators. Names are
    without their namespace."""
    modules = (import_module(f"{__name__}.{name}") for name in names)
    found = {mark: rule for module in modules for mark, rule in getattr(module, "SCALE_RULES", {}).items()}
    return {str(mark._schema.name).rpartition("::")[2]: rule for mark, rule in found.items()}


def in_parts(names: Iterable[str]) -> list[str]:
    """Return those rewrites in `names` that compute layers in parts."""
    return [name for name in names if getattr(import_module(f"{__name__}.{name}"), "IN_PARTS", False)]


def check_sites(graph: str, expected: Mapping[str, int], found: Mapping[str, int]) -> None:
    """Compare the number of sites of every kind with the number that follows from the model's configuration. Raise
    ProofError if they differ."""
    for kind in sorted({*expected, *found}):
        sites, count = expected.get(kind, 0), found.get(kind, 0)
        if sites != count:
            raise ProofError(
                f"{graph}: {count} {kind} sites were found in the traced graph, and the model's configuration "
                f"requires {sites}: a rewrite missed or added some"
            )
