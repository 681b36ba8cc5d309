"""A bug here calls a wrong product right, or the rounding of a right one wrong."""

import json
import sys

import bfloat16_products
import pytest
import torch

from espnet_star.encoders.bfloat16 import BOUND


def test_the_table_says_what_was_tried(monkeypatch, tmp_path, capsys):
    """In a process for each instruction set, whatever this processor has."""
    path = tmp_path / "found.json"
    monkeypatch.setattr(sys, "argv", ["x", "--small", "--threads", "1", "--json", str(path)])
    monkeypatch.setattr(bfloat16_products, "levels", lambda: ["DEFAULT"])
    bfloat16_products.main()
    shown = capsys.readouterr().out
    rows = json.loads(path.read_text())["rows"]
    assert {row["kind"] for row in rows} == {
        "convolution",
        "linear map",
        "batched product",
        "attention",
    }
    for row in rows:
        assert row["tried"] == len(row["cases"]) > 0
        # Rounding shows, so bfloat16 was at work; what is off is counted, and is rare.
        assert row["worst"] > 0.01
        assert row["off"] == sum(bfloat16_products.worst(case) > BOUND for case in row["cases"])
        assert f"| DEFAULT | {row['kind']} |" in shown
    assert "torch " + torch.__version__.split("+")[0] in shown


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_fault_is_seen(direction, monkeypatch, faulty):
    if direction == "forward":
        cases = [c for c in bfloat16_products.convolutions(True) if "in 2 groups" in c[1]]
        assert all(bfloat16_products.measure(case)["forward"] > BOUND for case in cases)
        return
    product = torch.autograd.Function

    class Wrong(product):
        @staticmethod
        def forward(ctx, x, w):
            ctx.save_for_backward(x, w)
            return x @ w.T

        @staticmethod
        def backward(ctx, gradient):
            x, w = ctx.saved_tensors
            sign = -1 if gradient.dtype == torch.bfloat16 else 1
            return sign * gradient @ w, gradient.T @ x

    values = [torch.randn(9, 4), torch.randn(5, 4)]
    found = bfloat16_products.measure(("linear map", "4 to 5", Wrong.apply, values))
    assert found["forward"] < BOUND < 1.9 < found["backward"]
