"""A small but complete bundle for tests: every part of the manifest is there, the files are short, always the same."""

import hashlib
import json
import os
import shutil
from math import inf
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from pocketdiffusion.runtime.bundle.arrays import write_array
from pocketdiffusion.runtime.bundle.golden_records import GoldenCase, RecordedGraph, RecordedTensor, Trajectory
from pocketdiffusion.runtime.bundle.graph_records import Graph
from pocketdiffusion.runtime.bundle.manifest import UnsealedManifest
from pocketdiffusion.runtime.bundle.picture_records import Defaults, Latents, Preview, Scheduler, Vae
from pocketdiffusion.runtime.bundle.subject_records import ModelInfo, Provenance, TargetInfo
from pocketdiffusion.runtime.bundle.tokenizer_records import Tokenizer
from pocketdiffusion.runtime.bundle.verdicts import Verdict
from pocketdiffusion.runtime.graph_spec import Dim, GraphSpec, TensorSpec
from pocketdiffusion.runtime.image import write_png
from pocketdiffusion.runtime.program import Call, Program, Stage
from pocketdiffusion.runtime.record import ArrayRef
from pocketdiffusion.runtime.sampling.schedule import read_schedule
from pocketdiffusion.runtime.sampling.stored_tables import write_tables

GRAPHS: dict[str, tuple[tuple[str, tuple[Dim, ...], str], ...]] = {
    "text_encoder": (("input_ids", (1, 77), "int32"), ("last_hidden_state", (1, 77, 8), "float32")),
    "unet": (("sample", ("batch", 4, 8, 8), "float32"), ("out_sample", ("batch", 4, 8, 8), "float32")),
    "vae_decoder": (("latent_sample", (1, 4, 8, 8), "float32"), ("sample", (1, 3, 16, 16), "float32")),
}
ENDS = {
    "text_encoder": ("encode_prompt", "tokens/1", "text_states"),
    "unet": ("denoise", "scaled_latents", "model_output"),
    "vae_decoder": ("decode", "decoder_latents", "decoded"),
}  # the stage of each, and the values that it takes and gives
SCHEDULER: dict[str, JsonValue] = {
    "_class_name": "DDIMScheduler",
    "beta_end": 0.012,
    "clip_sample": False,
    "trained_betas": None,
}
TABLES = write_tables(read_schedule(SCHEDULER), most_steps=4)
PROGRAM = Program(
    guidance="classifier_free",
    absent_negative="encode_empty",
    draws=("posterior", "start", "steps"),
    stages=tuple(
        Stage(
            stage=stage,
            calls=(Call(graph=graph, inputs={GRAPHS[graph][0][0]: taken}, outputs={GRAPHS[graph][1][0]: given}),),
        )
        for graph, (stage, taken, given) in ENDS.items()
    ),
)


