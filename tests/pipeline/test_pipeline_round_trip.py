"""Lock and unlock in memory: exact for every kind of picture, and the same every time."""

import json
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pipeline_factories import (
    ALICE,
    BOB,
    ISSUER,
    NOW,
    QUICK,
    eye,
    grader,
    make_locked,
    make_locker,
    make_source,
    opened,
    person,
    reread,
)

from factories import make_fundus
from medlocker_dicom.bundles.bundle import find_bundle
from medlocker_dicom.bundles.engine import TorchEngine
from medlocker_dicom.bundles.models import Classifier, Ensemble
from medlocker_dicom.dicom.fundus import decode_fundus
from medlocker_dicom.dicom.private import read_block
from medlocker_dicom.keyfile import Kem, open_grant, open_packet
from medlocker_dicom.pipeline import compose
from medlocker_dicom.pipeline.binding import binding_of
from medlocker_dicom.pipeline.canvas import Canvas
from medlocker_dicom.pipeline.frame import Frame
from medlocker_dicom.pipeline.lock import LockedInstance, lock
from medlocker_dicom.pipeline.unlock import unlock, verify
from medlocker_dicom.search import SearchResult
from medlocker_dicom.watermark.alpha import alpha_map, grid_shape, pack_grid
from medlocker_dicom.watermark.logo import Logo
from medlocker_dicom.watermark.placement import Placement
from tiny_bundles import write_without_gradient

KINDS = [
    ((0,), 3, 8),
    ((0,), 1, 8),
    ((0,), 1, 12),
    ((0,), 1, 16),
    ((0,), 3, 16),
    ((0, 1, 2), 3, 8),
    ((0, 1), 1, 8),
    ((0, 1), 1, 16),
]


@pytest.mark.parametrize(("seeds", "channels", "bits"), KINDS)
def test_every_kind_of_picture_comes_back(seeds: tuple[int, ...], channels: int, bits: int) -> None:
    """Locked pixels differ under the logo alone; unlocked ones are the source's, bit by bit."""
    source = make_source(seeds, channels, bits)
    result = make_locked(source)
    assert result.pixels.dtype == source.pixels.dtype
    for before, after, frame in zip(
        source.pixels, result.pixels, result.record.frames, strict=True
    ):
        (x, y, _), (width, height) = frame.placement, frame.logo_size
        assert not np.array_equal(before, after)
        outside = np.ones(before.shape[:2], bool)
        outside[y : y + height, x : x + width] = False
        assert np.array_equal(before[outside], after[outside])
    locked = opened(result)
    assert np.array_equal(locked.pixels, result.pixels)
    for identity, grant in zip((ALICE, BOB), result.grants, strict=True):
        verify(locked, grant, identity, NOW)
        restored = decode_fundus(reread(unlock(locked, grant, identity, NOW)))
        assert restored.bits == source.bits
        assert np.array_equal(restored.pixels, source.pixels)
        assert restored.ds.SOPInstanceUID == source.ds.SOPInstanceUID


def test_eight_bits_stored_in_sixteen_come_back() -> None:
    """Bits Stored 8 in Bits Allocated 16, as some cameras write, is locked and restored as such."""
    ds = reread(make_fundus(eye().image[np.newaxis]))
    ds.BitsAllocated = 16
    ds.PixelData = eye().image.astype("<u2").tobytes()
    source = decode_fundus(reread(ds))
    assert (source.bits, source.pixels.dtype) == (8, np.dtype(np.uint16))
    result = make_locked(source)
    assert not np.array_equal(result.pixels, source.pixels)
    restored = decode_fundus(reread(unlock(opened(result), result.grants[0], ALICE, NOW)))
    assert (restored.ds.BitsAllocated, restored.ds.BitsStored) == (16, 8)
    assert np.array_equal(restored.pixels, source.pixels)


@pytest.mark.parametrize("codec", ["rle", "jpegls", "j2k"])
def test_compressed_locked_pixels_come_back(codec: str) -> None:
    """Each lossless codec of the policy leaves the way back open."""
    source = make_source()
    result = make_locked(source, policy=replace(QUICK, codec=codec))
    restored = decode_fundus(unlock(opened(result), result.grants[0], ALICE, NOW))
    assert np.array_equal(restored.pixels, source.pixels)


def test_an_opaque_logo_comes_back() -> None:
    """Where alpha leads to opacity 255 nothing is left in the picture, and all comes back."""
    source, locker = make_source(), make_locker(policy=replace(QUICK, budget=200, margin=0.99))
    result = lock(source, locker, now=NOW)
    locked = opened(result)
    restored = decode_fundus(unlock(locked, result.grants[0], ALICE, NOW))
    assert np.array_equal(restored.pixels, source.pixels)


