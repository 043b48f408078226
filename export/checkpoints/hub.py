"""A checkpoint on the Hugging Face hub: its small files, and only those weight files that will be read."""

import re
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint, OpenOptions
from pocketdiffusion.export.checkpoints.folder import read_folder
from pocketdiffusion.export.checkpoints.text_files import IncompleteError, read_json
from pocketdiffusion.export.checkpoints.weight_files import PICKLED, WeightFiles, choose_weights, is_index
from pocketdiffusion.runtime.errors import UserError

ORDER = 30
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def open(name: str, options: OpenOptions) -> Checkpoint | None:
    """Return the checkpoint with the hub id `name`, None if it is a path or does not have the form of an id."""
    path = Path(name)
    if path.exists() or path.suffix in (*PICKLED, ".safetensors") or not _HUB_ID.fullmatch(name):
        return None
    folder, complete = fetch(name, options)
    try:
        return read_folder(folder, name, folder.name, options)
    except IncompleteError as error:
        if complete:
            raise UserError(f"{name} on the hub is incomplete: {error}") from None
        raise UserError(
            f"the copy of {name} in the hub's cache is incomplete, its download was interrupted ({error}): "
            "run the same command again online, which downloads the rest"
        ) from None


def fetch(repo: str, options: OpenOptions) -> tuple[Path, bool]:
    """Download the missing files of a snapshot; return its folder in the hub's cache and True.

    If the hub does not answer, or a download breaks off, return the cached snapshot of that revision as it is, and
    False. Raise UserError if there is none, and if the repository is not a diffusers checkpoint that can be exported.
    """
    revision = options.revision
    try:
        siblings = HfApi(token=options.token).model_info(repo, revision=revision, timeout=15).siblings or []
        return _download(repo, options, [sibling.rfilename for sibling in siblings]), True
    except UserError:
        raise
    except Exception as error:  # the type depends on the HTTP library, which differs between versions of the hub
        try:
            cached = snapshot_download(
                repo, revision=revision, allow_patterns="model_index.json", local_files_only=True
            )
        except LocalEntryNotFoundError:
            raise UserError(_reason(repo, revision, error)) from None
        return Path(cached), False


def _download(repo: str, options: OpenOptions, names: Collection[str]) -> Path:
    """Download model_index.json, then the shard indexes of the parts that it names, then the weights and small
    files."""
    if "model_index.json" not in names:
        raise UserError(
            f"{repo} on the hub is not a diffusers checkpoint: it has no model_index.json; give the id of a model in "
            "diffusers' format"
        )
    token = options.token
    top = ["model_index.json", *(n for n in names if n == "README.md" or n.startswith("LICENSE") and "/" not in n)]
    folder = Path(snapshot_download(repo, revision=options.revision, token=token, allow_patterns=top))
    modules, tokenizers = options.find_parts(repo, read_json(folder / "model_index.json"))
    by_folder: dict[str, list[str]] = {}
    for name in map(PurePosixPath, names):
        if len(name.parts) == 2:
            by_folder.setdefault(name.parts[0], []).append(name.parts[1])
    # from here on, the commit that the first call found
    indexes = [f"{part}/{n}" for part, (lib, _) in modules.items() for n in by_folder.get(part, []) if is_index(lib, n)]
    if indexes:
        snapshot_download(repo, revision=folder.name, token=token, allow_patterns=indexes)

    def choose(variant: str | None) -> dict[str, WeightFiles]:
        return {
            part: choose_weights(
                f"{repo}: {part}",
                library,
                by_folder.get(part, []),
                lambda name, part=part: read_json(folder / part / name),  # type: ignore[misc]
                variant,
            )
            for part, (library, _) in modules.items()
        }

    chosen = choose(None)
    if variants := [files.variant for files in chosen.values() if files.variant is not None]:
        chosen = choose(variants[0])
    weights = [f"{part}/{name}" for part, files in chosen.items() for name in files.files]
    small = ["scheduler/scheduler_config.json", *(f"{part}/config.json" for part in modules)]
    for part in tokenizers:
        small += [f"{part}/{name}" for name in by_folder.get(part, []) if name.endswith((".json", ".txt"))]
    snapshot_download(repo, revision=folder.name, token=token, allow_patterns=[*small, *weights])
    return folder


def _reason(repo: str, revision: str | None, error: Exception) -> str:
    if isinstance(error, GatedRepoError):
        return f"{repo} on the hub is gated: accept its terms there, then pass a token or run `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return f"there is no folder {repo}, and no such model on the hub (a private one needs a token)"
    at = f" at revision {revision}" if revision else ""
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{repo}{at} is not a folder, is not in the hub's cache, and cannot be downloaded: {first}"
