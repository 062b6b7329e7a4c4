"""Schedule-free AdamW over one vector, against the package's own steps over each weight."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import torch
from schedulefree import AdamWScheduleFree
from torch import nn

from geomiam.training.optimizer import OneVector

SETTINGS = {"lr": 0.02, "weight_decay": 0.1, "warmup_steps": 5}
INPUT = torch.randn(20, 3, generator=torch.Generator().manual_seed(1))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.LayerNorm(4), nn.Linear(4, 2))


def steps(net: nn.Module, optimizer: AdamWScheduleFree, count: int) -> None:
    """Train some steps, and end at the average of the weights."""
    optimizer.train()
    for _ in range(count):
        optimizer.zero_grad()
        (net(INPUT) - 1).square().mean().backward()
        optimizer.step()
    optimizer.eval()


def assert_equal_weights(first: nn.Module, second: nn.Module) -> None:
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def both(prepare: Callable[[nn.Module], None] = lambda net: None) -> Iterator[tuple]:
    for optimizer in (OneVector, AdamWScheduleFree):
        net = network()
        prepare(net)
        yield net, optimizer([p for p in net.parameters() if p.requires_grad], **SETTINGS)


def test_steps_are_those_of_the_package():
    (vector_net, vector_optimizer), (package_net, package_optimizer) = both()
    before = [p.detach().clone() for p in vector_net.parameters()]
    for count in (7, 6):  # scores are computed in between
        steps(vector_net, vector_optimizer, count)
        steps(package_net, package_optimizer, count)
        assert_equal_weights(vector_net, package_net)
    assert all((a != b).any() for a, b in zip(before, vector_net.parameters()))


def test_a_state_is_that_of_each_weight_and_resumes():
    (net, optimizer), (package_net, package_optimizer) = both()
    steps(net, optimizer, 7)
    steps(package_net, package_optimizer, 7)
    state, expected = optimizer.state_dict(), package_optimizer.state_dict()
    assert state["param_groups"] == expected["param_groups"]
    for number, of_weight in expected["state"].items():
        for key, value in of_weight.items():
            torch.testing.assert_close(state["state"][number][key], value, rtol=1e-5, atol=1e-7)
    second_net = network()
    second_net.load_state_dict(net.state_dict())
    again = OneVector(second_net.parameters(), **SETTINGS)
    steps(second_net, again, 2)  # steps before the state is loaded do not remain
    second_net.load_state_dict(net.state_dict())
    again.load_state_dict(state)
    steps(second_net, again, 6)
    steps(net, optimizer, 6)
    assert_equal_weights(second_net, net)


def test_a_weight_without_a_gradient_stays():
    def add_unused(net: nn.Module) -> None:
        net.unused = nn.Parameter(torch.ones(3))
        net.forward = lambda x: nn.Sequential(*list(net.children()))(x)

    (vector_net, vector_optimizer), (package_net, package_optimizer) = both(add_unused)
    steps(vector_net, vector_optimizer, 5)
    steps(package_net, package_optimizer, 5)
    assert_equal_weights(vector_net, package_net)
    assert (vector_net.unused == 1).all()


def test_released_weights_have_memory_of_their_own():
    net = network()
    optimizer = OneVector(net.parameters(), **SETTINGS)
    steps(net, optimizer, 2)
    shared = {p.untyped_storage().data_ptr() for p in net.parameters()}
    values = [p.detach().clone() for p in net.parameters()]
    optimizer.release()
    assert len(shared) == 1
    assert all(p.untyped_storage().nbytes() == p.nbytes for p in net.parameters())
    assert all(torch.equal(a, b) for a, b in zip(values, net.parameters()))


@pytest.mark.slow
def test_a_step_imports_no_compiler():
    code = (
        "import sys, torch; from geomiam.training.optimizer import OneVector\n"
        "p = torch.nn.Parameter(torch.ones(2)); o = OneVector([p]); o.train(); o.zero_grad()\n"
        "p.sum().backward(); o.step(); o.load_state_dict(o.state_dict()); o.eval()\n"
        "print('torch._dynamo' in sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.stdout.split() == ["False"], process.stderr
