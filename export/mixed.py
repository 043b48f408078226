"""The search for a mixed recipe. Damages of single weights are weighed between components by what they do to pictures;
the least of them is taken that the bytes allow; then the pictures of the whole plan are measured."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import copysign, floor, inf, isfinite, prod
from statistics import median

from pocketdiffusion.export.families import program
from pocketdiffusion.export.planned import weights_of
from pocketdiffusion.export.sensitivity import Schemes
from pocketdiffusion.export.survey import Surveys
from pocketdiffusion.quantize.mixed_precision.knapsack import Frontier, Item, Option, solve
from pocketdiffusion.quantize.quantized_tensor import nbytes
from pocketdiffusion.quantize.recipes import LEAST_DB, Floors, Recipe
from pocketdiffusion.quantize.recipes.mixed import candidates
from pocketdiffusion.quantize.scheme import Scheme
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.program import ENCODE_IMAGE, graphs_of, text_to_image
from pocketdiffusion.runtime.verify.tolerances import FLOORS_DB, MARGIN_DB, PICTURE_FLOORS_DB

LINEAR = 0.01  # damage of a whole component up to which damages add up, and pictures err in proportion to them
ROUNDING = 1 / 12 / 255**2  # mean squared error of rounding a picture to 8 bits: damages that do less are not seen
WORST_MARGIN_DB = 12.0  # from the worst picture of the search prompts to the worst of others
NEAR_DB = 0.25  # how near to the wanted PSNR the smallest recipe is looked for
MOST_DB = 20.0  # by which an aim is corrected at once
TRIES = 8


@dataclass(frozen=True)
class Measured:
    """A plan for the whole model. `nbytes` is what its weights take, vectors too; `pictures_db` has the PSNR of each
    search prompt's picture."""

    schemes: Schemes
    nbytes: int
    pictures_db: tuple[float, ...]

    @property
    def median_db(self) -> float:
        return median(self.pictures_db)


@dataclass(frozen=True)
class Search:
    """All that is known before a size is chosen. `storages` are the candidates, the smallest first; `weighed` is the
    mean squared error of pictures (of 0..1) for a unit of damage, by component; `vectors` the bytes of what no recipe
    decides; `measured` the plans so far."""

    surveys: Surveys
    format: str
    storages: tuple[Scheme, ...]
    shapes: Mapping[Item, tuple[int, ...]]
    weighed: Mapping[str, float]
    frontier: Frontier
    vectors: int
    measured: dict[tuple[Scheme, ...], Measured] = field(default_factory=dict)

    def within(self, budget: int) -> Measured:
        """The best plan of at most `budget` bytes. Raises UserError where there is none."""
        found = self.find(budget)
        if found is None:
            raise UserError(f"no recipe has {budget / 1e6:.2f} MB: the smallest has {self._smallest() / 1e6:.2f} MB")
        return found

    def find(self, budget: int) -> Measured | None:
        """The best plan of at most `budget` bytes, None where there is none."""
        found = self.frontier.within(budget - self.vectors)
        if found is None:
            return None
        return max([self._measure(found), *self._rivals(budget)], key=lambda plan: plan.median_db)

    def above(self, wanted_db: float) -> Measured:
        """The smallest plan whose pictures have a median of `wanted_db` or more. Raises UserError where none has.

        What damages predict is aimed at first, then aims are corrected by what was measured, and bisected.
        """
        good: list[Measured] = []
        low: float | None = None  # an aim that gave too little
        high: float | None = None  # one that gave enough
        aim, sizes = wanted_db, set[int]()
        for _ in range(TRIES):
            plan = self._measure(self._aimed(aim))
            over = min(max(plan.median_db - wanted_db, -MOST_DB), MOST_DB)
            if over >= 0:
                high, good = aim, [*good, plan]
            else:
                low = aim
            if low is not None and high is not None:
                if high - low <= NEAR_DB:
                    break
                aim = (low + high) / 2
            elif plan.nbytes in sizes:  # there is none beyond
                break
            else:
                aim -= over + copysign(NEAR_DB, over)
            sizes.add(plan.nbytes)
        if not good:
            exact = self._measure(self._aimed(inf))
            if exact.median_db < wanted_db:
                raise UserError(
                    f"no recipe's pictures have a median of {wanted_db:g} dB: the best has {exact.median_db:.1f} dB"
                )
            good = [exact]
        best = min(good, key=lambda plan: plan.nbytes)
        return min([best, *(r for r in self._rivals(best.nbytes) if r.median_db >= wanted_db)], key=lambda p: p.nbytes)

    def uniform(self, scheme: Scheme) -> Measured:
        """Every matrix in the same storage."""
        return self._measure({item: Option(scheme, nbytes(shape, scheme), 0) for item, shape in self.shapes.items()})

    def uniform_bytes(self, scheme: Scheme) -> int:
        """What that takes."""
        return self.vectors + sum(nbytes(shape, scheme) for shape in self.shapes.values())

    def _rivals(self, budget: int) -> Iterator[Measured]:
        """The largest uniform plan of at most so many bytes."""
        fitting = [scheme for scheme in self.storages if self.uniform_bytes(scheme) <= budget]
        yield from map(self.uniform, fitting[-1:])

    def _aimed(self, aim_db: float) -> Mapping[Item, Option]:
        """The smallest plan of which damages predict `aim_db`, or the most exact one."""
        least = float(self.frontier.least[-1])
        found = self.frontier.under(max(10 ** (-aim_db / 10), least))
        assert found is not None
        return found

    def _measure(self, plan: Mapping[Item, Option]) -> Measured:
        key = tuple(option.scheme for option in plan.values())
        if key not in self.measured:
            schemes: dict[str, dict[str, Scheme]] = {}
            for (component, weight), option in plan.items():
                schemes.setdefault(component, {})[weight] = option.scheme
            size = self.vectors + sum(option.nbytes for option in plan.values())
            self.surveys.say(f"drawing the search prompts with weights of {size / 1e6:.2f} MB")
            self.measured[key] = Measured(schemes, size, tuple(self.surveys.pictures(schemes)))
        return self.measured[key]

    def _smallest(self) -> int:
        known = ([o.nbytes for o in options if isfinite(o.damage)] for options in self.frontier.options.values())
        return self.vectors + sum(map(min, known))

    def recipe(self, plan: Measured) -> Recipe:
        """As a JSON file keeps it, with floors by what `plan` does to the outputs of components and to pictures. Raises
        UserError where outputs are not finite."""
        self.surveys.say("measuring the outputs of each component")
        forced = self.surveys.forced(plan.schemes)
        for name, db in forced.items():
            if db == -inf:
                raise UserError(
                    f"with weights of {plan.nbytes / 1e6:.2f} MB {name} gives values that are not finite: ask for more"
                )
        exact_db = FLOORS_DB["float16", "float16" if self.format == "coreml" else "float32"]
        graphs = {name: _down(min(db, exact_db) - MARGIN_DB) for name, db in forced.items()}
        worst_db = min(plan.pictures_db)
        most = PICTURE_FLOORS_DB["float16"]
        pictures = _down(min(plan.median_db - MARGIN_DB, most[0])), _down(min(worst_db - WORST_MARGIN_DB, most[1]))
        request = self.surveys.requests[0]
        evidence = (
            f"measured in torch, where it was searched, on {len(plan.pictures_db)} prompts of its own, {request.steps} "
            f"steps, guidance {request.guidance:g}: weights of {plan.nbytes / 1e6:.2f} MB; pictures median "
            f"{plan.median_db:.1f} dB, minimum {worst_db:.1f} dB; worst outputs, by their largest error too, "
            + ", ".join(f"{name} {db:.1f} dB" for name, db in forced.items())
            + f". Floors are {MARGIN_DB:g} dB below, that of the worst picture {WORST_MARGIN_DB:g} dB; none is "
            f"above float16's own, nor under {LEAST_DB:g} dB"
        )
        return Recipe("mixed", Floors(graphs, pictures, evidence), plan.schemes)


