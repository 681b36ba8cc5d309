"""The rehearsal's overlay: it names keys that exist, and leaves all others as they are."""

import re
from pathlib import Path

import pytest
import yaml
from shrink import OVERLAY, inherited, lay_over, read_yaml, section_of, shrink

from espnet_star.data.errors import DataError
from espnet_star.students.config import COMMON, PRESETS, student_config
from espnet_star.tasks.cls import CLSTask
from espnet_star.tasks.espnet import student_task
from espnet_star.tasks.spk import SpeakerTask
from espnet_star.tasks.star import StarTask

EGS2 = Path(__file__).parents[2] / "egs2"
RECIPES = ("librispeech", "librispeech_100", "voxceleb")
CONFIGS = sorted(file for name in RECIPES for file in EGS2.glob(f"{name}/star1/conf/*.yaml"))
TASKS = {
    "star": StarTask,
    "asr": student_task("asr"),
    "finetune": student_task("asr"),
    "sid": CLSTask,
    "sv": SpeakerTask,
}
SECTIONS = read_yaml(OVERLAY)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parts[-4]}/{path.stem}")
def test_every_key_is_known(path):
    """Fails if the overlay, or a real configuration, names what the task does not know."""
    section = section_of(path.name, SECTIONS)
    assert section is not None, "a configuration that no section shrinks"
    known = inherited(path)
    options = {action.dest for action in TASKS[section].get_parser()._actions}
    shrunk = lay_over(read_yaml(path), SECTIONS[section]["overlay"], known)
    assert set(shrunk) - {"base"} <= options
    for key, value in shrunk.items():
        if isinstance(value, dict):
            allowed = set(known.get(key, {}))
            if section == "star" and key == "encoder_conf":
                allowed |= {"preset", *COMMON, *PRESETS["starhubert"]}
            assert set(value) <= allowed, key


@pytest.mark.parametrize("preset", [name for name in PRESETS if name.startswith("star")])
def test_the_small_student_fits_every_preset_of_the_recipes(preset):
    """Fails if a preset's heads or groups do not divide the overlay's width."""
    config = student_config(preset, **SECTIONS["star"]["overlay"]["encoder_conf"])
    assert config.hidden_size == 48 and config.num_hidden_layers == 2
    assert config.identity_projection


@pytest.fixture
def recipe(tmp_path):
    """A recipe whose configuration begins from one beside it, and that from another recipe's."""
    files = {
        "far/train_star.yaml": {"expected_batch": 48, "batch_bins": 1, "scheduler": "x"},
        "conf/train_star.yaml": {"base": "../far/train_star.yaml", "max_epoch": 1000},
        "conf/train_starhubert.yaml": {"base": "train_star.yaml", "encoder_conf": {"preset": "p"}},
        "conf/decode.yaml": {"beam_size": 3},
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(yaml.safe_dump(content))
    return tmp_path


def test_shrunk_configurations_and_their_bases(recipe):
    """Fails if the real base shines through, or a base cannot be found from the new place."""
    used = shrink(recipe / "conf", recipe / "run" / "conf")
    assert used == {"decode.yaml": None, "train_star.yaml": "star", "train_starhubert.yaml": "star"}
    read = {name: read_yaml(recipe / "run" / "conf" / name) for name in used}
    assert read["decode.yaml"] == {"beam_size": 3}
    assert read["train_star.yaml"]["base"] == str(recipe / "far" / "train_star.yaml")
    assert read["train_starhubert.yaml"]["base"] == "train_star.yaml"
    for content in (read["train_star.yaml"], read["train_starhubert.yaml"]):
        assert content["expected_batch"] == SECTIONS["star"]["overlay"]["expected_batch?"]
        assert "expected_updates" not in content, "a key that the real file does not have"
        assert content["max_epoch"] == SECTIONS["star"]["overlay"]["max_epoch"]
    assert read["train_starhubert.yaml"]["encoder_conf"]["preset"] == "p"
    whole = inherited(recipe / "run" / "conf" / "train_starhubert.yaml")
    assert whole["scheduler"] == "x" and whole["batch_bins"] > 1


def test_mistakes_name_the_file(recipe):
    (recipe / "conf" / "train_star.yaml").write_text("- a list\n")
    with pytest.raises(DataError, match=r"train_star.yaml: expected a mapping of keys, found list"):
        shrink(recipe / "conf", recipe / "run")
    (recipe / "empty").mkdir()
    with pytest.raises(DataError, match="no file that a section of"):
        shrink(recipe / "empty", recipe / "run")


def test_overlay_says_why():
    """Fails if a value of the overlay has no word on why it is what it is."""
    lines = OVERLAY.read_text().splitlines()
    silent = [line for line in lines if re.fullmatch(r" {8}[^#]*: [^#]+", line)]
    assert silent == [] and sum(" # " in line for line in lines) > 40
