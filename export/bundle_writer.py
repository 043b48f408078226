"""What a bundle holds besides its graphs: tokenizer, step tables, golden vectors, and the manifest that names them."""

import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from math import inf
from pathlib import Path
from typing import Any

from pocketdiffusion.export.backends.coreml.apple_layout import apple_differences, write_script
from pocketdiffusion.export.backends.onnx.optimum_layout import opens_in_optimum, write_companions
from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.checkpoints.tokenizer_files import read_tokenizer, write_vocabulary
from pocketdiffusion.export.conformance import write_conformance
from pocketdiffusion.export.families import scheduler_config
from pocketdiffusion.export.targets import Target
from pocketdiffusion.runtime.bundle.manifest import (
    Calibration,
    Draft,
    Graph,
    Latents,
    ModelInfo,
    Provenance,
    Scheduler,
    TargetInfo,
    Tokenizer,
    Vae,
)
from pocketdiffusion.runtime.sampling.samplers import sampler_names, step_table
from pocketdiffusion.runtime.sampling.schedule import read_schedule
from pocketdiffusion.runtime.sampling.step_table import StepTable
from pocketdiffusion.runtime.verify.golden import write_golden
from pocketdiffusion.runtime.verify.recording import Trajectory

TABLED_STEPS = (1, 2, 4, 8, 10, 15, 20, 25, 30, 50)
TOOLCHAIN = (
    "coremltools",
    "diffusers",
    "numpy",
    "onnx",
    "onnx_ir",
    "onnxruntime",
    "onnxscript",
    "tokenizers",
    "torch",
    "transformers",
)
CONVERTERS = {"tflite": ("ai-edge-litert", "litert-converter", "litert-torch")}  # by format, where others are needed


def assemble(
    folder: Path,
    checkpoint: Checkpoint,
    target: Target,
    graphs: Mapping[str, Mapping[str, Graph]],
    trajectories: Sequence[Trajectory],
    calibration: Calibration | None = None,
) -> Draft:
    """Writes tokenizer/, golden/ and conformance/ into `folder`, beside the graphs. The manifest, without verdicts.

    Where optimum can run the graphs, onnx/ becomes a folder that it opens as well; coreml/ gets a script that makes it
    one for Apple's Swift pipeline. `calibration` is there where ranges of activations were measured.
    """
    spec = next(iter(graphs.values()))["unet"].spec
    _, channels, height, width = (int(d) if isinstance(d, int) else 1 for d in spec.inputs[0].shape)
    vae = checkpoint.configs["vae"]
    scheduler = scheduler_config(checkpoint)
    schedule = read_schedule(scheduler)
    tokenizer = write_tokenizer(folder, checkpoint)
    if "onnx" in graphs and opens_in_optimum(graphs["onnx"]):
        write_companions(folder / "onnx", checkpoint, height, width)
    draft = Draft(
        model=ModelInfo(
            name=checkpoint.name,
            family="stable_diffusion",
            pipeline=checkpoint.model_index["_class_name"],
            prediction_type=schedule.prediction_type,  # type: ignore[arg-type]  # pydantic checks it
            licence=checkpoint.licence,
            revision=checkpoint.revision,
            fingerprint=checkpoint.fingerprint,
        ),
        target=TargetInfo(
            name=target.name,
            title=target.title,
            soc=target.soc,
            memory_mb=target.memory_mb,
            os_floor=target.os_floor,
        ),
        latents=Latents(
            channels=int(vae.get("latent_channels", 4)),
            height=height,
            width=width,
            scale=2 ** (len(vae["block_out_channels"]) - 1),
        ),
        vae=Vae(scaling_factor=vae["scaling_factor"], shift_factor=0.0),  # as diffusers' Stable Diffusion pipelines
        tokenizer=tokenizer,
        scheduler=Scheduler(
            config=spell_infinity(scheduler),
            default_sampler=trajectories[0].sampler,
            replaced=None if checkpoint.sampler is None else scheduler["_class_name"],
        ),
        graphs={format: dict(named) for format, named in graphs.items()},
        step_tables=tables(scheduler),
        golden=tuple(write_golden(folder, number, t) for number, t in enumerate(trajectories)),
        verdicts=(),
        calibration=calibration,
        conformance=write_conformance(folder, checkpoint),
        provenance=Provenance(
            exported_by=f"pocketdiffusion {version('pocketdiffusion')}",
            python=".".join(str(n) for n in sys.version_info[:3]),
            toolchain={
                name: version(name) for name in (*TOOLCHAIN, *(n for f in graphs for n in CONVERTERS.get(f, ())))
            },
        ),
    )
    if "coreml" in graphs:
        unit = graphs["coreml"]["unet"].compute_unit
        write_script(folder / "coreml", vae["scaling_factor"], unit, apple_differences(draft))
    return draft


def tables(config: Mapping[str, Any]) -> tuple[StepTable, ...]:
    """The step tables that apps read: every sampler at each of TABLED_STEPS, from pure noise."""
    schedule = read_schedule(config)
    return tuple(step_table(name, schedule, steps) for name in sampler_names() for steps in TABLED_STEPS)


def spell_infinity(config: Mapping[str, Any]) -> dict[str, Any]:
    """diffusers writes -Infinity into its JSON files, though JSON has no such number: here it becomes a string."""
    words = {inf: "Infinity", -inf: "-Infinity"}
    return {key: words.get(value, value) if isinstance(value, float) else value for key, value in config.items()}


def write_tokenizer(folder: Path, checkpoint: Checkpoint) -> Tokenizer:
    """Write the vocabulary of the checkpoint's tokenizer below `folder`; return its settings."""
    source = read_tokenizer(checkpoint.tokenizers["tokenizer"], checkpoint.model_index["tokenizer"][1])
    (folder / "tokenizer").mkdir()
    write_vocabulary(source, folder / "tokenizer")
    return Tokenizer(
        kind="clip",
        vocab="tokenizer/vocab.json",
        merges="tokenizer/merges.txt",
        max_length=source.max_length,
        bos_id=source.bos_id,
        eos_id=source.eos_id,
        pad_id=source.pad_id,
        unk_id=source.unk_id,
        added_tokens=source.added,
    )
