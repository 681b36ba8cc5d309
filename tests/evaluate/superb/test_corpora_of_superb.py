"""Checks of corpora; a bug here starts days of training on half a corpus, or refuses a whole."""

import shutil
from pathlib import Path

import pytest

from espnet_star.evaluate.superb.corpora import CORPORA
from espnet_star.evaluate.superb.tasks import TASKS


def test_every_corpus_of_a_task_is_known():
    assert {name for task in TASKS.values() for name in task.data.values()} == set(CORPORA)
    for corpus in CORPORA.values():
        assert "://" in corpus.source and corpus.layout()


@pytest.mark.parametrize("name", CORPORA)
def test_a_corpus_in_its_own_layout_is_in_order(name, superb_world):
    assert CORPORA[name].problem(superb_world[2][name], counts=False) is None


@pytest.mark.parametrize("name", CORPORA)
def test_an_empty_folder_is_none(name, tmp_path):
    corpus = CORPORA[name]
    problem = corpus.problem(tmp_path, counts=False)
    assert problem == (f"{tmp_path} has 0 of {corpus.contents[0].pattern}, expected at least one")
    assert "is no directory" in corpus.problem(tmp_path / "none", counts=False)


@pytest.mark.parametrize(
    ("name", "lost", "message"),
    [
        ("librispeech", "dev-clean", "has 0 of dev-clean/*/*/*.flac"),
        ("voxceleb1", "test", "has 0 of test/wav/id*"),
        ("speech_commands", "_background_noise_", "has 0 of _background_noise_/*.wav"),
        ("snips", "valid", "has 0 of valid/**/*.wav"),
        ("iemocap", "Session4/dialog", "has 0 of Session4/dialog/EmoEvaluation/*.txt"),
        ("fluent_speech_commands", "wavs", "lacks 3 listed files: "),
        ("librimix", "dev/segments", "has 0 of dev/segments"),
    ],
)
def test_half_a_corpus_is_told_apart(name, lost, message, superb_world, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(superb_world[2][name], root)
    path = root / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert message in CORPORA[name].problem(root, counts=False)


def test_listed_recordings_must_exist(superb_world, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(superb_world[2]["librimix"], root)
    (root / "test" / "wav.scp").write_text("r sox a.wav |\n")
    assert "lacks 1 listed files: r sox a.wav |" in CORPORA["librimix"].problem(root, False)
    (root / "test" / "wav.scp").write_bytes(b"r \xff\n")
    assert "a list of files cannot be read" in CORPORA["librimix"].problem(root, False)


def test_the_whole_corpus_is_counted(superb_world):
    """Fails if an interrupted download of LibriSpeech passes for the corpus."""
    root = superb_world[2]["librispeech"]
    problem = CORPORA["librispeech"].problem(root, counts=True)
    assert problem == f"{root} has 1 of train-clean-100/*/*/*.flac, expected 28539"
    assert "has 2 of dev/wav/id*, expected 1211" in CORPORA["voxceleb1"].problem(
        Path(superb_world[2]["voxceleb1"]), counts=True
    )
