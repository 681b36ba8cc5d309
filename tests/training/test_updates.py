"""Effective batch and number of updates, against a count by hand and the paper's."""

import pytest
import torch
from espnet2.schedulers.piecewise_linear_warmup_lr import PiecewiseLinearWarmupLR

from espnet_star.errors import StarError
from espnet_star.training.updates import UpdatePlan, check_schedule, check_updates, schedule_of


def test_counts_agree_with_a_training_counted_step_by_step():
    """Fails if left-over batches of an epoch are counted as an update."""
    sizes, accum, epochs, iters = [3, 5, 4, 4, 2], 2, 3, None
    updates = sum(1 for _ in range(epochs) for i, _ in enumerate(sizes, 1) if i % accum == 0)
    plan = UpdatePlan.of(sizes, accum, epochs, iters)
    assert plan.updates == updates == 6
    assert plan.utterances_per_update == pytest.approx(2 * 18 / 5)
    assert plan.passes == pytest.approx(12 / 5)
    assert (plan.smallest, plan.largest) == (2, 5)
    assert UpdatePlan.of(sizes, 2, 3, 7).updates == 9  # epochs of seven batches, three updates
    assert "7.2 utterances (2 batches of 2 to 5)" in plan.describe()


def test_the_papers_960_hours():
    """281,241 utterances in batches of 48 for 100 epochs are the paper's 586 k updates."""
    sizes = [48] * 5859 + [9]
    plan = UpdatePlan.of(sizes, 1, 100)
    assert check_updates(plan, 48, 586_000) == []
    assert plan.updates == pytest.approx(586_000, rel=0.001)
    assert check_schedule(plan, {"first_cycle_steps": 586_001, "warmup_steps": 29_300}) == []
    split = UpdatePlan.of([12] * (5859 * 4), 4, 100)
    assert check_updates(split, 48, 586_000) == []


def test_a_batch_that_the_learning_rate_was_not_meant_for_is_refused():
    with pytest.raises(StarError, match=r"is 12\.0 utterances, the learning rate was meant for 48"):
        check_updates(UpdatePlan.of([12] * 10, 1, 5), 48, None)
    notes = check_updates(UpdatePlan.of([41] * 10, 1, 5), 48, None)
    assert "is 41.0 utterances" in notes[0]
    assert check_updates(UpdatePlan.of([12] * 10, 1, 5), None, None) == []


def test_no_update_at_all_is_refused():
    with pytest.raises(StarError, match="accum_grad 4 is more than the 3 batches of an epoch"):
        check_updates(UpdatePlan.of([1, 1, 1], 4, 2), None, None)


def test_updates_and_schedules_that_do_not_fit_are_told():
    plan = UpdatePlan.of([48] * 100, 1, 10)
    assert "1000 updates will be made, 5000 were expected" in check_updates(plan, 48, 5000)[0]
    assert "starts over after 1000 of 1000" in check_schedule(plan, {"first_cycle_steps": 1000})[0]
    assert "of which only 1000" in check_schedule(plan, {"first_cycle_steps": 5000})[0]
    assert "warms up for 2000" in check_schedule(plan, {"warmup_steps": 2000})[0]
    for total in (999, 5000):
        assert f"ends after {total} updates" in check_schedule(plan, {"total_steps": total})[0]
    assert check_schedule(plan, {"total_steps": 1001}) == []
    for knot in (1000, 1200):
        assert f"is at update {knot}" in check_schedule(plan, {"warmup_steps_list": knot})[0]
    assert check_schedule(plan, {"warmup_steps_list": 1001}) == []


def test_the_last_knot_of_a_schedule_is_its_length():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = PiecewiseLinearWarmupLR(optimizer, [0, 10, 101], [0.0, 1.0, 0.0])
    assert schedule_of(schedule) == {"warmup_steps_list": 101}
