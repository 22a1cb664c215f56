"""The engine's Adam is torch's, step for step."""

import subprocess
import sys

import pytest
import torch

from chartae.training.optimizers import Adam


def quadratic(optimizer, w, steps=20):
    for t in range(steps):
        w.grad = (w - torch.arange(5.0)) * (1 + t % 3)
        optimizer.step()
    return w


def test_it_takes_the_steps_of_torch():
    ours, theirs = (torch.zeros(5, requires_grad=True) for _ in range(2))
    quadratic(Adam([ours], lr=0.05), ours.detach().requires_grad_())  # a state of its own
    torch.testing.assert_close(
        quadratic(Adam([ours], lr=0.05), ours), quadratic(torch.optim.Adam([theirs], lr=0.05), theirs)
    )


def test_a_state_goes_on_where_it_was_taken():
    whole, first = (torch.zeros(5, requires_grad=True) for _ in range(2))
    quadratic(Adam([whole], lr=0.05), whole, steps=6)
    before = Adam([first], lr=0.05)
    quadratic(before, first, steps=3)
    second = first.detach().clone().requires_grad_()
    after = Adam([second], lr=1.0)
    after.load_state_dict(before.state_dict())
    assert torch.equal(quadratic(after, second, steps=3), whole)


def test_a_parameter_without_a_gradient_stays():
    used, unused = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    used.grad = torch.ones(2)
    Adam([used, unused], lr=0.1).step()
    assert torch.equal(unused, torch.ones(2))
    assert not torch.equal(used, torch.ones(2))


def test_a_step_that_is_to_be_skipped_leaves_no_trace():
    told, plain = (torch.zeros(5, requires_grad=True) for _ in range(2))
    ours, theirs = Adam([told], lr=0.05), Adam([plain], lr=0.05)
    for skip in (False, True, False):
        told.grad = torch.full((5,), torch.nan) if skip else torch.arange(5.0)
        ours.step(skip=torch.tensor(skip))
        if not skip:
            plain.grad = torch.arange(5.0)
            theirs.step()
    assert torch.equal(told, plain)
    assert torch.equal(ours.steps[0], theirs.steps[0])


@pytest.mark.parametrize("recipe", ["vae", "hvae", "rae-gp", "vq-vae"])
def test_a_fit_does_not_import_the_compiler(recipe):
    code = (
        "import sys, numpy as np, chartae as ct\n"
        f"ct.Autoencoder(recipe={recipe!r}, latent_dim=4, hidden=(4,), max_epochs=1).fit(np.eye(200))\n"
        "assert not {'torch._dynamo', 'sympy'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
