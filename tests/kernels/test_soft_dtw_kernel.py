import pytest
import torch

from espnet_star.kernels import soft_dtw
from espnet_star.losses.soft_dtw import plain_soft_dtw

ROWS, COLUMNS = torch.tensor([7, 1, 4, 2]), torch.tensor([3, 5, 4, 1])


def both(costs, gamma):
    for function in (plain_soft_dtw, soft_dtw):
        leaf = costs.clone().requires_grad_()
        values = function(leaf, ROWS, COLUMNS, gamma)
        (values * torch.tensor([1.0, -2.0, 0.5, 3.0])).sum().backward()
        yield values, leaf.grad


@pytest.mark.parametrize("gamma", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("larger", ["rows", "columns"])
def test_equals_the_recursion(gamma, larger):
    """Fails if a diagonal is read or written one cell off, or padding takes part."""
    torch.manual_seed(0)
    costs = 3 * torch.rand(4, 7, 5, dtype=torch.float64)
    if larger == "columns":
        costs = torch.cat((costs, torch.full((4, 7, 6), 1e4, dtype=torch.float64)), dim=2)
    (value, gradient), (fast, fast_gradient) = both(costs, gamma)
    torch.testing.assert_close(fast, value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(fast_gradient, gradient, rtol=1e-12, atol=1e-12)


def test_long_and_far_takes_stay_finite_and_exact_in_float32():
    """Fails if exponentials overflow, or rounding adds up over the diagonals."""
    costs = 400 * torch.rand(1, 300, 280)
    costs[0, range(280), range(280)] = 0.25
    costs.requires_grad_()
    size = torch.tensor([300]), torch.tensor([280])
    value = soft_dtw(costs, *size, 0.1)
    exact = soft_dtw(costs.double(), *size, 0.1)
    value.backward()
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, exact.float(), rtol=0, atol=0)
    assert costs.grad.isfinite().all()
    # Every path begins at the first cell and ends at the last.
    assert costs.grad[0, 0, 0] == costs.grad[0, -1, -1] == 1.0
