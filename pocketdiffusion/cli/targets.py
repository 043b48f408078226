"""The command targets."""

from pocketdiffusion.cli.console import Output
from pocketdiffusion.cli.options import Json


def targets(as_json: Json = False) -> None:
    """Show the phones that export knows.

    Shown are their facts, and the artifacts that each gets."""
    from pocketdiffusion.cli.json_output import targets_record
    from pocketdiffusion.cli.tables import target_table
    from pocketdiffusion.export.targets import load_target, target_names

    output = Output(as_json=as_json)
    found = [load_target(name) for name in target_names()]
    output.json(lambda: targets_record(found))
    output.table(target_table(found))
