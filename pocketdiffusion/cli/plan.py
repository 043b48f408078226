"""export --plan: the expected sizes, memory and time of an export. Nothing is exported, and torch is not imported."""

from typing import TYPE_CHECKING

from pocketdiffusion.cli.console import Output

if TYPE_CHECKING:
    from pocketdiffusion.choices import ExportOptions
    from pocketdiffusion.estimates import ExportPlan
    from pocketdiffusion.export.targets import Target


def show_plan(model: str, target: "Target", options: "ExportOptions", output: Output) -> None:
    """Print the plan of an export. Raise UserError if the checkpoint is not on this disk."""
    from pocketdiffusion.checkpoint_outline import read_outline
    from pocketdiffusion.cli.json_output import plan_record
    from pocketdiffusion.cli.tables import plan_table
    from pocketdiffusion.estimates import plan_export
    from pocketdiffusion.memory_fit import warn_of_plan

    plan = plan_export(
        read_outline(model),
        target,
        budget_mb=options.budget_mb,
        width=options.width,
        height=options.height,
        tile_size=options.vae_tile_size,
        proof=options.proof,
    )
    output.json(lambda: plan_record(plan))
    output.table(plan_table(plan.parts))
    for line in describe_plan(plan):
        output.print_line(line)
    for line in warn_of_plan(plan, target):
        output.warn(line)


def describe_plan(plan: "ExportPlan") -> list[str]:
    """Return the estimates of the plan, each as one line of text."""
    lines = [f"{plan.model} for {plan.target}, pictures of {plan.width}x{plan.height}"]
    for format, memory in plan.memory_bytes.items():
        if format in plan.not_measured:
            lines.append(f"not measured: the memory on the phone in {format}, whose backend has no costs.json")
            continue
        if memory is None:
            lines.append(f"estimate: the memory on the phone in {format} is not known for this recipe")
            continue
        ram = ""
        if plan.ram_bytes is not None:
            ram = f", {100 * memory / plan.ram_bytes:.0f} % of its {plan.ram_bytes / 2**30:.0f} GB"
        lines.append(
            f"estimate: {memory / 1e6:.0f} MB of memory on the phone with the {format} files, if all graphs are "
            f"loaded at once{ram}"
        )
    lines.append(
        f"for the checks, the export draws {plan.pictures} pictures with the original: {plan.steps} denoising "
        "steps in all"
    )
    if plan.calibration_steps:
        lines.append(f"to calibrate activations, it draws {plan.calibration_steps} steps more")
    if plan.cpu_seconds is None:
        lines.append(f"not measured: the time of an export to {', '.join(plan.not_measured)}")
    else:
        minutes = plan.cpu_seconds / 60
        lines.append(f"estimate: {minutes:.1f} CPU minutes for the export (the true time may be half or twice that)")
    return lines
