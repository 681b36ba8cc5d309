"""Small random checkpoints of every supported family."""

import json

import torch

SMALL = dict(
    hidden_size=24,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=32,
    conv_dim=(8,) * 7,
    num_conv_pos_embedding_groups=2,
    vocab_size=5,
    layerdrop=0.5,
    hidden_dropout=0.5,
)
POST = dict(feat_extract_norm="group", num_conv_pos_embeddings=16)
PRE = dict(feat_extract_norm="layer", do_stable_layer_norm=True, num_conv_pos_embeddings=16)
WAVLM = dict(num_buckets=16, max_bucket_distance=20)
FAMILIES = {
    "hubert": ("Hubert", POST),
    "hubert-pre-norm": ("Hubert", PRE),
    # Layouts between those of the published models, which a checkpoint may have as well.
    "hubert-layer-front": ("Hubert", {**POST, "feat_extract_norm": "layer", "conv_bias": True}),
    "hubert-pre-norm-group-front": ("Hubert", {**PRE, "feat_extract_norm": "group"}),
    "hubert-batch-norm": ("Hubert", {**POST, "conv_pos_batch_norm": True}),
    "wavlm": ("WavLM", {**POST, **WAVLM}),
    "wavlm-pre-norm": ("WavLM", {**PRE, **WAVLM}),
    "wav2vec2": ("Wav2Vec2", POST),
    "wav2vec2-pre-norm": ("Wav2Vec2", PRE),
    "wav2vec2-adapter": ("Wav2Vec2", {**POST, "add_adapter": True}),
    "data2vec": ("Data2VecAudio", dict(num_conv_pos_embeddings=3, conv_pos_kernel_size=5)),
    "unispeech": ("UniSpeech", POST),
    "unispeech-pre-norm": ("UniSpeech", {**PRE, "conv_bias": True}),
    "unispeech-sat": ("UniSpeechSat", POST),
    "unispeech-sat-pre-norm": ("UniSpeechSat", PRE),
}
WHISPER = dict(
    d_model=16,
    encoder_layers=2,
    decoder_layers=1,
    encoder_attention_heads=2,
    decoder_attention_heads=2,
    encoder_ffn_dim=32,
    decoder_ffn_dim=32,
    num_mel_bins=20,
    vocab_size=30,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
    decoder_start_token_id=1,
    encoder_layerdrop=0.5,
    dropout=0.5,
    suppress_tokens=None,
    begin_suppress_tokens=None,
)


def shake(model):
    """Make every parameter matter: fresh biases are zero and fresh norms the identity."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(torch.randn_like(buffer))
    return model.eval()


def save(model, directory, **preparation):
    model.save_pretrained(directory)
    if preparation:
        (directory / "preprocessor_config.json").write_text(json.dumps(preparation))
    return directory