def write_sample(folder: Path, *, many: int = 0) -> UnsealedManifest:
    """Writes the files of a bundle, and `many` golden arrays more, into `folder`; returns what there is to seal."""
    random = np.random.default_rng(7)
    graphs: dict[str, Graph] = {}
    arrays: dict[str, ArrayRef] = {}
    verdicts = [verdict("image")]
    for name, (given, returned) in GRAPHS.items():
        model = folder / "onnx" / name / "model.onnx"
        model.parent.mkdir(parents=True)
        model.write_bytes(f"{name}: nodes".encode())
        weights = model.with_name("model.onnx_data")
        weights.write_bytes(random.bytes(600))
        graphs[name] = Graph(
            path=f"onnx/{name}/model.onnx",
            files=(f"onnx/{name}/model.onnx", f"onnx/{name}/model.onnx_data"),
            spec=GraphSpec(name, (TensorSpec(*given),), (TensorSpec(*returned, doc="what comes out"),)),
            profile="ort",
            recipe="fp16",
            storage="float16",
            arithmetic="float32",
            compute_unit="cpu",
            rewrites={"attention": 2},
            ops={"MatMul": 5, "com.microsoft.MultiHeadAttention": 2},
            parameters=300,
        )
        verdicts.append(verdict(f"{name}.{returned[0]}", psnr_db=91.25 + len(name) / 3, max_abs=1e-7))
    given, returned = GRAPHS["vae_decoder"]
    for number in range(2 + many):
        refs = []
        for name, shape, _ in (given, returned):
            array = random.standard_normal([int(size) for size in shape]).astype(np.float32)
            refs.append(write_array(folder, f"golden/{number}/{name}.bin", array))
        arrays |= {f"{given[0]}_{number}": refs[0], f"{returned[0]}_{number}": refs[1]}
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer/vocab.json").write_text(json.dumps({"a</w>": 0, "<|startoftext|>": 1, "<|endoftext|>": 2}))
    (folder / "tokenizer/characters.json").write_text("{}")
    (folder / "tokenizer/merges.txt").write_text("#version: 0.2\na b</w>\n")
    (folder / "report").mkdir()
    (folder / "report/report.json").write_text(json.dumps({"seconds": 12.5}))
    write_png(folder / "golden/0.png", random.integers(0, 256, (16, 16, 3)).astype(np.uint8), {})
    latents = write_array(folder, "golden/latents.bin", random.standard_normal((5, 4, 8, 8)).astype(np.float32))
    for path in (
        "README.md",
        "onnx/unet/config.json",
        "licences/LICENSE",
        "onnx/model_index.json",
        "conformance/noise.json",
        "report/report.html",
    ):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(path)
    ref = arrays["latent_sample_0"], arrays["sample_0"]
    case = GoldenCase(label="prompt 0", inputs={"latent_sample": ref[0]}, outputs={"sample": ref[1]})
    prompt = "un café rouge 🍎"
    return UnsealedManifest(
        model=ModelInfo(
            name="sample",
            family="stable_diffusion",
            pipeline="StableDiffusionPipeline",
            prediction_type="epsilon",
            licence="apache-2.0",
            revision=None,
            fingerprint="0123456789abcdef" * 4,
            licence_files=("licences/LICENSE",),
            attribution="sample, licence apache-2.0",
        ),
        target=TargetInfo(
            name="pixel-8", title="Google Pixel 8", soc="Tensor G3", memory_mb=8192, os_floor="Android 14"
        ),
        latents=Latents(channels=4, height=8, width=8, scale=2),
        vae=Vae(scaling_factor=0.18215, shift_factor=0.0),
        tokenizers=(
            Tokenizer(
                kind="clip",
                vocab="tokenizer/vocab.json",
                merges="tokenizer/merges.txt",
                characters="tokenizer/characters.json",
                max_length=77,
                bos_id=1,
                eos_id=2,
                pad_id=2,
            ),
        ),
        defaults=Defaults(steps=50, guidance=7.5, strength=0.8),
        preview=Preview(matrix=((0.1, 0.2, -0.3),) * 4, bias=(0.5, 0.5, 0.5), psnr_db=21.5),
        scheduler=Scheduler(
            config=SCHEDULER,
            default_sampler="ddim",
        ),
        program=PROGRAM,
        graphs={"onnx": graphs},
        step_tables=TABLES,
        golden=(
            Trajectory(
                prompt=prompt,
                negative_prompt="",
                seed=2**63,
                steps=4,
                sampler="ddim",
                guidance=7.5,
                image="golden/0.png",
                arrays={"latents": latents, **arrays},
                graphs={
                    "vae_decoder": RecordedGraph(
                        halves=("",),
                        steps=(None,),
                        inputs={given[0]: RecordedTensor(values=stacked(arrays[f"{given[0]}_0"]), calls=(0,))},
                        outputs={returned[0]: RecordedTensor(values=stacked(arrays[f"{returned[0]}_0"]), calls=(0,))},
                    )
                },
            ),
        ),
        verdicts=tuple(verdicts),
        cases={"vae_decoder": case},
        conformance=("conformance/noise.json",),
        provenance=Provenance(exported_by="pocketdiffusion 0.1.0", python="3.11", toolchain={"torch": "2.13.0"}),
    )


def stacked(ref: ArrayRef) -> ArrayRef:
    """The array as the only one of a file of several."""
    return ref.model_copy(update={"shape": (1, *ref.shape)})


def verdict(subject: str, psnr_db: float = inf, max_abs: float = 0.0) -> Verdict:
    """One that passes 65 dB unless `psnr_db` is under it."""
    return Verdict(
        subject=subject,
        rung="fp16",
        format="onnx",
        storage="float16",
        arithmetic="float32",
        floor_db=65.0,
        psnr_db=psnr_db,
        peak=4.0,
        max_abs=max_abs,
        worst=(0, 3, 7, 7),
        worst_case="prompt 0, step 10, conditional",
        relative=max_abs / 4,
        finite=True,
        cases=24,
    )


def write_snapshot(bundle: Path, repository: Path, inside: str = "") -> Path:
    """Writes `bundle` as the hub's cache has it, in the folder `inside` of a repository, and returns that folder: each
    file is a link into the folder blobs."""
    snapshot = repository / "snapshots/0a1b2c" / inside
    (repository / "blobs").mkdir(parents=True)
    for file in (path for path in bundle.rglob("*") if path.is_file()):
        blob = repository / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copy(file, blob)
        link = snapshot / file.relative_to(bundle)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot
