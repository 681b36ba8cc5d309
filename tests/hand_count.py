"""Size and cost of encoders from their sizes alone, without running them."""


def by_hand(config, samples):
    """MACs of an encoder from its sizes alone: outputs times inputs of each output."""
    frames, channels, convolutions = samples, 1, 0
    for out, kernel, stride in zip(
        config.conv_dim, config.conv_kernel, config.conv_stride, strict=True
    ):
        frames = (frames - kernel) // stride + 1
        convolutions += frames * out * channels * kernel
        channels = out
    width, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    kernel = config.num_conv_pos_embeddings
    positions = frames + 2 * (kernel // 2) - kernel + 1  # one too many where kernel is even
    convolutions += positions * width * (width // config.num_conv_pos_embedding_groups) * kernel
    projection = 0 if getattr(config, "identity_projection", False) else frames * channels * width
    return {
        "convolutions": convolutions,
        "linear": projection + layers * frames * (4 * width**2 + 2 * width * inner),
        "attention": layers * 2 * frames**2 * width,
    }


def student_by_hand(student, samples):
    """The same, all together, of any architecture of ours with what it adds to a HuBERT."""
    config, transformer = student.config, student.encoder
    width, inner, heads = config.hidden_size, config.intermediate_size, getattr(config, "heads", 0)
    frames, channels, gates, total = samples, 1, 1, 0
    if hasattr(config, "mel_bins"):
        frames, channels, gates = (samples - 400) // 160 + 1, config.mel_bins, 2
    for out, kernel, stride in zip(
        config.conv_dim, config.conv_kernel, config.conv_stride, strict=True
    ):
        padding = kernel // 2 if gates == 2 else 0
        frames = (frames + 2 * padding - kernel) // stride + 1
        total += frames * gates * out * channels * kernel
        channels = out
    total += 0 if config.identity_projection else frames * channels * width
    kernel = config.num_conv_pos_embeddings
    positions = frames + 2 * (kernel // 2) - kernel + 1
    total += positions * width * (width // config.num_conv_pos_embedding_groups) * kernel
    if transformer.halves:
        frames //= 2
        total += 2 * frames * width**2
    for reuses in transformer.reuse:
        maps, products = (2, 1) if reuses else (4, 2)
        total += frames * (maps * width**2 + 2 * width * inner) + products * frames**2 * width
    if heads and transformer.halves:
        total += heads * 2 * frames * (width**2 + width * config.head_width)
    elif heads and not config.feat_proj_layer_norm:  # DistilHuBERT's
        total += heads * frames * (width**2 + width * config.head_width)
    elif heads:
        total += heads * frames * width * config.head_width
    return total


def whisper_by_hand(config, samples):
    """MACs of Whisper's encoder at the length of the utterance, from its log-mel spectrogram."""
    mel = samples // 160
    frames = (mel + 1) // 2
    width, inner, layers = config.d_model, config.encoder_ffn_dim, config.encoder_layers
    return {
        "convolutions": 3 * mel * config.num_mel_bins * width + 3 * frames * width**2,
        "linear": layers * frames * (4 * width**2 + 2 * width * inner),
        "attention": layers * 2 * frames**2 * width,
    }


def whisper_parameters(config):
    """Keys have no bias; positions of 30 s are stored."""
    width, inner, layers = config.d_model, config.encoder_ffn_dim, config.encoder_layers
    front = 3 * width * (config.num_mel_bins + width) + 2 * width
    layer = 4 * width**2 + 3 * width + 2 * width * inner + inner + width + 4 * width
    return front + config.max_source_positions * width + layers * layer + 2 * width
