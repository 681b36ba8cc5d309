"""Folders of runs; a bug here mixes two students' results, or deletes somebody's files."""

import os

import pytest
import yaml

from espnet_star.errors import StarError
from espnet_star.evaluate.superb.folders import (
    check_identity,
    forget,
    link_scorer,
    prepare,
    torn_checkpoints,
)
from espnet_star.evaluate.superb.student import read_upstream


def test_s3prls_configuration_is_plain_yaml(make):
    builder = make(tasks={"er": {"overrides": {"scoring": {"thresholds": [0.5]}}}})
    run = builder.runs("er")[0]
    assert prepare(run, builder.upstream) == []
    assert yaml.safe_load((run.folder / "s3prl.yaml").read_text()) == run.config


def test_another_student_or_setting_is_refused(make, tiny_student, tmp_path):
    builder = make()
    run = builder.runs("sid")[0]
    prepare(run, builder.upstream)
    check_identity(run, builder.upstream)
    changed = make(tasks={"sid": {"lr": 0.5}})
    with pytest.raises(StarError, match="was begun with other settings"):
        check_identity(changed.runs("sid")[0], builder.upstream)
    next(tiny_student.parameters()).data.add_(1)
    tiny_student.save_pretrained(tmp_path / "second")
    with pytest.raises(StarError, match="was begun with another student"):
        check_identity(run, read_upstream(tmp_path / "second"))


def checkpoint(folder, *names):
    folder.mkdir(parents=True)
    for index, name in enumerate(names):
        (folder / name).write_text("")
        os.utime(folder / name, ns=(index * 10**9, index * 10**9))


def test_half_written_checkpoints_are_put_aside(make):
    """Fails if a run that was killed while saving could never be continued."""
    builder = make()
    run = builder.runs("sid")[0]
    train = run.folder / "train"
    whole = ("optimizer.pt", "scheduler.pt", "training_stats.yaml", "config.yaml")
    checkpoint(train / "step_1000", *whole)
    checkpoint(train / "step_2000", *whole[:2])
    # Written over in place: the end of the former one is older than its new beginning.
    checkpoint(train / "valid_best", *reversed(whole))
    assert [path.name for path in torn_checkpoints(train)] == ["step_2000", "valid_best"]
    (train / "torn_step_2000").mkdir()
    messages = prepare(run, builder.upstream)
    assert len(messages) == 2 and "step_2000: only half written" in messages[0]
    left = sorted(path.name for path in train.iterdir())
    assert left == ["step_1000", "torn_step_2000", "torn_valid_best"]
    assert (train / "torn_step_2000" / "optimizer.pt").exists()
    assert prepare(run, builder.upstream) == []


def test_forgetting_leaves_other_files_alone(make):
    builder = make()
    run = builder.runs("sid")[0]
    prepare(run, builder.upstream)
    folder = run.folder.parent
    (folder / "notes").mkdir()
    (folder / "notes" / "mine").write_text("")
    (folder / "result.json").write_text("{}")
    forget(folder)
    assert [path.name for path in folder.iterdir()] == ["notes"]
    forget(folder / "none")


def test_a_clone_of_the_scorer_saves_the_download(make, tmp_path):
    run = make().runs("sd")[0]
    with pytest.raises(StarError, match=r"has no score\.py"):
        link_scorer(run, str(tmp_path))
    (tmp_path / "score.py").write_text("")
    for _ in range(2):
        link_scorer(run, str(tmp_path))
    # Where s3prl/problem/diarization/run.py and util.py look for it before they clone.
    place = run.folder / "evaluate" / "valid_best" / "test" / "score" / "dscore"
    assert (place / "score.py").is_file()
    link_scorer(run, None)
