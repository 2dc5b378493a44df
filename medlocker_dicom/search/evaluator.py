"""Asks the ensemble about candidates, once each, within a budget."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from medlocker_dicom.errors import PlacementError
from medlocker_dicom.search.objective import (
    FloatArray,
    GeneArray,
    Genes,
    Objective,
    Outcome,
    Probabilities,
    Stop,
    checked,
    outcome_of,
)

MAXIMUM_BATCH = 4096  # candidates a call; a guard against a slip, not a tuning value


@dataclass(frozen=True, slots=True)
class Improvement:
    """One point of a search's history: a candidate that became the best.

    Attributes
    ----------
    queries
        Distinct candidates looked at by then, this one included.
    outcome
        The best so far.
    """

    queries: int
    outcome: Outcome


class Evaluator:
    """The objective, with a memory and a meter.

    Candidates are computed in chunks but looked at one by one, in order. What
    lies behind the stop in the same chunk is thrown away unseen, so best,
    queries and history are the same at every batch size; only
    `forward_passes` tells.

    Parameters
    ----------
    probabilities
        The ensemble: ``int32 (n, 3)`` rows ``(alpha, x, y)`` to float
        ``(n, classes)``, the weighted mean softmax of eq. 8.
    label
        The class to lead away from.
    batch_size
        Candidates a call of `probabilities`, 1 to 4096.
    budget
        Distinct candidates that may be looked at, at least 1.
    stop
        When to end before the budget; by default never.
    objective
        What `losses` returns; by default ``f_t``.
    holds
        Asked once of a candidate that reaches the stop: whether it is good enough where it
        counts. If not, the search goes on. By default it is.

    Attributes
    ----------
    queries : int
        Distinct candidates looked at.
    requests : int
        Candidates looked at, those answered from memory included: the paper's
        nominal count.
    forward_passes : int
        Candidates computed, those behind the stop included.

    Raises
    ------
    PlacementError
        A parameter is out of its range.
    """

    def __init__(  # noqa: PLR0913 - the ensemble, and six independent rules by keyword
        self,
        probabilities: Probabilities,
        label: int,
        *,
        batch_size: int = 16,
        budget: int = 650,
        stop: Stop = Stop.NEVER,
        objective: Objective = Objective.PROBABILITY,
        holds: Callable[[Genes], bool] = lambda _: True,
    ) -> None:
        if not 1 <= batch_size <= MAXIMUM_BATCH:
            raise PlacementError(
                f"batch size is {batch_size}, allowed are 1 to {MAXIMUM_BATCH}",
                "choose one that fits the memory of the machine",
            )
        if budget < 1:
            raise PlacementError(f"search budget is {budget}", "allow at least one query")
        self._probabilities = probabilities
        self._label = label
        self._batch_size = batch_size
        self._budget = budget
        self._stop = stop
        self._objective = objective
        self._outcomes: dict[Genes, Outcome] = {}
        self._history: list[Improvement] = []
        self._holds = holds
        self._end: Genes | None = None
        self.requests = 0
        self.forward_passes = 0

    @property
    def queries(self) -> int:
        """Distinct candidates looked at so far."""
        return len(self._outcomes)

    @property
    def budget(self) -> int:
        """Distinct candidates that may be looked at."""
        return self._budget

    @property
    def finished(self) -> bool:
        """Whether the stop was reached or the budget is spent."""
        return self._end is not None or self.queries >= self._budget

    @property
    def history(self) -> tuple[Improvement, ...]:
        """Every candidate that became the best, in the order it did."""
        return tuple(self._history)

    def losses(self, genes: GeneArray) -> FloatArray:
        """Look at candidates in order.

        Parameters
        ----------
        genes
            Integer ``(n, 3)``, rows ``(alpha, x, y)``; repeats are allowed.

        Returns
        -------
        numpy.ndarray
            float64 ``(n,)``: the objective of each, and ``inf`` for those that
            were not looked at because the search ended before them.

        Raises
        ------
        BundleError
            The ensemble's answer is unusable.
        """
        keys = [Genes(*row) for row in genes.tolist()]
        fresh = dict.fromkeys(key for key in keys if key not in self._outcomes)
        pending = deque(list(fresh)[: self._budget - self.queries])
        computed: dict[Genes, FloatArray] = {}
        losses = np.full(len(keys), np.inf)
        for index, key in enumerate(keys):
            if self.finished:
                break
            if key not in self._outcomes:
                if key not in computed:
                    computed = self._forward(pending)
                self._look_at(outcome_of(key, computed[key], self._label))
            self.requests += 1
            losses[index] = self._objective.loss(self._outcomes[key])
        return losses

    def ranking(self) -> list[Outcome]:
        """Return all distinct outcomes, best first.

        The one that ended the search comes first, then those that flip, then
        by objective; the earlier one first where they are equal.
        """
        return sorted(self._outcomes.values(), key=self._rank)

    def _forward(self, pending: deque[Genes]) -> dict[Genes, FloatArray]:
        """Compute the next chunk of pending candidates."""
        chunk = [pending.popleft() for _ in range(min(self._batch_size, len(pending)))]
        answer = self._probabilities(np.array(chunk, dtype=np.int32))
        self.forward_passes += len(chunk)
        return dict(zip(chunk, checked(answer, len(chunk), self._label), strict=True))

    def _look_at(self, outcome: Outcome) -> None:
        """Take one new outcome into the books."""
        self._outcomes[outcome.genes] = outcome
        if self._stop.reached(outcome) and self._holds(outcome.genes):
            self._end = outcome.genes
        best = self._history[-1].outcome if self._history else None
        if best is None or self._rank(outcome) < self._rank(best):
            self._history.append(Improvement(self.queries, outcome))

    def _rank(self, outcome: Outcome) -> tuple[bool, bool, float]:
        """Return the sort key of an outcome, small for good ones."""
        return (
            outcome.genes != self._end,
            not outcome.flipped,
            self._objective.loss(outcome),
        )
