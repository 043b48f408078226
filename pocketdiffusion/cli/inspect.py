"""The command inspect."""

from pathlib import Path
from typing import Annotated

import typer

from pocketdiffusion.cli.console import Output
from pocketdiffusion.cli.extras import needs_export
from pocketdiffusion.cli.options import AllowUnexpected, Json, Revision, Token
from pocketdiffusion.runtime.errors import ProofError


def inspect(
    what: Annotated[
        str,
        typer.Argument(
            metavar="DIR|MODEL",
            help="A bundle, or a checkpoint: `emoji` (built in), a folder in diffusers' format, or a Hugging Face id "
            "(user/model).",
        ),
    ],
    revision: Revision = None,
    token: Token = None,
    allow_unexpected: AllowUnexpected = None,
    as_json: Json = False,
) -> None:
    """Show the contents of a bundle or a checkpoint.

    The tables show components, shapes, parameters, sizes and precisions, and the verdicts of a bundle.

    The hash of every file of a bundle is checked first.
    """
    output = Output(as_json=as_json)
    if any((Path(what) / name).exists() for name in ("manifest.json", "manifest.sha256")):
        inspect_bundle(Path(what), output)
        return
    from pocketdiffusion.choices import check_model

    check_model(what)
    with needs_export():
        from pocketdiffusion.export.component import check_finite
        from pocketdiffusion.export.families import components
        from pocketdiffusion.export.opening import open_checkpoint
    from pocketdiffusion.cli.json_output import model_record
    from pocketdiffusion.cli.tables import model_tables

    allowed = allow_unexpected or ()
    checkpoint = open_checkpoint(what, revision=revision, token=token, allow_unexpected=allowed, progress=output.warn)
    parts = components(checkpoint, progress=output.warn)
    output.json(lambda: model_record(checkpoint.name, checkpoint.licence, parts))
    shown = [
        (
            part.spec.name,
            part.spec.inputs,
            part.spec.outputs,
            [ref.shape for ref in part.weights.values()],
            ", ".join(sorted({ref.dtype for ref in part.weights.values()})),
        )
        for part in parts
    ]
    for table in model_tables(f"{checkpoint.name}, licence {checkpoint.licence}", shown):
        output.table(table)
    check_finite(checkpoint.content, parts)


def inspect_bundle(folder: Path, output: Output) -> None:
    """Show a bundle. Raise ProofError if a file is corrupt or the export failed."""
    from pocketdiffusion.cli.json_output import bundle_record
    from pocketdiffusion.cli.tables import bundle_tables
    from pocketdiffusion.runtime.bundle.bundle import open_unproven

    manifest = open_unproven(folder).manifest
    output.json(lambda: bundle_record(manifest))
    for table in bundle_tables(manifest):
        output.table(table)
    failed = [v for v in manifest.verdicts if not v.passed]
    if not manifest.has_proof and not manifest.proof.passed:
        raise ProofError(
            f"{folder} is the runtime part of a failed export, and must not be used: export the model again"
        )
    if failed:
        raise ProofError(
            f"{folder} is a failed export: {len(failed)} of {len(manifest.verdicts)} checks failed; see "
            "report/report.html in it"
        )
