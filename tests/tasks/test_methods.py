"""Every configuration of conf/methods with small networks: it runs as its page says, and learns."""

import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from star_runs import (
    assert_same_weights,
    distill,
    join,
    pairs,
    start,
    statistics,
    training,
    weights,
)

import espnet_star
from espnet_star.data.kaldi import read_counts
from espnet_star.data.labels import write_labels
from espnet_star.distillation import StarDistillation
from espnet_star.downstream.frontend import StarFrontend
from espnet_star.encoders.absent import NoTeacher
from espnet_star.outputs import frame_count
from espnet_star.students import STUDENTS
from espnet_star.teachers import build_teacher
from espnet_star.training.layered_config import read_layers

FOLDER = Path(__file__).resolve().parents[2] / "conf" / "methods"
METHODS = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != "schedule_linear")
DROPOUTS = ("feat_proj_dropout", "hidden_dropout", "attention_dropout", "activation_dropout")
UTTERANCES = 4
CLUSTERS = 7


def small(values):
    """The student's options with tiny widths; its layers, and all that makes it one, stay."""
    known = STUDENTS.find(values.get("encoder", "star"))
    options = dict(values.get("encoder_conf") or {})
    preset = known.presets[options.get("preset", "starhubert")]
    fields = dict(hidden_size=16, intermediate_size=24, num_attention_heads=2)
    fields |= dict(num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2)
    if "conv_dim" in preset:
        count = len(preset["conv_dim"])
        same = preset["conv_dim"][-1] == preset["hidden_size"]
        fields["conv_dim"] = [8] * (count - 1) + [16 if same else 12]
    if options.pop("init_from", None):  # then its sizes are the teacher's
        fields |= dict(hidden_size=24, intermediate_size=32, num_conv_pos_embeddings=16)
        fields["conv_dim"] = [8] * 7
    return options | fields | dict.fromkeys(DROPOUTS, 0.0)


def sized(losses):
    """The objectives, with as many clusters as the labels here have, and narrow convolutions."""
    found = []
    for entry in losses:
        conf = dict(entry.get("conf") or {})
        if "clusters" in conf:
            conf["clusters"] = CLUSTERS
        if "channels" in conf:
            conf |= {"channels": 8, "width": 8, "layers": 1, "dropout": 0.0}
        found.append({**entry, "conf": conf})
    return found


@pytest.fixture(scope="module")
def deep_teacher(tiny_hubert, tmp_path_factory):
    """Twelve layers, as the methods pair them, and a vector for masked frames."""
    directory = tmp_path_factory.mktemp("teacher")
    tiny_hubert(num_hidden_layers=12, mask_time_prob=0.05).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def labels(data_directory, tmp_path_factory):
    path = tmp_path_factory.mktemp("labels") / "labels"
    chance = np.random.default_rng(0)
    counts = read_counts(data_directory / "utt2num_samples")
    frames = {key: int(frame_count(torch.tensor(count))) for key, count in counts.items()}
    write_labels(path, {key: chance.integers(0, CLUSTERS, n) for key, n in frames.items()})
    return path


def build(name, teacher):
    """The model that a configuration describes, small."""
    values = read_layers(FOLDER / f"{name}.yaml")
    student = STUDENTS.build(values.get("encoder", "star"), small(values))
    none = values.get("teacher") == "none"
    target = NoTeacher(student.shape) if none else build_teacher(str(teacher))
    losses = sized(values["losses"])
    return StarDistillation(
        student, target, losses, values.get("view", "plain"), values.get("view_conf")
    )


@pytest.mark.parametrize("name", [name for name in METHODS if name != "score"])
def test_it_learns(name, deep_teacher, make_speech):
    """Fails if an objective, its heads or its view gave a gradient that leads nowhere."""
    torch.manual_seed(0)
    model = build(name, deep_teacher).train()
    sizes = [8000 - 640 * index for index in range(UTTERANCES)]
    speech = torch.zeros(UTTERANCES, max(sizes))
    for index, size in enumerate(sizes):
        speech[index, :size] = torch.from_numpy(make_speech(index, size))
    lengths = torch.tensor(sizes)
    frames = frame_count(lengths)
    given = {"labels": torch.randint(CLUSTERS, (UTTERANCES, int(frames.max())))}
    given["labels_lengths"] = frames
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    values = []
    for update in range(40):
        torch.manual_seed(update % 5)  # what a view draws, in turn: the same before and after
        loss, _, _ = model(speech, lengths, **given)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        values.append(loss.item())
    before, after = np.mean(values[:5]), np.mean(values[-5:])
    assert after < before - 0.2 * abs(before), (before, after)


