"""Forms of SiLU, QuickGELU and GELU: the form that an artifact has, and the error of each form in float16.

A form is a function of ATen's operators. Run on float16 tensors, torch computes each operator in float32 and rounds its
result, as a phone does that has an instruction for it; "fused" is the form that rounds once. The inputs are the inputs
of the model's own activations, at every site, on recorded calls."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import inf, log10, pi, sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pocketdiffusion.export.artifact import Artifact
from pocketdiffusion.export.backends import find_backend
from pocketdiffusion.export.backends.activation_choice import Choice
from pocketdiffusion.export.component import Component, load_module
from pocketdiffusion.export.rewrites import quick_gelu
from pocketdiffusion.export.rewrites.tanh_sigmoid import quick_gelu_by_tanh, silu_by_tanh
from pocketdiffusion.runtime.runner import Array

Form = Callable[[Tensor], Tensor]
TAIL = -4.0  # below it a sigmoid is small, and 1 + tanh cancels
SIGMOIDS = ("LOGISTIC", "Sigmoid", "sigmoid")  # operator names in the formats


def gelu_by_erf(x: Tensor) -> Tensor:
    """Return GELU as 0.5 x (1 + erf(x / sqrt(2)))."""
    return 0.5 * x * (1.0 + torch.erf(x * sqrt(0.5)))


def gelu_by_tanh(x: Tensor) -> Tensor:
    """Return the tanh approximation of GELU (Hendrycks and Gimpel 2016)."""
    return 0.5 * x * (1.0 + torch.tanh(sqrt(2 / pi) * (x + 0.044715 * x * x * x)))


FORMS: Mapping[str, Mapping[str, Form]] = {
    "silu": {
        "fused": F.silu,
        "product": lambda x: x * torch.sigmoid(x),
        "exponential": lambda x: x / (1.0 + torch.exp(-x)),
        "tanh": silu_by_tanh,
    },
    "quick_gelu": {
        "fused": lambda x: quick_gelu.product(x.double()).to(x.dtype),
        "product": quick_gelu.product,
        "tanh": quick_gelu_by_tanh,
    },
    "gelu": {
        "fused": F.gelu,
        "error function": gelu_by_erf,
        "tanh, fused": lambda x: F.gelu(x, approximate="tanh"),
        "tanh": gelu_by_tanh,
    },
}
_EXACT: Mapping[str, Form] = {"silu": F.silu, "quick_gelu": quick_gelu.product, "gelu": F.gelu}
_KINDS = {
    torch.ops.aten.silu.default: "silu",
    torch.ops.aten.gelu.default: "gelu",
    quick_gelu.MARKS["quick_gelu"]: "quick_gelu",
}


_BY_TARGET = "the target requires it"


def choice(artifact: Artifact, kind: str) -> Choice:
    """Return the form of `kind` ("silu", "quick_gelu", "gelu") in an artifact."""
    if kind in ("silu", "quick_gelu") and "tanh_sigmoid" in artifact.rewrites:
        return Choice("tanh", "multiplications, tanh, addition", _BY_TARGET)
    if kind == "gelu" and "tanh_gelu" in artifact.rewrites:
        return Choice("tanh, fused", "GELU's operator in its tanh mode", f"{_BY_TARGET}; it changes the model")
    return find_backend(artifact.format).activations[artifact.profile][kind]


@dataclass(frozen=True)
class FormError:
    """The error of a form in float16, against float64, over all `sites` (calls of the activation in one pass).

    `psnr_db` is the PSNR of the worst site, with its own largest value as the peak. `tail` is the root mean square
    error of inputs under -4, relative to the activation: 0.1 means 10 %. `tail_share` is the share of such inputs."""

    kind: str
    form: str
    sites: int
    psnr_db: float
    max_abs: float
    tail: float
    tail_share: float


def measure_forms(part: Component, calls: Iterable[Mapping[str, Array]]) -> list[FormError]:
    """Return the error of every form of every kind of activation in `part`, on its inputs in the original's `calls`
    (float32)."""
    module = load_module(part)
    quick_gelu.apply(module)
    sums = FormSums()
    for inputs in calls:
        sums.restart()
        with torch.no_grad(), sums:
            module(*(torch.from_numpy(inputs[tensor.name].copy()) for tensor in part.spec.inputs))
    return sums.errors()


class FormSums(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up, while modules run, the errors of all forms. Sites are told apart by the order of their calls."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sites: dict[tuple[str, str, int], dict[str, float]] = {}
        self.calls: dict[str, int] = {}

    def restart(self) -> None:
        """Begin again with the first site at the next call."""
        self.calls = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kind = _KINDS.get(func)
        if kind is not None and not kwargs:
            site = self.calls[kind] = self.calls.get(kind, 0) + 1
            self._add(kind, site, args[0])
        return func(*args, **(kwargs or {}))

    def _add(self, kind: str, site: int, given: Tensor) -> None:
        x = given.half()
        x = x[x.isfinite()]  # values beyond float16 are found by the audit
        exact = _EXACT[kind](x.double())
        low = x < TAIL
        for form, function in FORMS[kind].items():
            error = function(x).double() - exact
            s = self.sites.setdefault((kind, form, site), dict.fromkeys(("n", "square", "peak", "most", "low"), 0.0))
            s["n"] += error.numel()
            s["square"] += float(error.square().sum())
            s["peak"] = max(s["peak"], float(exact.abs().max()))
            s["most"] = max(s["most"], float(error.abs().max()))
            s["low"] += int(low.sum())
            s["low_square"] = s.get("low_square", 0.0) + float(error[low].square().sum())
            s["low_exact"] = s.get("low_exact", 0.0) + float(exact[low].square().sum())

    def errors(self) -> list[FormError]:
        found = []
        for kind, form in dict.fromkeys((kind, form) for kind, form, _ in self.sites):
            sites = [s for (k, f, _), s in self.sites.items() if (k, f) == (kind, form)]
            low_exact = sum(s["low_exact"] for s in sites)
            found.append(
                FormError(
                    kind=kind,
                    form=form,
                    sites=len(sites),
                    psnr_db=min(_psnr_db(s) for s in sites),
                    max_abs=max(s["most"] for s in sites),
                    tail=sqrt(sum(s["low_square"] for s in sites) / low_exact) if low_exact else 0.0,
                    tail_share=sum(s["low"] for s in sites) / sum(s["n"] for s in sites),
                )
            )
        return found


def _psnr_db(s: Mapping[str, float]) -> float:
    return 10 * log10(s["peak"] ** 2 * s["n"] / s["square"]) if s["square"] else inf
