"""The configuration; a bug here runs a task with settings nobody asked for."""

from pathlib import Path

import pytest
import yaml

from espnet_star.errors import StarError
from espnet_star.evaluate.superb.config import choose, load_settings
from espnet_star.evaluate.superb.tasks import TASKS
from espnet_star.files.yaml_files import merge

CONF = Path(__file__).resolve().parents[3] / "conf"
SUPERB, REHEARSAL = CONF / "superb.yaml", CONF / "superb_rehearsal.yaml"


def test_the_authors_settings_are_the_default():
    settings = load_settings([SUPERB])
    assert list(settings.tasks) == list(TASKS)
    rates = {name: task.lr for name, task in settings.tasks.items()}
    usual = dict.fromkeys(TASKS, 1e-4)
    assert rates == usual | {"pr": 1e-2, "sid": 1e-3, "qbe": None}
    constant = [name for name, task in settings.tasks.items() if task.warmup_steps is None]
    assert constant == ["qbe", "sd"]
    assert settings.tasks["er"].folds == [0, 1, 2, 3, 4]
    assert settings.check_counts and not any(settings.source.values())


def test_the_rehearsal_shrinks_every_task():
    full, short = load_settings([SUPERB]), load_settings([SUPERB, REHEARSAL])
    for name, task in short.tasks.items():
        if name != "qbe":
            assert task.steps == 4 and task.overrides["train"]["save_step"] <= 4
            assert task.lr == full.tasks[name].lr
    assert short.tasks["qbe"].layers == [0] and short.tasks["er"].folds == [0]


def test_later_files_and_options_win(overlay):
    first = overlay(source={"snips": "/a"}, tasks={"sid": {"lr": "1e-2"}})
    settings = load_settings([SUPERB, first], ["snips=/b", "iemocap=/c"])
    assert settings.tasks["sid"].lr == 0.01 and settings.tasks["sid"].steps == 200000
    assert settings.source["snips"] == Path("/b") and settings.source["iemocap"] == Path("/c")


def test_merging_leaves_its_arguments_alone():
    base = {"train": {"steps": 1}, "list": [1]}
    merged = merge(base, {"train": {"seed": 2}, "list": [2]})
    assert merged == {"train": {"steps": 1, "seed": 2}, "list": [2]}
    assert base == {"train": {"steps": 1}, "list": [1]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"task": {}}, "unknown key 'task'. Did you mean 'tasks'?"),
        ({"tasks": {"sidd": {}}}, "unknown task 'sidd'. Did you mean 'sid'?"),
        ({"tasks": {"sid": {"rate": 1}}}, "unknown key of task sid 'rate'"),
        ({"tasks": {"sid": {"folds": [0]}}}, "unknown key of task sid 'folds'"),
        ({"tasks": {"qbe": {"lr": 1.0}}}, "unknown key of task qbe 'lr'"),
        ({"tasks": {"sid": {"lr": "fast"}}}, "tasks: sid: lr: Value 'fast'"),
        ({"tasks": {"sid": {"lr": -1.0}}}, "tasks: sid: lr: expected a learning rate"),
        ({"tasks": {"sid": {"steps": 0}}}, "tasks: sid: steps: expected a number of updates"),
        ({"tasks": {"sid": {"steps": None}}}, "tasks: sid: steps: expected a number of updates"),
        ({"tasks": {"sid": {"warmup_steps": 200000}}}, "less than the 200000 steps"),
        ({"tasks": {"er": {"folds": [5]}}}, "tasks: er: folds: expected some of"),
        ({"tasks": {"sid": {"overrides": [1]}}}, "tasks: sid: overrides: Cannot merge"),
        ({"tasks": ["sid"]}, "tasks: expected a mapping"),
        ({"source": {"voxceleb": "/a"}}, "unknown corpus 'voxceleb'. Did you mean 'voxceleb1'?"),
        ({"source": {"snips": 3}}, "source.snips: Value '3'"),
        ({"seeds": [1, 1]}, "seeds: expected a list of different integers"),
        ({"seeds": 0}, "seeds: Invalid value"),
        ({"num_workers": -1}, "num_workers: expected 0 or more"),
        ({"check_counts": "never"}, "check_counts: Value 'never'"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(overlay, content, message):
    path = overlay(**content)
    with pytest.raises(StarError) as error:
        load_settings([SUPERB, path])
    assert message in str(error.value) and str(path) in str(error.value)


def test_files_that_are_no_configuration(tmp_path):
    path = tmp_path / "a.yaml"
    for text, message in (("- a", "expected keys and values"), ("a: [", "is not plain YAML")):
        path.write_text(text)
        with pytest.raises(StarError, match=message):
            load_settings([path])
    with pytest.raises(StarError, match="cannot be read"):
        load_settings([tmp_path / "none.yaml"])
    for text, message in (("snips", "expected CORPUS=FOLDER"), ("s=/a", "unknown corpus 's'")):
        with pytest.raises(StarError, match=message):
            load_settings([SUPERB], [text])


def test_tasks_run_in_the_tables_order(overlay):
    settings = load_settings([SUPERB])
    assert choose(settings, ["er", "pr"]) == ["pr", "er"]
    assert choose(settings, []) == list(TASKS)
    with pytest.raises(StarError, match="unknown task 'sdi'"):
        choose(settings, ["sdi"])
    part = overlay(tasks={"sid": yaml.safe_load(SUPERB.read_text())["tasks"]["sid"]})
    with pytest.raises(StarError, match="--tasks er: the configuration's tasks: has no er"):
        choose(load_settings([part]), ["er"])
