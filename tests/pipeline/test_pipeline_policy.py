"""Policies, and the models that a run loads."""

import inspect
import json
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from medlocker_dicom.bundles import bundle
from medlocker_dicom.cli import main
from medlocker_dicom.errors import BundleFormatError, BundleMissingError, UsageError
from medlocker_dicom.lesions.positions import Mode
from medlocker_dicom.node.config import Lock
from medlocker_dicom.pipeline.models import QUICK, load_models
from medlocker_dicom.pipeline.policy import Policy, make_policy
from medlocker_dicom.search import SearchParameters
from medlocker_dicom.watermark.style import Look, Style
from tiny_bundles import write_own_code

OPTIONS = tuple(inspect.signature(make_policy).parameters)


def defaults(*words: str) -> dict[str, Any]:
    """Tell the defaults of a command's options."""
    command = typer.main.get_command(main.app)
    for word in words:
        command = command.commands[word]  # type: ignore[attr-defined]  # a group
    return {one.name: one.default for one in command.params if one.name}


CHOICES = {name: value for name, value in defaults("lock").items() if name in OPTIONS}


def test_the_defaults_are_the_policys() -> None:
    """Choosing nothing gives the default policy, wherever one may choose."""
    assert make_policy(**CHOICES) == Policy()
    assert make_policy(**{n: Lock.model_fields[n].default for n in OPTIONS}) == Policy()
    studies = typer.main.get_command(main.app).commands["evaluate"].commands  # type: ignore[attr-defined]  # a group
    assert len(studies) == 6
    for name in studies:
        assert defaults("evaluate", name)["budget"] == Policy().budget


@pytest.mark.parametrize("option", ["mode", "strategy", "look", "codec"])
def test_an_unknown_choice_is_named(option: str) -> None:
    """A word that is none of the allowed is refused, and the hint lists those."""
    with pytest.raises(UsageError, match=f"{option} 'best' is unknown") as caught:
        make_policy(**CHOICES | {option: "best"})
    assert str(CHOICES[option]) in caught.value.hint


def test_the_digest_is_of_what_changes_a_placement() -> None:
    """Each field but the batch size changes the digest."""
    others = {
        "mode": Mode.INSIDE,
        "strategy": "random-placement",
        "budget": 1,
        "margin": 0.0,
        "sl": 5.0,
        "smallest_sl": 9.0,
        "look": Look(Style.DOTTED),
        "legibility": 0.1,
        "seed": 1,
        "codec": "rle",
        "parameters": SearchParameters(step=5),
    }
    assert {f.name for f in fields(Policy)} == {*others, "batch_size"}
    digests = {replace(Policy(), **{name: value}).digest for name, value in others.items()}  # type: ignore[arg-type]  # one of many
    assert len(digests | {Policy().digest}) == len(others) + 1
    assert replace(Policy(), batch_size=1).digest == Policy().digest


def test_sizes_shrink_to_the_floor() -> None:
    """The largest logo comes first, none is smaller than allowed."""
    assert Policy().sizes() == [4, 5, 6, 8]
    assert Policy(sl=4, smallest_sl=6).sizes() == [4, 5, 6]
    assert Policy(sl=10, smallest_sl=8).sizes() == [10]


