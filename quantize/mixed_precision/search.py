"""The search for a mixed recipe.

Each component's error is weighted by its effect on pictures, so that sensitivities of different components can be
compared. The recipe with the least sum of errors within the budget is chosen; then the pictures with all its weights
quantized are measured.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import copysign, floor, inf, isfinite
from statistics import median

from pocketdiffusion.quantize.floors import LEAST_DB, Floors
from pocketdiffusion.quantize.measure.analysis import SensitivityAnalysis
from pocketdiffusion.quantize.measure.sensitivity import Schemes
from pocketdiffusion.quantize.mixed_precision.knapsack import Frontier, Item, Option, solve
from pocketdiffusion.quantize.quantized_tensor import nbytes
from pocketdiffusion.quantize.recipe import Recipe
from pocketdiffusion.quantize.scheme import Scheme
from pocketdiffusion.runtime.engines import find_engine
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.program import ENCODE_IMAGE, graphs_of, text_to_image
from pocketdiffusion.runtime.verify.tolerances import FLOORS_DB, MARGIN_DB, PICTURE_FLOORS_DB

LINEAR = 0.01  # sum of a component's sensitivities up to which they add up, and pictures err in proportion to them
ROUNDING = 1 / 12 / 255**2  # mean squared error of rounding a picture to 8 bits: smaller errors are not seen
WORST_MARGIN_DB = 12.0  # how much worse the worst picture of other prompts can be than the worst of the search prompts
NEAR_DB = 0.25  # precision of the search for the smallest recipe with a PSNR
MOST_DB = 20.0  # largest correction of an aim in one step
TRIES = 8


@dataclass(frozen=True)
class Measured:
    """A plan for all components. `nbytes`: bytes of all weights, including vectors. `pictures_db`: PSNR of each
    search prompt's picture."""

    schemes: Schemes
    nbytes: int
    pictures_db: tuple[float, ...]

    @property
    def median_db(self) -> float:
        """Return the median PSNR (dB) of the pictures."""
        return median(self.pictures_db)


@dataclass(frozen=True)
class Search:
    """All that is known before a size is chosen. `storages`: the candidates, the smallest first. `vectors`: bytes of
    all weights that no recipe decides. `measured`: the plans so far."""

    analysis: SensitivityAnalysis
    format: str
    storages: tuple[Scheme, ...]
    shapes: Mapping[Item, tuple[int, ...]]
    frontier: Frontier
    vectors: int
    measured: dict[tuple[Scheme, ...], Measured] = field(default_factory=dict)

    def best_within(self, budget: int) -> Measured:
        """Return the best plan of at most `budget` bytes. Raises UserError if there is none."""
        found = self.find(budget)
        if found is None:
            raise UserError(
                f"no recipe fits in {budget / 1e6:.2f} MB: the smallest has {self._smallest() / 1e6:.2f} MB, "
                "raise --budget-mb"
            )
        return found

    def find(self, budget: int) -> Measured | None:
        """Return the best plan of at most `budget` bytes, None if there is none."""
        found = self.frontier.within(budget - self.vectors)
        if found is None:
            return None
        return max([self._measure(found), *self._rivals(budget)], key=lambda plan: plan.median_db)

    def smallest_with_median(self, least_db: float) -> Measured:
        """Return the smallest plan whose pictures have a median PSNR of `least_db` or more. Raises UserError if there
        is none.

        The first aim is the plan for which sensitivities predict `least_db`; then aims are corrected by measurements,
        and bisected.
        """
        good: list[Measured] = []
        low: float | None = None  # an aim whose plan had too low a PSNR
        high: float | None = None  # an aim whose plan had a sufficient PSNR
        aim, sizes = least_db, set[int]()
        for _ in range(TRIES):
            plan = self._measure(self._aimed(aim))
            over = min(max(plan.median_db - least_db, -MOST_DB), MOST_DB)
            if over >= 0:
                high, good = aim, [*good, plan]
            else:
                low = aim
            if low is not None and high is not None:
                if high - low <= NEAR_DB:
                    break
                aim = (low + high) / 2
            elif plan.nbytes in sizes:  # no other size is left
                break
            else:
                aim -= over + copysign(NEAR_DB, over)
            sizes.add(plan.nbytes)
        if not good:
            exact = self._measure(self._aimed(inf))
            if exact.median_db < least_db:
                raise UserError(
                    f"no recipe reaches a median PSNR of {least_db:g} dB: the most precise one has "
                    f"{exact.median_db:.1f} dB; lower --min-median-psnr"
                )
            good = [exact]
        best = min(good, key=lambda plan: plan.nbytes)
        return min([best, *(r for r in self._rivals(best.nbytes) if r.median_db >= least_db)], key=lambda p: p.nbytes)

    def uniform(self, scheme: Scheme) -> Measured:
        """Measure the plan that stores every matrix in `scheme`."""
        return self._measure({item: Option(scheme, nbytes(shape, scheme), 0) for item, shape in self.shapes.items()})

    def uniform_bytes(self, scheme: Scheme) -> int:
        """Return the size in bytes of the plan that stores every matrix in `scheme`."""
        return self.vectors + sum(nbytes(shape, scheme) for shape in self.shapes.values())

    def _rivals(self, budget: int) -> Iterator[Measured]:
        """Yield the largest uniform plan of at most `budget` bytes."""
        fitting = [scheme for scheme in self.storages if self.uniform_bytes(scheme) <= budget]
        yield from map(self.uniform, fitting[-1:])

    def _aimed(self, aim_db: float) -> Mapping[Item, Option]:
        """Return the smallest plan for which sensitivities predict `aim_db`, or the most exact one if none reaches
        it."""
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
            self.analysis.progress(f"drawing the search prompts with weights of {size / 1e6:.2f} MB")
            self.measured[key] = Measured(schemes, size, tuple(self.analysis.pictures(schemes)))
        return self.measured[key]

    def _smallest(self) -> int:
        known = ([o.nbytes for o in options if isfinite(o.error)] for options in self.frontier.options.values())
        return self.vectors + sum(map(min, known))

    def recipe(self, plan: Measured) -> Recipe:
        """Return `plan` as a recipe, with floors below the measured PSNR of outputs and pictures. Raises UserError
        if outputs are not finite."""
        self.analysis.progress("measuring the outputs of each component")
        teacher_forced = self.analysis.teacher_forced(plan.schemes)
        for name, db in teacher_forced.items():
            if db == -inf:
                raise UserError(
                    f"with weights of {plan.nbytes / 1e6:.2f} MB {name} computes values that are not finite: "
                    "raise --budget-mb or --min-median-psnr"
                )
        engine = find_engine(self.format)
        exact_db = FLOORS_DB["float16", engine.half_arithmetic if engine is not None else "float32"]
        graphs = {name: _down(min(db, exact_db) - MARGIN_DB) for name, db in teacher_forced.items()}
        worst_db = min(plan.pictures_db)
        most = PICTURE_FLOORS_DB["float16"]
        pictures = _down(min(plan.median_db - MARGIN_DB, most[0])), _down(min(worst_db - WORST_MARGIN_DB, most[1]))
        drawings = self.analysis.drawings
        evidence = (
            f"measured in torch, where it was searched, on {len(plan.pictures_db)} prompts of its own, "
            f"{drawings.steps} steps, guidance {drawings.guidance:g}: weights of {plan.nbytes / 1e6:.2f} MB; "
            f"pictures median {plan.median_db:.1f} dB, minimum {worst_db:.1f} dB; worst outputs, "
            "by their largest error too, "
            + ", ".join(f"{name} {db:.1f} dB" for name, db in teacher_forced.items())
            + f". Floors are {MARGIN_DB:g} dB below, that of the worst picture {WORST_MARGIN_DB:g} dB; none is "
            f"above float16's own, nor under {LEAST_DB:g} dB"
        )
        return Recipe("mixed", Floors(graphs, pictures, evidence), plan.schemes)


