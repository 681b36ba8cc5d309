"""A script that uses the plugin as ESPnet's scripts do: ``--python "python3 -m espnet_star"``.

A bug here breaks a stage of asr.sh, or shifts its scores in silence.
"""

import io
import os
import subprocess
import sys
import zipfile
from contextlib import redirect_stdout
from pathlib import Path

import yaml
from espnet2.bin import tokenize_text

from espnet_star.bin import star_export

SCRIPT = Path(__file__).parent / "scripts" / "asr_stages.sh"


def stock_words(text, out):
    """What ESPnet's tokenize_text makes of a text, a line an utterance."""
    options = ["-f", "2-", "--token_type", "word", "--remove_non_linguistic_symbols", "true"]
    tokenize_text.main([*options, "--input", str(text), "--output", str(out)])
    return out.read_text().splitlines()


def test_the_stages_of_asr_sh(data_directory, tiny_student, tmp_path, monkeypatch):
    student, out = tmp_path / "student", tmp_path / "out"
    tiny_student.save_pretrained(student)
    python = f"{sys.executable} -m espnet_star"
    done = subprocess.run(
        ["bash", SCRIPT, python, data_directory, student, out],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    log = out / "exp" / "train.log"
    assert done.returncode == 0, done.stderr[-3000:] + (log.read_text() if log.exists() else "")

    assert (out / "stdin").read_text() == "from stdin\n"
    assert (out / "code").read_text() == "code\n"
    assert (out / "file").read_text() == "file\n3\n"
    first, second, *letters, last = (out / "tokens").read_text().split()
    assert (first, second, {*letters}, last) == ("<blank>", "<unk>", {"A", "B"}, "<sos/eos>")
    assert (out / "stats" / "train" / "feats_stats.npz").is_file()

    # Scores: the lines of stock ESPnet, each beside its own utterance.
    speakers = (data_directory / "utt2spk").read_text().splitlines()
    names = ["({1}-{0})".format(*line.split()) for line in speakers]
    for side, text in (
        ("ref", data_directory / "text"),
        ("hyp", out / "decoded" / "1best_recog" / "text"),
    ):
        words = stock_words(text, tmp_path / side)
        expected = [f"{word}\t{name}" for word, name in zip(words, names, strict=True)]
        assert (out / "score" / f"{side}.trn").read_text().splitlines() == expected

    # The log has its epochs, names a command that a shell takes, and no file of ours.
    assert "1epoch results" in log.read_text()
    command = log.read_text().splitlines()
    pasted = next(line for line in command if "asr_train" in line and not line.startswith("#"))
    assert "espnet_tool" not in pasted
    assert "'" not in pasted.partition(" --")[0]
    shown = subprocess.run(
        f"{pasted.partition(' --')[0]} --help", shell=True, capture_output=True, text=True
    )
    assert "--frontend {" in shown.stdout, shown.stderr

    # The pack tells whom it needs; ours takes the model that asr.sh decodes with.
    assert (out / "packed").read_text().endswith("Generate: asr.zip\n")
    with zipfile.ZipFile(out / "asr.zip") as pack:
        config = yaml.safe_load(pack.read("exp/config.yaml"))
    assert "pip install espnet_star" in config["espnet_star"]
    monkeypatch.chdir(out)
    with redirect_stdout(io.StringIO()) as said:
        star_export.main(["pack", "asr", "--expdir", "exp", "--output", str(tmp_path / "ours.zip")])
    assert "model: exp/valid.acc.ave.pth" in said.getvalue()
    with zipfile.ZipFile(tmp_path / "ours.zip") as pack:
        assert "exp/exp/valid.acc.ave.pth" in pack.namelist()
