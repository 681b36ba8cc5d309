"""A distillation reckoned up before its hours are spent, and what cannot work."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from espnet_star.data.checks import histogram
from espnet_star.data.headers import Survey
from espnet_star.data.prepare import left_out
from espnet_star.data.shard_index import ShardIndex
from espnet_star.errors import StarError
from espnet_star.outputs import SAMPLE_RATE
from espnet_star.terminal.units import pluralize, size, span, speech
from espnet_star.training.training_cost import (
    FLAC_BYTES_PER_SAMPLE,
    Probe,
    checkpoint_bytes,
    memory_of_a_rank,
)
from espnet_star.training.updates import UpdatePlan, check_schedule, check_updates


@dataclass
class Plan:
    """Findings, as lines for a terminal and as content for JSON.

    Attributes:
        lines: To be printed.
        needs: Memory, disk and time, to be printed on one line.
        notes: What deserves a word.
        problems: What cannot work; a training should not be started.
        content: Numbers.
    """

    lines: list[str] = field(default_factory=list)
    needs: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    content: dict[str, Any] = field(default_factory=dict)


def add_data(plan: Plan, name: str, found: Survey) -> None:
    """Size, lengths and dropped clips of a split."""
    counts = sorted(found.counts.values())
    line = f"{name}: {pluralize(len(counts), 'utterance')}"
    if counts:
        low, middle, high = (counts[i] / SAMPLE_RATE for i in (0, len(counts) // 2, -1))
        line += f", {speech(sum(counts) / SAMPLE_RATE)}, of {low:.1f} to {high:.1f} s each "
        line += f"(median {middle:.1f} s)"
    dropped = left_out(found.skipped)
    plan.lines.append(line + (f"; left out: {dropped}" if dropped else ""))
    plan.content[name] = {
        "utterances": len(counts),
        "hours": sum(counts) / SAMPLE_RATE / 3600,
        "bins": histogram(counts, SAMPLE_RATE),
        "dropped": dict(Counter(reason.split(":")[0] for reason in found.skipped.values())),
    }
    if not found.counts:
        plan.problems.append(f"{name}: no utterance is left; all reasons are above")


def add_shards(plan: Plan, name: str, index: ShardIndex) -> None:
    """Hours of a split that is read from shards."""
    plan.lines.append(
        f"{name}: {index.utterances} utterances, {speech(3600 * index.hours)} in "
        f"{len(index.sources)} shards ({index.place}); the longest has "
        f"{index.longest / index.fs:.1f} s"
    )
    plan.content[name] = {
        "utterances": index.utterances,
        "hours": index.hours,
        "shards": len(index.sources),
    }


def add_batches(
    plan: Plan,
    updates: UpdatePlan,
    seconds: float,
    expected: tuple[float | None, int | None],
    schedule: Mapping[str, float],
) -> None:
    """Effective batch, updates and learning rate.

    Args:
        plan: Is added to.
        updates: Size and number of the updates.
        seconds: Audio of the largest batch of a process, padding counted.
        expected: ``expected_batch`` and ``expected_updates``.
        schedule: See :func:`check_schedule`.
    """
    plan.lines.append(f"updates: {updates.describe()}")
    plan.content["updates"] = {
        "utterances_per_update": updates.utterances_per_update,
        "updates_per_epoch": updates.updates_per_epoch,
        "updates": updates.updates,
        "passes": updates.passes,
        "largest_batch_seconds": seconds,
    }
    try:
        plan.notes += check_updates(updates, *expected) + check_schedule(updates, schedule)
    except StarError as error:
        plan.problems.append(str(error))


def add_disk(plan: Plan, needs: Mapping[str, float]) -> None:
    """Needed and free space, by file system.

    Args:
        plan: Is added to.
        needs: Bytes that will be written under each directory, absent ones included.
    """
    by_device: dict[int, tuple[Path, float]] = {}
    for name, needed in needs.items():
        path = _existing(Path(name))
        device = path.stat().st_dev
        _, before = by_device.get(device, (path, 0.0))
        by_device[device] = (path, before + needed)
    for path, needed in by_device.values():
        free = shutil.disk_usage(path).free
        where = f" under {path}" if len(by_device) > 1 else ""
        plan.needs.append(f"{size(needed)} of disk{where} ({size(free)} free)")
        if needed > free:
            plan.problems.append(
                f"{path}: {size(needed)} are needed, {size(free)} are free; free "
                "some, or choose other --dumpdir and --expdir"
            )
    plan.content["disk_bytes"] = dict(needs)


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def disk_needs(
    splits: Mapping[str, Survey], dumpdir: str, model: Any, config: Mapping[str, Any]
) -> dict[str, float]:
    """Bytes that will be written under the folders of data and experiment."""
    written = sum(found.converted for found in splits.values()) * FLAC_BYTES_PER_SAMPLE
    kept = config["keep_nbest_models"]
    kept = max(kept) if isinstance(kept, (list, tuple)) else int(kept)
    return {dumpdir: written, str(config["output_dir"]): checkpoint_bytes(model, kept)}


def add_cost(
    plan: Plan,
    model: Any,
    found: Probe,
    seconds: Mapping[str, float],
    amp: bool,
    on_cpu: bool,
) -> None:
    """Memory of a process and, on this machine's CPU, time.

    Args:
        plan: Is added to.
        model: ``StarDistillation``.
        found: Of :func:`probe`.
        seconds: ``batch``, audio of the largest batch of a process, and ``total``, of the
            whole training.
        amp: Whether activations are in half precision.
        on_cpu: Whether the training itself runs on this machine's CPU.
    """
    memory = memory_of_a_rank(model, found, seconds["batch"], 2 if amp else 4)
    who = "a process" if on_cpu else "a GPU"
    plan.needs.append(
        f"about {size(memory)} of memory {who} for the largest batch, "
        f"{seconds['batch']:.1f} s of audio"
    )
    flops = found.flops * seconds["total"]
    plan.content |= {"memory_bytes": memory, "flops": flops}
    if on_cpu:
        # Processes on one machine share its cores.
        taken = found.seconds * seconds["total"]
        plan.needs.append(f"about {span(taken)} on this CPU (from one step measured here)")
        plan.content["cpu_hours"] = taken / 3600
