"""The released students' format: random files of it, and what its authors' model computes.

The forward pass is written from fairseq's layout in plain functions on the checkpoint's own
tensors, so that it shares no code and no naming with the importer.
"""

import torch
import torch.nn.functional as F
import yaml

BLOCK = {
    "extractor_mode": "default",
    "encoder_layers": 2,
    "encoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 24,
    "encoder_attention_heads": 4,
    "activation_fn": "gelu",
    "layer_norm_first": False,
    "conv_feature_layers": "[(8,10,5)] + [(6, 1, 1)] + [(6, 3, 2)] * 4 + [(16,1,1)] + 2*[(16,2,2)]",
    "conv_bias": False,
    "conv_pos": 12,
    "conv_pos_groups": 2,
}
CONVS = [(8, 10, 5), (6, 1, 1), *[(6, 3, 2)] * 4, (16, 1, 1), (16, 2, 2), (16, 2, 2)]


def shapes(block, convs):
    """Tensor names and shapes of fairseq's layout."""
    width, inner = block["encoder_embed_dim"], block["encoder_ffn_embed_dim"]
    found, channels = {}, 1
    for index, (out, kernel, _) in enumerate(convs):
        name = f"feature_extractor.conv_layers.{index}"
        found[f"{name}.0.weight"] = (out, channels, kernel)
        if block["conv_bias"]:
            found[f"{name}.0.bias"] = (out,)
        if block["extractor_mode"] == "layer_norm":
            found |= {f"{name}.2.1.weight": (out,), f"{name}.2.1.bias": (out,)}
        elif index == 0:
            found |= {f"{name}.2.weight": (out,), f"{name}.2.bias": (out,)}
        channels = out
    found |= {"layer_norm.weight": (channels,), "layer_norm.bias": (channels,)}
    if channels != width:
        found |= {
            "post_extract_proj.weight": (width, channels),
            "post_extract_proj.bias": (width,),
        }
    kernel, groups = block["conv_pos"], block["conv_pos_groups"]
    found["encoder.pos_conv.0.bias"] = (width,)
    found["encoder.pos_conv.0.weight_g"] = (1, 1, kernel)
    found["encoder.pos_conv.0.weight_v"] = (width, width // groups, kernel)
    found |= {"encoder.layer_norm.weight": (width,), "encoder.layer_norm.bias": (width,)}
    for index in range(block["encoder_layers"]):
        name = f"encoder.layers.{index}"
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            found[f"{name}.self_attn.{part}.weight"] = (width, width)
            found[f"{name}.self_attn.{part}.bias"] = (width,)
        for norm in ("self_attn_layer_norm", "final_layer_norm"):
            found |= {f"{name}.{norm}.weight": (width,), f"{name}.{norm}.bias": (width,)}
        found |= {f"{name}.fc1.weight": (inner, width), f"{name}.fc1.bias": (inner,)}
        found |= {f"{name}.fc2.weight": (width, inner), f"{name}.fc2.bias": (width,)}
    return found


def random_student(convs=CONVS, **changes):
    """A ``distiller`` block and tensors of its shapes, none at a special value."""
    block = BLOCK | changes
    torch.manual_seed(5)
    state = {
        name: 1 + 0.2 * torch.randn(shape)
        if name.endswith((".weight", "weight_g")) and len(shape) != 2 and "norm" in name
        else torch.randn(shape) * (0.4 if len(shape) > 1 else 0.1)
        for name, shape in shapes(block, convs).items()
    }
    return block, state


def write_files(directory, block, state, extra=None):
    """The pair of files as Lightning and the authors' script leave them."""
    checkpoint, architecture = directory / "last.ckpt", directory / "released.yaml"
    tensors = {f"student_model.{name}": value for name, value in state.items()} | (extra or {})
    content = {"epoch": 3, "state_dict": tensors, "hyper_parameters": {"cfg": {"lr": 1e-3}}}
    torch.save(content, checkpoint)
    architecture.write_text(yaml.safe_dump({"teacher": {"mask_prob": 0}, "distiller": block}))
    return checkpoint, architecture


def features(block, state, convs, wave):
    """Hidden states ``(L + 1, N, D)`` and the last one handed on, for one waveform ``(T,)``."""
    x = wave[None, None]
    for index, (_, _, stride) in enumerate(convs):
        name = f"feature_extractor.conv_layers.{index}"
        x = F.conv1d(x, state[f"{name}.0.weight"], state.get(f"{name}.0.bias"), stride)
        if block["extractor_mode"] == "layer_norm":
            x = norm(x.transpose(1, 2), state, f"{name}.2.1").transpose(1, 2)
        elif index == 0:
            mean, var = x.mean(2, keepdim=True), x.var(2, keepdim=True, unbiased=False)
            scale, shift = state[f"{name}.2.weight"], state[f"{name}.2.bias"]
            x = (x - mean) / (var + 1e-5).sqrt() * scale[:, None] + shift[:, None]
        x = F.gelu(x)
    x = norm(x[0].T, state, "layer_norm")
    if "post_extract_proj.weight" in state:
        x = linear(x, state, "post_extract_proj")
    x = x + positions(x, state, block)
    if not block["layer_norm_first"]:
        x = norm(x, state, "encoder.layer_norm")
    states = [x]
    for index in range(block["encoder_layers"]):
        states.append(layer(states[-1], state, f"encoder.layers.{index}", block))
    last = states[-1]
    if block["layer_norm_first"]:
        last = norm(last, state, "encoder.layer_norm")
    return torch.stack(states), last


def positions(x, state, block):
    """Weight-normalized grouped convolution; an even kernel drops its last frame."""
    v, g = state["encoder.pos_conv.0.weight_v"], state["encoder.pos_conv.0.weight_g"]
    weight = g * v / v.square().sum((0, 1), keepdim=True).sqrt()
    kernel = block["conv_pos"]
    bias = state["encoder.pos_conv.0.bias"]
    y = F.conv1d(x.T[None], weight, bias, padding=kernel // 2, groups=block["conv_pos_groups"])
    return F.gelu(y[0].T[: len(x)])


def layer(x, state, name, block):
    """One Transformer layer, LayerNorm after or before its two halves."""
    first = block["layer_norm_first"]
    y = norm(x, state, f"{name}.self_attn_layer_norm") if first else x
    x = x + attention(y, state, f"{name}.self_attn", block["encoder_attention_heads"])
    x = x if first else norm(x, state, f"{name}.self_attn_layer_norm")
    y = norm(x, state, f"{name}.final_layer_norm") if first else x
    x = x + linear(F.gelu(linear(y, state, f"{name}.fc1")), state, f"{name}.fc2")
    return x if first else norm(x, state, f"{name}.final_layer_norm")


def attention(x, state, name, heads):
    """Heads one after the other."""
    size = x.shape[1] // heads
    q, k, v = (linear(x, state, f"{name}.{part}_proj") for part in "qkv")
    mixed = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        weights = (q[:, part] @ k[:, part].T / size**0.5).softmax(-1)
        mixed.append(weights @ v[:, part])
    return linear(torch.cat(mixed, 1), state, f"{name}.out_proj")


def norm(x, state, name):
    """LayerNorm over the last axis."""
    mean, var = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
    return (x - mean) / (var + 1e-5).sqrt() * state[f"{name}.weight"] + state[f"{name}.bias"]


def linear(x, state, name):
    """``x W^T + b``."""
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]
