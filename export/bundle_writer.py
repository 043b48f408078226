"""What a bundle holds besides its graphs: tokenizer, step tables, golden vectors, licences, and the record of them."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from math import inf
from pathlib import Path
from typing import Any

from pocketdiffusion.export.backends.coreml.apple_layout import apple_differences, opens_in_apple, write_script
from pocketdiffusion.export.backends.onnx.optimum_layout import opens_in_optimum, write_companions
from pocketdiffusion.export.bundle_readme import bundle_readme
from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.checkpoints.tokenizer_files import ClipTokenizer, read_tokenizer, write_vocabulary
from pocketdiffusion.export.conformance import write_conformance
from pocketdiffusion.export.families import find_family, scheduler_config
from pocketdiffusion.export.licences import write_licences
from pocketdiffusion.export.pipeline_defaults import read_defaults
from pocketdiffusion.export.preview import fit_preview
from pocketdiffusion.export.targets import Target
from pocketdiffusion.runtime.bundle.file_table import README
from pocketdiffusion.runtime.bundle.golden_records import Calibration
from pocketdiffusion.runtime.bundle.graph_records import Graph
from pocketdiffusion.runtime.bundle.manifest import Draft
from pocketdiffusion.runtime.bundle.picture_records import Latents, Scheduler, Vae
from pocketdiffusion.runtime.bundle.subject_records import ModelInfo, Provenance, TargetInfo
from pocketdiffusion.runtime.bundle.tokenizer_records import Tokenizer
from pocketdiffusion.runtime.characters import CHARACTERS
from pocketdiffusion.runtime.program import find_ends, model_graph
from pocketdiffusion.runtime.sampling.schedule import read_schedule
from pocketdiffusion.runtime.sampling.stored_tables import write_tables
from pocketdiffusion.runtime.verify.golden import write_case, write_golden
from pocketdiffusion.runtime.verify.recording import Trajectory

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
    """Writes tokenizers, golden/, conformance/, licences/ and README.md into `folder`, beside the graphs. The record of
    the bundle, still without verdicts.

    Where optimum can run the graphs, onnx/ becomes a folder that it opens as well, and the one vocabulary of the bundle
    is that in it; where Apple's Swift pipeline knows them, coreml/ gets a script that makes it one for it.
    `calibration` is there where ranges of activations were measured.
    """
    program = trajectories[0].program
    specs = {name: graph.spec for name, graph in next(iter(graphs.values())).items()}
    taken, decoded = find_ends(program, specs)
    _, channels, height, width = (int(d) if isinstance(d, int) else 1 for d in taken.shape)
    vae = checkpoint.configs["vae"]
    scheduler = scheduler_config(checkpoint)
    schedule = read_schedule(scheduler)
    homes = {}
    if "onnx" in graphs and opens_in_optimum(graphs["onnx"]):
        write_companions(folder / "onnx", checkpoint, height, width)
        homes = {"tokenizer": "onnx/tokenizer"}
    tokenizers = write_tokenizers(folder, checkpoint, homes)
    licences = write_licences(folder, checkpoint)
    model = ModelInfo(
        name=checkpoint.name,
        family=find_family(checkpoint).__name__.rpartition(".")[2],
        pipeline=checkpoint.model_index["_class_name"],
        prediction_type=schedule.prediction_type,  # type: ignore[arg-type]  # pydantic checks it
        licence=checkpoint.licence,
        revision=checkpoint.revision,
        fingerprint=checkpoint.fingerprint,
        licence_files=licences.files,
        licence_url=licences.url,
        attribution=licences.attribution,
    )
    phone = TargetInfo(
        name=target.name, title=target.title, soc=target.soc, memory_mb=target.memory_mb, os_floor=target.os_floor
    )
    (folder / README).write_text(bundle_readme(model, phone), encoding="utf-8")
    draft = Draft(
        model=model,
        target=phone,
        latents=Latents(
            channels=channels,
            height=height,
            width=width,
            scale=int(decoded.shape[2]) // height,
        ),
        vae=Vae(scaling_factor=vae["scaling_factor"], shift_factor=0.0),  # as diffusers' Stable Diffusion pipelines
        tokenizers=tokenizers,
        defaults=read_defaults(checkpoint),
        preview=fit_preview(trajectories),
        scheduler=Scheduler(
            config=spell_infinity(scheduler),
            default_sampler=trajectories[0].sampler,
            replaced=None if checkpoint.sampler is None else scheduler["_class_name"],
        ),
        program=program,
        graphs={format: dict(named) for format, named in graphs.items()},
        step_tables=write_tables(schedule),
        golden=tuple(write_golden(folder, number, t) for number, t in enumerate(trajectories)),
        cases={
            name: write_case(folder, graph.spec, trajectories[0]) for name, graph in next(iter(graphs.values())).items()
        },
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
    if "coreml" in graphs and opens_in_apple(graphs["coreml"]):
        unit = graphs["coreml"][model_graph(program)[0]].compute_unit
        write_script(
            folder / "coreml",
            vae["scaling_factor"],
            unit,
            apple_differences(draft),
            Path(tokenizers[0].vocab).parent.as_posix(),
        )
    return draft


def spell_infinity(config: Mapping[str, Any]) -> dict[str, Any]:
    """diffusers writes -Infinity into its JSON files, though JSON has no such number: here it becomes a string."""
    words = {inf: "Infinity", -inf: "-Infinity"}
    return {key: words.get(value, value) if isinstance(value, float) else value for key, value in config.items()}


def write_tokenizers(folder: Path, checkpoint: Checkpoint, homes: Mapping[str, str] = {}) -> tuple[Tokenizer, ...]:
    """Write the vocabulary of each of the checkpoint's tokenizers below `folder`, of those that have the same one once;
    return their settings, in the order of the family's `TOKENIZERS`. `homes` says where one lies that is not below its
    own name; what is there already stays."""
    characters = "tokenizer/characters.json"
    (folder / characters).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(CHARACTERS, folder / characters)
    written: dict[str, ClipTokenizer] = {}
    found = []
    for part, files in checkpoint.tokenizers.items():
        source = read_tokenizer(files, checkpoint.model_index[part][1])
        alike = [home for home, s in written.items() if (s.vocab, s.merges) == (source.vocab, source.merges)]
        home = alike[0] if alike else homes.get(part, part)
        written.setdefault(home, source)
        if not (folder / home / "vocab.json").exists():
            (folder / home).mkdir(parents=True, exist_ok=True)
            write_vocabulary(source, folder / home)
        found.append(
            Tokenizer(
                kind="clip",
                vocab=f"{home}/vocab.json",
                merges=f"{home}/merges.txt",
                characters=characters,
                max_length=source.max_length,
                bos_id=source.bos_id,
                eos_id=source.eos_id,
                pad_id=source.pad_id,
                unk_id=source.unk_id,
                added_tokens=source.added,
            )
        )
    return tuple(found)
