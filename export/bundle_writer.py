"""Write the files of a bundle that are not graphs: tokenizer, step tables, golden data, licences, and their record."""

import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from math import inf
from pathlib import Path
from typing import Any

from pocketdiffusion.export.backends import backend_names, find_backend
from pocketdiffusion.export.bundle_readme import bundle_readme
from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.checkpoints.tokenizer_files import ClipTokenizer, read_tokenizer, write_vocabulary
from pocketdiffusion.export.conformance import write_conformance
from pocketdiffusion.export.families import find_family, scheduler_config
from pocketdiffusion.export.licences import Licences, write_licences
from pocketdiffusion.export.pipeline_defaults import read_defaults
from pocketdiffusion.export.preview import fit_preview
from pocketdiffusion.export.targets import Target
from pocketdiffusion.runtime.bundle.file_table import README
from pocketdiffusion.runtime.bundle.golden_records import Calibration
from pocketdiffusion.runtime.bundle.graph_records import Graph
from pocketdiffusion.runtime.bundle.manifest import UnsealedManifest
from pocketdiffusion.runtime.bundle.picture_records import Latents, Scheduler, Vae
from pocketdiffusion.runtime.bundle.subject_records import ModelInfo, Provenance, TargetInfo
from pocketdiffusion.runtime.bundle.tokenizer_records import Tokenizer
from pocketdiffusion.runtime.characters import CHARACTERS
from pocketdiffusion.runtime.program import Program, find_ends, latents_shape
from pocketdiffusion.runtime.sampling.schedule import read_schedule
from pocketdiffusion.runtime.sampling.scheduler_settings import read_settings
from pocketdiffusion.runtime.sampling.stored_tables import write_tables
from pocketdiffusion.runtime.vae_tiles import Tiling
from pocketdiffusion.runtime.verify.golden import write_case, write_golden
from pocketdiffusion.runtime.verify.recording import Trajectory

TOOLCHAIN = ("diffusers", "numpy", "tokenizers", "torch", "transformers")  # of every export


def assemble(
    folder: Path,
    checkpoint: Checkpoint,
    target: Target,
    graphs: Mapping[str, Mapping[str, Graph]],
    trajectories: Sequence[Trajectory],
    calibration: Calibration | None = None,
) -> UnsealedManifest:
    """Write tokenizers, golden/, conformance/, licences/ and README.md into `folder`, next to the graphs. Return the
    record of the bundle, still without verdicts.

    If another library can run the graphs of a format, their folder becomes one that it opens as well, by files of the
    format's backend. `calibration` is given if value ranges of activations were measured."""
    named = next(iter(graphs.values()))
    program, scheduler = trajectories[0].program, scheduler_config(checkpoint)
    height, width = trajectories[0].latents.shape[-2:]
    size = int(height), int(width)
    homes: dict[str, str] = {}
    for format, files in graphs.items():
        homes |= find_backend(format).write_companions(folder / format, files, checkpoint, size)
    tokenizers = write_tokenizers(folder, checkpoint, homes)
    conformance = write_conformance(folder, checkpoint)
    model = describe_model(checkpoint, scheduler, write_licences(folder, checkpoint))
    phone = TargetInfo(
        name=target.name, title=target.title, soc=target.soc, memory_mb=target.memory_mb, os_floor=target.os_floor
    )
    (folder / README).write_text(bundle_readme(model, phone), encoding="utf-8")
    draft = UnsealedManifest(
        model=model,
        target=phone,
        latents=describe_latents(program, named),
        vae=describe_vae(checkpoint.configs["vae"]["scaling_factor"], trajectories[0].tiling),
        tokenizers=tokenizers,
        defaults=read_defaults(checkpoint),
        preview=fit_preview(trajectories),
        scheduler=Scheduler(
            config=spell_infinity(scheduler),
            default_sampler=trajectories[0].sampler,
            replaced=None if checkpoint.sampler is None else scheduler["_class_name"],
        ),
        program=program,
        graphs={format: dict(files) for format, files in graphs.items()},
        step_tables=write_tables(read_schedule(scheduler)),
        golden=tuple(write_golden(folder, number, t) for number, t in enumerate(trajectories)),
        cases={name: write_case(folder, graph.spec, trajectories[0]) for name, graph in named.items()},
        verdicts=(),
        calibration=calibration,
        conformance=conformance,
        provenance=describe_provenance(graphs),
    )
    for format in graphs:
        find_backend(format).write_script(folder / format, draft)
    return draft


def describe_latents(program: Program, graphs: Mapping[str, Graph]) -> Latents:
    """Return the size of the latents, and how many pixels the decoder makes of one along an axis."""
    specs = {name: graph.spec for name, graph in graphs.items()}
    taken, decoded = find_ends(program, specs)
    channels, height, width = latents_shape(program, specs)
    return Latents(channels=channels, height=height, width=width, scale=int(decoded.shape[2]) // int(taken.shape[2]))


def describe_vae(scaling_factor: float, tiling: Tiling | None) -> Vae:
    """Return the record of the VAE. It has no shift, as in diffusers' pipelines."""
    if tiling is None:
        return Vae(scaling_factor=scaling_factor, shift_factor=0.0)
    size, overlap = tiling.tile * tiling.scale, tiling.overlap * tiling.scale
    return Vae(scaling_factor=scaling_factor, shift_factor=0.0, tile_size=size, tile_overlap=overlap)


def describe_model(checkpoint: Checkpoint, scheduler: Mapping[str, Any], licences: Licences) -> ModelInfo:
    """Return the record of the model that was exported: with the settings `scheduler`, and the licence files that were
    written."""
    return ModelInfo(
        name=checkpoint.name,
        family=find_family(checkpoint).__name__.rpartition(".")[2],
        pipeline=checkpoint.model_index["_class_name"],
        prediction_type=read_settings(scheduler).prediction_type,
        licence=checkpoint.licence,
        revision=checkpoint.revision,
        fingerprint=checkpoint.fingerprint,
        licence_files=licences.files,
        licence_url=licences.url,
        attribution=licences.attribution,
    )


def describe_provenance(formats: Iterable[str]) -> Provenance:
    """Return the versions of this package, Python and the tools that wrote artifacts of `formats`."""
    return Provenance(
        exported_by=f"pocketdiffusion {version('pocketdiffusion')}",
        python=".".join(str(n) for n in sys.version_info[:3]),
        toolchain={name: version(name) for name in toolchain(formats)},
    )


def toolchain(formats: Iterable[str]) -> list[str]:
    """Return the distributions whose versions a bundle of `formats` states: TOOLCHAIN, the tools of backends without a
    converter, and the tools of `formats`."""
    backends = [find_backend(name) for name in backend_names()]
    found = {*TOOLCHAIN, *(tool for backend in backends if backend.converter is None for tool in backend.tools)}
    return sorted(found | {tool for format in formats for tool in find_backend(format).tools})


def spell_infinity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a scheduler's settings with infinite numbers as strings, because JSON has none; diffusers writes
    -Infinity."""
    words = {inf: "Infinity", -inf: "-Infinity"}
    return {key: words.get(value, value) if isinstance(value, float) else value for key, value in config.items()}


def write_tokenizers(folder: Path, checkpoint: Checkpoint, homes: Mapping[str, str] = {}) -> tuple[Tokenizer, ...]:
    """Write the vocabulary of each of the checkpoint's tokenizers below `folder`, equal ones once, and return their
    settings in the order of the family's `TOKENIZERS`. `homes` has the folders of tokenizers that are not below their
    own names. Files that exist already stay."""
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
