"""A whole training step, ours against one written plainly, on 32 utterances of real lengths.

python benchmarks/training_step.py [--threads 2] [--repeats 3] [--utterances 32]

The teacher has HuBERT Base's shape, the student is starhubert; random weights, noise for
speech. The reference does what published distillation code does: plain transformers with
eager attention, every attention map kept, Gram matrices by einsum, padded batches in file
order. Ours is `StarDistillation` with ESPnet's sorted batches of at most 60 s, padding
included. Both end with an AdamW update. A repeat of a side is one pass over all
utterances; the sides take turns in one process, and memory is that of a process of its own.
"""

from __future__ import annotations

import random
import statistics
import tempfile
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
import transformers
from harness import arguments, publish
from paper_models import adamw, random_teacher

from espnet_star.distillation import StarDistillation, cpu_has_bfloat16
from espnet_star.evaluate.cost.memory import peak_memory
from espnet_star.evaluate.cost.profile import LIBRISPEECH_LENGTHS
from espnet_star.evaluate.cost.speed import interleaved
from espnet_star.evaluate.cost.subjects import SHAPES
from espnet_star.outputs import SAMPLE_RATE, frame_count, valid_mask
from espnet_star.students import StarEncoder
from espnet_star.students.config import student_config

BATCH_SECONDS = 60
MIB = 2**20
Batch = tuple[torch.Tensor, torch.Tensor]


