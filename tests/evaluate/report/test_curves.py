"""Would break: means of whole epochs drawn as if they were of a few batches, what a killed run
left behind drawn twice, curves that stop where there is no TensorBoard.
"""

import shutil
import sys

import pytest
from tasks.star_runs import statistics
from torch.utils.tensorboard import SummaryWriter

from espnet_star.errors import StarError
from espnet_star.evaluate.report.curves import Curves, Series, logged_facts, read_curves


def test_a_real_run_in_full(run):
    curves = read_curves(run)
    assert curves.terms() == ["loss", "layerwise", "intralayer"]
    loss = curves.train["loss"]
    assert loss.steps == [1, 2, 3, 4]  # two batches an epoch, a value each
    for epoch, values in ((1, loss.values[:2]), (2, loss.values[2:])):
        assert sum(values) / 2 == pytest.approx(statistics(run, epoch, "train", "loss"), 1e-5)
    assert curves.valid["loss"].steps == [2, 4]
    assert curves.valid["loss"].values == pytest.approx(
        [statistics(run, epoch, "valid", "loss") for epoch in (1, 2)], 1e-5
    )
    assert [series.values for series in curves.rates().values()] == [pytest.approx([0.002] * 4)]
    assert curves.skipped_steps() == 0
    modified = (run / "checkpoint.pth").stat().st_mtime
    assert abs(curves.last.timestamp() - modified) < 60


def test_the_log_stands_in_for_tensorboard(experiment):
    full = read_curves(experiment)
    shutil.rmtree(experiment / "tensorboard")
    curves = read_curves(experiment)
    assert curves.source == str(experiment / "train.log")
    assert curves.terms() == full.terms()
    assert curves.valid["loss"].steps == full.valid["loss"].steps
    # The log has three digits after the point.
    assert curves.valid["loss"].values == pytest.approx(
        full.valid["loss"].values, abs=6e-4, rel=1e-3
    )
    assert curves.train["loss"].steps == [2, 4]
    assert abs((curves.last - full.last).total_seconds()) < 60


def test_neither_of_them(experiment):
    shutil.rmtree(experiment / "tensorboard")
    (experiment / "train.log").unlink()
    assert read_curves(experiment) == Curves()
    assert logged_facts(experiment) == {}


def test_a_killed_and_resumed_run(tmp_path):
    """The steps after the last whole epoch are repeated; the repeated ones count."""

    def write(values, first, ends=()):
        writer = SummaryWriter(str(tmp_path / "tensorboard" / "train"))
        for step, value in enumerate(values, first):
            writer.add_scalar("loss", value, step)
            if step in ends:
                writer.add_scalar("iter_epoch", step // 3, step)
                writer.add_scalar("loss", 100.0, step)
                writer.add_scalar("nonfinite_steps", 2, step)
        writer.close()

    write([9, 8, 7, 66, 55], 1, ends=(3,))
    write([6, 5, 4, 3], 4, ends=(6,))
    curves = read_curves(tmp_path)
    assert curves.train["loss"] == Series([1, 2, 3, 4, 5, 6, 7], [9, 8, 7, 6, 5, 4, 3])
    assert curves.skipped_steps() == 4


def test_parameter_groups_of_the_same_rate_are_one():
    def rates(*values):
        return Series(list(range(len(values))), list(values))

    train = {"optim0_lr0": rates(1, 2), "optim0_lr1": rates(1, 2), "optim0_lr2": rates(1, 3)}
    assert list(Curves(train=train).rates()) == ["optim0_lr0", "optim0_lr2"]


def test_missing_tensorboard_names_the_extra(run, monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(StarError, match=r"pip install espnet_star\[recipes\]"):
        read_curves(run)


def test_versions_that_the_log_recorded(run):
    import torch

    facts = logged_facts(run)
    assert (facts["torch"], facts["finished"]) == (torch.__version__, "2")
