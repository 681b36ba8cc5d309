"""A bug here attends otherwise than the definition, or to other weights than were drawn."""

import pytest
import torch

from espnet_star import kernels
from espnet_star.kernels import attention
from espnet_star.kernels.attention import attend, attention_with_dropout
from espnet_star.kernels.predicate import FORMS, Where
from espnet_star.students import StarEncoder


@pytest.mark.parametrize("masked", [False, True])
def test_heads_filled_up_for_a_gpu_give_the_same(masked, monkeypatch):
    """Fails if the zeros reach the scores' scale or stay in the output."""
    q, k, v = torch.randn(3, 2, 4, 9, 5)
    mask = torch.arange(9) < torch.tensor([[9], [4]]) if masked else None
    mask = None if mask is None else mask[:, None, None]
    plain = attend(q, k, v, mask, 0.0)
    monkeypatch.setattr(attention, "channels_to_fill", lambda _: 3)
    torch.testing.assert_close(attend(q, k, v, mask, 0.0), plain)


def reference(q, k, v, lengths, masks, p):
    """Attention by its definition, with the masks that were drawn, utterance by utterance."""
    out = torch.zeros_like(q)
    for row, n in enumerate(lengths):
        scores = q[row, :, :n] @ k[row, :, :n].transpose(1, 2) / q.shape[3] ** 0.5
        weights = scores.softmax(dim=2) * masks[row] / (1 - p)
        out[row, :, :n] = weights @ v[row, :, :n]
    return out


@pytest.mark.parametrize("cells", [1, 200, 2**20])
def test_attention_and_its_gradient_are_those_of_the_definition(cells, monkeypatch):
    """Fails on any wrong part, mask or term; heads are taken singly, in pairs and together."""
    monkeypatch.setattr(attention, "CACHED_WEIGHTS", cells)
    drawn, draw = [], attention.keep_mask
    monkeypatch.setattr(
        attention, "keep_mask", lambda shape, p: drawn.append(draw(shape, p)) or drawn[-1]
    )
    lengths, p = [9, 1, 6], 0.3
    # As the student's projections give them: heads are not the outer dimension in memory.
    q, k, v = (torch.randn(3, 9, 4, 5, dtype=torch.float64).transpose(1, 2) for _ in range(3))
    for tensor in (q, k, v):
        tensor.requires_grad_()
    out = attention_with_dropout(q, k, v, lengths, p)
    grad = torch.randn_like(out)
    ours = torch.autograd.grad(out, (q, k, v), grad)
    masks, place = [], 0
    for n in lengths:
        heads = []
        while sum(map(len, heads)) < 4:
            heads.append(drawn[place])
            place += 1
        masks.append(torch.cat(heads))
        assert masks[-1].shape == (4, n, n)
    expected = reference(q, k, v, lengths, masks, p)
    torch.testing.assert_close(out, expected)
    for a, b in zip(ours, torch.autograd.grad(expected, (q, k, v), grad), strict=True):
        torch.testing.assert_close(a, b)


def test_attention_in_bfloat16_under_autocast():
    """Fails if types differ between the passes, or a precision is lost on the way."""
    q, k, v = (torch.randn(1, 2, 30, 8).requires_grad_() for _ in range(3))
    torch.manual_seed(1)
    wide = attention_with_dropout(q, k, v, [30], 0.2)
    exact = torch.autograd.grad(wide.square().sum(), (q, k, v))
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = attention_with_dropout(*(x.bfloat16() for x in (q, k, v)), [30], 0.2)
    assert narrow.dtype == torch.bfloat16
    assert (narrow - wide).norm() < 0.02 * wide.norm()
    rough = torch.autograd.grad(narrow.float().square().sum(), (q, k, v))
    for a, b in zip(rough, exact, strict=True):
        assert (a - b).norm() < 0.05 * b.norm()


@pytest.mark.parametrize("alignment", [1, 8])
def test_queries_keys_and_values_as_one_product(alignment, tiny_options, batch, monkeypatch):
    """Fails if a head's zeros reach the output, or a bias or gradient is another's."""
    dropouts = ("feat_proj", "hidden", "attention", "activation")
    student = StarEncoder(**tiny_options | {f"{name}_dropout": 0.0 for name in dropouts})
    for parameter in student.encoder.layers.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))

    def run():
        outputs = student.encode(*batch)
        state = outputs.hidden_states[-1][outputs.mask()]
        parameters = list(student.encoder.layers.parameters())
        return [state, *torch.autograd.grad(state.exp().sum(), parameters)]

    plain = run()
    monkeypatch.setattr(attention, "GPU_ALIGNMENT", alignment)
    monkeypatch.setitem(FORMS, "fused_attention", Where())
    monkeypatch.setattr(kernels, "attend", None)  # not called
    found = run()
    for one, other in zip(found, plain, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-3)
