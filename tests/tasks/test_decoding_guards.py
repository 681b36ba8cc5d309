"""Decoding goes on over what one utterance cannot give, and says in one line what stops it."""

import importlib
from pathlib import Path

import pytest
import soundfile
import torch
from downstream_runs import asr_options, cls_options, inference
from espnet_tools import asr_inference, asr_train, cls_inference, cls_train
from star_runs import pairs

from espnet_star.bin import star_lm_decode
from espnet_star.data.kaldi import read_table


@pytest.fixture(scope="module")
def star(tiny_options, tmp_path_factory):
    """Options of a student as frontend."""
    from espnet_star.students import StarEncoder

    directory = tmp_path_factory.mktemp("student") / "student"
    StarEncoder(**tiny_options).save_pretrained(directory)
    return ["--frontend", "star", "--frontend_conf", f"upstream={directory}"]


@pytest.fixture(scope="module")
def asr(data_directory, star, tmp_path_factory):
    """A CTC model."""
    exp = tmp_path_factory.mktemp("asr")
    encoder = ["--encoder", "rnn", *pairs("--encoder_conf", ["hidden_size=8", "num_layers=1"])]
    asr_train.main([*asr_options(data_directory, exp), *star, *encoder])
    return exp


@pytest.fixture
def clips(tmp_path, make_speech):
    """Three utterances, the second without a frame; written to ``clips/wav.scp``."""
    folder = tmp_path / "clips"
    folder.mkdir()
    lines = []
    for key, samples in (("a", 4000), ("b", 399), ("c", 4000)):
        soundfile.write(folder / f"{key}.wav", make_speech(1, samples), 16000)
        lines.append(f"{key} {folder}/{key}.wav\n")
    (folder / "wav.scp").write_text("".join(lines))
    return folder


def asr_command(exp, clips, out, *extra):
    options = inference(clips, out, "--beam_size", "2", "--ctc_weight", "1.0")
    options += ["--asr_train_config", str(exp / "config.yaml")]
    return [*options, "--asr_model_file", str(exp / "1epoch.pth"), *map(str, extra)]


def refused(tool, options, capsys):
    with pytest.raises(SystemExit) as stop:
        tool.main(options)
    told = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2
    return told[-1]


def test_a_clip_without_a_frame_is_an_empty_hypothesis(asr, clips, tmp_path, caplog):
    """Fails if one clip of 25 ms costs the whole decoding."""
    asr_inference.main(asr_command(asr, clips, tmp_path / "out"))
    text = read_table(tmp_path / "out" / "1best_recog" / "text", allow_empty=True)
    assert list(text) == ["a", "b", "c"] and text["b"] == ""
    assert "Utterance ['b'] student: lengths must lie between 400 (one frame)" in caplog.text


def test_likewise_through_the_lexicon(asr, clips, tmp_path, caplog):
    """Fails if the batch of the short one is lost, or decoded otherwise than without it."""
    options = ["--asr_train_config", str(asr / "config.yaml"), "--num_workers", "0"]
    options += ["--asr_model_file", str(asr / "1epoch.pth"), "--output_dir", str(tmp_path / "out")]
    star_lm_decode.main(
        [*options, "--data_path_and_name_and_type", f"{clips}/wav.scp,speech,sound"]
    )
    tokens = read_table(tmp_path / "out" / "1best_recog" / "token_int", allow_empty=True)
    assert list(tokens) == ["a", "b", "c"] and tokens["b"] == ""
    assert "b gets an empty hypothesis" in caplog.text


def test_a_class_of_what_is_long_enough(data_directory, star, clips, tmp_path):
    exp = tmp_path / "cls"
    encoder = ["--encoder", "linear", *pairs("--encoder_conf", ["output_size=8"])]
    cls_train.main([*cls_options(data_directory, exp), *star, *encoder])
    options = inference(clips, tmp_path / "out")
    options += ["--classification_train_config", str(exp / "config.yaml")]
    cls_inference.main([*options, "--classification_model_file", str(exp / "1epoch.pth")])
    text = read_table(tmp_path / "out" / "prediction" / "text", allow_empty=True)
    assert text["b"] == "" and text["a"] in ("s0", "s1")