def open_search(surveys: Surveys, format: str, profile: str) -> Search:
    """Measures what every storage of that format costs, and what each component's damage does to pictures.
    Raises UserError where a component bears none of the storages."""
    storages = candidates(format, profile)
    components = [part.spec.name for part in surveys.parts]
    surveys.measure(components, storages)
    damage = surveys.damages.found
    weights = {(part.spec.name, name): w.shape for part in surveys.parts for name, w in weights_of(part).items()}
    weighed = {}
    encoders = graphs_of(text_to_image(program(surveys.checkpoint, surveys.parts)).get(ENCODE_IMAGE))
    for component in components:
        names = [name for c, name in weights if c == component]
        whole = {scheme: sum(damage[component, name, scheme] for name in names) for scheme in storages}
        finite = [scheme for scheme in storages if isfinite(whole[scheme])]
        if not finite:
            raise UserError(f"{component}: no storage leaves values that are finite: export it with --recipe fp32")
        scheme = next((scheme for scheme in finite if whole[scheme] <= LINEAR), finite[-1])
        surveys.say(f"drawing the search prompts with {component} in {scheme.storage}")
        schemes = dict.fromkeys(names, scheme)
        pictures = surveys.redrawn(schemes) if component in encoders else surveys.pictures({component: schemes})
        error = max(median(10 ** (-db / 10) for db in pictures), ROUNDING)
        weighed[component] = error / max(whole[scheme], 1e-12)
    options = {
        (component, name): [
            Option(scheme, nbytes(shape, scheme), weighed[component] * damage[component, name, scheme])
            for scheme in storages
        ]
        for (component, name), shape in weights.items()
    }
    vectors = sum(4 * prod(ref.shape) for part in surveys.parts for ref in part.weights.values() if len(ref.shape) < 2)
    return Search(surveys, format, storages, weights, weighed, solve(options), vectors)


def _down(db: float) -> float:
    """To a tenth, which is short in a file, and no lower than a floor may be."""
    return max(floor(10 * db) / 10, LEAST_DB)
