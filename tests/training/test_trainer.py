import logging

import pytest
import torch

from espnet_star.errors import StarError
from espnet_star.training.trainer import is_complete, restore_checkpoint, restore_epoch_model


@pytest.fixture
def experiment(tmp_path):
    """Two finished epochs, each checkpoint saying which it is."""
    torch.save({"epoch": 1}, tmp_path / "checkpoint.previous.pth")
    torch.save({"epoch": 2}, tmp_path / "checkpoint.pth")
    for epoch in (1, 2):
        torch.save({"weight": torch.ones(50) * epoch}, tmp_path / f"{epoch}epoch.pth")
    (tmp_path / "latest.pth").symlink_to("2epoch.pth")
    return tmp_path


def cut(path, keep=0.5):
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])


def epoch(experiment):
    return torch.load(experiment / "checkpoint.pth", weights_only=True)["epoch"]


def test_a_whole_experiment_is_left_alone(experiment, caplog):
    before = {path.name: path.stat().st_mtime_ns for path in experiment.iterdir()}
    with caplog.at_level(logging.WARNING):
        restore_checkpoint(experiment)
    assert {path.name: path.stat().st_mtime_ns for path in experiment.iterdir()} == before
    assert not caplog.records


@pytest.mark.parametrize("keep", [0, 0.5, 0.99])
def test_a_broken_checkpoint_gives_way_to_the_one_before(experiment, keep, caplog):
    """Fails if a kill while writing would cost the whole training."""
    cut(experiment / "checkpoint.pth", keep)
    assert not is_complete(experiment / "checkpoint.pth")
    with caplog.at_level(logging.WARNING):
        restore_checkpoint(experiment)
    assert epoch(experiment) == 1
    assert "is cut short" in caplog.text
    assert "one epoch earlier" in caplog.text


def test_a_missing_checkpoint_as_well(experiment):
    """Fails if a kill between moving the old one aside and writing the new is fatal."""
    (experiment / "checkpoint.pth").unlink()
    restore_checkpoint(experiment)
    assert epoch(experiment) == 1


def test_a_broken_model_of_the_last_epoch_is_trained_again(experiment):
    """Fails if averaging would meet half a model file at the end."""
    cut(experiment / "2epoch.pth")
    restore_checkpoint(experiment)
    assert epoch(experiment) == 1
    assert not (experiment / "2epoch.pth").exists()
    assert (experiment / "1epoch.pth").exists()


@pytest.mark.parametrize("keep", [0, 0.5, None])
def test_nothing_whole_beside_finished_epochs_stops(experiment, keep):
    """Fails if finished epochs are trained over, or what is left of them is removed."""
    for name in ("checkpoint.pth", "checkpoint.previous.pth"):
        cut(experiment / name, keep) if keep is not None else (experiment / name).unlink()
    before = sorted(experiment.iterdir())
    with pytest.raises(StarError, match=r"2 epochs are finished \(the last is 2epoch\.pth\)"):
        restore_checkpoint(experiment)
    assert sorted(experiment.iterdir()) == before


def test_nothing_whole_without_a_finished_epoch_means_from_the_start(experiment):
    """Fails if a kill in the first epoch asks a user to clean up."""
    (experiment / "checkpoint.previous.pth").unlink()
    for name in ("checkpoint.pth", "1epoch.pth", "2epoch.pth"):
        cut(experiment / name)
    restore_checkpoint(experiment)
    assert not (experiment / "checkpoint.pth").exists()


def test_a_whole_checkpoint_outlives_a_broken_model(experiment):
    """Fails if the checkpoint goes with the model that it could write again."""
    (experiment / "checkpoint.previous.pth").unlink()
    cut(experiment / "2epoch.pth")
    restore_checkpoint(experiment)
    assert epoch(experiment) == 2 and not (experiment / "2epoch.pth").exists()


def test_a_new_directory(tmp_path):
    restore_checkpoint(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()


def test_a_missing_model_of_the_last_epoch_is_written(tmp_path):
    """Fails if a kill between checkpoint and model breaks the averaging at the end."""
    states = {"model": {"weight": torch.ones(3)}, "reporter": {"epoch": 2, "stats": {}}}
    torch.save(states, tmp_path / "checkpoint.pth")
    restore_epoch_model(tmp_path / "checkpoint.pth", 2)
    written = torch.load(tmp_path / "2epoch.pth", weights_only=True)
    torch.testing.assert_close(written, states["model"])
    torch.save({}, tmp_path / "2epoch.pth")
    restore_epoch_model(tmp_path / "checkpoint.pth", 2)
    assert torch.load(tmp_path / "2epoch.pth", weights_only=True) == {}
