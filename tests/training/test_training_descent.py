"""Gradient descent: what moves, how fast, how far, and what is averaged."""

import pytest
import torch
from torch import nn

from medlocker_dicom.bundles.networks import channels_last
from medlocker_dicom.training.descent import STEEPEST, Descent


def line(weight: float = 1.0) -> nn.Linear:
    """Return a network of one weight."""
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, weight)
    return network


def test_a_loss_falls() -> None:
    """Steps lead to where the loss is least, and each tells its loss."""
    network = line(4.0)
    descent = Descent(network, [(network.parameters(), 0.1)], 200, decay=0.0, memory=0.9)
    losses = [descent.step((network.weight - 1).square().sum()) for _ in range(200)]
    assert losses[0] == pytest.approx(9)
    assert losses[-1] < 1e-3


def test_weights_are_averaged_by_their_memory() -> None:
    """The average starts at the first step's weights and keeps its share at every later one."""
    network = line()
    descent = Descent(network, [(network.parameters(), 0.1)], 6, decay=0.0, memory=0.75)
    by_hand = None
    for _ in range(6):
        descent.step(network.weight.sum())
        now = float(network.weight.detach())
        by_hand = now if by_hand is None else 0.75 * by_hand + 0.25 * now
        (average,) = descent.average.parameters()
        assert float(average.detach()) == pytest.approx(by_hand, rel=1e-5)
    assert by_hand is not None
    assert abs(by_hand - now) > 0.01


def test_statistics_are_averaged_as_well() -> None:
    """A batch norm's running mean lags behind in the average."""
    network = nn.BatchNorm1d(1)
    descent = Descent(network, [(network.parameters(), 0.0)], 4, decay=0.0, memory=0.5)
    for _ in range(3):
        descent.step(network(torch.tensor([[5.0], [7.0]])).sum())
    means = [module.get_buffer("running_mean").item() for module in (network, descent.average)]
    assert 0 < means[1] < means[0]


def test_groups_have_their_own_rates() -> None:
    """Each group starts at a 25th of its rate, comes to it after a tenth of the steps, and ends."""
    slow, fast = line(), line()
    both = nn.ModuleList([slow, fast])
    groups = [(slow.parameters(), 0.01), (fast.parameters(), 0.05)]
    descent = Descent(both, groups, 40, decay=0.0, memory=0.9)
    rates = []
    for step in range(40):
        rates.append([group["lr"] for group in descent.parts["optimiser"].param_groups])
        if step < 39:
            descent.step(slow.weight.sum() + fast.weight.sum())
    assert rates[0] == pytest.approx([0.01 / 25, 0.05 / 25])
    assert rates[3] == pytest.approx([0.01, 0.05])
    assert max(rates) == rates[3]
    assert rates[-1] == pytest.approx([0, 0], abs=1e-6)


def test_what_is_frozen_stays() -> None:
    """Neither a gradient nor the decay moves it."""
    frozen, free = line(), line()
    frozen.requires_grad_(False)  # noqa: FBT003  torch's own
    both = nn.ModuleList([frozen, free])
    descent = Descent(both, [(both.parameters(), 0.1)], 5, decay=0.5, memory=0.9)
    for _ in range(5):
        descent.step((frozen.weight * free.weight).sum())
    assert float(frozen.weight) == 1
    assert float(free.weight.detach()) < 0.9


def test_steep_gradients_are_clipped() -> None:
    """All groups' gradients together are no longer than the limit, and keep their direction."""
    one, other = line(), line()
    both = nn.ModuleList([one, other])
    groups = [(one.parameters(), 0.1), (other.parameters(), 0.1)]
    descent = Descent(both, groups, 5, decay=0.0, memory=0.9)
    descent.step(3e6 * one.weight.sum() - 4e6 * other.weight.sum())
    gradients = [float(p.grad) for p in both.parameters() if p.grad is not None]
    assert gradients == pytest.approx([0.6 * STEEPEST, -0.8 * STEEPEST], rel=1e-4)
    descent.step(0.5 * one.weight.sum() + 0.0 * other.weight.sum())
    gradients = [float(p.grad) for p in both.parameters() if p.grad is not None]
    assert gradients == pytest.approx([0.5, 0])


def test_channels_last() -> None:
    """Weights of convolutions change their layout, not their values."""
    torch.manual_seed(0)
    network = nn.Conv2d(3, 4, 5)
    before = network.weight.detach().clone()
    moved = channels_last(network, torch.device("cpu"))
    assert moved is network
    assert network.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(network.weight.detach(), before)
