"""Where the pipeline puts the logo: off lesions, at its best, or nowhere."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pipeline_factories import (
    LESIONS,
    NOW,
    QUICK,
    SIZE,
    Mask,
    block,
    eye,
    make_locked,
    make_locker,
    make_source,
    no_lesions,
)

from medlocker_dicom.bundles.bundle import find_bundle
from medlocker_dicom.bundles.engine import TorchEngine
from medlocker_dicom.bundles.gradients import Away, View
from medlocker_dicom.bundles.models import Classifier, Ensemble
from medlocker_dicom.dicom.fundus import pixel_digest
from medlocker_dicom.errors import BundleError, NoFeasiblePositionError
from medlocker_dicom.lesions.fov import field_of_view
from medlocker_dicom.lesions.positions import Mode
from medlocker_dicom.pipeline.canvas import Canvas
from medlocker_dicom.pipeline.frame import ASKED, VERIFIED, Frame, far_apart
from medlocker_dicom.pipeline.lock import lock
from medlocker_dicom.pipeline.record import FrameRecord
from medlocker_dicom.search import Genes, ListParameters, Outcome
from medlocker_dicom.watermark.alpha import alpha_map
from medlocker_dicom.watermark.blend import blend, logo_samples
from medlocker_dicom.watermark.logo import Logo
from medlocker_dicom.watermark.placement import Placement
from tiny_bundles import write_without_gradient

Find = Callable[[NDArray[np.uint8]], Mask]


def marked(seed: int) -> Find:
    """Return a segmenter that knows the lesions of a generated eye."""
    return lambda _rgb: (eye(seed).mask & LESIONS) > 0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("strategy", ["paper", "random-placement", "random-mutation"])
def test_avoid_touches_no_box(seed: int, strategy: str) -> None:
    """In mode avoid the logo shares no px with a lesion box, at full size."""
    policy = replace(QUICK, strategy=strategy, seed=seed)
    result = make_locked(make_source((seed,)), policy=policy, lesions=marked(seed))
    frame = result.record.frames[0]
    (x, y, _), (width, height) = frame.placement, frame.logo_size
    assert frame.boxes, "the eye has lesions"
    for left, top, wide, high in frame.boxes:
        assert x + width <= left or left + wide <= x or y + height <= top or top + high <= y


@pytest.mark.parametrize("where", [(20, 80, 20, 140), (80, 140, 20, 140), (20, 140, 20, 80)])
def test_avoid_covers_no_lesion_of_a_box(where: tuple[int, int, int, int]) -> None:
    """With half the retina ill, the logo goes to the other half and covers no lesion px."""
    frame = make_locked(lesions=block(*where)).record.frames[0]
    assert frame.lesion_px == (where[1] - where[0]) * (where[3] - where[2])
    assert frame.covered_lesion_px == 0
    assert frame.boxes


def test_anywhere_may_cover_and_tells() -> None:
    """In mode anywhere over an ill retina, the record counts what the logo covers."""
    policy = replace(QUICK, mode=Mode.ANYWHERE)
    frame = make_locked(policy=policy, lesions=block(0, SIZE, 0, SIZE)).record.frames[0]
    assert frame.covered_lesion_px > 0


def test_inside_lies_in_a_box() -> None:
    """In mode inside the logo lies within the box."""
    policy = replace(QUICK, mode=Mode.INSIDE)
    frame = make_locked(policy=policy, lesions=block(40, 120, 40, 120)).record.frames[0]
    (x, y, _), (width, height) = frame.placement, frame.logo_size
    ((left, top, wide, high),) = frame.boxes
    assert left <= x <= left + wide - width
    assert top <= y <= top + high - height


def test_the_logo_stays_on_the_retina() -> None:
    """At least 90 % of the logo's rectangle lies on the retina, in every mode."""
    retina = field_of_view(eye().image)
    for seed in range(5):
        policy = replace(QUICK, mode=Mode.ANYWHERE, seed=seed, strategy="random-placement")
        frame = make_locked(policy=policy).record.frames[0]
        (x, y, _), (width, height) = frame.placement, frame.logo_size
        assert retina[y : y + height, x : x + width].mean() >= 0.9 - 1e-9


def test_no_position_is_an_error() -> None:
    """A retina that is one lesion is not locked in mode avoid; the message says what was tried."""
    with pytest.raises(NoFeasiblePositionError, match=r"mode avoid .* 1/8 .* 1 lesion boxes") as e:
        make_locked(lesions=block(0, SIZE, 0, SIZE))
    assert "--mode anywhere" in e.value.hint
    with pytest.raises(NoFeasiblePositionError, match="mode inside"):
        make_locked(policy=replace(QUICK, mode=Mode.INSIDE))