def test_unlocking_leaves_the_locked_object_alone() -> None:
    """The recipient can unlock the same object twice."""
    result = make_locked()
    locked = opened(result)
    first = unlock(locked, result.grants[0], ALICE, NOW)
    assert np.array_equal(locked.pixels, result.pixels)
    assert unlock(locked, result.grants[0], ALICE, NOW).PixelData == first.PixelData


def test_locking_leaves_the_source_alone() -> None:
    """The source in memory keeps its pixels and attributes."""
    source, twin = make_source(), make_source()
    make_locked(source)
    assert np.array_equal(source.pixels, twin.pixels)
    assert source.ds == twin.ds


def secrets_of(result: LockedInstance) -> list[object]:
    """Return everything about a lock that its key opens."""
    locked = opened(result)
    binding = binding_of(locked.ds, locked.pixels, locked.source_uid, locked.issuer)
    dek = open_grant(result.grants[0], binding, ALICE, ISSUER.public.verify_key, NOW)
    packet = read_block(reread(result.ds)).packet
    assert packet is not None
    opened_packet = open_packet(packet, dek, binding)
    return [asdict(mark) for mark in opened_packet.frames]


def test_the_same_input_gives_the_same_lock() -> None:
    """Two runs agree in pixels, placement, UIDs, seeds, residuals; not in DEKs, grants."""
    one, two = make_locked(), make_locked()
    assert np.array_equal(one.pixels, two.pixels)
    assert one.ds.SOPInstanceUID == two.ds.SOPInstanceUID
    assert one.ds.SeriesInstanceUID == two.ds.SeriesInstanceUID
    assert replace(one.record, seconds=0) == replace(two.record, seconds=0)
    assert secrets_of(one) == secrets_of(two)
    assert not {g.grant_id for g in one.grants} & {g.grant_id for g in two.grants}
    assert opened(one).packet != opened(two).packet


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_batch_size_changes_nothing(batch_size: int) -> None:
    """Placement, pixels and counts are the same, but for what was computed behind the stop."""
    policy = replace(QUICK, batch_size=batch_size)
    one, other = make_locked(), make_locked(policy=policy)
    assert np.array_equal(one.pixels, other.pixels)
    for a, b in zip(one.record.frames, other.record.frames, strict=True):
        assert replace(a, forward_passes=0) == replace(b, forward_passes=0)


def test_what_the_lock_depends_on() -> None:
    """Another issuer, instance or search seed gives other pixels, hence another UID."""
    base = make_locked()
    issued = make_locked(issuer=person("other"))
    named = make_locked(make_source(instance_uid="1.2.826.0.1.3680043.10.1.99"))
    seeded = make_locked(policy=replace(QUICK, seed=1))
    assert len({r.ds.SOPInstanceUID for r in (base, issued, named, seeded)}) == 4
    assert seeded.ds.SeriesInstanceUID == base.ds.SeriesInstanceUID
    for other in (issued, named, seeded):
        assert not np.array_equal(other.pixels, base.pixels)
    assert seeded.record.frames[0].placement != base.record.frames[0].placement


def test_frames_have_dithers_of_their_own() -> None:
    """Equal frames of one instance get different seeds, so one does not open another."""
    result = make_locked(make_source((0, 0)))
    marks = secrets_of(result)
    seeds = {mark["seed"] for mark in marks if isinstance(mark, dict)}
    assert len(seeds) == 2


def test_recipients_of_both_kinds_and_in_order() -> None:
    """X25519 and hybrid recipients each open their grant, given in the locker's order."""
    hybrid = person("carol", Kem.MLKEM768_X25519)
    result = make_locked(recipients=(hybrid.public, ALICE.public))
    locked = opened(result)
    for identity, grant in zip((hybrid, ALICE), result.grants, strict=True):
        assert grant.recipient == identity.public.id
        verify(locked, grant, identity, NOW + timedelta(days=9999))


@pytest.mark.parametrize(("rule", "gridded"), [("mlv1", False), ("mlv2", True)])
def test_what_earlier_versions_locked_is_unlocked(
    monkeypatch: pytest.MonkeyPatch, rule: str, *, gridded: bool
) -> None:
    """One opacity for all channels of a px, as it once was, is taken off exactly too."""
    monkeypatch.setattr(compose, "RULE", rule)

    def as_it_was(*told: Any, grid: bytes, **more: Any) -> NDArray[np.uint8]:
        return alpha_map(*told, grid=grid, rule="mlv2" if grid else "mlv1", **more)

    monkeypatch.setattr(compose, "alpha_map", as_it_was)

    def placed(_: Frame, canvas: Canvas, logo: Logo, found: SearchResult) -> list[Placement]:
        nodes = np.random.default_rng(3).integers(100, 256, grid_shape(logo.alpha.shape, 8))
        grid = pack_grid(8, nodes.astype(np.uint8)) if gridded else b""
        return [canvas.placement(*found.candidates[0].genes, grid)]

    monkeypatch.setattr(Frame, "placements", placed)
    source = make_source()
    result = make_locked(source)
    assert not np.array_equal(result.pixels, source.pixels)
    restored = unlock(opened(result), result.grants[0], ALICE, NOW)
    assert np.array_equal(decode_fundus(reread(restored)).pixels, source.pixels)


