"""Complete the names after an option in the shell. The registries are read only when the shell completes."""


def complete_targets(incomplete: str) -> list[str]:
    """Return the phones whose names begin with `incomplete`."""
    from pocketdiffusion.export.targets import target_names

    return _begin(target_names(), incomplete)


def complete_recipes(incomplete: str) -> list[str]:
    """Return the recipes whose names begin with `incomplete`."""
    from pocketdiffusion.quantize.recipes import recipe_names

    return _begin(recipe_names(), incomplete)


def complete_samplers(incomplete: str) -> list[str]:
    """Return the samplers whose names begin with `incomplete`."""
    from pocketdiffusion.runtime.sampling.samplers import sampler_names

    return _begin(sampler_names(), incomplete)


def complete_formats(incomplete: str) -> list[str]:
    """Return the formats whose names begin with `incomplete`."""
    from pocketdiffusion.export.backends import backend_names

    return _begin(backend_names(), incomplete)


def _begin(names: list[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
