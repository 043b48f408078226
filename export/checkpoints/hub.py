"""A checkpoint on the Hugging Face hub: its small files, and of its weights only those that will be read."""

from collections.abc import Collection
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

from pocketdiffusion.export.checkpoints.safetensors_header import choose_files
from pocketdiffusion.runtime.errors import UserError

SKIPPED = ("safety_checker", "feature_extractor", "image_encoder")


def fetch(repo: str, revision: str | None, token: str | None) -> Path:
    """The folder of a snapshot in the hub's cache, downloaded as far as it is not there yet.

    Where the hub does not answer, the cached snapshot of that revision is taken as it is. Raises UserError where there
    is none, and where the repository is no diffusers checkpoint.
    """
    try:
        siblings = HfApi(token=token).model_info(repo, revision=revision, timeout=15).siblings or []
        files = needed_files(repo, [sibling.rfilename for sibling in siblings])
        return Path(snapshot_download(repo, revision=revision, token=token, allow_patterns=list(files)))
    except UserError:
        raise
    except (
        Exception
    ) as error:  # which library carries the requests, and so what it raises, depends on the hub's version
        try:
            cached = snapshot_download(
                repo, revision=revision, allow_patterns="model_index.json", local_files_only=True
            )
        except LocalEntryNotFoundError:
            raise UserError(_reason(repo, revision, error)) from None
        return Path(cached)


def needed_files(repo: str, names: Collection[str]) -> tuple[str, ...]:
    """Of all file names in a repository, those that opening it reads. Raises UserError where that cannot do."""
    if "model_index.json" not in names:
        raise UserError(f"{repo} on the hub is no diffusers checkpoint: it has no model_index.json")
    folders: dict[str, list[str]] = {}
    for name in names:
        path = PurePosixPath(name)
        if len(path.parts) == 2 and path.parent.name not in SKIPPED:
            folders.setdefault(path.parent.name, []).append(path.name)
    top = [n for n in names if n == "model_index.json" or n == "README.md" or n.startswith("LICENSE")]
    small = [f"{f}/{n}" for f, ns in folders.items() for n in ns if n.endswith((".json", ".txt"))]
    weights = [f"{f}/{n}" for f, ns in folders.items() if "config.json" in ns for n in choose_files(f"{repo}: {f}", ns)]
    return (*top, *small, *weights)


def _reason(repo: str, revision: str | None, error: Exception) -> str:
    if isinstance(error, GatedRepoError):
        return f"{repo} on the hub is gated: accept its terms there, then pass a token or run `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return f"there is no folder {repo}, and no such model on the hub (a private one needs a token)"
    at = f" at revision {revision}" if revision else ""
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{repo}{at} is no folder, is not in the hub's cache, and cannot be fetched: {first}"