@pytest.fixture
def models(tiny_bundles: Path, export_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the tiny bundles as the only ones."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(export_cache))
    monkeypatch.delenv("MEDLOCKER_BUNDLES", raising=False)
    monkeypatch.setattr(bundle, "SHIPPED", Path("nowhere"))
    return tiny_bundles


def test_every_classifier_of_ones_own_is_loaded_by_default(models: Path, tmp_path: Path) -> None:
    """Without names all classifiers of the user's folder take part, and the segmenter is none."""
    shutil.copytree(models, tmp_path / "all")
    shutil.copytree(models / "dr_classifier_tiny", tmp_path / "all" / "dr_classifier_twin")
    ensemble, segmenter = load_models([], tmp_path / "all")
    names = [c.bundle.name for c in ensemble.classifiers]
    assert names == ["dr_classifier_tiny", "dr_classifier_twin"]
    assert segmenter.bundle.kind == "lesion-segmenter"
    assert len(load_models(["twin"], tmp_path / "all")[0].classifiers) == 1


def names_of(names: list[str], folder: Path | None = None) -> list[str]:
    """Load models; the classifiers' names."""
    return [c.bundle.name for c in load_models(names, folder)[0].classifiers]


def test_the_quick_ones_are_asked_by_default(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without classifiers of the user the quick shipped ones take part; `all` takes every one."""
    shipped = tmp_path / "shipped"
    monkeypatch.setattr(bundle, "SHIPPED", shipped)
    shutil.copytree(models / "lesion_segmenter", shipped / "lesion_segmenter")
    every = sorted(f"dr_classifier_{name}" for name in ("vgg16", *QUICK))
    for name in every:
        shutil.copytree(models / "dr_classifier_tiny", shipped / name)
    assert names_of([]) == [f"dr_classifier_{name}" for name in QUICK]
    assert names_of(["all"]) == every
    own = tmp_path / "own"
    shutil.copytree(models / "lesion_segmenter", own / "lesion_segmenter")
    assert names_of([], own) == [f"dr_classifier_{name}" for name in QUICK]
    shutil.copytree(models / "dr_classifier_tiny", own / "dr_classifier_mine")
    assert names_of([], own) == ["dr_classifier_mine"]
    assert names_of(["all"], own) == sorted([*every, "dr_classifier_mine"])


def test_models_that_are_not_there(models: Path, tmp_path: Path) -> None:
    """No classifier, an unknown name and a missing segmenter are errors of their own."""
    with pytest.raises(BundleMissingError, match="no bundle named resnet18"):
        load_models([], tmp_path)
    with pytest.raises(BundleMissingError, match="no classifier bundles in"):
        load_models(["all"], tmp_path)
    with pytest.raises(BundleMissingError, match="no bundle named lenet"):
        load_models(["tiny", "lenet"], models)
    shutil.copytree(models / "dr_classifier_tiny", tmp_path / "dr_classifier_tiny")
    with pytest.raises(BundleMissingError, match="no bundle named lesion_segmenter"):
        load_models([], tmp_path)


def test_a_segmenter_does_not_vote(models: Path) -> None:
    """A segmenter by name among the classifiers is refused."""
    with pytest.raises(BundleFormatError, match="not a dr-classifier"):
        load_models(["lesion_segmenter"], models)


def test_a_grader_under_the_segmenters_name(models: Path, tmp_path: Path) -> None:
    """A classifier that calls itself lesion_segmenter does not guard lesions."""
    shutil.copytree(models / "dr_classifier_tiny", tmp_path / "lesion_segmenter")
    config = tmp_path / "lesion_segmenter" / "configs" / "metadata.json"
    assert json.loads(config.read_text())["medlocker"]["kind"] == "dr-classifier"
    with pytest.raises(BundleFormatError, match="not a lesion-segmenter"):
        load_models(["lesion_segmenter"], tmp_path)
    with pytest.raises(BundleFormatError, match="not a lesion-segmenter"):
        load_models([str(models / "dr_classifier_tiny")], tmp_path)


def test_models_with_their_own_code_need_trust(models: Path, tmp_path: Path) -> None:
    """Grader and segmenter are refused by default, by name or among all, and loaded if trusted."""
    write_own_code(tmp_path / "dr_classifier_own")
    own = write_own_code(tmp_path / "lesion_segmenter")
    marker = json.loads((models / "lesion_segmenter" / "configs" / "metadata.json").read_text())
    config = own / "configs" / "metadata.json"
    metadata = json.loads(config.read_text())
    metadata["medlocker"] |= {"kind": marker["medlocker"]["kind"]}
    config.write_text(json.dumps(metadata))
    for names, trusted in (([], []), (["own"], []), (["own"], ["dr_classifier_own"])):
        with pytest.raises(BundleFormatError, match=r"scripts\.net\.Grader is not allowed"):
            load_models(names, tmp_path, trusted)
    both = ["dr_classifier_own", "lesion_segmenter"]
    for names in ([], ["own"]):
        ensemble, segmenter = load_models(names, tmp_path, both)
        assert [c.bundle.name for c in ensemble.classifiers] == ["dr_classifier_own"]
        assert segmenter.bundle.path == own
        assert segmenter.bundle.trusted


def test_a_temperature_reaches_the_vote(models: Path, tmp_path: Path) -> None:
    """Of two bundles that differ in temperature alone, the hotter votes less surely."""
    for name, temperature in (("cold", 1), ("hot", 4)):
        folder = tmp_path / f"dr_classifier_{name}"
        shutil.copytree(models / "dr_classifier_tiny", folder)
        config = folder / "configs" / "metadata.json"
        metadata = json.loads(config.read_text())
        metadata["medlocker"]["temperature"] = temperature
        config.write_text(json.dumps(metadata))
    shutil.copytree(models / "lesion_segmenter", tmp_path / "lesion_segmenter")
    ensemble, _ = load_models(["cold", "hot"], tmp_path)
    crops = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    cold, hot = ensemble.each(crops)
    assert (hot.max(1) < cold.max(1)).all()
    np.testing.assert_allclose(
        ensemble.probabilities(crops), (cold + hot) / 2, rtol=1e-6, atol=1e-9
    )