def test_the_record_tells_what_happened() -> None:
    """Counts, predictions and history of the record agree with each other, and are JSON."""
    ensemble = Ensemble([grader(1), grader(2), grader(3, 32)], [3, 1, 1])
    result = make_locked(make_source((0, 1)), ensemble=ensemble)
    for frame in result.record.frames:
        assert 0 < frame.queries <= QUICK.budget
        assert frame.queries <= frame.requests
        assert frame.queries <= frame.forward_passes
        falls = [probability for _, probability in frame.history]
        assert [at for at, _ in frame.history] == sorted({at for at, _ in frame.history})
        assert len(falls) >= 1
        for when, grade in (("clean", frame.clean_grade), ("locked", frame.locked_grade)):
            mean = ensemble.weights @ np.array([getattr(m, when) for m in frame.models])
            assert mean.sum() == pytest.approx(1)
            assert ensemble.labels[int(mean.argmax())] == grade
        assert frame.flipped == (frame.clean_grade != frame.locked_grade)
    plain = json.loads(json.dumps(result.record.as_json()))
    assert [f["flipped"] for f in plain["frames"]] == [f.flipped for f in result.record.frames]
    for n, frame in enumerate(result.record.frames):
        source = replace(make_source(), pixels=result.pixels[n : n + 1])
        seen = ensemble.photograph(source.display(0))
        np.testing.assert_allclose(seen, [m.locked for m in frame.models], rtol=1e-9)


@pytest.mark.parametrize(("channels", "bits"), [(3, 8), (1, 16)])
def test_a_list_of_opacities_comes_back(tiny_bundles: Path, channels: int, bits: int) -> None:
    """With the list itself searched, by a real network's gradient: exact all the same."""
    bundle = find_bundle("dr_classifier_tiny", [tiny_bundles], ())
    ensemble = Ensemble([Classifier(bundle, TorchEngine(bundle))])
    source = make_source((0,), channels, bits)
    policy = replace(QUICK, strategy="alpha-list", budget=80)
    result = make_locked(source, policy=policy, ensemble=ensemble)
    frame = result.record.frames[0]
    assert frame.queries <= 0.4 * 80
    assert frame.forward_passes <= 80
    after, target = frame.models[0].locked, int(frame.label)
    assert np.delete(after, target).max() - after[target] >= policy.margin
    passes, left = frame.history[-1]
    assert passes == frame.forward_passes
    assert left == pytest.approx(after[target], abs=1e-4)
    locked = opened(result)
    restored = decode_fundus(reread(unlock(locked, result.grants[0], ALICE, NOW)))
    assert np.array_equal(restored.pixels, source.pixels)
    binding = binding_of(locked.ds, locked.pixels, locked.source_uid, locked.issuer)
    dek = open_grant(result.grants[0], binding, ALICE, locked.issuer, NOW)
    assert locked.packet is not None
    (mark,) = open_packet(locked.packet, dek, binding).frames
    assert mark.rule == "mlv3"
    assert min(mark.grid[1:]) >= 100
    assert len(set(mark.grid[1:])) > 20
    assert make_locked(source, policy=policy, ensemble=ensemble).pixels.tobytes() == (
        result.pixels.tobytes()
    )


def test_models_without_a_gradient_are_turned_too(tmp_path: Path) -> None:
    """A hospital's network that tells none: the list is found by trial, and comes back."""
    path = write_without_gradient(tmp_path / "dr_classifier_blind")
    bundle = find_bundle(path.name, [tmp_path], (path.name,))
    ensemble = Ensemble([Classifier(bundle, TorchEngine(bundle))])
    source = make_source()
    policy = replace(QUICK, strategy="alpha-list", budget=100)
    result = make_locked(source, policy=policy, ensemble=ensemble)
    frame = result.record.frames[0]
    assert frame.forward_passes == 100
    after, target = frame.models[0].locked, int(frame.label)
    assert np.delete(after, target).max() - after[target] > policy.margin
    restored = decode_fundus(reread(unlock(opened(result), result.grants[0], ALICE, NOW)))
    assert np.array_equal(restored.pixels, source.pixels)
