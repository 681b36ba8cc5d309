"""The plan before a distillation: numbers that the training then confirms, and refusals."""

import json
import shutil

import pytest

from espnet_star.bin import star_plan


@pytest.fixture
def options(data_directory, teacher_directory, tiny_options, tmp_path):
    """Command line of a plan for the tiny data, and where its JSON goes."""

    def make(*more, plan=(), train=data_directory, source="nowhere"):
        student = [part for k, v in tiny_options.items() for part in ("--encoder_conf", f"{k}={v}")]
        files = []
        for split in ("train", "valid"):
            path = f"{data_directory}/wav.scp,speech,sound"
            files += [f"--{split}_data_path_and_name_and_type", path]
        return [
            *("--train", source, str(train), "--valid", "nowhere", str(data_directory)),
            *("--nj", "1", "--output", str(tmp_path / "plan.json"), *plan, "--"),
            *("--teacher", str(teacher_directory), "--output_dir", str(tmp_path / "exp")),
            *("--ngpu", "0", "--batch_type", "sorted", "--batch_size", "4", "--max_epoch", "3"),
            *student,
            *files,
            *map(str, more),
        ]

    return make


def test_a_plan_that_can_work(options, tmp_path, capsys):
    star_plan.main(options("--accum_grad", 2))
    printed = capsys.readouterr().out
    content = json.loads((tmp_path / "plan.json").read_text())
    assert content["train"]["utterances"] == 8
    assert content["updates"]["utterances_per_update"] == 8
    assert content["updates"]["updates"] == 3
    assert content["cpu_hours"] > 0
    assert content["problems"] == []
    for text in ("train: 8 utterances, 2 s, of 0.2 to 0.3 s each", "of disk (", "Student: 0.0"):
        assert text in printed
    (needs,) = [line for line in printed.splitlines() if line.startswith("needs: ")]
    assert "of memory a process for the largest batch, 1.2 s of audio" in needs
    assert "on this CPU" in needs
    assert "FLOP" not in printed
    assert len(printed.splitlines()) <= 8
    assert not (tmp_path / "exp").exists()  # nothing is started


def test_memory_of_gpus(options, tmp_path, capsys):
    """Fails if time measured on this CPU is told of a GPU."""
    star_plan.main(options("--ngpu", 2, plan=["--ranks", "2"]))
    content = json.loads((tmp_path / "plan.json").read_text())
    assert content["memory_bytes"] > 0 and "cpu_hours" not in content
    assert "of memory a GPU for the largest batch" in capsys.readouterr().out


def test_clips_longer_than_a_batch(options, tmp_path, capsys):
    """Fails if what ESPnet trains on is refused, or its memory is not that of the longest."""
    given = ["--batch_type", "numel", "--batch_bins", "4000"]
    star_plan.main(options(*given))
    printed = capsys.readouterr().out
    assert "note: train: 3 of 8 utterances are longer than a batch of 0.2 s" in printed
    assert "the longest is s1_7 with 0.3 s" in printed
    whole = json.loads((tmp_path / "plan.json").read_text())
    assert whole["problems"] == []
    assert whole["updates"]["largest_batch_seconds"] >= 4840 / 16000
    # Two processes may each have to take a long one.
    star_plan.main(options(*given, plan=["--ranks", "2"]))
    shared = json.loads((tmp_path / "plan.json").read_text())
    assert shared["updates"]["largest_batch_seconds"] >= 4840 / 16000


def test_shards_are_reckoned_by_their_index(options, shards, tmp_path, capsys):
    """Fails if hours or updates differ from those of the files that shards were made of."""
    files = options("--train_shards", str(shards))
    words = files[3:]  # without --train SOURCE PREPARED
    at = words.index("--train_data_path_and_name_and_type")
    star_plan.main(words[:at] + words[at + 2 :])
    content = json.loads((tmp_path / "plan.json").read_text())
    assert content["train"]["utterances"] == 24
    assert content["updates"]["updates_per_epoch"] >= 6
    assert content["updates"]["utterances_per_update"] <= 4
    assert content["problems"] == []
    assert "24 utterances" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "plan", "message"),
    [
        ([], ["--ranks", "9"], "(train): 8 utterances for 9 processes"),
        ([], ["--ranks", "5"], "4 utterances in a batch of batch_size 4 for 5 processes"),
        (["--valid_batch_size", "2"], ["--ranks", "3"], "(valid): 2 utterances in a batch"),
        (["--expected_batch", "48"], [], "effective batch is 4.0 utterances"),
        (["--accum_grad", "5"], [], "no update is ever made"),
        (["--scheduler", "warmuplr", "--scheduler_conf", "warm=1"], [], "refuses scheduler_conf"),
        (["--teacher", "/no/such"], [], "no such directory"),
    ],
)
def test_what_cannot_work_is_refused(options, capsys, more, plan, message):
    with pytest.raises(SystemExit) as stop:
        star_plan.main(options(*more, plan=plan))
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_wrong_split_name(options, capsys, tmp_path):
    with pytest.raises(SystemExit):
        star_plan.main(options(train=tmp_path / "dump" / "trian", source="data/trian"))
    assert "data/trian: no such directory" in capsys.readouterr().err


def test_no_space(options, capsys, monkeypatch):
    """Fails if a full disk is noticed after days only."""
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr("espnet_star.training.plan.shutil.disk_usage", lambda path: usage)
    with pytest.raises(SystemExit):
        star_plan.main(options())
    assert "are free; free some" in capsys.readouterr().err


def test_data_that_is_not_prepared_is_measured_by_its_headers(options, data_directory, tmp_path):
    """Fails if a check needs the hours of conversion that it is meant to come before."""
    star_plan.main(options(train=tmp_path / "dump" / "raw", source=str(data_directory)))
    content = json.loads((tmp_path / "plan.json").read_text())
    assert content["train"]["utterances"] == 8
    limits = ["--max_duration", "30", "raw=0.25"]
    star_plan.main(options(train=tmp_path / "raw", source=str(data_directory), plan=limits))
    content = json.loads((tmp_path / "plan.json").read_text())
    assert 0 < content["train"]["utterances"] < content["valid"]["utterances"] == 8
