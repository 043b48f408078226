"""Records of a graph's requirements: the engine and its version, memory, and the compute units it is known good or bad
on."""

from typing import Annotated, Literal

from pydantic import Field

from pocketdiffusion.runtime.record import INFORMS, Count, Record, Size


class Engine(Record):
    """The engine that runs the graph's file: its name, oldest version and operator sets."""

    name: Annotated[str, Field(description='the engine: "onnxruntime", "litert" (TensorFlow Lite too) or "coreml"')]
    opset: Annotated[
        dict[str, Size],
        Field(
            description="of an ONNX file: the version of each operator domain that it imports; the standard's own "
            'domain, which the file spells as an empty text, is "ai.onnx" here. Other formats have none'
        ),
    ] = {}
    least_version: Annotated[
        str | None,
        Field(
            description="the oldest version of the engine that knows every operator in the file: of onnxruntime, of "
            "TensorFlow Lite (LiteRT's own versions, which begin anew at 1.0, all know them), for Core ML that of iOS; "
            "null: not known"
        ),
    ] = None
    tried: Annotated[
        str | None,
        Field(
            description="the version of the engine that ran this very file when the bundle was proved; null: another "
            "program ran it in the engine's stead"
        ),
    ] = None
    signature: Annotated[
        str | None,
        Field(
            description="the name of the function in the file by which it is called: of a TFLite file its one "
            "signature; null: the file has one function without a choice"
        ),
    ] = None


class Memory(Record):
    """The memory that a graph needs on a phone, in bytes, computed from its file and not measured. An engine adds its
    own code and scratch space, and may need less for tensors, since it fuses operators."""

    weights_bytes: Annotated[
        Count | None,
        Field(
            description="bytes of the weights as the engine holds them on a CPU once the file is loaded; null: unknown"
        ),
    ]
    mapped_bytes: Annotated[
        Count | None,
        Field(
            description="bytes of the weights that the engine reads where the file is mapped, at each call: pages that "
            "the system can drop and reads again, no part of the other numbers; null: not counted"
        ),
    ] = None
    activations_bytes: Annotated[
        Count | None,
        Field(
            description="bytes of the tensors that are alive at once, in the order of execution, at their largest: "
            "each from the operator that makes it to the last that takes it, inputs for the whole call, outputs to "
            "its end, a reshaped tensor as the one that it was made of, with what else the engine keeps for its calls "
            "as `counted` states it; null: not counted"
        ),
    ]
    keeps_activations: Annotated[
        bool,
        Field(
            description="whether the engine keeps the memory of activations after a call, until the graph is freed; "
            "false: it frees each tensor after it was read for the last time, as onnxruntime does without its CPU arena"
        ),
    ] = True
    loading_bytes: Annotated[
        Count | None,
        Field(
            description="bytes at their largest while the engine opens the file, with the copies of weights that it "
            "frees before the first call, as seen on a computer; never less than `weights_bytes`; null: not known"
        ),
    ] = None
    counted: Annotated[str, Field(description="for people: how it was counted, and why a number is null where one is")]


class Unit(Record):
    """What is known of a graph on one compute unit. Where nothing is known, the app's own self-test decides."""

    status: Annotated[
        Literal["good", "bad", "unknown"],
        INFORMS,
        Field(description="good: it passes its floor there. bad: the unit refuses it, or its results are wrong"),
    ]
    evidence: Annotated[
        Literal["measured_here", "published", "reported_by_device", "none"],
        INFORMS,
        Field(
            description="measured_here: by the proof of this bundle, or by the exporter's authors on a stand-in for "
            "the unit, with graphs of this kind; published: by others; reported_by_device: by a phone's device report; "
            "none: not known"
        ),
    ]
    note: Annotated[str, Field(description="for people: on what it was seen, with numbers; may be empty")] = ""
