"""Checkpoints in the layouts of fairseq and Microsoft, of models that s3prl vendors."""

import argparse
import enum
import sys
import types
import typing

import numpy as np
import pytest
import torch
from small_checkpoints import shake

CONV = "[(8,10,5)] + [(8,3,2)] * 4 + [(8,2,2)] * 2"
COMMON = dict(
    encoder_layers=3,
    encoder_embed_dim=24,
    encoder_ffn_embed_dim=32,
    encoder_attention_heads=2,
    conv_feature_layers=CONV,
    conv_pos=16,
    conv_pos_groups=2,
    encoder_layerdrop=0.5,
    dropout=0.5,
)
PRE = dict(layer_norm_first=True, extractor_mode="layer_norm", conv_bias=True)
RELATIVE = dict(relative_position_embedding=True, gru_rel_pos=True, num_buckets=16, max_distance=20)
CASES = {
    "hubert": {},
    "hubert-pre-norm": PRE,
    "hubert-square": dict(encoder_embed_dim=8),
    "wav2vec2": {},
    "wavlm": RELATIVE,
    "wavlm-pre-norm": {**RELATIVE, **PRE, "normalize": True},
}


def foreign(case):
    """The library's model with random weights, its options and those of its task."""
    options = {**COMMON, **CASES[case]}
    if case.startswith("wavlm"):
        module = pytest.importorskip("s3prl.upstream.wavlm.WavLM")
        return shake(module.WavLM(module.WavLMConfig(options))), options, options
    task = {"normalize": case.endswith("pre-norm"), "sample_rate": 16000, "labels": ["km"]}
    utils = pytest.importorskip("s3prl.upstream.utils")
    if case.startswith("hubert"):
        module = pytest.importorskip("s3prl.upstream.hubert.hubert_model")
        options |= {"label_rate": 50, "final_dim": 8}
        config = utils.merge_with_parent(module.HubertConfig, options)
        tasks = utils.merge_with_parent(module.HubertPretrainingConfig, task)
        model = module.HubertModel(config, tasks, [["a", "b", "c"]])
    else:
        module = pytest.importorskip("s3prl.upstream.wav2vec2.wav2vec2_model")
        options |= {"final_dim": 8, "quantize_targets": True, "latent_vars": 4, "latent_dim": 8}
        model = module.Wav2Vec2Model(utils.merge_with_parent(module.Wav2Vec2Config, options))
    return shake(model), options, task


def save_wavlm(model, options, _task, path):
    torch.save({"cfg": options, "model": model.state_dict()}, path)


def save_fairseq(model, options, task, path, **torch_options):
    """With what surrounds the tensors in hubert_base_ls960.pt: OmegaConf and a dictionary."""
    omegaconf = pytest.importorskip("omegaconf")
    cfg = {"model": {**options, "_name": "hubert"}, "task": task, "common": {"seed": 1}}
    content = {
        "args": None,
        "cfg": omegaconf.OmegaConf.create(cfg),
        "model": {key: value.half() for key, value in model.state_dict().items()},
        "types": [typing.List[str], typing.Optional[int], type(None)],  # noqa: UP006, UP045
        "task_state": {"dictionaries": [foreign_class("fairseq.data.dictionary", "Dictionary")()]},
        "extra_state": {
            "loss": np.float64(1.0),
            "best": foreign_class("fairseq.dataclass.constants", "Choices").ONE,
        },
    }
    torch.save(content, path, **torch_options)


def save_namespace(model, options, task, path):
    """As fairseq wrote wav2vec_small.pt, before its hydra, in torch's first format."""
    content = {"args": argparse.Namespace(arch="wav2vec2", **options, **task), "cfg": None}
    content["model"] = model.state_dict()
    torch.save(content, path, _use_new_zipfile_serialization=False)


def save_converted(model, options, task, path):
    content = {"task_cfg": task, "model_cfg": options, "model_weight": model.state_dict()}
    torch.save({**content, "dictionaries_symbols": [["a"]]}, path)


def foreign_class(module, name):
    """A class that pickle names as fairseq's, in a module that is gone when it is read."""
    if name == "Choices":
        made = enum.Enum(name, {"ONE": "one"}, module=module)
        made.__reduce_ex__ = lambda self, _protocol: (made, (self.value,))
    else:
        made = type(name, (), {"__module__": module, "__init__": lambda s: vars(s).update(a=[1])})
    setattr(module_of_fairseq(module), name, made)
    return made


def module_of_fairseq(name):
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        part = ".".join(parts[:end])
        sys.modules.setdefault(part, types.ModuleType(part))
    return sys.modules[name]


def forget_fairseq():
    for name in [name for name in sys.modules if name.split(".")[0] == "fairseq"]:
        del sys.modules[name]


WRITERS = {
    "hubert": save_fairseq,
    "hubert-pre-norm": save_fairseq,
    "hubert-square": save_converted,
    "wav2vec2": save_namespace,
    "wavlm": save_wavlm,
    "wavlm-pre-norm": save_wavlm,
}


def write_checkpoint(case, folder):
    """Path of a case's checkpoint, the library's model with the same weights, its ``normalize``."""
    model, options, task = foreign(case)
    if WRITERS[case] is save_fairseq:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(parameter.half().float())
    path = folder / f"{case}.pt"
    WRITERS[case](model, options, task, path)
    forget_fairseq()
    return path, model, bool(task.get("normalize", False))
