"""Imports of others must not write to the terminal, nor reach for the network."""

import importlib
import logging
import os
import subprocess
import sys

import pytest
import transformers
from huggingface_hub.utils import are_progress_bars_disabled
from transformers.utils import logging as bars

from espnet_star.teachers import build_teacher
from espnet_star.terminal import quiet

NOISE = """import sys
print('no such attention')
print('really', file=sys.stderr)
value = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Import a module of this source in the way given."""

    def make(name, how, source):
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setitem(quiet.IMPORTS, name, how)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return make


def test_a_module_that_prints_is_heard_in_the_log_only(module, capfd, caplog):
    """Fails if a line on FlashAttention gets into standard output, which scripts paste."""
    caplog.set_level(logging.DEBUG)
    found = module("noisy", quiet.print_to_log, NOISE)
    assert found.value == 3
    assert capfd.readouterr() == ("", "")
    heard = [record.getMessage() for record in caplog.records if record.name == "noisy"]
    assert heard == ["no such attention", "really"]
    print("heard")
    assert capfd.readouterr().out == "heard\n"


def test_downloads_wait_for_their_use(module, monkeypatch):
    """Fails if each command asks NLTK's server for data, or phonemes lack theirs afterwards."""
    nltk = pytest.importorskip("nltk")
    asked = []
    monkeypatch.setattr(nltk, "download", lambda name, *args, **kwargs: asked.append(name))
    source = """import nltk
nltk.download('cmudict')
class G2p:
    def __init__(self):
        self.ready = True
"""
    found = module("phonemes", quiet.fetch_when_used, source)
    assert asked == []
    nltk.download("other")
    assert asked.pop() == "other"
    assert found.G2p().ready
    found.G2p()
    assert asked == ["cmudict"]


def test_a_module_that_fails_still_does_and_leaves_nltk_alone(module):
    nltk = pytest.importorskip("nltk")
    before = nltk.download
    with pytest.raises(ValueError, match="broken"):
        module("broken", quiet.fetch_when_used, "raise ValueError('broken')")
    assert nltk.download is before


def test_weights_load_without_a_bar_and_downloads_keep_theirs(teacher_directory, capfd):
    """Fails if a bar is drawn, or all bars of a user's program are gone afterwards."""
    bars.enable_progress_bar()
    build_teacher(str(teacher_directory))
    assert capfd.readouterr().err == ""
    assert bars.is_progress_bar_enabled()
    assert not are_progress_bars_disabled()
    with quiet.without_weight_bars():
        assert not are_progress_bars_disabled()
        assert not bars.is_progress_bar_enabled()
    transformers.AutoModel.from_pretrained(teacher_directory)
    assert "Loading weights" in capfd.readouterr().err


def test_a_command_says_nothing_but_its_own_lines(
    data_directory, teacher_directory, tiny_options, tmp_path
):
    """Fails if ESPnet, NLTK, Transformers, torch or Python warn or report on the terminal."""
    sound = f"{data_directory}/wav.scp,speech,sound"
    command = [sys.executable, "-m", "espnet_star", "star_plan"]
    command += ["--train", "none", str(data_directory), "--valid", "none", str(data_directory)]
    command += ["--", "--teacher", str(teacher_directory), "--output_dir", str(tmp_path / "exp")]
    for key, value in tiny_options.items():
        command += ["--encoder_conf", f"{key}={value}"]
    command += ["--ngpu", "0", "--max_epoch", "2", "--batch_type", "unsorted", "--batch_size", "4"]
    command += ["--train_data_path_and_name_and_type", sound]
    command += ["--valid_data_path_and_name_and_type", sound]
    # Where NLTK finds no data, it would be fetched.
    nowhere = {"HOME": str(tmp_path), "NLTK_DATA": str(tmp_path)}
    done = subprocess.run(
        command, env=os.environ | nowhere, text=True, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    heads = [line.split(":")[0].split()[0] for line in done.stdout.splitlines()]
    assert heads == ["train", "valid", "Teacher", "Student", "updates", "needs"]


def test_what_is_logged_early_does_not_set_logging_up(monkeypatch):
    """ESPnet's tasks log while they are asked for their data: a run's log had no epochs then."""
    monkeypatch.setattr(logging.root, "handlers", [])
    with quiet.logging_left_alone():
        logging.info("said too early")
    assert logging.root.handlers == []