def open_search(analysis: SensitivityAnalysis, format: str, storages: tuple[Scheme, ...]) -> Search:
    """Measure the sensitivities to each of `storages` (of an artifact of `format`, the smallest first) and the
    effect of each component's error on pictures. Raises UserError if a component computes values that are not finite
    in every storage."""
    subjects = analysis.subjects
    analysis.measure(subjects, storages)
    found = analysis.table.found
    weighed = {component: _weigh(analysis, component, storages) for component in subjects}
    weights = {
        (part, name): weight.shape for part, subject in subjects.items() for name, weight in subject.weights.items()
    }
    options = {
        (component, name): [
            Option(scheme, nbytes(shape, scheme), weighed[component] * found[component, name, scheme])
            for scheme in storages
        ]
        for (component, name), shape in weights.items()
    }
    vectors = sum(subject.vector_bytes for subject in subjects.values())
    return Search(analysis, format, storages, weights, solve(options), vectors)


def _weigh(analysis: SensitivityAnalysis, component: str, storages: tuple[Scheme, ...]) -> float:
    """Return the mean squared error of pictures (values 0..1) for one unit of the component's relative squared
    error."""
    found, names = analysis.table.found, list(analysis.subjects[component].weights)
    sums = {scheme: sum(found[component, name, scheme] for name in names) for scheme in storages}
    finite = [scheme for scheme in storages if isfinite(sums[scheme])]
    if not finite:
        raise UserError(
            f"with every storage of this format, {component} computes NaN or infinity: export with --recipe fp32"
        )
    scheme = next((scheme for scheme in finite if sums[scheme] <= LINEAR), finite[-1])
    analysis.progress(f"drawing the search prompts with {component} in {scheme.storage}")
    schemes = dict.fromkeys(names, scheme)
    encoders = graphs_of(text_to_image(analysis.drawings.program).get(ENCODE_IMAGE))
    pictures = analysis.redrawn(schemes) if component in encoders else analysis.pictures({component: schemes})
    error = max(median(10 ** (-db / 10) for db in pictures), ROUNDING)
    return error / max(sums[scheme], 1e-12)


def _down(db: float) -> float:
    """Round down to one decimal place, and return at least LEAST_DB."""
    return max(floor(10 * db) / 10, LEAST_DB)
