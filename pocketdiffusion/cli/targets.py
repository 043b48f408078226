"""The command targets."""

from pocketdiffusion.cli.console import Output
from pocketdiffusion.cli.options import Json


def targets(as_json: Json = False) -> None:
    """List the phones that `export --target` accepts.

    The table shows the facts of each phone, and the formats, profiles and recipes of its artifacts."""
    from pocketdiffusion.cli.json_output import targets_record
    from pocketdiffusion.cli.tables import target_table
    from pocketdiffusion.export.targets import load_target, target_names

    output = Output(as_json=as_json)
    found = [load_target(name) for name in target_names()]
    output.json(lambda: targets_record(found))
    output.table(target_table(found))
