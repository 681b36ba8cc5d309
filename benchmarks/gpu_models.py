"""gpu.py: models, batches and plain forms, of the published sizes or tiny."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import transformers
from gpu_run import Run
from paper_models import adamw, random_teacher

from espnet_star.distillation import StarDistillation
from espnet_star.evaluate.cost.subjects import SHAPES
from espnet_star.outputs import SAMPLE_RATE, frame_count, valid_mask
from espnet_star.students import StarEncoder
from espnet_star.students.config import student_config
from espnet_star.teachers.base import Teacher
from espnet_star.training.training_cost import Probe, probe

Batch = tuple[torch.Tensor, torch.Tensor]
# The published student's head has 54 channels, no multiple of eight; so has the tiny one's.
TINY_STUDENT: dict[str, Any] = {
    "conv_dim": [8] * 8 + [24],
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
TINY_TEACHER: dict[str, Any] = {
    "conv_dim": [16] * 7,
    "hidden_size": 40,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
NO_DROPOUT = dict.fromkeys(
    ("feat_proj_dropout", "hidden_dropout", "attention_dropout", "activation_dropout"), 0.0
)
CLIP = 12  # seconds, about the mean of LibriSpeech


def student_options(run: Run) -> dict[str, Any]:
    """Changes to the published student."""
    return TINY_STUDENT if run.small else {}


def widths(run: Run) -> tuple[int, int]:
    """Of student and teacher."""
    return (24, 40) if run.small else (432, 768)


def student(run: Run, **overrides: Any) -> StarEncoder:
    """On the CPU; the same weights each time."""
    torch.manual_seed(0)
    return StarEncoder(**(student_options(run) | overrides))


@functools.lru_cache(maxsize=4)
def _teacher(small: bool, dtype: str) -> Teacher:
    torch.manual_seed(1)
    return random_teacher(dtype=dtype, **({"values": TINY_TEACHER} if small else {}))


def teacher(run: Run, dtype: str = "float32") -> Teacher:
    """On the CPU; the same weights each time."""
    return copy.deepcopy(_teacher(run.small, dtype))


def distillation(run: Run, dtype: str = "float32", **overrides: Any) -> StarDistillation:
    """Ours, on the CPU, in training mode."""
    losses = [{"name": "temporal_gram"}]
    return StarDistillation(student(run, **overrides), teacher(run, dtype), losses).train()


def plain_hubert(run: Run, of_teacher: bool, attention: str = "eager") -> transformers.HubertModel:
    """Student or teacher in plain Transformers, on the CPU."""
    torch.manual_seed(0)
    if of_teacher:
        values = SHAPES["hubert_base"][1] | (TINY_TEACHER if run.small else {})
        config = transformers.HubertConfig(**values, apply_spec_augment=False, layerdrop=0.0)
    else:
        config = student_config("starhubert", **student_options(run))
    config._attn_implementation = attention
    return transformers.HubertModel(config)


def audio(run: Run, lengths: Sequence[int], seed: int = 0) -> Batch:
    """Noise of these lengths on the device, zero past them."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.tensor(lengths)
    speech = 0.1 * torch.randn(len(lengths), max(lengths), generator=generator)
    return (speech * valid_mask(sizes, max(lengths))).to(run.device), sizes.to(run.device)


def training_batch(run: Run, seconds: float) -> Batch:
    """As ESPnet makes one of utterances sorted by length: a little padding."""
    clip = 1 if run.small else CLIP
    count = max(1, round(seconds / clip))
    spread = [1 - 0.05 * row / count for row in range(count)]
    return audio(run, [round(clip * SAMPLE_RATE * share) for share in spread])


def plain_objective(
    s_states: Sequence[torch.Tensor], t_states: Sequence[torch.Tensor], lengths: torch.Tensor
) -> torch.Tensor:
    """Both terms as their equations stand, all Gram matrices stacked, padding masked.

    Args:
        s_states: ``L + 1`` states ``(B, N, D_S)``.
        t_states: The same of the teacher.
        lengths: Valid frames, ``(B,)``.

    Returns:
        Layer-wise and intra-layer term, ``(2,)``.
    """
    mask = valid_mask(lengths, s_states[0].shape[1])[..., None]
    student, teacher = (
        torch.where(mask, torch.stack(tuple(side)), 0.0) for side in (s_states, t_states)
    )
    terms = []
    for below in (slice(1, None), slice(None, -1)):
        gap = torch.einsum("lbid,lbjd->lbij", teacher[below], teacher[1:])
        gap = gap - torch.einsum("lbid,lbjd->lbij", student[below], student[1:])
        terms.append((gap.square().sum(dim=(2, 3)) / lengths.square()).mean())
    return torch.stack(terms)


def plain_loss(
    small: transformers.HubertModel, large: transformers.HubertModel, batch: Batch
) -> torch.Tensor:
    """The reference's loss of a batch: every attention map kept, as published code does."""
    mask = valid_mask(batch[1], batch[0].shape[1]).long()
    wanted = {"output_hidden_states": True, "output_attentions": True}
    with torch.no_grad():
        targets = large(batch[0], attention_mask=mask, **wanted).hidden_states
    states = small(batch[0], attention_mask=mask, **wanted).hidden_states
    with torch.autocast(batch[0].device.type, enabled=False):
        wide = [[state.float() for state in side] for side in (states, targets)]
        return plain_objective(*wide, frame_count(batch[1])).sum()


def updating(
    run: Run,
    module: torch.nn.Module,
    loss: Callable[[], torch.Tensor],
    amp: torch.dtype | None = None,
) -> Callable[[], torch.Tensor]:
    """One update as ESPnet's trainer makes it, as a function that returns the loss.

    Args:
        run: For the device.
        module: Holds what is trained.
        loss: Of the batch.
        amp: Type of autocast, None without.
    """
    optimizer = adamw(module)
    scaler = torch.amp.GradScaler(run.device, enabled=amp == torch.float16)

    def update() -> torch.Tensor:
        with torch.autocast(run.device, dtype=amp) if amp else nullcontext():
            value = loss()
        optimizer.zero_grad()
        scaler.scale(value).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(module.parameters(), 5.0)
        scaler.step(optimizer)
        scaler.update()
        return value.detach()

    return update


def cost(run: Run) -> Probe:
    """What `star_plan` finds out about a step, on the CPU, with a clip."""
    if "cost" not in run.found:
        run.found["cost"] = probe(distillation(run), 1.0 if run.small else 8.0)
    return run.found["cost"]
