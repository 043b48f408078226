"""Refuse a program that this reader cannot run or that does not fit its graphs, before anything runs."""

from collections.abc import Collection, Iterator, Mapping

from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.graph_spec import Dim, GraphSpec, TensorSpec
from pocketdiffusion.runtime.program import (
    ABSENT_NEGATIVE,
    DECODE,
    DENOISE,
    DRAWS,
    ENCODE_IMAGE,
    ENCODE_PROMPT,
    GUIDANCE,
    HOST_VALUES,
    NEEDED,
    PREVIEW,
    RESULTS,
    STAGES,
    Call,
    Concat,
    Constant,
    Input,
    Program,
    Stage,
    Sum,
    host_value,
    names_of,
    pick_variant,
)

Shape = tuple[Dim | None, ...]  # None: a size that is not known before it runs


def check_program(program: Program, specs: Mapping[str, GraphSpec]) -> None:
    """Check that every known stage of `program` can be run with graphs of these `specs`: stages, host values, results
    and kinds of guidance are known, values are computed before they are read, the graphs have the tensors, and all
    shapes that are fixed fit. Raise UserError with one line that names the first fault."""
    if program.guidance not in GUIDANCE:
        raise _refusal(f"its guidance {program.guidance!r} is not known; known are {', '.join(GUIDANCE)}")
    if program.absent_negative not in ABSENT_NEGATIVE:
        known = ", ".join(ABSENT_NEGATIVE)
        raise _refusal(f"its absent_negative {program.absent_negative!r} is not known; known are {known}")
    if sorted(program.draws) != sorted(DRAWS) or program.draws[-1] != "steps":
        raise _refusal(
            f"its draws are {list(program.draws)}: {', '.join(DRAWS)} are known, each once, steps at the end"
        )
    there = {stage.stage for stage in program.stages}
    for stage in program.stages:
        if stage.stage not in STAGES and stage.required:
            raise _refusal(f"its stage {stage.stage!r} is required and not known; known are {', '.join(STAGES)}")
    for name in NEEDED:
        if name not in there:
            raise _refusal(f"it has no stage {name}")
    for stage in program.stages:
        if stage.stage in STAGES:
            _check_stage(program, stage, specs)


def _check_stage(program: Program, stage: Stage, specs: Mapping[str, GraphSpec]) -> None:
    for name in stage.when:
        if host_value(name) is None:
            raise _refusal(f"{stage.stage} depends on {name!r}, which is not a host value; {_known()}")
    values = dict(_made_before(program, stage, specs))
    hidden = values.keys() - _given_of_others(program, stage)
    results = RESULTS.get(stage.stage, ())
    for call in stage.calls:
        if call.graph not in specs:
            raise _refusal(f"{stage.stage} calls {call.graph!r}, and the bundle has the graphs {', '.join(specs)}")
        _check_inputs(stage, call, specs[call.graph], values, hidden)
        tensors = {tensor.name: tensor for tensor in specs[call.graph].outputs}
        for tensor, value in call.outputs.items():
            where = f"{stage.stage}: {call.graph} computes {value!r}"
            if tensor not in tensors:
                raise _refusal(f"{where} as {tensor!r}, and the graph has the outputs {', '.join(tensors)}")
            if value in HOST_VALUES or host_value(value) is not None:
                raise _refusal(f"{where}, which is the name of a host value")
            if value not in results and any(value in each for each in RESULTS.values()):
                raise _refusal(f"{where}, which is a result of another stage")
            if value in values:
                raise _refusal(f"{where}, which is there already: a value has one meaning")
            values[value] = tensors[tensor].shape
    if stage.stage == "decode" and "decoder_latents" not in (g for call in stage.calls for g in call.inputs.values()):
        raise _refusal("decode passes decoder_latents to no graph")
    made = {value for call in stage.calls for value in call.outputs.values()}
    if results and len(made.intersection(results)) != 1:
        raise _refusal(
            f"{stage.stage} must make one of {', '.join(results)}, and makes {', '.join(sorted(made)) or '-'}"
        )


def _made_before(
    program: Program, stage: Stage, specs: Mapping[str, GraphSpec]
) -> Iterator[tuple[str, tuple[Dim, ...]]]:
    """Yield the values of the stages before `stage` with their shapes, in the variants that the host values of `stage`
    choose. Decode is not before preview, which runs while a picture is drawn."""
    for name in STAGES[: STAGES.index(DECODE if stage.stage == PREVIEW else stage.stage)]:
        before = pick_variant(program, name, {*stage.when, *(("picture",) if name == "encode_image" else ())})
        for call in before.calls if before is not None else ():
            shapes = {t.name: t.shape for t in specs[call.graph].outputs} if call.graph in specs else {}
            yield from ((value, shapes[tensor]) for tensor, value in call.outputs.items() if tensor in shapes)