def test_the_logo_shrinks_where_it_must() -> None:
    """Where the large logo has no place, a smaller one takes it; no smaller than needed."""
    large = make_locked().record.frames[0]
    assert large.logo_size == (SIZE // 4, SIZE // 4)
    sizes = set()
    for free in (44, 38, 33, 27):
        half = (SIZE - free) // 2
        ill = lambda rgb, h=half: block(0, SIZE, 0, h)(rgb) | block(0, SIZE, SIZE - h, SIZE)(rgb)  # noqa: E731
        try:
            frame = make_locked(lesions=ill).record.frames[0]
        except NoFeasiblePositionError:
            continue
        sizes.add(frame.logo_size[0])
        assert frame.covered_lesion_px == 0
    assert sizes
    assert max(sizes) <= SIZE // 4
    assert min(sizes) < SIZE // 4
    assert min(sizes) >= SIZE // 8


def test_the_verified_placement_is_the_best_at_full_size() -> None:
    """Of the search's best candidates, the one that leads furthest on the full image is taken."""
    source = make_source((1,))
    locker = make_locker(policy=replace(QUICK, margin=0.9))
    frame = Frame(source, 0, pixel_digest(source.pixels), locker, None)
    canvas, logo, feasible = frame.feasible_canvas(())
    found = frame.search(canvas, logo, feasible)
    assert len(found.candidates) > VERIFIED
    leads = []
    for candidate in found.candidates[:VERIFIED]:
        place = canvas.placement(*candidate.genes)
        opacity = alpha_map(logo.alpha, place.alpha, frame.seed)
        window = np.s_[place.y : place.y + logo.height, place.x : place.x + logo.width]
        picture = source.pixels[0].copy()
        picture[window] = blend(picture[window], logo_samples(logo.rgba, 3, 8), opacity)
        mean = locker.ensemble.weights @ locker.ensemble.photograph(picture)
        leads.append((np.delete(mean, frame.target).max() - mean[frame.target], place))
    best = max(leads, key=lambda one: one[0])
    placement, after = frame.verified(frame.placements(canvas, logo, found), logo)
    assert placement == best[1]
    mean = locker.ensemble.weights @ after
    assert np.delete(mean, frame.target).max() - mean[frame.target] == pytest.approx(best[0])
    assert len({lead for lead, _ in leads}) > 1
    mark = lock(source, locker, now=NOW).record.frames[0]
    assert mark.placement == (placement.x, placement.y, placement.alpha)


def test_a_flip_that_does_not_hold_at_full_size_ends_no_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The search goes on to the next flip of the canvas that turns the grade of the photograph."""
    policy = replace(QUICK, margin=0, budget=300)

    def locked(refused: int) -> FrameRecord:
        seen: list[Placement] = []

        def judged(frame: Frame, place: Placement, logo: Logo) -> tuple[float, NDArray[np.float64]]:
            seen.append(place)
            lead, after = plain(frame, place, logo)
            return (-1.0 if place in seen[:refused] else lead), after

        monkeypatch.setattr(Frame, "judged", judged)
        return make_locked(policy=policy).record.frames[0]

    plain = Frame.judged
    first, later = locked(0), locked(2)
    assert first.flipped
    assert later.flipped
    assert first.queries < later.queries < 300
    assert first.placement != later.placement
    assert first.verified + 2 <= later.verified


def test_flips_that_never_hold_do_not_ask_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where canvas and full size disagree for good, the search ends after some of them."""

    def judged(frame: Frame, place: Placement, logo: Logo) -> tuple[float, NDArray[np.float64]]:
        return -1.0, plain(frame, place, logo)[1]

    plain = Frame.judged
    monkeypatch.setattr(Frame, "judged", judged)
    frame = make_locked(policy=replace(QUICK, margin=0, budget=2000)).record.frames[0]
    assert frame.canvas_flipped
    assert ASKED <= frame.verified <= ASKED + VERIFIED
    assert frame.queries < 2000


def test_models_that_fail_at_full_size_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that is no number locks nothing, also where the canvas got one."""

    def fails(ensemble: Ensemble, rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
        answers.append(plain(ensemble, rgb))
        return answers[-1] if len(answers) == 1 else np.full_like(answers[-1], np.nan)

    answers: list[NDArray[np.float64]] = []
    plain = Ensemble.photograph
    monkeypatch.setattr(Ensemble, "photograph", fails)
    with pytest.raises(BundleError, match="no probabilities"):
        make_locked()


def test_without_a_label_the_models_own_decision_is_the_target() -> None:
    """The record says that the label is the ensemble's, and it is the clean decision."""
    frame = make_locked().record.frames[0]
    assert not frame.label_given
    assert frame.label == frame.clean_grade


def test_a_given_label_is_the_target() -> None:
    """Each true grade is led away from, whatever the ensemble thinks, and the record says so."""
    own = make_locked().record.frames[0]
    probabilities = set()
    for label in range(5):
        frame = lock(make_source(), make_locker(), now=NOW, label=label).record.frames[0]
        assert (frame.label, frame.label_given) == (str(label), True)
        assert frame.clean_grade == own.clean_grade
        probabilities.add(frame.history[0][1])
        if str(label) == own.label:
            assert replace(frame, label_given=False) == own
    assert len(probabilities) == 5


@pytest.mark.parametrize("label", [5, -1, 99])
def test_a_label_that_is_no_grade(label: int) -> None:
    """A label outside the ensemble's classes is one clear error."""
    with pytest.raises(BundleError, match=f"label {label} is not among them"):
        lock(make_source(), make_locker(), now=NOW, label=label)


def test_the_papers_stop() -> None:
    """Margin 0 ends the search at the first flip; a margin goes on beyond it."""
    first = make_locked(policy=replace(QUICK, margin=0, budget=300)).record.frames[0]
    on = make_locked(policy=replace(QUICK, margin=0.3, budget=300)).record.frames[0]
    assert first.canvas_flipped
    assert first.queries < on.queries


def test_lesions_are_asked_about_each_frame() -> None:
    """The segmenter sees every frame as 8-bit RGB, also of grey 16-bit pictures."""
    seen = []

    def look(rgb: NDArray[np.uint8]) -> Mask:
        seen.append((rgb.shape, rgb.dtype))
        return no_lesions(rgb)

    make_locked(make_source((0, 1), 1, 16), lesions=look)
    assert seen == [((SIZE, SIZE, 3), np.dtype(np.uint8))] * 2


def test_a_list_is_flattened_until_the_logo_can_be_read(tiny_bundles: Path) -> None:
    """A floor that the list does not meet takes relief from it; one that none meets, the list."""
    bundle = find_bundle("dr_classifier_tiny", [tiny_bundles], ())
    ensemble = Ensemble([Classifier(bundle, TorchEngine(bundle))])
    source = make_source()

    def placed(floor: float) -> tuple[Placement, float]:
        policy = replace(QUICK, strategy="alpha-list", budget=80, legibility=floor)
        locker = make_locker(policy=policy, ensemble=ensemble)
        frame = Frame(source, 0, pixel_digest(source.pixels), locker, 1)
        canvas, logo, feasible = frame.feasible_canvas(())
        first = frame.placements(canvas, logo, frame.search(canvas, logo, feasible))[0]
        # No cell is finer than what the models see.
        assert not first.grid or first.grid[0] == max(canvas.logo_size) < ListParameters().cells
        return first, frame.legibility(first, logo)

    free, read = placed(-1)
    held, better = placed(read + 0.001)
    nodes, flatter = (np.frombuffer(place.grid, np.uint8, offset=1) for place in (free, held))
    assert better > read
    assert 0 < np.ptp(flatter) < np.ptp(nodes)
    assert abs(flatter.mean() - nodes.mean()) < 1
    assert not placed(2)[0].grid


def with_lists(
    monkeypatch: pytest.MonkeyPatch, ensemble: Ensemble, budget: int, margin: float
) -> tuple[FrameRecord, list[tuple[Genes, int]]]:
    """Lock by lists of opacities; with the places that these were tried at, and their passes."""
    tried: list[tuple[Genes, int]] = []
    find = Frame.alpha_list

    def noted(
        self: Frame, canvas: Canvas, start: Genes, passes: int
    ) -> tuple[int, NDArray[np.uint8]]:
        tried.append((start, passes))
        return find(self, canvas, start, passes)

    monkeypatch.setattr(Frame, "alpha_list", noted)
    policy = replace(QUICK, strategy="alpha-list", budget=budget, margin=margin)
    return make_locked(policy=policy, ensemble=ensemble).record.frames[0], tried


@pytest.mark.parametrize("blind", [False, True])
@pytest.mark.parametrize(
    ("budget", "lists"), [(60, 1), (120, 1), (191, 1), (192, 2), (200, 2), (350, 4)]
)
def test_a_budget_for_several_lists(
    tiny_bundles: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    budget: int,
    lists: int,
    *,
    blind: bool,
) -> None:
    """Where no list leads as far as it should, each is at a place of its own, within the budget."""
    bundle = find_bundle("dr_classifier_tiny", [tiny_bundles], ())
    if blind:
        path = write_without_gradient(tmp_path / "dr_classifier_blind")
        bundle = find_bundle(path.name, [tmp_path], (path.name,))
    ensemble = Ensemble([Classifier(bundle, TorchEngine(bundle))])
    frame, tried = with_lists(monkeypatch, ensemble, budget, 1.0)
    assert len(tried) == lists
    assert frame.queries == min(0.4 * budget, 48)
    share = (budget - frame.queries) // lists
    assert [passes for _, passes in tried] == [share] * lists
    spent = share if blind else share // 3 * 3
    assert frame.forward_passes == frame.queries + lists * spent
    places = [np.array(start[1:]) for start, _ in tried]
    for n, place in enumerate(places):
        assert all(np.abs(place - other).max() >= 8 for other in places[:n])  # half a logo


@pytest.mark.parametrize("models", [2, 3, 5, 7])
@pytest.mark.parametrize("budget", [4, 5, 40, 120, 200])
def test_passes_of_several_models(tiny_bundles: Path, models: int, budget: int) -> None:
    """Gradients of one model each are counted by their shares, and stay within the budget."""
    bundle = find_bundle("dr_classifier_tiny", [tiny_bundles], ())
    ensemble = Ensemble([Classifier(bundle, TorchEngine(bundle)) for _ in range(models)])
    policy = replace(QUICK, strategy="alpha-list", budget=budget, margin=1.0)
    (frame,) = make_locked(policy=policy, ensemble=ensemble).record.frames
    assert budget - 3 < frame.forward_passes <= budget


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("models", [1, 2])
def test_when_strangers_views_are_drawn(
    tiny_bundles: Path, monkeypatch: pytest.MonkeyPatch, models: int, *, turned: bool
) -> None:
    """Every second round of the models, once the grade is turned; before it, none."""
    bundle = find_bundle("dr_classifier_tiny", [tiny_bundles], ())
    ensemble = Ensemble([Classifier(bundle, TorchEngine(bundle)) for _ in range(models)])
    views: list[View] = []
    ask = Away.__call__

    def noted(self: Away, image: NDArray[np.float32], view: View) -> NDArray[np.float32]:
        views.append(view)
        return ask(self, image, view)

    monkeypatch.setattr(Away, "turned", turned)
    monkeypatch.setattr(Away, "__call__", noted)
    make_locked(policy=replace(QUICK, strategy="alpha-list", budget=60), ensemble=ensemble)
    drawn = [view != View() for view in views]
    assert drawn == [turned and n // models % 2 == 1 for n in range(12 * models)]


def test_a_list_that_is_enough(tiny_bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first one turns the grade by the margin, no other is tried."""
    bundle = find_bundle("dr_classifier_tiny", [tiny_bundles], ())
    ensemble = Ensemble([Classifier(bundle, TorchEngine(bundle))])
    frame, tried = with_lists(monkeypatch, ensemble, 350, 0.1)
    assert frame.flipped
    assert len(tried) == 1
    assert frame.forward_passes < 150


def test_the_best_of_several_lists_is_taken(
    tiny_bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More lists never lead less far, and are what the lock ends with where they lead further."""
    bundle = find_bundle("dr_classifier_tiny", [tiny_bundles], ())
    ensemble = Ensemble([Classifier(bundle, TorchEngine(bundle))])
    made: list[tuple[Placement, float]] = []
    find = Frame.listed

    def noted(
        self: Frame, canvas: Canvas, logo: Logo, start: Genes, passes: int
    ) -> Placement | None:
        placement = find(self, canvas, logo, start, passes)
        assert placement is not None
        made.append((placement, self.judged(placement, logo)[0]))
        return placement

    monkeypatch.setattr(Frame, "listed", noted)
    frame, _ = with_lists(monkeypatch, ensemble, 350, 1.0)
    best, _ = max(made, key=lambda one: one[1])
    assert frame.placement == (best.x, best.y, best.alpha)
    assert len({round(lead, 6) for _, lead in made}) == len(made) == 4


def test_places_far_apart() -> None:
    """The best first, and none nearer to a picked one than it may be, by rows or by columns."""
    genes = [(200, 5, 5), (100, 12, 14), (255, 15, 5), (255, 14, 5), (101, 15, 15), (100, 5, 15)]
    found = far_apart([Outcome(Genes(*one), 0.5, 0.0, flipped=False) for one in genes], 10)
    assert found == [genes[0], genes[2], genes[4], genes[5]]
    assert far_apart([], 10) == []
