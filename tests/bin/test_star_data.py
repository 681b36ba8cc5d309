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


def test_each_set_has_its_limits(source, tmp_path, capsys):
    """Fails if a limit for one set holds for another, or for none."""
    other = source.parent / "test"
    other.mkdir()
    (other / "wav.scp").write_text(f"c {source / 'a.wav'}\n")
    data = [
        "prepare",
        "--source",
        str(source.parent),
        "--output_dir",
        str(tmp_path / "raw"),
        "--nj",
        "1",
    ]
    sets = ["--sets", "train", "test", "train"]
    star_data.main([*data, "--max_duration", "9", "test=1.5", *sets])
    assert capsys.readouterr().out.count("1 utterance, 1 s") == 2
    with pytest.raises(SystemExit) as stop:
        star_data.main([*data, "--max_duration", "9", "test=0.5", *sets])
    assert stop.value.code == 2
    assert "no utterance is left of 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max_hours", "tset=1"], "limits for tset, but"),
        (["--whole", "train"], "1 utterances of"),
        (["--max_hours", "train=much"], "expected NUMBER, or SET=NUMBER for one set"),
    ],
)
def test_limits_that_cannot_hold(source, tmp_path, capsys, options, message):
    """Fails if a misspelled set is taken whole, or a benchmark's test set shrinks in silence."""
    data = [
        "prepare",
        "--source",
        str(source.parent),
        "--output_dir",
        str(tmp_path / "raw"),
        "--nj",
        "1",
    ]
    with pytest.raises(SystemExit) as stop:
        star_data.main([*data, *options, "--sets", "train"])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
