"""SUPERB's scores; a bug here ranks students wrongly, or gives scores to half a benchmark."""

import pytest

from espnet_star.errors import StarError
from espnet_star.evaluate.superb.published import (
    COLUMNS,
    FBANK,
    PUBLISHED,
    STATE_OF_THE_ART,
    check_values,
    generalizability,
    missing,
    overall,
    partial,
)

ROWS = {row.system: row for row in PUBLISHED}
# As the STaR paper prints them.
OVERALL = {
    "HuBERT Base (teacher)": 80.8,
    "STaRHuBERT-L": 79.8,
    "STaRHuBERT": 79.5,
    "STaRHuBERT 100 h": 77.8,
    "DPHuBERT": 78.9,
    "ARMHuBERT-S": 77.5,
    "DistilHuBERT": 75.9,
}
GENERALIZABILITY = {
    "HuBERT Base (teacher)": 941,
    "STaRHuBERT-L": 896,
    "STaRHuBERT": 887,
    "DPHuBERT": 866,
    "ARMHuBERT-S": 828,
    "STaRHuBERT 100 h": 831,
}


def test_the_published_rows_are_all_there():
    assert set(ROWS) == set(OVERALL)
    assert all(not missing(row.values) for row in PUBLISHED)


@pytest.mark.parametrize("system", OVERALL)
def test_overall_scores_are_the_published_ones(system):
    assert round(overall(ROWS[system].values), 1) == OVERALL[system]


@pytest.mark.parametrize("system", GENERALIZABILITY)
def test_generalizability_scores_are_the_published_ones(system):
    assert generalizability(ROWS[system].values) == pytest.approx(GENERALIZABILITY[system], abs=2)


def test_distilhubert_needs_its_qbe_for_the_published_overall_score():
    """The rule that gives 75.9 is the mean of eleven; leaving QbE out would give 83.0."""
    values = dict(ROWS["DistilHuBERT"].values)
    assert values.pop("qbe_mtwv") == 0.0511
    assert overall(values) is None and generalizability(values) is None
    assert round(partial(values), 1) == 83.0
    assert missing(values) == ["qbe_mtwv"]


def test_generalizability_runs_from_fbank_to_the_state_of_the_art():
    assert generalizability(FBANK) == 0
    assert generalizability(STATE_OF_THE_ART) == pytest.approx(1000)


def test_slot_filling_is_one_task():
    """Fails if its two metrics weigh twice as much as another task's one."""
    values = dict(FBANK)
    values["ic_acc"] = STATE_OF_THE_ART["ic_acc"]
    other = dict(FBANK)
    other.update({name: STATE_OF_THE_ART[name] for name in ("sf_f1", "sf_cer")})
    assert generalizability(values) == pytest.approx(100)
    assert generalizability(other) == pytest.approx(100)


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_no_score_without_every_column(column):
    values = {name: value for name, value in FBANK.items() if name != column.name}
    assert overall(values) is None and generalizability(values) is None
    assert partial({}) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sid": 3.0}, "unknown SUPERB column 'sid'"),
        ({"sid_acc": float("nan")}, "sid_acc must be a finite number"),
        ({"sid_acc": "81"}, "sid_acc must be a finite number"),
        ({"sid_acc": True}, "sid_acc must be a finite number"),
    ],
)
def test_what_is_no_result_is_named(values, message):
    with pytest.raises(StarError, match=message):
        check_values(values)
