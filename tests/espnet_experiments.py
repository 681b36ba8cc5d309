"""Experiments of ESPnet's self-supervised tasks, written by ESPnet itself, with random weights."""

import importlib
import json

import torch
import yaml
from small_checkpoints import shake

CONVS = [[8, 10, 5], *[[8, 3, 2]] * 4, *[[8, 2, 2]] * 2]
FRONT = {"norm_mode": "layer_norm", "conv_mode": "standard", "bias": True, "shapes": CONVS}
LAYERS = {"output_size": 16, "attention_heads": 2, "num_blocks": 3, "dropout_rate": 0.5}
LOSS = [{"name": "hubert", "conf": {"num_classes": 5, "final_dim": 4}}]
WAV2VEC = {**LAYERS, "linear_units": 24, "input_layer": "wav2vec", "pos_enc_layer_type": "conv"}
BRANCHES = {**LAYERS, "cgmlp_linear_units": 24, "cgmlp_conv_kernel": 5, "layer_drop_rate": 0.5}
LINEAR = {"preencoder": "linear", "preencoder_conf": {"output_size": 16}}
SSL = {
    "transformer": {
        "frontend_conf": {**FRONT, "norm_mode": "group_norm", "bias": False},
        "encoder_conf": {**WAV2VEC, "normalize_before": False},
        "normalize": None,
        **LINEAR,
    },
    "transformer-pre-norm": {
        "frontend_conf": {**FRONT, "normalize_audio": True, "normalize_output": True},
        "encoder_conf": WAV2VEC,
        "normalize": "utterance_mvn",
        "normalize_conf": {"norm_vars": True},
        **LINEAR,
    },
    "e_branchformer": {
        "frontend_conf": FRONT,
        "preencoder": None,
        "encoder": "e_branchformer",
        "encoder_conf": {
            **BRANCHES,
            "input_layer": "linear",
            "attention_layer_type": "selfattn",
            "pos_enc_layer_type": "conv",
        },
        "normalize": None,
    },
    "e_branchformer-relative": {
        "frontend_conf": FRONT,
        "preencoder": None,
        "encoder": "e_branchformer",
        "encoder_conf": {**BRANCHES, "input_layer": "linear", "use_ffn": True, "linear_units": 24},
        "normalize": "utterance_mvn",
    },
    "e_branchformer-fast": {
        "frontend_conf": FRONT,
        "preencoder": None,
        "encoder": "e_branchformer",
        "encoder_conf": {
            **BRANCHES,
            "input_layer": "linear",
            "attention_layer_type": "fast_selfattn",
            "pos_enc_layer_type": "abs_pos",
        },
        "normalize": None,
    },
    "conformer": {
        "frontend_conf": FRONT,
        "preencoder": None,
        "encoder": "conformer",
        "encoder_conf": {**LAYERS, "linear_units": 24, "input_layer": "linear"},
        "normalize": None,
    },
}
TORCHAUDIO = {
    "encoder": "torchaudio_hubert",
    "model": "torchaudio",
    "input_size": 1,
    "num_classes": 5,
    "normalize": None,
    "encoder_conf": {
        "extractor_conv_layer_config": CONVS,
        "encoder_embed_dim": 16,
        "encoder_pos_conv_kernel": 8,
        "encoder_pos_conv_groups": 2,
        "encoder_num_layers": 3,
        "encoder_num_heads": 2,
        "encoder_ff_interm_features": 24,
        "encoder_layer_drop": 0.5,
        "final_dim": 4,
    },
}
PRE = {
    "extractor_mode": "layer_norm",
    "extractor_conv_bias": True,
    "encoder_layer_norm_first": True,
}
HUBERT = {
    "torchaudio": TORCHAUDIO,
    "torchaudio-pre-norm": {
        **TORCHAUDIO,
        "encoder_conf": TORCHAUDIO["encoder_conf"] | PRE,
        "normalize": "utterance_mvn",
        "normalize_conf": {"norm_vars": True},
    },
}


def task_class(task):
    module = importlib.import_module(f"espnet2.tasks.{task}")
    return {"ssl": "SSLTask", "hubert": "HubertTask"}[task], module


def write_experiment(task, options, folder, model_file="valid.loss.ave.pth"):
    """ESPnet's ``config.yaml``, as a run that stops before training leaves it, and a model."""
    name, module = task_class(task)
    options = {"token_list": ["a", "b", "c", "d", "e"], **options}
    if task == "ssl":
        options["loss"] = LOSS
    folder.mkdir(parents=True, exist_ok=True)
    given = folder.parent / f"{folder.name}.yaml"
    given.write_text(yaml.safe_dump(options))
    command = ["--config", str(given), "--output_dir", str(folder), "--dry_run", "true"]
    command += ["--ngpu", "0", "--iterator_type", "none", "--num_workers", "0"]
    getattr(module, name).main(cmd=command)
    model, _ = getattr(module, name).build_model_from_file(folder / "config.yaml")
    torch.save(shake(model).state_dict(), folder / model_file)
    return folder


def edit_config(folder, **changes):
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text()) | json.loads(json.dumps(changes))
    path.write_text(yaml.safe_dump({key: v for key, v in config.items() if v != "REMOVED"}))
    return folder
