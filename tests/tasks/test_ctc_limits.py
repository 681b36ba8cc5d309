"""Trainings of ESPnet's ASR task whose transcripts are longer than their audio."""

import shutil

import pytest
from downstream_runs import asr_options
from espnet_tools import asr_train
from star_runs import pairs

HEAD = ["--encoder", "blstm", *pairs("--encoder_conf", ["hidden_size=8", "num_layers=1"])]


@pytest.fixture
def student(tiny_student, tmp_path):
    tiny_student.save_pretrained(tmp_path / "student")
    return tmp_path / "student"


@pytest.fixture(params=["frontend", "encoder"])
def head(request, student):
    """The student frozen below a head, and fine-tuned as the encoder itself."""
    if request.param == "frontend":
        return ["--frontend", "star", "--frontend_conf", f"upstream={student}", *HEAD]
    raw = ["--input_size", "1", "--normalize", "null", "--encoder", "star"]
    return [*raw, "--encoder_conf", f"upstream={student}"]


@pytest.fixture
def saying(data_directory, tmp_path):
    """A function: the data with other transcripts."""

    def change(**words):
        data = shutil.copytree(data_directory, tmp_path / "data")
        rows = [line.split() for line in (data / "text").read_text().splitlines()]
        text = "".join(f"{key} {words.get(key, words.get('all', word))}\n" for key, word in rows)
        (data / "text").write_text(text)
        return data

    return change


def test_one_utterance_is_named(saying, head, tmp_path, caplog):
    """Seven frames; five symbols, all the same, need nine."""
    caplog.set_level("WARNING")
    asr_train.main([*asr_options(saying(s0_0="AAAAA"), tmp_path / "exp"), *head])
    assert "CTC cannot align 1 of 8 utterances of training" in caplog.text
    assert "s0_0 (7 frames, 9 needed)" in caplog.text
    assert (tmp_path / "exp" / "valid.loss.best.pth").exists()


def test_a_set_that_cannot_be_learned_is_refused(saying, head, tmp_path, capsys):
    """It would end with loss 0 and the weights as they were, exit 0."""
    data = saying(all="AB" * 15)
    with pytest.raises(SystemExit) as stop:
        asr_train.main([*asr_options(data, tmp_path / "exp"), *head])
    assert stop.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("asr_train: error: CTC can align none of the utterances")
    assert not (tmp_path / "exp" / "1epoch.pth").exists()
