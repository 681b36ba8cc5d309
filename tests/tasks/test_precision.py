"""Whole trainings in bfloat16 on a CPU, right ones and such as fall back to float32."""

import pytest
from star_runs import assert_same_weights, distill, weights

LOW = ["--teacher_conf", "dtype=bfloat16", "--model_conf", "cpu_dtype=bfloat16"]


def asked(caplog):
    return [r.message for r in caplog.records if "bfloat16 is wrong on this CPU" in r.message]


def test_a_faulty_processor_trains_in_float32_and_goes_on_so(command, tmp_path, faulty, caplog):
    """Fails if garbage were distilled or kept in a cache, or a resumed run differed."""
    exp, plain = tmp_path / "exp", tmp_path / "plain"
    cached = [*LOW, "--model_conf", f"cache_dir={tmp_path}/states"]
    distill(command(exp, *cached, "--max_epoch", 1))
    assert [line.split()[0] for line in asked(caplog)] == ["Teacher", "Student:"]
    distill(command(exp, *cached))
    distill(command(plain, "--model_conf", f"cache_dir={tmp_path}/states"))
    assert_same_weights(exp, plain)
    assert "dtype: bfloat16" in (exp / "config.yaml").read_text()


def test_a_right_processor_trains_in_bfloat16_and_goes_on_so(command, tmp_path, monkeypatch):
    """Fails if the check drew random numbers, or a resumed run were another."""
    monkeypatch.setattr("espnet_star.encoders.bfloat16.BOUND", 1e9)  # whatever this processor does
    exp, whole, plain = (tmp_path / name for name in ("exp", "whole", "plain"))
    distill(command(exp, *LOW, "--max_epoch", 1))
    distill(command(exp, *LOW))
    distill(command(whole, *LOW))
    assert_same_weights(exp, whole)
    distill(command(plain))
    with pytest.raises(AssertionError):
        assert_same_weights(exp, plain)
    assert weights(exp).keys() == weights(plain).keys()
