"""The lines of the template's README for a corpus of one's own, as they stand there."""

import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from espnet_star.bin import star_data
from espnet_star.data.kaldi import read_counts

TOP = Path(__file__).resolve().parents[2]
README = TOP / "egs2" / "TEMPLATE" / "star1" / "README.md"
SECTION = README.read_text().split("## Your own corpus", 1)[1].split("\n## ", 1)[0]
SETUP, *BLOCKS = re.findall(r"^```sh\n(.*?)^```", SECTION, re.M | re.S)
TOOLS = {"star_data": star_data}
CLIPS = 8


@pytest.fixture
def corpora(tmp_path):
    """Eight clips as a folder, as a Kaldi directory and as manifests of lhotse."""
    lhotse = pytest.importorskip("lhotse", reason="pip install espnet_star[recipes]")
    folder = tmp_path / "corpora" / "mine"
    (folder / "deep er").mkdir(parents=True)
    kaldi = tmp_path / "corpora" / "kaldi" / "data" / "train"
    kaldi.mkdir(parents=True)
    paths, random = {}, np.random.default_rng(0)
    for number in range(CLIPS):
        path = folder / ("deep er" if number % 2 else ".") / f"clip {number}.flac"
        soundfile.write(path, 0.1 * random.standard_normal(8000), 8000)
        paths[f"clip{number}"] = path
    (kaldi / "wav.scp").write_text("".join(f"{key} {path}\n" for key, path in paths.items()))
    (kaldi / "utt2spk").write_text("".join(f"{key} {key}\n" for key in paths))
    recordings = [lhotse.Recording.from_file(path, key) for key, path in paths.items()]
    lhotse.RecordingSet.from_recordings(recordings).to_file(tmp_path / "recordings.jsonl.gz")
    segments = [lhotse.SupervisionSegment(f"{r.id}-a", r.id, 0, 1.0) for r in recordings]
    supervisions = lhotse.SupervisionSet.from_segments(segments)
    supervisions.to_file(tmp_path / "supervisions.jsonl.gz")
    return tmp_path


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """The recipe's folder as the README makes it, and a Python that writes down its calls."""
    for name in ("egs2/TEMPLATE", "conf"):
        link = tmp_path / "checkout" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(TOP / name)
    shell(SETUP, tmp_path / "checkout")
    directory = tmp_path / "checkout" / "egs2" / "mine" / "star1"
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    python = bin_folder / "python3"
    python.write_text(
        '#!/bin/sh\nfor word; do printf "%s\\n" "$word"; done >> calls\necho >> calls\n'
    )
    python.chmod(0o755)
    monkeypatch.setenv("PATH", str(bin_folder), prepend=":")
    monkeypatch.chdir(directory)
    return directory


def shell(script, folder):
    done = subprocess.run(
        ["bash", "-euc", script], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def calls(folder):
    """Tools that the script has called, with their arguments."""
    found = [call.split("\n") for call in (folder / "calls").read_text().split("\n\n") if call]
    (folder / "calls").unlink()
    assert all(words[:2] == ["-m", "espnet_star"] for words in found)
    return [words[2:] for words in found]


@pytest.mark.parametrize("block", BLOCKS, ids=["folder", "kaldi", "manifest"])
def test_three_lines_make_data_and_start_a_training(block, corpora, recipe, capsys):
    """Fails if a user who types what the README says gets an error, or other data."""
    lines = block.splitlines()
    assert len(lines) == 3
    words = shlex.split(lines[0].replace("/corpora", f"{corpora}/corpora"))
    assert words[:5] == ["python3", "-m", "espnet_star", "star_data", "import"]
    for place, word in enumerate(words):
        if word.endswith(".jsonl.gz"):
            words[place] = str(corpora / word)
    # Of eight seconds an hour cannot be held out.
    words[words.index("--valid_hours") + 1] = str(1.5 / 3600)
    star_data.main(words[4:])

    shell(lines[1], recipe)
    made = calls(recipe)
    assert [words[1] for words in made] == ["prepare", "check", "check"]
    for tool, *options in made:
        TOOLS[tool].main(options)
    assert capsys.readouterr().out.count("no problem found") == 2
    train, valid = (read_counts(f"dump/raw/{name}/utt2num_samples") for name in ("train", "valid"))
    assert len(train) + len(valid) == CLIPS and 1 <= len(valid) <= 2
    assert {*train.values(), *valid.values()} == {16000}

    shell(lines[2], recipe)
    made = calls(recipe)
    assert made[-1][:2] == ["star_export", "transformers"]
    started = [words for words in made if "star_train" in words]
    assert started
    for words in started:
        assert words[words.index("--train_shape_file") + 1] == "dump/raw/train/utt2num_samples"
        assert Path(words[words.index("--config") + 1]).is_file()
