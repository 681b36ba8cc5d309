"""A survey by headers agrees with what the preparation then makes of the same directory."""

import numpy as np
import pytest
import soundfile

from espnet_star.data.audio import AudioOptions
from espnet_star.data.errors import DataError
from espnet_star.data.headers import PIPED, survey
from espnet_star.data.kaldi import read_counts, read_table
from espnet_star.data.prepare import PrepareOptions, prepare

CLIPS = {  # seconds, rate, channels, file type
    "direct": (2.0, 16000, 1, "wav"),
    "compressed": (3.0, 16000, 1, "ogg"),
    "stereo": (1.5, 16000, 2, "flac"),
    "slow": (2.5, 8000, 1, "wav"),
    "short": (0.05, 16000, 1, "wav"),
    "endless": (40.0, 16000, 1, "flac"),
}


@pytest.fixture
def corpus(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    rows = []
    for key, (seconds, rate, channels, kind) in CLIPS.items():
        noise = np.random.default_rng(0).normal(0, 0.1, (round(seconds * rate), channels))
        path = source / f"{key}.{kind}"
        soundfile.write(path, noise.clip(-1, 1), rate)
        rows.append(f"{key} {path}\n")
    (source / "broken.wav").write_bytes(b"RIFF and nothing else")
    rows.append(f"broken {source}/broken.wav\n")
    (source / "wav.scp").write_text("".join(sorted(rows)))
    (source / "utt2spk").write_text("".join(f"{row.split()[0]} s\n" for row in sorted(rows)))
    return source


@pytest.mark.parametrize("nj", [1, 2])
def test_what_headers_promise_is_what_the_preparation_keeps(corpus, tmp_path, nj):
    """Fails if the plan counts hours that the training will not see."""
    found = survey(corpus, AudioOptions(), nj=nj)
    prepare(PrepareOptions(str(corpus), str(tmp_path / "made")))
    made = read_counts(tmp_path / "made" / "utt2num_samples")
    assert found.counts.keys() == made.keys()
    for key, samples in made.items():
        assert abs(found.counts[key] - samples) <= 1, key
    reasons = read_table(tmp_path / "made" / "skipped.txt")
    assert {key: text.split(":")[0] for key, text in found.skipped.items()} == {
        key: text.split(":")[0] for key, text in reasons.items()
    }
    written = sum(made[key] for key in ("compressed", "stereo", "slow"))
    assert found.converted == pytest.approx(written, abs=3)


def test_a_subset_is_the_preparations_subset(corpus, tmp_path):
    hours = 5.0 / 3600
    found = survey(corpus, AudioOptions(), max_hours=hours)
    prepare(PrepareOptions(str(corpus), str(tmp_path / "made"), max_hours=hours))
    assert found.counts.keys() == read_counts(tmp_path / "made" / "utt2num_samples").keys()


def test_segments_and_pipes(corpus):
    (corpus / "utt2spk").unlink()
    (corpus / "wav.scp").write_text(f"r {corpus}/direct.wav\np sox a.sph -t wav - |\n")
    (corpus / "segments").write_text("a r 0.5 1.25\nb r 1.0 2.3\nd r 1.0 9.0\nc p 0 1\n")
    found = survey(corpus, AudioOptions())
    assert found.counts == {"a": 12000, "b": 16000}
    assert found.skipped.pop("d").startswith("segment ends after its recording: 7.00 s behind")
    assert found.skipped == {"c": PIPED}
    assert found.converted == 28000


def test_a_wrong_name_of_a_set(tmp_path):
    with pytest.raises(DataError, match=r"wav\.scp"):
        survey(tmp_path / "trian", AudioOptions())
