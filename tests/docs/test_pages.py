"""The code that pages show; a bug here gives readers commands that do not work."""

import re
import shlex
import sys
import types
from pathlib import Path

import pytest
import soundfile
import torch
from compared import compare

from espnet_star.bin.star_data.import_ import main as import_corpus
from espnet_star.bin.star_data.prepare import main as prepare
from espnet_star.data.kaldi import read_counts
from espnet_star.encoders import Want
from espnet_star.errors import StarError
from espnet_star.losses import TemporalGramLoss
from espnet_star.outputs import frame_count
from espnet_star.teachers import TEACHERS, build_teacher

DOCS = Path(__file__).resolve().parents[2] / "docs"


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.M | re.S)


class MyEncoder(torch.nn.Module):
    """Frames of 400 samples, and two layers that mix neighbors."""

    def __init__(self, width):
        super().__init__()
        self.front = torch.nn.Conv1d(1, width, 400, stride=320)
        self.first = torch.nn.Conv1d(width, width, 3, padding=1)
        self.second = torch.nn.Conv1d(width, width, 3, padding=1)

    def forward(self, speech):
        x = self.front(speech[:, None])
        y = torch.tanh(self.first(x))
        return [part.transpose(1, 2) for part in (x, y, torch.tanh(self.second(y)))]


def test_the_adapter_of_the_teacher_page_teaches(tmp_path, monkeypatch, batch, tiny_student):
    package = types.ModuleType("my_package")
    package.MyEncoder = MyEncoder
    monkeypatch.setitem(sys.modules, "my_package", package)
    adapter, registration = blocks("teacher.md", "python")
    names = {}
    exec(adapter, names)
    monkeypatch.setitem(TEACHERS, "mine", None)
    exec(registration, {"TEACHERS": TEACHERS, **names})
    path = tmp_path / "encoder.pth"
    torch.save(MyEncoder(12).state_dict(), path)

    teacher = build_teacher(str(path), kind="mine", width=12)
    speech, lengths = batch
    speech = speech[:, : int(lengths.max())]
    targets = teacher.encode(speech, lengths)
    assert torch.equal(targets.lengths, frame_count(lengths))
    alone = teacher.encode(speech[2:3], lengths[2:3]).hidden_states[-1]
    torch.testing.assert_close(targets.hidden_states[-1][2:3, : alone.shape[1]], alone)
    with torch.no_grad():
        outputs = tiny_student.encode(speech, lengths)
    assert float(compare(TemporalGramLoss, outputs, targets)[0]) > 0
    with pytest.raises(StarError, match="has no attention maps"):
        teacher.encode(speech, lengths, Want(attentions=True))


@pytest.fixture
def imported(tmp_path, monkeypatch):
    """Run a command of the page, then prepare the training set: samples of each utterance."""
    monkeypatch.chdir(tmp_path)

    def run(source, without=()):
        (line,) = [block for block in blocks("corpus.md", "sh") if source in block]
        words = shlex.split(line)
        assert words[:5] == ["python", "-m", "espnet_star", "star_data", "import"]
        options = words[5:]
        for name in without:
            place = options.index(name)
            del options[place : place + 2]
        import_corpus([*options, "--force", "true"])
        prepare(["--source", "data/train", "--output_dir", "dump/raw/train", "--nj", "1"])
        return read_counts("dump/raw/train/utt2num_samples")

    return run


def test_a_folder_of_audio_becomes_data(tmp_path, imported):
    for name in ("anna/one two.wav", "anna/three.flac", "bert/three.wav", "bert/notes.txt"):
        path = tmp_path / "audio" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".txt":
            path.write_text("no audio")
        else:
            soundfile.write(path, 0.1 * torch.randn(11025).numpy(), 11025)
    expected = dict.fromkeys(("anna-one_two", "anna-three", "bert-three"), 16000)
    assert imported("--source audio", without=["--valid_hours"]) == expected
    speakers = (tmp_path / "data/train/utt2spk").read_text().splitlines()
    assert speakers == ["anna-one_two anna", "anna-three anna", "bert-three bert"]
    (tmp_path / "kaldi").mkdir()
    (tmp_path / "data" / "train").rename(tmp_path / "kaldi" / "train")
    assert imported("--source kaldi", without=["--valid_hours"]) == expected


def test_a_manifest_becomes_data(tmp_path, imported):
    lhotse = pytest.importorskip("lhotse", reason="pip install espnet_star[recipes]")
    soundfile.write(tmp_path / "talk.flac", 0.1 * torch.randn(48000).numpy(), 24000)
    recording = lhotse.Recording.from_file(tmp_path / "talk.flac")
    supervision = lhotse.SupervisionSegment("anna-1", "talk", 0.5, 1.0, speaker="anna", text="HI")
    lhotse.RecordingSet.from_recordings([recording]).to_file(tmp_path / "recordings.jsonl.gz")
    supervisions = lhotse.SupervisionSet.from_segments([supervision])
    supervisions.to_file(tmp_path / "supervisions.jsonl.gz")
    assert imported("--source recordings") == {"anna-1": 16000}
