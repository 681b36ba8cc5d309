import pickle

import pytest
import torch
from authors_students import random_student, write_files

from espnet_star.errors import StarError
from espnet_star.formats.fairseq.authors import import_student, read_architecture


class Payload:
    def __reduce__(self):
        return (exec, ("open('ran', 'w')",))


def test_code_in_a_checkpoint_is_not_run(tmp_path, monkeypatch):
    """Fails if a downloaded checkpoint could run something."""
    monkeypatch.chdir(tmp_path)
    block, state = random_student()
    checkpoint, architecture = write_files(tmp_path, block, state)
    torch.save({"state_dict": state, "callbacks": Payload()}, checkpoint)
    with pytest.raises(StarError, match=r"not a checkpoint of tensors and plain .*exec"):
        import_student(checkpoint, architecture)
    checkpoint.write_bytes(pickle.dumps(Payload(), protocol=2))
    with pytest.raises(StarError, match=r"last\.ckpt: not a "):
        import_student(checkpoint, architecture)
    assert not (tmp_path / "ran").exists()


def test_code_in_a_yaml_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint, architecture = write_files(tmp_path, *random_student())
    architecture.write_text("distiller: !!python/object/apply:builtins.open ['ran', 'w']\n")
    with pytest.raises(StarError, match=r"released\.yaml is not plain YAML"):
        import_student(checkpoint, architecture)
    assert not (tmp_path / "ran").exists()


def test_the_state_dict_alone_is_read_as_the_error_advises(tmp_path):
    block, state = random_student()
    checkpoint, architecture = write_files(tmp_path, block, state)
    torch.save(torch.load(checkpoint, weights_only=True)["state_dict"], checkpoint)
    import_student(checkpoint, architecture)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a complete checkpoint"),
        (b"<html>404</html>", "not a"),
        ({"state_dict": [1]}, "holds no state_dict of named tensors"),
        ([1], "holds no state_dict of named tensors"),
        ({"state_dict": {"model.w": torch.ones(1)}}, "starts with 'student_model.', found model.*"),
        (None, "no such file"),
    ],
)
def test_files_that_are_no_checkpoint(content, message, tmp_path):
    checkpoint, architecture = write_files(tmp_path, *random_student())
    if isinstance(content, bytes):
        checkpoint.write_bytes(content)
    elif content is None:
        checkpoint.unlink()
    else:
        torch.save(content, checkpoint)
    with pytest.raises(StarError) as error:
        import_student(checkpoint, architecture)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("keep", [0.5, 0.99])
def test_a_truncated_checkpoint(keep, tmp_path):
    checkpoint, architecture = write_files(tmp_path, *random_student())
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(StarError, match=r"last\.ckpt: not a complete checkpoint"):
        import_student(checkpoint, architecture)


@pytest.mark.parametrize("text", ["", "a: 1", "[1]", "distiller: 3", "distiller"])
def test_a_yaml_without_an_architecture(text, tmp_path):
    path = tmp_path / "released.yaml"
    path.write_text(text)
    with pytest.raises(StarError, match=r"has no block 'distiller'|expected keys and values"):
        read_architecture(path)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00", None])
def test_a_yaml_that_cannot_be_read(content, tmp_path):
    path = tmp_path / "released.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StarError, match=r"released\.yaml(: cannot be read| is not plain YAML)"):
        read_architecture(path)