def file_order(count: int) -> list[int]:
    """Lengths in samples as a corpus holds them: unsorted. Every n-th where fewer are asked."""
    lengths = [LIBRISPEECH_LENGTHS[i * 32 // count] for i in range(count)]
    random.Random(0).shuffle(lengths)
    return lengths


def pad(lengths: list[int]) -> Batch:
    """Noise of these lengths, zero past them."""
    generator = torch.Generator().manual_seed(sum(lengths))
    sizes = torch.tensor(lengths)
    speech = 0.1 * torch.randn(len(lengths), max(lengths), generator=generator)
    return speech * valid_mask(sizes, max(lengths)), sizes


def plain_batches(count: int) -> Iterator[Batch]:
    """Utterances in file order, as many as come to 60 s of speech."""
    batch: list[int] = []
    for length in file_order(count):
        if batch and sum(batch) + length > BATCH_SECONDS * SAMPLE_RATE:
            yield pad(batch)
            batch = []
        batch.append(length)
    yield pad(batch)


def our_batches(count: int) -> Iterator[Batch]:
    """ESPnet's batches by number of samples: sorted by length, padding counted."""
    # Here: it needs much of what ESPnet depends on, which other users of this module need not.
    from espnet2.samplers.num_elements_batch_sampler import NumElementsBatchSampler

    lengths = {f"u{i:02}": n for i, n in enumerate(file_order(count))}
    with tempfile.NamedTemporaryFile("w", suffix=".scp") as file:
        file.writelines(f"{key} {n}\n" for key, n in lengths.items())
        file.flush()
        sampler = NumElementsBatchSampler(
            BATCH_SECONDS * SAMPLE_RATE, [file.name], min_batch_size=1, sort_in_batch="descending"
        )
    for keys in sampler:
        yield pad([lengths[key] for key in keys])


def plain_objective(
    student: tuple[torch.Tensor, ...], teacher: tuple[torch.Tensor, ...], lengths: torch.Tensor
) -> torch.Tensor:
    """Masked mean squared gap of both kinds of Gram matrices, by their equations."""
    mask = valid_mask(frame_count(lengths), student[0].shape[1])
    pairs = (mask[:, :, None] & mask[:, None, :]).float()
    value = torch.zeros(())
    for layer in range(1, len(student)):
        for left in (layer, layer - 1):
            s_gram = torch.einsum("bid,bjd->bij", student[left], student[layer])
            t_gram = torch.einsum("bid,bjd->bij", teacher[left], teacher[layer])
            gap = F.mse_loss(s_gram, t_gram, reduction="none") * pairs
            value = value + (gap.sum(dim=(1, 2)) / pairs.sum(dim=(1, 2))).mean()
    return value / (len(student) - 1)


def chosen(batches: Iterator[Batch], largest: bool) -> list[Batch]:
    """All batches, or the one that takes most memory."""
    listed = list(batches)
    return [max(listed, key=lambda b: b[0].shape[0] * b[0].shape[1] ** 2)] if largest else listed


def plain_pass(count: int, threads: int, largest: bool = False) -> Callable[[], float]:
    """The reference: one pass over all utterances as a function without arguments."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    batches = chosen(plain_batches(count), largest)
    model_type, values = SHAPES["hubert_base"]
    options = {"attn_implementation": "eager", "apply_spec_augment": False, "layerdrop": 0.0}
    config = transformers.AutoConfig.for_model(model_type, **values, **options)
    teacher = transformers.HubertModel(config).eval()
    config = student_config("starhubert")
    config._attn_implementation = "eager"
    student = transformers.HubertModel(config).train()
    optimizer = adamw(student)

    def states(model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, ...]:
        mask = valid_mask(batch[1], batch[0].shape[1]).long()
        wanted = {"output_hidden_states": True, "output_attentions": True}
        return model(batch[0], attention_mask=mask, **wanted).hidden_states

    def run() -> float:
        for batch in batches:
            with torch.no_grad():
                targets = states(teacher, batch)
            loss = plain_objective(states(student, batch), targets, batch[1])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.item()

    return run


def our_pass(
    count: int, threads: int, teacher_dtype: str, cpu_dtype: str, largest: bool = False
) -> Callable[[], float]:
    """The package's: one pass over all utterances as a function without arguments."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    batches = chosen(our_batches(count), largest)
    teacher = random_teacher(dtype=teacher_dtype)
    losses = [{"name": "temporal_gram"}]
    student = StarEncoder(preset="starhubert")
    model = StarDistillation(student, teacher, losses, cpu_dtype=cpu_dtype).train()
    optimizer = adamw(model)

    def run() -> float:
        for speech, lengths in batches:
            loss, _, _ = model(speech=speech, speech_lengths=lengths)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.item()

    return run


COLUMNS = {
    "side": ("side", ""),
    "seconds_a_pass": ("seconds", ".1f"),
    "audio_per_second": ("audio seconds a second", ".2f"),
    "speedup": ("times the reference", ".2f"),
    "mib": ("peak memory (MiB)", ".0f"),
    "memory_share": ("of the reference's", ".2f"),
}


def main() -> None:
    """Print one row a side."""
    parser = arguments(__doc__ or "", repeats=3)
    parser.add_argument("--utterances", type=int, default=32, help="How many of the 32 lengths")
    low = "bfloat16" if cpu_has_bfloat16() else "float32"
    parser.add_argument("--teacher_dtype", default=low, choices=["float32", "bfloat16"])
    parser.add_argument("--cpu_dtype", default="auto", choices=["float32", "bfloat16", "auto"])
    args = parser.parse_args()
    ours = (args.utterances, args.threads, args.teacher_dtype, args.cpu_dtype)
    # Before the sides fill this process's memory: the reference takes most of the machine's.
    memory = {
        "reference": peak_memory(plain_pass, *ours[:2], True),
        "ours": peak_memory(our_pass, *ours, True),
    }
    sides = {"reference": plain_pass(*ours[:2]), "ours": our_pass(*ours)}
    seconds = interleaved(sides, args.repeats, warmup=0)
    audio = sum(file_order(args.utterances)) / SAMPLE_RATE
    medians = {side: statistics.median(times) for side, times in seconds.items()}
    rows = [
        {
            "side": side,
            "seconds_a_pass": median,
            "audio_per_second": audio / median,
            "speedup": medians["reference"] / median,
            "mib": memory[side] / MIB,
            "memory_share": memory[side] / memory["reference"],
            "seconds": seconds[side],
        }
        for side, median in medians.items()
    ]
    note = f"{audio:.1f} s of audio; teacher {args.teacher_dtype}, student {args.cpu_dtype}."
    publish("A training step", COLUMNS, rows, args, [note])


if __name__ == "__main__":
    main()
