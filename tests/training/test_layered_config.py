"""Configurations that begin from another; a bug trains something else than the file says."""

import pytest

from espnet_star.errors import StarError
from espnet_star.tasks.star import StarTask
from espnet_star.training.layered_config import read_layers


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


def test_mappings_are_merged_and_the_rest_is_replaced(write):
    write("base.yaml", "max_epoch: 3\nlosses: [{name: a}]\noptim_conf: {lr: 1.0, eps: 2.0}\n")
    write("middle.yaml", "base: base.yaml\noptim_conf: {lr: 3.0}\nencoder_conf: {preset: x}\n")
    top = write("top.yaml", "base: middle.yaml\nlosses: [{name: b}]\nencoder_conf:\n")
    assert read_layers(top) == {
        "max_epoch": 3,
        "losses": [{"name": "b"}],
        "optim_conf": {"lr": 3.0, "eps": 2.0},
        "encoder_conf": None,
    }


def test_a_link_begins_from_the_base_beside_it(write, tmp_path):
    """Fails if a link is followed first: another recipe's base would be taken."""
    write("one/base.yaml", "max_epoch: 1\n")
    write("two/base.yaml", "max_epoch: 2\n")
    top = write("one/top.yaml", "base: base.yaml\nseed: 5\n")
    link = tmp_path / "two" / "top.yaml"
    link.symlink_to(top)
    assert read_layers(top)["max_epoch"] == 1
    assert read_layers(link) == {"max_epoch": 2, "seed": 5}


def test_the_command_line_wins(write):
    write("base.yaml", "max_epoch: 3\noptim_conf: {lr: 1.0, eps: 2.0}\n")
    top = write("top.yaml", "base: base.yaml\nteacher: t\n")
    options = ["--config", str(top), "--max_epoch", "7", "--optim_conf", "lr=5.0"]
    args = StarTask.get_parser().parse_args(options)
    assert (args.max_epoch, args.teacher) == (7, "t")
    assert args.optim_conf == {"lr": 5.0, "eps": 2.0}
    assert not hasattr(args, "base")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: none.yaml\n", "none.yaml: cannot be read"),
        ("base: top.yaml\n", "its bases lead back to itself"),
        ("- a\n", "expected keys and values, found list"),
        ("a: [\n", "is not plain YAML"),
        ("max_epoch: 1\nmax_epoche: 2\n", "unrecognized arguments: max_epoche"),
    ],
)
def test_mistakes_name_the_file(write, capsys, text, message):
    top = write("top.yaml", text)
    with pytest.raises(SystemExit) as stop:
        StarTask.get_parser().parse_args(["--config", str(top)])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error and str(top.parent) in error


def test_errors_can_be_caught(tmp_path):
    with pytest.raises(StarError, match="cannot be read"):
        read_layers(tmp_path / "none.yaml")
