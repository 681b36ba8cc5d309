"""A bug here publishes a card that the hub cannot read, tells untruths, or has code that fails."""

import contextlib
import io
import re

import pytest
import soundfile
import yaml
from huggingface_hub import ModelCard

from espnet_star.errors import StarError
from espnet_star.formats.model_card import (
    Card,
    StudentFacts,
    check_license,
    is_foreign,
    model_card,
)
from espnet_star.formats.training_facts import TrainingFacts
from espnet_star.losses import TemporalGramLoss
from espnet_star.students import StarEncoder

OPTIONS = {
    "losses": [{"name": "temporal_gram", "weight": 0.5, "conf": {"scope": "batch"}}, {"name": "x"}],
    "optim_conf": {"lr": 0.001},
}


@pytest.fixture
def card(tiny_student):
    """Text of a card with these words, of a student with or without a teacher."""

    def make(student=tiny_student, random_seed=None, **words):
        training = TrainingFacts(
            "org/teacher",
            "org/teacher",
            ("train", "more"),
            1.1,
            1622,
            OPTIONS,
            (TemporalGramLoss.source,),
            (TemporalGramLoss.bibtex,),
        )
        facts = StudentFacts(
            student.config, 4_170_000, training, macs_per_second=4.5e8, random_seed=random_seed
        )
        return model_card(Card("student", **words), facts)

    return make


def test_the_hub_reads_the_header(card):
    data = ModelCard(card(license="apache-2.0")).data.to_dict()
    assert data["license"] == "apache-2.0"
    assert data["base_model"] == "org/teacher"
    assert data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "feature-extraction"
    assert {"hubert", "star", "espnet"} <= set(data["tags"])
    assert "license_name" not in data
    data = ModelCard(card()).data.to_dict()
    assert (data["license"], data["license_name"]) == ("other", "terms-of-teacher-and-data")


def test_facts_stand_in_the_card(card):
    text = card(results="| system | cer (%) |\n| --- | ---: |\n| student | 71.6 |\n")
    for fact in (
        "| Teacher | `org/teacher` |",
        "| Training data | `train`, `more`: 1.1 h, 1622 utterances |",
        "| Objective | `temporal_gram`, weight 0.5 (scope: batch); `x`, weight 1 |",
        "| Parameters | 4.17 M |",
        "| Multiply-accumulates | 0.45 G per second of audio |",
        "3 hidden states of width 16, a frame every 20 ms",
        "## Results\n\n| system | cer (%) |",
        "follow the terms of both",
        "arXiv:2312.09040",
    ):
        assert fact in text
    block = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1]
    assert yaml.safe_load(block) == OPTIONS
    assert "## Results" not in card()
    assert "`apache-2.0`" in card(license="apache-2.0")
    assert "terms of both" not in card(license="apache-2.0")


def test_random_weights_have_no_teacher(card):
    text = card(random_seed=3)
    assert "**random weights** (seed 3)" in text
    assert "org/teacher" not in text
    assert "Objective" not in text


def test_padding_is_told_as_the_front_normalizes(card, tiny_options):
    layer = StarEncoder(**(tiny_options | {"feat_extract_norm": "layer"}))
    assert "group norm over time" in card()
    assert "group norm over time" not in card(layer)
    assert "the same features alone and in a padded batch" in card(layer)


def test_python_in_the_card_runs(card, tiny_student, make_speech, tmp_path, monkeypatch):
    """Fails if a reader's first copy and paste fails."""
    tiny_student.save_pretrained(tmp_path / "student")
    soundfile.write(tmp_path / "first.wav", make_speech(0, 8000), 16000)
    soundfile.write(tmp_path / "second.flac", make_speech(1, 22050), 44100)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", card(), re.DOTALL)
    assert len(blocks) == 3
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for block in blocks:
            if "s3prl" in block:
                try:
                    import s3prl  # noqa: F401
                except ImportError:
                    continue
            exec(block, {})
    lines = printed.getvalue().splitlines()
    assert lines[0] == "torch.Size([2, 24, 16]) tensor([24, 24])"
    assert lines[1] == "3 torch.Size([1, 49, 16])"
    assert lines[2:] in ([], ["3 torch.Size([1, 50, 16]) tensor([50])"])


def test_a_readme_of_somebody_else_is_told_apart(card, tmp_path):
    assert not is_foreign(tmp_path)
    (tmp_path / "README.md").write_text(card())
    assert not is_foreign(tmp_path)
    (tmp_path / "README.md").write_text("# My notes\n")
    assert is_foreign(tmp_path)
    (tmp_path / "README.md").write_bytes(b"\xff\xfe")
    assert is_foreign(tmp_path)


def test_licenses_are_identifiers():
    assert check_license("cc-by-nc-4.0") == "cc-by-nc-4.0"
    for text in ("", "Apache License 2.0", "mit\nlicense: other"):
        with pytest.raises(StarError, match=r"must be an identifier such as apache-2\.0"):
            check_license(text)
