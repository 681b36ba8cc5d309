import os

import pytest
import torch
import torch.nn.functional as F

from espnet_star.encoders.masked_norm import masked_group_norm, norm_valid
from espnet_star.kernels.predicate import FORMS, NOWHERE, Where


@pytest.fixture(params=["formula", "by utterance", "triton"])
def form(request, monkeypatch):
    """The formula, torch's kernel for one utterance after the other, and the kernel of GPUs."""
    if request.param == "formula":
        monkeypatch.setitem(FORMS, "group_norm", NOWHERE)
    if request.param == "triton":
        pytest.importorskip("triton", reason="no Triton, whose interpreter runs it on a CPU")
        if os.environ.get("TRITON_INTERPRET") != "1":
            pytest.skip(
                "Triton compiles for the GPU that is here; benchmarks/gpu.py tests it there"
            )
        monkeypatch.setitem(FORMS, "triton_norm", Where(None))
        from espnet_star.kernels import triton_norm

        monkeypatch.setattr(triton_norm, "BLOCK", 16)  # several looks at an utterance
    return request.param


def affine(channels, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(channels, generator=generator, dtype=dtype)
    return weight, torch.randn(channels, generator=generator, dtype=dtype)


def test_equals_group_norm_without_padding():
    x = torch.randn(3, 4, 50)
    weight, bias = affine(4)
    expected = F.group_norm(x, 4, weight, bias)
    assert torch.equal(masked_group_norm(x, None, weight, bias), expected)
    assert torch.equal(masked_group_norm(x, torch.full((3,), 50), weight, bias), expected)


def test_each_utterance_gets_its_own_statistics(form):
    x = torch.randn(5, 4, 60) * 3 + 7
    lengths = torch.tensor([60, 31, 2, 1, 0])
    weight, bias = affine(4)
    x[1, :, 31:] = float("nan")  # padding may hold anything
    out = masked_group_norm(x, lengths, weight, bias)
    for row, size in enumerate(lengths.tolist()):
        assert (out[row, :, size:] == 0).all()
        if size > 1:
            alone = F.group_norm(x[row : row + 1, :, :size], 4, weight, bias)[0]
            torch.testing.assert_close(out[row, :, :size], alone)
    # One frame is its own mean, up to rounding divided by the root of eps.
    torch.testing.assert_close(out[3, :, 0], bias, atol=1e-3, rtol=0)


@pytest.mark.parametrize("form", ["formula", "by utterance"], indirect=True)
def test_gradient(form):
    weight, bias = affine(3, torch.float64)
    x = torch.randn(4, 3, 7, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([7, 4, 2, 0])
    inputs = (x, weight.requires_grad_(), bias.requires_grad_())
    assert torch.autograd.gradcheck(lambda x, w, b: masked_group_norm(x, lengths, w, b), inputs)


def test_gradient_equals_that_of_slices(form):
    weight, bias = (p.requires_grad_() for p in affine(6))
    x = torch.randn(3, 6, 40, requires_grad=True)
    lengths = torch.tensor([40, 22, 9])
    target = torch.randn(3, 6, 40)

    def slices():
        return sum(
            (F.group_norm(x[i : i + 1, :, :n], 6, weight, bias)[0] * target[i, :, :n]).sum()
            for i, n in enumerate(lengths.tolist())
        )

    ours = torch.autograd.grad(
        (masked_group_norm(x, lengths, weight, bias) * target).sum(), (x, weight, bias)
    )
    for a, b in zip(ours, torch.autograd.grad(slices(), (x, weight, bias)), strict=True):
        torch.testing.assert_close(a, b)


def test_low_precision_input_is_normalized_in_the_type_of_the_weight(form):
    x = torch.randn(2, 4, 30).bfloat16().requires_grad_()
    weight, bias = (p.requires_grad_() for p in affine(4))
    out = masked_group_norm(x, torch.tensor([30, 12]), weight, bias)
    assert out.dtype == (torch.bfloat16 if form == "triton" else torch.float32)
    out.sum().backward()
    assert x.grad.dtype == torch.bfloat16 and weight.grad.dtype == torch.float32


@pytest.mark.parametrize("form", ["triton"], indirect=True)
def test_a_machine_that_triton_cannot_compile_on_takes_the_other_form(form, monkeypatch, caplog):
    """Fails if a missing C compiler ends a training that ran before."""
    from espnet_star.kernels import norms, triton_norm

    def broken(*_):
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(triton_norm, "norm_on_gpu", broken)
    norms.triton_runs.cache_clear()
    x, lengths = torch.randn(2, 4, 30), torch.tensor([30, 12])
    out = masked_group_norm(x, lengths, *affine(4))
    norms.triton_runs.cache_clear()
    torch.testing.assert_close(out, norm_valid(x, lengths, *affine(4), eps=1e-5))
    assert "Failed to find C compiler" in caplog.text


@pytest.mark.parametrize("lengths", [[3, 31], [3, -1], [3]])
def test_wrong_lengths(lengths):
    with pytest.raises(ValueError, match="lengths"):
        masked_group_norm(torch.randn(2, 4, 30), torch.tensor(lengths), *affine(4))


def test_wrong_shapes():
    with pytest.raises(ValueError, match=r"\(2, 4, 30\), \(5,\) and \(5,\)"):
        masked_group_norm(torch.randn(2, 4, 30), None, *affine(5))
