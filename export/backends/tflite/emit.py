"""The TFLite backend: a component becomes `tflite/NAME.tflite`, with its weights and one signature of its names.

litert-torch writes the same file for every recipe (`convert`). The weights are then put into it as the recipe stores
them (`weights`, `quantization`), and it is finished (`finish`). Its bytes depend only on the model, the options and the
versions of the converter.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from pocketdiffusion.export.artifact import Artifact
from pocketdiffusion.export.backends.check_storable import check_storable
from pocketdiffusion.export.backends.emission import check_schemes
from pocketdiffusion.export.backends.tflite.capabilities import ON_CPU
from pocketdiffusion.export.backends.tflite.convert import convert
from pocketdiffusion.export.backends.tflite.draft import TfliteEditor
from pocketdiffusion.export.backends.tflite.file import check_size, read_model
from pocketdiffusion.export.backends.tflite.finish import finish
from pocketdiffusion.export.backends.tflite.lint import lint
from pocketdiffusion.export.backends.tflite.tags import find_tags
from pocketdiffusion.export.backends.tflite.weights import place_weights
from pocketdiffusion.export.component import Component, read_weights
from pocketdiffusion.export.matrices import float_plan
from pocketdiffusion.quantize.quantized_tensor import nbytes
from pocketdiffusion.quantize.scheme import Plan
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.errors import UserError

PROFILE = "std"


def emit(part: Component, artifact: Artifact, folder: Path, *, open_batch: bool, plan: Plan | None = None) -> Graph:
    """Write tflite/NAME.tflite below `folder`. Shapes are static with batch 1, so `open_batch` is ignored.

    Inputs and outputs are float32, token ids int32; arithmetic is float32 except in the operators that `plan` computes
    in integers. A weight of fewer than 8 bits needs one byte. A graph with a lossy recipe is for the CPU: LiteRT's GPU
    delegate refuses weights of int8. Raise UserError for options that the backend does not have or if litert-torch is
    not installed, ProofError if the weights are too large for one file, sites or weights are missing, a weight does not
    fit its storage, or the file has operators or types that phones do not support.
    """
    _check_profile(artifact)
    plan = plan or float_plan(part, artifact.recipe)
    check_schemes(plan, artifact)
    check_size(part.spec.name, sum(nbytes(ref.shape, plan.of(name, ref.shape)) for name, ref in part.weights.items()))
    for name, weight in read_weights(part):
        check_storable(name, weight, plan.of(name, weight.shape))
    converted = convert(part, artifact.rewrites)
    path = f"tflite/{part.spec.name}.tflite"
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder / "tflite") as scratch:
        raw = Path(scratch) / "raw.tflite"
        raw.write_bytes(converted.raw)
        model = read_model(raw)
        draft = TfliteEditor(model, *model.subgraphs)
        place_weights(draft, part, plan, find_tags(draft, converted.tags))
        finish(model, folder / path, converted.tags)
    ops = lint(folder / path)
    return Graph(
        path=path,
        files=(path,),
        spec=part.spec,
        profile=PROFILE,
        recipe=artifact.recipe,
        storage=plan.storage,
        arithmetic="float32" if plan.activation == "float" else "int8",
        compute_unit="cpu" if plan.lossy or ops.keys() & ON_CPU else artifact.compute_unit,
        rewrites=dict(converted.rewrites),
        ops=ops,
        parameters=converted.parameter_count,
    )


def _check_profile(artifact: Artifact) -> None:
    if artifact.profile != PROFILE:
        raise UserError(f"TFLite has no profile {artifact.profile!r}: choose {PROFILE}")
