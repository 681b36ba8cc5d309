"""A bug here lets a head train on transcripts that its frames cannot hold, or refuses good ones."""

import pytest
import sentencepiece

from espnet_star.bin import star_data
from espnet_star.data.alignment import check_alignment, joined_frames, tokenizer

BLSTM = "encoder: blstm\nencoder_conf: {stack: 2}\nmodel_conf: {ctc_weight: 1.0}\n"


def config(tmp_path, text):
    path = tmp_path / "head.yaml"
    path.write_text(text)
    return str(path)


def test_frames_are_those_of_the_head():
    """2600 samples are 7 frames, 4 of a stack of two; "AAB" needs a blank between its As."""
    text, samples = {"a": "AAB", "b": "ABAB", "c": "ABABA", "short": "A"}, 2600
    lengths = dict.fromkeys(text, samples) | {"short": 399}
    found = check_alignment(text, lengths, list, joined=2)
    assert found.lost == {"c": (4, 5), "short": (0, 1)}
    assert check_alignment(text, lengths, list, joined=1).lost == {"short": (0, 1)}
    (line,) = found.lines("data")
    assert "2 of 4 utterances at 25 frames/s" in line and "c (4 frames, 5 needed)" in line


@pytest.mark.parametrize(
    ("text", "joined"),
    [
        (BLSTM, 2),
        ("encoder: blstm", 1),
        ("encoder: star\ninput_size: 1", 1),
        ("encoder: conformer", 4),
        ("encoder: e_branchformer\nencoder_conf: {input_layer: conv2d2}", 2),
        ("encoder: transformer\nencoder_conf: {input_layer: null}", 1),
        ("encoder: vgg_rnn", None),
        ("encoder: star\nmodel_conf: {ctc_weight: 0.0}", None),
    ],
)
def test_joined_frames(text, joined, tmp_path):
    assert joined_frames(config(tmp_path, text)) == joined


def test_pieces_are_counted_as_they_are_trained(tmp_path):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["ABAB BABA", "ABBA AB"] * 4),
        model_prefix=str(tmp_path / "bpe"),
        vocab_size=10,
        model_type="bpe",
        minloglevel=2,
    )
    pieces = tokenizer(tmp_path / "bpe.model")("ABAB")
    assert 0 < len(pieces) < 4 and "".join(pieces).replace("\u2581", "") == "ABAB"
    assert list(tokenizer(None)("AB A")) == ["A", "B", " ", "A"]


def run(directory, path, capsys):
    star_data.main(["check", "--data_dir", str(directory), "--need", "text", "--ctc_config", path])
    return capsys.readouterr().out


def test_the_check_names_some_and_refuses_all(data_directory, tmp_path, capsys):
    path = config(tmp_path, BLSTM)
    assert "CTC" not in run(data_directory, path, capsys)
    few = run(data_directory, config(tmp_path, BLSTM.replace("stack: 2", "stack: 10")), capsys)
    assert "CTC cannot align 4 of 8 utterances at 5 frames/s" in few
    assert "s0_0 (1 frames, 2 needed)" in few
    with pytest.raises(SystemExit) as stop:
        run(data_directory, config(tmp_path, BLSTM.replace("stack: 2", "stack: 20")), capsys)
    assert stop.value.code == 2
    line = capsys.readouterr().err.strip()
    assert "CTC cannot align 8 of 8 utterances at 2.5 frames/s" in line
    assert "not known ahead" in run(data_directory, config(tmp_path, "encoder: rnn"), capsys)