def _given_of_others(program: Program, stage: Stage) -> set[str]:
    """Return the values of other stages that the loop passes to `stage`: to denoise the outputs of encode_prompt, and
    the outputs of encode_image if the variant is for a picture."""
    if stage.stage != DENOISE:
        return set()
    givers = {ENCODE_PROMPT, *((ENCODE_IMAGE,) if {"picture", "masked_picture"}.intersection(stage.when) else ())}
    return {
        value for each in program.stages if each.stage in givers for c in each.calls for value in c.outputs.values()
    }


def _check_inputs(
    stage: Stage, call: Call, spec: GraphSpec, values: Mapping[str, tuple[Dim, ...]], hidden: Collection[str]
) -> None:
    tensors = {tensor.name: tensor for tensor in spec.inputs}
    for name in call.inputs:
        if name not in tensors:
            raise _refusal(f"{stage.stage}: {call.graph} has no input {name!r}; it has {', '.join(tensors)}")
    for name, tensor in tensors.items():
        if name not in call.inputs:
            raise _refusal(f"{stage.stage}: {call.graph} is given no {name}")
        given, where = call.inputs[name], f"{stage.stage}: {call.graph}.{name}"
        for value in names_of(given):
            if value in hidden:
                raise _refusal(f"{where} is given {value!r}, which another stage makes, and is not there in this one")
        shapes = [_shape_of(stage, where, value, values) for value in names_of(given)]
        _check_dtype(where, given, tensor)
        wanted = tensor.shape
        if isinstance(given, Concat) and not 0 < given.axis < len(wanted):
            raise _refusal(f"{where} has {len(wanted)} axes: nothing can be joined along axis {given.axis}")
        if isinstance(given, Constant):
            shapes = [given.constant.shape]
        for value, shape in zip(names_of(given) or ("the constant",), shapes, strict=True):
            if len(shape) != len(wanted):
                raise _refusal(f"{where} has {len(wanted)} axes, and {value} has {len(shape)}")
        for axis, size in enumerate(wanted):
            sizes = [shape[axis] for shape in shapes]
            if axis == 0 or isinstance(size, str) or any(not isinstance(each, int) for each in sizes):
                continue
            joined = isinstance(given, Concat) and axis == given.axis
            known = [each for each in sizes if isinstance(each, int)]
            if sum(known) != size if joined else any(each != size for each in known):
                raise _refusal(f"{where} has {size} on axis {axis}, and is given {' and '.join(map(str, known))}")


def _check_dtype(where: str, given: Input, tensor: TensorSpec) -> None:
    """Raise UserError if an input has another dtype than its tensor. Values that graphs compute are float32."""
    if isinstance(given, Sum | Concat) and tensor.dtype != "float32":
        raise _refusal(f"{where} is {tensor.dtype}: only float32 is added or joined")
    if isinstance(given, Constant) and given.constant.dtype != tensor.dtype:
        raise _refusal(f"{where} is {tensor.dtype}, and the constant is {given.constant.dtype}")
    for name in names_of(given):
        found = host_value(name)
        dtype = found.dtype if found is not None else "float32"
        if dtype != tensor.dtype:
            raise _refusal(f"{where} is {tensor.dtype}, and {name} is {dtype}")


def _shape_of(stage: Stage, where: str, value: str, values: Mapping[str, tuple[Dim, ...]]) -> Shape:
    if value in values:
        return values[value]
    found = host_value(value)
    if found is None:
        base = value.partition("/")[0]
        if base in HOST_VALUES:
            raise _refusal(f"{where} is given {value!r}, which is not a host value; {_known()}")
        raise _refusal(f"{where} is given {value!r}, which is neither a host value nor computed before")
    if stage.stage not in found.stages:
        raise _refusal(f"{where} is given {value!r}, which exists only in {' and '.join(found.stages)}")
    return (None,) * found.rank


def _known() -> str:
    names = (f"{name}/1, {name}/2, ..." if value.numbered else name for name, value in HOST_VALUES.items())
    return f"host values are {', '.join(names)}"


def _refusal(reason: str) -> UserError:
    """Return the error; whoever catches it puts the bundle's folder and "has" before it."""
    return UserError(f"a program that cannot be run: {reason}: install a newer pocketdiffusion, or export again")
