"""Tables of pairs; a bug here validates on other pairs than the list's, or not at all."""

import pytest

from espnet_star.bin import star_data
from espnet_star.data.errors import DataError
from espnet_star.data.trials import read_trials, write_pairs


@pytest.fixture
def data(tmp_path):
    for name, value in (("wav.scp", "/{}.wav"), ("utt2num_samples", "{}00")):
        lines = [f"u{i} {value.format(i)}\n" for i in range(1, 4)]
        (tmp_path / name).write_text("".join(lines))
    return tmp_path


def write(data, *lines):
    (data / "trials").write_text("\n".join(lines) + "\n")
    return data / "trials"


def test_tables_of_every_pair(data, capsys):
    """Fails if sides are swapped, or a repeated pair is a repeated key, which ESPnet refuses."""
    path = write(data, "1 u2 u1", "0 u3 u1", "1 u2 u1")
    star_data.main(["trials", "--trials", str(path), "--data_dir", str(data)])
    assert (data / "trial.scp").read_text() == "u2*u1 /2.wav\nu3*u1 /3.wav\n"
    assert (data / "trial2.scp").read_text() == "u2*u1 /1.wav\nu3*u1 /1.wav\n"
    assert (data / "trial_label").read_text() == "u2*u1 1\nu3*u1 0\n"
    assert (data / "trial_shape").read_text() == "u2*u1 200\nu3*u1 300\n"
    assert "3 trials, 2 of one speaker and 1 of two" in capsys.readouterr().out


def test_check_writes_nothing(data):
    path = write(data, "1 u2 u1", "0 u3 u1")
    star_data.main(["trials", "--trials", str(path), "--data_dir", str(data), "--dry_run", "true"])
    assert not (data / "trial.scp").exists()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["1 u1 u2", "0 u1 u9"], "1 of 2 trials name 1 utterances that .* lacks: u9"),
        (["1 u1 u2", "0 u1 u2"], "u1 u2 is labeled 0 and 1"),
        (["1 u1 u2", "0 u1*a u2"], r"lacks: u1\*a"),
    ],
)
def test_pairs_that_cannot_be_used(data, lines, message):
    with pytest.raises(DataError, match=message):
        write_pairs(read_trials(write(data, *lines)), data, "trials")


def test_names_that_espnet_takes_apart(data):
    """Fails if a name with a star would be read as a pair, hours later."""
    for name, value in (("wav.scp", "/x.wav"), ("utt2num_samples", "5")):
        (data / name).write_text((data / name).read_text() + f"v*w {value}\n")
    with pytest.raises(DataError, match="may not hold"):
        write_pairs(read_trials(write(data, "1 u1 v*w", "0 u1 u2")), data, "trials")


def test_absent_utterances_stop_the_command(data, capsys):
    """Fails if an absent file of the official trials is found after the training."""
    path = write(data, "1 u2 u1", "0 u3 gone")
    with pytest.raises(SystemExit) as stop:
        star_data.main(
            ["trials", "--trials", str(path), "--data_dir", str(data), "--dry_run", "true"]
        )
    assert stop.value.code == 2
    assert "lacks: gone; skipped.txt there tells" in capsys.readouterr().err
