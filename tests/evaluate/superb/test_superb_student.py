"""The student that SUPERB gets; a bug here measures another model than the one named."""

import json

import pytest

from espnet_star.errors import StarError
from espnet_star.evaluate.superb.student import read_upstream


def test_an_exported_student(student_dir, tiny_student):
    upstream = read_upstream(student_dir)
    assert upstream.name == "student" and upstream.layers == 3
    assert upstream.params == sum(p.numel() for p in tiny_student.parameters())
    assert read_upstream(student_dir, "mine").name == "mine"
    tiny_student.save_pretrained(student_dir.parent / "copy")
    copy = read_upstream(student_dir.parent / "copy")
    assert copy.digest == upstream.digest
    next(tiny_student.parameters()).data.add_(1)
    tiny_student.save_pretrained(student_dir.parent / "copy")
    assert read_upstream(student_dir.parent / "copy").digest != upstream.digest


def test_what_is_no_student(student_dir, tmp_path):
    with pytest.raises(StarError, match="no such directory"):
        read_upstream(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StarError, match=r"has no config\.json"):
        read_upstream(tmp_path / "empty")
    (student_dir / "preprocessor_config.json").unlink()
    # s3prl would then fetch HuBERT Base's, which normalizes the waveform.
    with pytest.raises(StarError, match=r"has no preprocessor_config\.json"):
        read_upstream(student_dir)
    (student_dir / "model.safetensors").unlink()
    with pytest.raises(StarError, match="holds no weights"):
        read_upstream(student_dir)
    config = student_dir / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "wavlm"}))
    with pytest.raises(StarError, match=r"model_type must be hubert.*found 'wavlm'"):
        read_upstream(student_dir)
    config.write_text(json.dumps({"star_student": "fithubert", "options": {}}))
    with pytest.raises(StarError, match=r"'fithubert', which s3prl's .*--frontend star"):
        read_upstream(student_dir)
