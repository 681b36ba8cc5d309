"""What a name stands for."""

import pytest
import transformers
import yaml

from espnet_star import catalog
from espnet_star.errors import StarError


def test_every_kind_is_found_by_what_is_there(tiny_student, teacher_directory, tmp_path):
    """Fails if a tool would take a student for a teacher, or the other way round."""
    tiny_student.save_pretrained(tmp_path / "student")
    (tmp_path / "exp").mkdir()
    config = {"encoder": "star", "encoder_conf": tiny_student.options(), "losses": []}
    (tmp_path / "exp" / "config.yaml").write_text(yaml.safe_dump(config))
    for name, kind in (
        (tmp_path / "student", "student"),
        (tmp_path / "exp", "student"),
        (tmp_path / "model.int8.onnx", "onnx"),
        (teacher_directory, "hugging_face"),
        ("s3prl:hubert", "s3prl"),
    ):
        assert catalog.kind_of(str(name)) == kind
    assert catalog.load(str(tmp_path / "student")).trainable
    assert not catalog.load(str(tmp_path / "student"), "hugging_face").trainable


def test_what_nothing_reads_is_named(tmp_path):
    transformers.BertConfig().save_pretrained(tmp_path)
    with pytest.raises(StarError, match=r"has model_type 'bert' .*, supported: data2vec-audio"):
        catalog.kind_of(str(tmp_path))
    with pytest.raises(StarError, match=r"unknown kind of upstream 'studnet'\. Did you mean 'stud"):
        catalog.load(str(tmp_path), "studnet")
