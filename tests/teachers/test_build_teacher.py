import json
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from small_checkpoints import SMALL, save

from espnet_star.errors import StarError
from espnet_star.teachers import TEACHERS, Teacher, build_teacher


@pytest.fixture
def broken(checkpoint, tmp_path):
    """A copy of a good checkpoint to break."""
    return shutil.copytree(checkpoint("hubert"), tmp_path / "broken")


def edit_config(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refuses(directory, *parts, **conf):
    """One line that names the directory and holds every part."""
    with pytest.raises(ValueError) as caught:
        build_teacher(directory, **conf)
    message = str(caught.value)
    assert isinstance(caught.value, StarError)
    assert "\n" not in message and str(directory) in message
    for part in parts:
        assert part in message


def test_kinds_and_their_model_types():
    kinds = {t: kind for kind, adapter in TEACHERS.items() for t in adapter.model_types}
    assert len(kinds) == sum(len(adapter.model_types) for adapter in TEACHERS.values())
    assert all(issubclass(adapter, Teacher) for adapter in TEACHERS.values())


def test_kind_by_model_type(checkpoint, whisper_directory):
    assert isinstance(build_teacher(str(checkpoint("wavlm"))), TEACHERS["hugging_face"])
    assert isinstance(build_teacher(whisper_directory), TEACHERS["whisper"])
    assert isinstance(build_teacher(whisper_directory, "whisper"), TEACHERS["whisper"])


def test_unknown_names(checkpoint, whisper_directory):
    with pytest.raises(ValueError, match=r"'whispr'. Did you mean 'whisper'\? Known: auto, espn"):
        build_teacher(whisper_directory, "whispr")
    with pytest.raises(ValueError, match=r"'do_normalise'. Did you mean 'do_normalize'\?"):
        build_teacher(checkpoint("hubert"), do_normalise=True)
    with pytest.raises(ValueError, match=r"'bfloat'. Did you mean 'bfloat16'\? Known: bfloat16, "):
        build_teacher(checkpoint("hubert"), dtype="bfloat")


def test_wrong_kind_for_the_checkpoint(whisper_directory):
    refuses(whisper_directory, "'whisper'", "hubert, unispeech", kind="hugging_face")


def test_unknown_model_type(broken):
    edit_config(broken, model_type="bert")
    refuses(broken, "model_type 'bert'", "hubert", "wavlm", "whisper")
    edit_config(broken, model_type="never-heard-of")
    refuses(broken, "model_type 'never-heard-of'", "supported")


def test_no_such_directory(tmp_path):
    refuses(tmp_path / "nothing", "no such directory")


def test_unreachable_hub_name(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refuses("nobody/no-such-teacher", "check the hub name and the network")


def test_no_config(broken):
    (broken / "config.json").unlink()
    refuses(broken, "no config.json", "save_pretrained")


def test_config_that_is_not_json(broken):
    (broken / "config.json").write_text("{")
    refuses(broken, "cannot read config.json")


def test_no_weights(broken):
    (broken / "model.safetensors").unlink()
    refuses(broken, "no weights", "model.safetensors or pytorch_model.bin")


def test_truncated_weights(broken):
    path = broken / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refuses(broken, "cannot load the weights", "again")


def test_missing_weights(broken):
    weights = load_file(broken / "model.safetensors")
    del weights["encoder.layers.1.attention.k_proj.weight"]
    weights.pop("masked_spec_embed")  # this one may be missing
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    refuses(broken, "lacks 1 weights", "encoder.layers.1.attention.k_proj.weight")


def test_weights_of_another_model(broken, whisper_directory):
    shutil.copy(whisper_directory / "model.safetensors", broken / "model.safetensors")
    refuses(broken, "lacks", "...", "do not belong together")


def test_weights_of_another_size(broken):
    edit_config(broken, hidden_size=48)
    refuses(broken, "cannot load the weights", "config.json belongs to it")


def test_pickled_code_is_not_run(broken, tmp_path):
    (broken / "model.safetensors").unlink()
    mark = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return mark.touch, ()

    torch.save({"masked_spec_embed": Payload()}, broken / "pytorch_model.bin")
    refuses(broken, "hold more than tensors", "safetensors")
    assert not mark.exists()


def test_weights_in_a_bin_file(checkpoint, broken):
    weights = load_file(broken / "model.safetensors")
    (broken / "model.safetensors").unlink()
    torch.save(weights, broken / "pytorch_model.bin")
    batch = torch.randn(1, 1000), torch.tensor([1000])
    expected = build_teacher(checkpoint("hubert")).encode(*batch).hidden_states[-1]
    assert torch.equal(build_teacher(broken).encode(*batch).hidden_states[-1], expected)


@pytest.mark.parametrize("family", ["hubert", "whisper"])
def test_sampling_rate(family, broken, whisper_directory, tmp_path):
    directory = broken
    if family == "whisper":
        directory = shutil.copytree(whisper_directory, tmp_path / "whisper")
    (directory / "preprocessor_config.json").write_text('{"sampling_rate": 24000}')
    refuses(directory, "24000 Hz", "16000 Hz")


@pytest.mark.parametrize(
    ("kernels", "strides", "parts"),
    [
        ((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 1), ("100 frames/s (hop 160)", "50 (hop 320)")),
        ((10, 3, 3, 3, 3, 2, 4), (5, 2, 2, 2, 2, 2, 2), ("sees 720 samples", "400")),
    ],
)
def test_frame_rate(kernels, strides, parts, tmp_path):
    config = transformers.HubertConfig(**SMALL, conv_kernel=kernels, conv_stride=strides)
    save(transformers.HubertModel(config), tmp_path)
    refuses(tmp_path, *parts)


@pytest.mark.parametrize("family", ["hubert", "whisper"])
def test_lengths(family, checkpoint, whisper_directory):
    teacher = build_teacher(checkpoint(family) if family == "hubert" else whisper_directory)
    speech = torch.zeros(2, 1000)
    for lengths in ([1000, 399], [1001, 800]):
        with pytest.raises(ValueError, match=r"between 400 \(one frame\) and T = 1000"):
            teacher.encode(speech, torch.tensor(lengths))
    with pytest.raises(ValueError, match=r"\(B, T\)"):
        teacher.encode(speech, torch.tensor([1000]))
