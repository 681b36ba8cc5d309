"""Would break: weights of another model or layer shown, a log-mel system as an error, a file
that was cut short as a traceback.
"""

import pytest
import torch

from espnet_star.errors import StarError
from espnet_star.evaluate.report.heads import read_heads


def test_weights_of_a_trained_head(head):
    ([found], others) = read_heads([head])
    learned = torch.load(head / "1epoch.pth", weights_only=True)["frontend.layer_weights"]
    assert learned.abs().max() > 0  # training has moved them
    assert (found.task, found.system) == ("sid", "student")
    assert found.weights == pytest.approx(learned.double().softmax(0).tolist())
    assert sum(found.weights) == pytest.approx(1)
    assert others == []


def make(directory, state, criterion="acc"):
    directory.mkdir()
    (directory / "config.yaml").write_text(f"best_model_criterion:\n- - valid\n  - {criterion}\n")
    if state is not None:
        torch.save(state, directory / f"valid.{criterion}.best.pth")
    return directory


def test_the_model_is_chosen_by_the_first_criterion(tmp_path):
    weights = torch.tensor([0.0, 1.0])
    exp = make(tmp_path / "asr_teacher", {"frontend.layer_weights": weights}, "loss")
    torch.save({"frontend.layer_weights": -weights}, exp / "valid.acc.best.pth")
    torch.save({"frontend.layer_weights": -weights}, exp / "latest.pth")
    ([found], _) = read_heads([exp])
    assert found.weights[1] > found.weights[0]


def test_a_system_without_layers_is_named(tmp_path):
    exp = make(tmp_path / "sid_logmel", {"encoder.weight": torch.zeros(2)})
    assert read_heads([exp]) == ([], ["sid_logmel"])


def test_errors_name_the_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(StarError, match=r"empty: no config\.yaml"):
        read_heads([tmp_path / "empty"])
    exp = make(tmp_path / "sid_running", None)
    with pytest.raises(StarError, match=r"sid_running: none of valid\.acc\.best\.pth.*no epoch"):
        read_heads([exp])
    (exp / "latest.pth").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(StarError, match=r"latest\.pth is not a complete model file"):
        read_heads([exp])
