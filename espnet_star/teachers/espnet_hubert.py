"""ESPnet's HuBERT experiments (``espnet2.tasks.hubert``) as teachers."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from espnet_star.errors import StarError
from espnet_star.teachers import loading
from espnet_star.teachers.espnet_files import EspnetModel, build, open_model
from espnet_star.teachers.espnet_waveform import check_rate, normalized
from espnet_star.teachers.fairseq import model_from_fairseq
from espnet_star.teachers.transformers_encoder import TransformersTeacher

_FAIRSEQ = "encoder.encoder."
# What masked frames become, in torchaudio's model and in fairseq's.
_VECTORS = (
    "encoder.hubert_pretrain_model.mask_generator.mask_embedding",
    f"{_FAIRSEQ}mask_emb",
)
# ESPnet's names of fairseq's options; the rest keep their own.
_FAIRSEQ_OPTIONS = {
    "output_size": ("encoder_embed_dim", 1024),
    "linear_units": ("encoder_ffn_embed_dim", 1024),
    "attention_heads": ("encoder_attention_heads", 12),
    "num_blocks": ("encoder_layers", 12),
    "dropout_rate": ("dropout", 0.0),
    "attention_dropout_rate": ("attention_dropout", 0.0),
}


class EspnetHubertTeacher(TransformersTeacher):
    """A HuBERT of ESPnet's ``HubertTask`` as a model of Transformers.

    With ``encoder: torchaudio_hubert`` ESPnet's own task builds and fills the model, whose
    weights are then handed over. ``encoder: hubert_pretrain`` is fairseq's model: it is read
    by its names and options, since ESPnet could only build it with fairseq installed. Waveforms
    pass the experiment's ``normalize`` one by one. See :class:`TransformersTeacher` for
    what it gives.

    Args:
        name: The experiment's folder, its ``config.yaml``, a ``.pth`` in it, a pack (a
            .zip), or a name of ESPnet's model zoo.
        model_file: Name of the ``.pth`` in a folder. None takes the averaged model, else the
            best one by the experiment's own criterion, else the latest.
        dtype: ``"float32"``, or ``"bfloat16"`` for matrix products and convolutions in
            bfloat16. Hidden states are float32 either way.

    Raises:
        StarError: If files are missing, damaged or of another task, the weights do not
            fit, or the model reads anything but waveforms at 16 kHz with 50 frames/s.
    """

    reads = "ESPnet HuBERT experiment, pack or zoo name"

    def __init__(self, name: str, model_file: str | None = None, dtype: str = "float32") -> None:
        super().__init__()
        self.name = name
        self.do_normalize = False
        computed = loading.check_dtype(dtype)
        with open_model(name, "hubert", model_file) as model:
            check_rate(name, model.config)
            self.model_file = model.model_file
            self.is_pack = model.is_pack
            if model.config.get("encoder") == "torchaudio_hubert":
                encoder, normalize = _from_torchaudio(name, model)
            else:
                encoder, normalize = _from_fairseq(name, model)
            vectors = [model.state[key].float() for key in _VECTORS if key in model.state]
        self.normalize = normalize
        self.use(encoder, computed, vectors[0] if vectors else None)

    def chosen(self) -> dict[str, Any]:
        """See :meth:`Teacher.chosen`."""
        return {} if self.is_pack else {"model_file": self.model_file}

    def prepare_speech(
        self, speech: torch.Tensor, lengths: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """See :meth:`TransformersTeacher.prepare_speech`."""
        speech = super().prepare_speech(speech, lengths, mask)
        return normalized(self.normalize, speech, lengths)


def _from_torchaudio(name: str, model: EspnetModel) -> tuple[Any, torch.nn.Module | None]:
    """Model of torchaudio in that of Transformers, which has the same names below a prefix."""
    from espnet2.tasks.hubert import HubertTask

    built = build(name, HubertTask, model)
    _check_parts(name, built)
    options = model.config.get("encoder_conf") or {}
    wav2vec2 = built.encoder.hubert_pretrain_model.wav2vec2
    state = {
        key.replace("encoder.transformer.", "encoder.").replace("encoder.feature_", "feature_"): v
        for key, v in wav2vec2.state_dict().items()
    }
    blocks = wav2vec2.feature_extractor.conv_layers
    kernels = [block.kernel_size for block in blocks]
    strides = [block.stride for block in blocks]
    loading.check_frame_rate(name, kernels, strides)
    layers = wav2vec2.encoder.transformer.layers
    position = wav2vec2.encoder.transformer.pos_conv_embed.conv
    config = transformers.HubertConfig(
        hidden_size=layers[0].attention.embed_dim,
        num_hidden_layers=len(layers),
        num_attention_heads=layers[0].attention.num_heads,
        intermediate_size=layers[0].feed_forward.intermediate_dense.out_features,
        conv_dim=[block.conv.out_channels for block in blocks],
        conv_kernel=kernels,
        conv_stride=strides,
        conv_bias=blocks[0].conv.bias is not None,
        num_conv_pos_embeddings=position.kernel_size[0],
        num_conv_pos_embedding_groups=position.groups,
        feat_extract_norm="layer" if options.get("extractor_mode") == "layer_norm" else "group",
        do_stable_layer_norm=layers[0].layer_norm_first,
        mask_time_prob=0.0,
    )
    with torch.device("meta"):
        target = transformers.AutoModel.from_config(config, dtype=torch.float32)
    target.load_state_dict(state, assign=True)
    return target.eval(), built.normalize


def _from_fairseq(name: str, model: EspnetModel) -> tuple[Any, torch.nn.Module | None]:
    """Model of fairseq inside ESPnet's, by the options that ESPnet hands to it."""
    config = model.config
    if config.get("encoder") != "hubert_pretrain":
        raise StarError(
            f"teacher {name!r}: encoder {config.get('encoder')!r} in {model.config_path} is not "
            "one of ESPnet's HubertTask; expected torchaudio_hubert or hubert_pretrain"
        )
    _check_raw(name, config)
    from espnet2.tasks.hubert import normalize_choices

    prepare = None
    if config.get("normalize") is not None:
        normalize = normalize_choices.get_class(config["normalize"])
        prepare = normalize(**(config.get("normalize_conf") or {}))
    options = dict(config.get("encoder_conf") or {})
    for ours, (theirs, default) in _FAIRSEQ_OPTIONS.items():
        options.setdefault(theirs, options.pop(ours, default))
    tensors = {
        key.removeprefix(_FAIRSEQ): value
        for key, value in model.state.items()
        if key.startswith(_FAIRSEQ)
    }
    return model_from_fairseq(name, options, tensors), prepare


def _check_parts(name: str, built: Any) -> None:
    if built.frontend is not None or built.preencoder is not None:
        raise StarError(
            f"teacher {name!r} does not read waveforms (its frontend is "
            f"{type(built.frontend).__name__}); choose one trained with input_size: 1"
        )


def _check_raw(name: str, config: dict[str, Any]) -> None:
    if config.get("input_size") is None or config.get("preencoder") is not None:
        raise StarError(
            f"teacher {name!r} does not read waveforms (its frontend is "
            f"{config.get('frontend')}); choose one trained with input_size: 1"
        )