def test_what_stops_a_decoding_is_one_line(asr, clips, tmp_path, capsys):
    """Fails if the utterance or option at fault has to be looked for in a traceback."""
    out = tmp_path / "out"
    told = refused(asr_inference, asr_command(asr, clips, out, "--ngpu", 1), capsys)
    assert "no GPU here; give --ngpu 0" in told
    told = refused(asr_inference, asr_command(asr, clips, clips / "wav.scp"), capsys)
    assert "is a file, expected a folder" in told
    told = refused(asr_inference, [*asr_command(asr, clips, out), "--asr_model_file", "x"], capsys)
    assert told == "asr_inference: error: --asr_model_file x: no such file; has the training ended?"
    samples, _ = soundfile.read(clips / "a.wav")
    soundfile.write(clips / "a.wav", samples, 8000)
    told = refused(asr_inference, asr_command(asr, clips, out), capsys)
    assert "a.wav) has 8000 Hz, frontend star works at 16000 Hz" in told
    (clips / "a.wav").unlink()
    told = refused(asr_inference, asr_command(asr, clips, out), capsys)
    assert "a.wav): no such file" in told


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_turns_out_unreadable(asr, clips, tmp_path, capsys, workers):
    """Fails if a worker's traceback, without the utterance, is what is left of it."""
    broken = clips / "broken.wav"
    broken.write_text("no audio")
    lines = [f"{n} {clips}/a.wav\n" for n in range(9)]
    lines[1] = f"1 {broken}\n"
    (clips / "wav.scp").write_text("".join(lines))
    made = asr_command(asr, clips, tmp_path / "out", "--num_workers", workers)
    told = refused(asr_inference, made, capsys)
    assert told.startswith(f"asr_inference: error: {clips}/wav.scp: 1 ({broken}) cannot be read")


def test_archives_of_integers_are_not_decoded_as_floats(asr, clips, tmp_path, capsys):
    """Fails if samples of 32768 times their size are decoded in silence."""
    content = (clips / "a.wav").read_bytes()
    (clips / "all.ark").write_bytes(b"a " + content)
    (clips / "wav.scp").write_text(f"a {clips}/all.ark:2\n")
    made = asr_command(asr, clips, tmp_path / "out")
    made[made.index(f"{clips}/wav.scp,speech,sound")] = f"{clips}/wav.scp,speech,kaldi_ark"
    assert "archives of integer samples" in refused(asr_inference, made, capsys)


def test_archives_train_as_the_files_they_hold(command, data_directory, tmp_path):
    """Fails if integer samples of Kaldi's archives reach a student as they are, or not at all."""
    from star_runs import assert_same_weights, distill

    table = read_table(data_directory / "wav.scp")
    (tmp_path / "data").mkdir()
    entries = []
    with (tmp_path / "all.ark").open("wb") as archive:
        for key, path in table.items():
            archive.write(f"{key} ".encode())
            entries.append(f"{key} {tmp_path}/all.ark:{archive.tell()}\n")
            archive.write(Path(path).read_bytes())
    (tmp_path / "data" / "wav.scp").write_text("".join(entries))
    lengths = (data_directory / "utt2num_samples").read_text()
    (tmp_path / "data" / "utt2num_samples").write_text(lengths)
    made = command(tmp_path / "ark", "--max_epoch", 1, data=tmp_path / "data")
    distill([part.replace("speech,sound", "speech,kaldi_ark") for part in made])
    distill(command(tmp_path / "wav", "--max_epoch", 1))
    assert_same_weights(tmp_path / "ark", tmp_path / "wav")


@pytest.mark.parametrize("module", ["asr.encoder.linear_encoder", "asr_transducer.utils"])
def test_every_decoder_of_espnet_knows_the_error(tiny_options, module):
    """Fails if the transducer's decoder, with an error of its own, does not go on."""
    from espnet_star.students import StarEncoder

    known = importlib.import_module(f"espnet2.{module}").TooShortUttError
    with pytest.raises(known, match="399 samples"):
        StarEncoder(**tiny_options)(torch.zeros(1, 399), torch.tensor([399]))