def command(name, exp, data, labels, teacher):
    """A training by a configuration as users give it, of small networks on eight clips."""
    values = read_layers(FOLDER / f"{name}.yaml")
    options = ["--config", str(FOLDER / f"{name}.yaml"), *training(data, exp)]
    if values.get("teacher") != "none":
        options += ["--teacher", str(teacher)]
    if values.get("view") == "labelled":
        for part in ("train", "valid"):
            options += [f"--{part}_data_path_and_name_and_type", f"{labels},labels,text_int"]
    confs = {} if name == "score" else small(values)  # SCORE's student is its teacher
    options += pairs(
        "--encoder_conf", [f"{k}={yaml.safe_dump(v).strip()}" for k, v in confs.items()]
    )
    options += ["--losses", yaml.safe_dump(sized(values["losses"]))]
    # Of full size are: the batch, its plan, and the number of updates.
    options += ["--max_epoch", "2", "--num_iters_per_epoch", "2", "--accum_grad", "1"]
    return [*options, "--expected_batch", "none", "--expected_updates", "none", "--resume", "true"]


@pytest.fixture(scope="module")
def trained(data_directory, labels, deep_teacher, tmp_path_factory):
    """Folder of a training, and its command line, by the method's name; trained once."""
    done = {}

    def run(name):
        if name not in done:
            exp = tmp_path_factory.mktemp(name) / "exp"
            line = command(name, exp, data_directory, labels, deep_teacher)
            distill(line)
            done[name] = (exp, line)
        return done[name]

    return run


@pytest.mark.parametrize("name", [name for name in METHODS if name != "score"])
def test_its_configuration_trains(name, trained):
    """Fails if a key of the file is none, or what it says does not go together."""
    exp, _ = trained(name)
    for section in ("train", "valid"):
        assert np.isfinite(statistics(exp, 2, section, "loss"))


@pytest.mark.parametrize("name", METHODS)
def test_its_schedule_ends_with_its_updates(name):
    """Fails if the last updates are made at the full rate, which ESPnet's schedule goes back to."""
    values = read_layers(FOLDER / f"{name}.yaml")
    updates = values["max_epoch"] * values["num_iters_per_epoch"] // values.get("accum_grad", 1)
    conf = values["scheduler_conf"]
    end = conf.get("first_cycle_steps") or (conf.get("warmup_steps_list") or [None])[-1]
    assert end is None or end == updates + 1
    assert values.get("expected_updates") in (None, updates)


ENCODERS = {"star": "starhubert_robust", "distilhubert": "distilhubert", "fithubert": "fithubert"}
ENCODERS |= {"arm": "armhubert", "fast_hubert": "fasthubert"}


@pytest.mark.parametrize("name", ENCODERS.values(), ids=list(ENCODERS))
def test_its_student_is_used_like_any_other(name, trained):
    """Fails if a student of another shape trains, but is neither loaded nor fed to ASR."""
    exp, _ = trained(name)
    features = espnet_star.load(exp)(torch.randn(16000))
    frontend = StarFrontend(str(exp)).eval()
    states, lengths = frontend(torch.randn(1, 16000), torch.tensor([16000]))
    assert states.shape == features.last.shape and int(lengths) == states.shape[1]


@pytest.mark.parametrize("name", ["armhubert", "dicehubert"])
def test_killed_it_goes_on_to_the_same_weights(name, trained, tmp_path):
    """Fails if heads, or what the view draws, came out otherwise after a resume."""
    exp, line = trained(name)
    again = [str(tmp_path / "exp") if part == str(exp) else part for part in line]
    join(start(again, ("log", "2/2epoch started")), -signal.SIGKILL)
    distill(again)
    assert_same_weights(tmp_path / "exp", exp)
    assert any(key.startswith("objectives.") for key in weights(exp))


def test_score_follows_a_frozen_copy(trained, data_directory, labels, tmp_path):
    """SCORE's teacher is the student as it was before."""
    exp, _ = trained("starhubert_robust")
    distill(command("score", tmp_path / "exp", data_directory, labels, exp))
    assert np.isfinite(statistics(tmp_path / "exp", 2, "train", "loss"))
    config = yaml.safe_load((tmp_path / "exp" / "config.yaml").read_text())
    assert config["teacher_conf"] == {"kind": "student"}
