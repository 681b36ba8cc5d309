"""Results read from what s3prl writes; a bug here puts a wrong number into the table."""

import json

import pytest
import yaml

from espnet_star.errors import StarError
from espnet_star.evaluate.superb.probe import Environment
from espnet_star.evaluate.superb.results import (
    best_layer,
    finish_run,
    finished,
    kept_values,
    read_scores,
    write_result,
)
from espnet_star.evaluate.superb.tasks import TASKS

# As s3prl writes them: yaml.safe_dump of reduction()'s floats by the run() methods of
# s3prl/problem/*/run.py; dscore.yaml and best_result.yaml by scoring() and stage 4 of theirs.
FILES = {
    "pr": ({"loss": 0.3, "per": 0.0816}, {"pr_per": 8.16}),
    "asr": ({"loss": 0.3, "wer": 0.0935, "cer": 0.02, "wer_beam": 0.07}, {"asr_wer": 9.35}),
    "ks": ({"accuracy": 0.9627, "loss": 0.2}, {"ks_acc": 96.27}),
    "sid": ({"accuracy": 0.7758, "loss": 1.0}, {"sid_acc": 77.58}),
    "asv": ({"EER": 0.0539}, {"asv_eer": 5.39}),
    "sd": ({"der": 6.05, "median_filter": 11, "threshold": 0.5}, {"sd_der": 6.05}),
    "ic": ({"accuracy": 0.9755, "loss": 0.1}, {"ic_acc": 97.55}),
    "sf": (
        {"cer": 0.1, "loss": 1.0, "slot_type_f1": 0.8794, "slot_value_cer": 0.2531, "wer": 0.3},
        {"sf_f1": 87.94, "sf_cer": 25.31},
    ),
    "er": ({"accuracy": 0.6301, "loss": 1.0}, {"er_acc": 63.01}),
}
HERE = Environment("/envs/python", {"espnet-s3prl": "2026.5.14"}, {})


def write(run, content):
    path = run.folder / TASKS[run.task].result
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


@pytest.mark.parametrize("task", FILES)
def test_s3prls_numbers_become_the_tables(task, make):
    builder = make(tasks={"er": {"folds": [0]}})
    content, expected = FILES[task]
    (run,) = builder.runs(task)
    write(run, content)
    kept = finish_run(run, builder.upstream, HERE)
    assert kept["scores"] == content and finished(run) == json.loads(json.dumps(kept))
    folder = builder.outdir / task
    assert write_result(task, folder, [kept], builder.upstream) == pytest.approx(expected)
    result = json.loads((folder / "result.json").read_text())
    assert result["metric"] == pytest.approx(expected) and result["task"] == task
    assert result["student"] == {"name": "student", "digest": builder.upstream.digest}
    assert result["versions"] == {"espnet-s3prl": "2026.5.14"} and result["seeds"] == [0]
    assert result["runs"][0]["command"] == list(run.command)
    assert result["lr"] == builder.settings.tasks[task].lr and result["date"]
    assert kept_values(task, folder, builder.upstream) == pytest.approx(expected)


def test_folds_and_seeds_are_averaged(make):
    builder = make(seeds=[0, 1], tasks={"er": {"folds": [0, 1]}})
    runs = builder.runs("er")
    for run, accuracy in zip(runs, (0.5, 0.6, 0.7, 0.8), strict=True):
        write(run, {"accuracy": accuracy})
    kept = [finish_run(run, builder.upstream, HERE) for run in runs]
    values = write_result("er", builder.outdir / "er", kept, builder.upstream)
    assert values == pytest.approx({"er_acc": 65.0})


# What the corpus's scorer leaves in score.out.
SCORE = "actCnxe: 0.98   minCnxe: 0.94\nactTWV: 0.0441   maxTWV: {}   Threshold: 2.35\n"


def test_the_layer_is_chosen_on_dev_and_tested(make):
    """Fails if the table has the development score, or the best test score of all layers."""
    builder = make()
    kept = []
    for run, value in zip(builder.runs("qbe"), ("0.0300", "0.0700", "0.0700"), strict=True):
        write(run, SCORE.format(value))
        kept.append(finish_run(run, builder.upstream, HERE))
    assert best_layer(kept) == 1
    test = builder.query_run("qbe", 1, "test")
    write(test, SCORE.format("0.0688"))
    kept.append(finish_run(test, builder.upstream, HERE))
    values = write_result("qbe", builder.outdir / "qbe", kept, builder.upstream)
    assert values == {"qbe_mtwv": 0.0688}


@pytest.mark.parametrize(
    ("task", "content", "message"),
    [
        ("sid", {"loss": 1.0}, "expected a number under accuracy, found None"),
        ("sid", {"accuracy": float("nan")}, "expected a number under accuracy, found nan"),
        ("sid", "a: [", "cannot be read"),
        ("sid", "- 1", "expected a number under accuracy, found None"),
        ("sf", {"slot_type_f1": 0.9}, "expected a number under slot_value_cer"),
        ("qbe", "actCnxe: 0.98\n", "expected a number under maxTWV, found None"),
        ("qbe", SCORE.format("?"), "expected a number under maxTWV, found None"),
    ],
)
def test_a_result_that_is_none_is_refused(task, content, message, make):
    run = make().runs(task)[0]
    path = write(run, content)
    with pytest.raises(StarError) as error:
        read_scores(run)
    assert message in str(error.value) and str(path) in str(error.value)


def test_s3prl_that_ends_well_without_a_result(make):
    """s3prl.main exits with 0 when it does not know a class."""
    run = make().runs("sid")[0]
    with pytest.raises(StarError, match="is missing, though s3prl ended in order"):
        read_scores(run)


def test_damaged_and_foreign_results(make):
    builder = make()
    (run,) = builder.runs("sid")
    folder = builder.outdir / "sid"
    assert finished(run) is None and kept_values("sid", folder, builder.upstream) == {}
    run.folder.mkdir(parents=True)
    (run.folder / "run.json").write_text("[]")
    with pytest.raises(StarError, match="is no result of a run"):
        finished(run)
    (folder / "result.json").write_text('{"metric": {}}')
    with pytest.raises(StarError, match="is no result of star_superb"):
        kept_values("sid", folder, builder.upstream)
    (folder / "result.json").write_text('{"student": {"digest": "0"}, "metric": {"sid_acc": 1}}')
    assert kept_values("sid", folder, builder.upstream) == {}
