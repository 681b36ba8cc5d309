"""A bug here stops at a checkpoint that was written where flash attention is installed."""

import json
import shutil

import pytest
import torch
import transformers
from small_checkpoints import FAMILIES, SMALL, WHISPER, save, shake

from espnet_star.errors import StarError
from espnet_star.evaluate.cost.subjects import find_subject, run
from espnet_star.students import StarEncoder
from espnet_star.teachers import build_teacher

SPEECH = torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A checkpoint of each kind of attention: with SDPA, without it, with masks of our own."""
    root = tmp_path_factory.mktemp("kernels")
    for family in ("hubert", "wavlm"):
        prefix, options = FAMILIES[family]
        config = getattr(transformers, f"{prefix}Config")(**SMALL, **options)
        model = shake(getattr(transformers, f"{prefix}Model")(config))
        save(model, root / family, do_normalize=False)
    model = shake(transformers.WhisperModel(transformers.WhisperConfig(**WHISPER)))
    save(model.encoder, root / "whisper")
    return root


@pytest.fixture
def asking(written, tmp_path):
    """A function: a copy whose ``config.json`` asks for more."""

    def change(family, **keys):
        directory = shutil.copytree(written / family, tmp_path / family, dirs_exist_ok=True)
        path = directory / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | keys))
        return str(directory)

    return change


def states(name):
    return build_teacher(name).encode(SPEECH, torch.tensor([4000])).hidden_states


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
@pytest.mark.parametrize("family", ["hubert", "wavlm", "whisper"])
def test_a_kernel_that_is_not_here_gives_way_to_torchs(family, key, written, asking, caplog):
    """Every kind of teacher and what measures it; WavLM lacks SDPA, which old files ask for."""
    expected = states(str(written / family))
    for kernel in ("flash_attention_2", "kernels-community/flash-attn", "flex_attention", "sdpa"):
        caplog.clear()
        name = asking(family, **{key: kernel}, output_attentions=True)
        assert torch.equal(states(name)[-1], expected[-1])
        said = [r.message for r in caplog.records if "attention kernel" in r.message]
        assert len(said) == (kernel != "sdpa")
        assert all(name in line and kernel in line for line in said)
        with torch.no_grad():
            for model in (find_subject(name).build(), find_subject(name).at_work()):
                assert run(model, SPEECH).shape == expected[-1].shape


def test_eager_attention_is_kept(asking):
    """Fails if a wish that can be met were overruled."""
    teacher = build_teacher(asking("hubert", attn_implementation="eager"))
    assert teacher.model.config._attn_implementation == "eager"


def test_a_student_does_not_care(tiny_student, tmp_path):
    tiny_student.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    wish = {"attn_implementation": "flash_attention_2", "output_attentions": True}
    path.write_text(json.dumps(json.loads(path.read_text()) | wish))
    found = StarEncoder.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(value, found[key]) for key, value in tiny_student.state_dict().items())


def test_what_else_is_not_installed_is_one_line(asking):
    """Quantized weights need a package of their own."""
    name = asking("hubert", quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(StarError, match=r"not installed|cannot load the weights") as caught:
        build_teacher(name)
    assert name in str(caught.value) and "\n" not in str(caught.value)
