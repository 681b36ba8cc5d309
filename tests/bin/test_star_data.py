import numpy as np
import pytest
import soundfile

from espnet_star.bin import star_data


@pytest.fixture
def source(tmp_path):
    directory = tmp_path / "data" / "train"
    directory.mkdir(parents=True)
    noise = np.random.default_rng(0).normal(0, 0.1, 8000)
    soundfile.write(directory / "a.wav", noise, 8000)
    (directory / "b.wav").write_text("")
    (directory / "wav.scp").write_text(f"a {directory / 'a.wav'}\nb {directory / 'b.wav'}\n")
    (directory / "utt2spk").write_text("a s1\nb s1\n")
    (directory / "text").write_text("a HELLO\nb HELLO\n")
    return directory


def test_prepare_then_check(source, tmp_path, capsys):
    dump = tmp_path / "dump"
    star_data.main(
        ["prepare", "--source", str(source), "--output_dir", str(dump), "--channel_seed", "1"]
    )
    out = capsys.readouterr().out
    assert out == f"{dump}: 1 utterance, 1 s; left out: 1 empty file (b), see {dump}/skipped.txt\n"
    star_data.main(
        ["prepare", "--source", str(source), "--output_dir", str(dump), "--channel_seed", "1"]
    )
    assert "up to date" in capsys.readouterr().out
    star_data.main(
        ["check", "--data_dir", str(dump), "--need", "text", "utt2spk", "--full", "true"]
    )
    out = capsys.readouterr().out
    assert "1 utterance, 1 s, 1 speaker; 1 audio file decoded" in out
    assert "1 to   2 s        1 ####" in out
    star_data.main(["check", "--data_dir", str(dump), "--histogram", "false"])
    assert capsys.readouterr().out.count("\n") == 1


def test_errors_are_one_line_and_exit_2(source, tmp_path, capsys):
    (source / "utt2spk").write_text("a s1\n")
    with pytest.raises(SystemExit) as stop:
        star_data.main(["prepare", "--source", str(source), "--output_dir", str(tmp_path / "dump")])
    captured = capsys.readouterr()
    assert stop.value.code == 2
    assert captured.err.startswith("star_data prepare: error: ")
    assert captured.err.count("\n") == 1
    with pytest.raises(SystemExit) as stop:
        star_data.main(["check", "--data_dir", str(source)])
    assert stop.value.code == 2
    assert "star_data check: error: " in capsys.readouterr().err


def test_booleans_are_checked(capsys):
    with pytest.raises(SystemExit):
        star_data.main(["prepare", "--source", "a", "--output_dir", "b", "--force", "perhaps"])
    assert "expected true or false, got 'perhaps'" in capsys.readouterr().err
