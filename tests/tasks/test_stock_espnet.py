"""Fails if an exported directory does not train in an ESPnet that has never heard of us."""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys

import pytest
import torch
from star_runs import training
from transformers import HubertModel

ESPNET = int(importlib.metadata.version("espnet").split(".")[0])
# Importing it says so: installed packages cannot hide it, it comes first on the path.
DECOY = "open({marker!r}, 'w').close(); raise ImportError('espnet_star')"


@pytest.fixture
def train(data_directory, tiny_student, tmp_path):
    """Train ASR on the exported student for an epoch; the weights afterwards, and before."""

    def run(frozen, *frontend):
        student, exp, marker = tmp_path / "student", tmp_path / "exp", tmp_path / "imported"
        tiny_student.save_pretrained(student)
        (tmp_path / "decoy" / "espnet_star").mkdir(parents=True)
        decoy = DECOY.format(marker=str(marker))
        (tmp_path / "decoy" / "espnet_star" / "__init__.py").write_text(decoy)
        options = training(data_directory, exp, "--max_epoch", "1", "--batch_type", "sorted")
        for part in ("train", "valid"):
            options += [f"--{part}_data_path_and_name_and_type", f"{data_directory}/text,text,text"]
        options += ["--token_type", "char", "--token_list", f"{data_directory}/tokens"]
        options += ["--model_conf", "ctc_weight=1.0", "--init", "xavier_uniform"]
        options += ["--encoder", "rnn", "--encoder_conf", "hidden_size=8"]
        options += ["--encoder_conf", "num_layers=1", "--freeze_param", frozen]
        options += [part.format(student=student) for part in frontend]
        environment = os.environ | {"PYTHONPATH": str(tmp_path / "decoy"), "OMP_NUM_THREADS": "1"}
        seen = subprocess.run(
            [sys.executable, "-c", "import espnet_star"], cwd=tmp_path, env=environment
        )
        assert seen.returncode == 1, "the decoy must be what an import finds"
        marker.unlink()
        command = [sys.executable, "-m", "espnet2.bin.asr_train", *options]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert not marker.exists()
        trained = torch.load(exp / "1epoch.pth", weights_only=True)
        return trained, HubertModel.from_pretrained(student).state_dict()

    return run


def assert_holds(trained, prefix, student):
    assert student
    for name, value in student.items():
        assert torch.equal(trained[prefix + name], value), name


@pytest.mark.skipif(
    ESPNET < 202611, reason="its huggingface frontend counts samples as frames before 202611"
)
def test_huggingface_frontend(train):
    options = ["--frontend", "huggingface", "--frontend_conf", "model={student}"]
    trained, student = train("frontend.encoder", *options)
    assert_holds(trained, "frontend.encoder.", student)


@pytest.mark.skipif(
    importlib.util.find_spec("s3prl") is None,
    reason="s3prl is not installed: pip install espnet_star[s3prl]",
)
def test_s3prl_frontend(train):
    """As the card writes it: every layer, weights learned."""
    options = ["--frontend", "s3prl"]
    for value in (
        "multilayer_feature=true",
        "frontend_conf.upstream=hf_hubert_custom",
        "frontend_conf.path_or_url={student}",
    ):
        options += ["--frontend_conf", value]
    trained, student = train("frontend.upstream", *options)
    assert_holds(trained, "frontend.upstream.upstream.model.", student)
    assert (trained["frontend.featurizer.weights"] != 0).any()
