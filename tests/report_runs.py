"""A real distillation of two short epochs, as the report finds it, and a head trained on it."""

import logging
import shutil
from pathlib import Path

import pytest
from tasks.star_runs import distill, distillation, training

# Both conftests that import these fixtures get the same folders.
_MADE: dict[str, Path] = {}
# What ESPnet's own logging.basicConfig sets up, which does nothing under pytest.
ESPNET_FORMAT = "[host] %(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s"


@pytest.fixture(scope="session")
def run(teacher_directory, data_directory, tiny_options, tmp_path_factory):
    """Folder of a finished distillation with TensorBoard's events and a log; not to be changed."""
    if "run" in _MADE:
        return _MADE["run"]
    exp = tmp_path_factory.mktemp("report") / "star"
    exp.mkdir()
    handler = logging.FileHandler(exp / "train.log")
    handler.setFormatter(logging.Formatter(ESPNET_FORMAT))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        extra = ["--use_tensorboard", "true"]
        distill(distillation(teacher_directory, data_directory, exp, tiny_options, *extra))
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        handler.close()
    _MADE["run"] = exp
    return exp


@pytest.fixture
def experiment(run, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(run, tmp_path / "exp" / "star", symlinks=True)


@pytest.fixture(scope="session")
def head(run, data_directory, tmp_path_factory):
    """Folder of a classification head trained on the student for an epoch."""
    from espnet_tools import cls_train

    if "head" in _MADE:
        return _MADE["head"]
    exp = tmp_path_factory.mktemp("heads") / "sid_student"
    options = training(data_directory, exp, "--max_epoch", "1", "--token_list")
    options += [str(data_directory / "labels"), "--optim", "adam", "--optim_conf", "lr=0.1"]
    options += ["--frontend", "star", "--frontend_conf", f"upstream={run}"]
    for part in ("train", "valid"):
        option = f"--{part}_data_path_and_name_and_type"
        options += [option, f"{data_directory}/label,label,text"]
    cls_train.main(options)
    _MADE["head"] = exp
    return exp


@pytest.fixture
def quick_costs(monkeypatch):
    """Count operations over one short utterance, not over 32: test_profile.py counts them all."""
    monkeypatch.setattr("espnet_star.evaluate.report.tables.LIBRISPEECH_LENGTHS", (16000,))
