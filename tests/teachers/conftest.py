"""Small random checkpoints of every supported family, written once a session."""

import pytest
import torch
import transformers
from small_checkpoints import FAMILIES, SMALL, WHISPER, save, shake


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """Directory of a family, its model saved with its default preparation."""
    made = {}

    def make(family):
        if family not in made:
            prefix, options = FAMILIES[family]
            config = getattr(transformers, f"{prefix}Config")(**SMALL, **options)
            model = shake(getattr(transformers, f"{prefix}Model")(config))
            directory = tmp_path_factory.mktemp(family)
            made[family] = save(model, directory, do_normalize=False, sampling_rate=16000)
        return made[family]

    return make


@pytest.fixture(scope="session")
def whisper_model():
    return shake(transformers.WhisperModel(transformers.WhisperConfig(**WHISPER)))


@pytest.fixture(scope="session")
def whisper_directory(whisper_model, tmp_path_factory):
    return save(whisper_model.encoder, tmp_path_factory.mktemp("whisper"))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def batch():
    """Unequal utterances with rubbish past their ends, down to one frame."""
    lengths = torch.tensor([12000, 11999, 5000, 720, 719, 400])
    return torch.randn(len(lengths), 12800) + 0.1, lengths
