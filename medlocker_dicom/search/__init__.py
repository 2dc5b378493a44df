"""Search for the placement that turns the classifiers (eq. 3-6, 8)."""

from medlocker_dicom.search.alpha_list import ALPHA_LIST, ListParameters, evolve_list, optimise
from medlocker_dicom.search.evaluator import Evaluator, Improvement
from medlocker_dicom.search.feasible import Feasible
from medlocker_dicom.search.objective import Genes, Objective, Outcome, Stop
from medlocker_dicom.search.parameters import SearchParameters
from medlocker_dicom.search.strategies import STRATEGIES, SearchResult, search

__all__ = [
    "ALPHA_LIST",
    "STRATEGIES",
    "Evaluator",
    "Feasible",
    "Genes",
    "Improvement",
    "ListParameters",
    "Objective",
    "Outcome",
    "SearchParameters",
    "SearchResult",
    "Stop",
    "evolve_list",
    "optimise",
    "search",
]
