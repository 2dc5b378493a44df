"""The numbers of a search, with the paper's names for them (section 3)."""

from dataclasses import dataclass

from medlocker_dicom.errors import PlacementError

REFERENCE_WIDTH = 224  # px; the canvas on which the paper's steps are given


@dataclass(frozen=True, slots=True)
class SearchParameters:
    """Parameters of all strategies; the defaults are the paper's.

    Attributes
    ----------
    canvas_width
        Width of the image that is searched on, in pixels; scales position steps.
    population
        ``N_p``, individuals, at least 1.
    generations
        ``N_g``, generations of mutation, crossover and selection.
    proposals
        ``N_iter``, basin-hopping proposals an individual and generation.
    crossover_rate
        ``CR``, chance that a gene comes from the mutant, 0 to 1 (eq. 5).
    step
        ``s``, mutation step: alpha moves by at most ``2 s``, x and y by at most
        ``5 s`` px on a canvas 224 px wide.
    alpha_low, alpha_high
        Opacities allowed, inclusive, within 0 to 255.
    temperature
        ``T`` of basin hopping: a proposal worse by d is accepted with
        probability ``exp(-d / T)``. 0 accepts none.
    keep
        How many distinct candidates a result lists, at least 8.

    Raises
    ------
    PlacementError
        A value is out of its range.
    """

    canvas_width: int = REFERENCE_WIDTH
    population: int = 50
    generations: int = 3
    proposals: int = 3
    crossover_rate: float = 0.9
    step: int = 10
    alpha_low: int = 100
    alpha_high: int = 255
    temperature: float = 0.0
    keep: int = 16

    def __post_init__(self) -> None:
        """Hold every value to its range."""
        self._hold("canvas_width", 1, 1 << 16)
        self._hold("population", 1, 1 << 16)
        self._hold("generations", 0, 1 << 16)
        self._hold("proposals", 0, 1 << 16)
        self._hold("crossover_rate", 0, 1)
        self._hold("step", 0, 255)
        self._hold("alpha_low", 0, 255)
        self._hold("alpha_high", self.alpha_low, 255)
        self._hold("temperature", 0, 1e6)
        self._hold("keep", 8, 1 << 16)

    def _hold(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if not low <= value <= high:  # also true of nan
            raise PlacementError(
                f"search parameter {name} is {value}, allowed are {low:g} to {high:g}",
                "the defaults are those of the paper",
            )

    @property
    def alpha_radius(self) -> int:
        """How far a proposal may move alpha."""
        return 2 * self.step

    @property
    def position_radius(self) -> int:
        """How far a proposal may move x and y, in pixels of this canvas."""
        scaled = 5 * self.step * self.canvas_width / REFERENCE_WIDTH
        return max(round(scaled), 1) if self.step else 0

    @property
    def nominal_budget(self) -> int:
        """Evaluations of the paper's strategy, repeats included: 650 by default."""
        return self.population * (1 + self.generations * (self.proposals + 1))
