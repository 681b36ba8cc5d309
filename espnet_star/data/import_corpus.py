"""Kaldi-style directories of a corpus, with a valid set held out."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from espnet_star.data.corpus import Corpus, Utterance, clean, measure
from espnet_star.data.errors import DataError, some
from espnet_star.data.kaldi import invert, write_table
from espnet_star.data.prepare import DETAILS, subset_rank
from espnet_star.data.recording import ark_place, read_ark

TABLES = ("wav.scp", "segments", "text", "utt2spk", "spk2utt", "label")
# How far a valid set may miss the size that was asked for, before speakers are shared.
NEAR = 0.2


@dataclass(frozen=True)
class ImportOptions:
    """What is made of a corpus.

    Attributes:
        train_set: Name of the directory.
        valid_set: Name of the directory of the valid set.
        valid_hours: Length of the valid set; None for none or ``valid_utterances``.
        valid_utterances: Number of its utterances.
        keep_duplicates: Keep files of the same content.
        need_text: Leave out utterances without transcript.
        force: Replace directories that are there.
    """

    train_set: str = "train"
    valid_set: str = "valid"
    valid_hours: float | None = None
    valid_utterances: int | None = None
    keep_duplicates: bool = False
    need_text: bool = False
    force: bool = False


@dataclass
class Imported:
    """What was written.

    Attributes:
        sets: Utterances of each directory.
        skipped: Reasons.
        ignored: Number of files that are no audio, by ending.
        notes: What a user should know.
    """

    sets: dict[str, list[Utterance]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def check_targets(outdir: Path, options: ImportOptions) -> None:
    """Refuse to overwrite, and sizes of a valid set that mean nothing.

    Raises:
        DataError: Naming the directory or option.
    """
    if options.valid_hours is not None and options.valid_utterances is not None:
        raise DataError("give one of --valid_hours and --valid_utterances")
    for name, value in (
        ("valid_hours", options.valid_hours),
        ("valid_utterances", options.valid_utterances),
    ):
        if value is not None and not value > 0:
            raise DataError(f"--{name} must be positive, got {value:g}")
    if options.train_set == options.valid_set:
        raise DataError(f"--train_set and --valid_set are both {options.train_set}")
    for name in (options.train_set, options.valid_set):
        if (outdir / name / "wav.scp").exists() and not options.force:
            raise DataError(
                f"{outdir / name} already holds a wav.scp; give another --output_dir, or replace "
                "it with --force true"
            )


def import_corpus(
    read: Callable[[Path], Corpus], outdir: str | Path, options: ImportOptions, nj: int = 1
) -> Imported:
    """Read a corpus, leave out what cannot be used, and write its sets.

    Args:
        read: Reads it; is given the folder for audio that has to be stored.
        outdir: The sets are folders of it; ``skipped.txt`` in it lists what was left out.
        options: See `ImportOptions`.
        nj: Files read at a time.

    Raises:
        DataError: If nothing is left, or the valid set would be most of it.
    """
    target = Path(outdir)
    check_targets(target, options)
    try:
        corpus = read(target / "audio")
        measure(corpus, nj)
        if not options.keep_duplicates:
            drop_duplicates(corpus, nj)
        result = Imported(skipped=corpus.skipped, ignored=corpus.ignored)
        _drop_without_text(corpus, options, result)
        target.mkdir(parents=True, exist_ok=True)
        write_table(target / "skipped.txt", {clean(k): v for k, v in corpus.skipped.items()})
        _note_details(target, corpus, result)
        if not corpus.utterances:
            examples = some(f"{key}: {why}" for key, why in sorted(corpus.skipped.items()))
            raise DataError(f"no utterance is left ({examples or 'there was none'})")
        train, valid = hold_out(corpus.utterances, options, result.notes)
        result.sets = {options.train_set: train}
        if valid:
            result.sets[options.valid_set] = valid
        for name in (options.train_set, options.valid_set):
            for table in TABLES:
                (target / name / table).unlink(missing_ok=True)
        for name, utterances in result.sets.items():
            _write(target / name, utterances, corpus)
    except OSError as error:
        raise DataError(
            f"{error.filename or target}: cannot be read or written ({error.strerror or error})"
        ) from error
    return result


def _note_details(target: Path, corpus: Corpus, result: Imported) -> None:
    (target / DETAILS).unlink(missing_ok=True)
    kept = {utterance.key for utterance in corpus.utterances}
    details = {key: note for key, note in sorted(corpus.notes.items()) if key in kept}
    if details:
        write_table(target / DETAILS, details)
        named = some((f"{key} ({note})" for key, note in details.items()), limit=3)
        result.notes.append(f"to look at: {named}; all notes: {target / DETAILS}")


def drop_duplicates(corpus: Corpus, nj: int) -> None:
    """Skip recordings whose file has the same content as one before, by name."""
    used = {utterance.recording for utterance in corpus.utterances}
    by_size: dict[int, list[str]] = defaultdict(list)
    for name in sorted(used):
        path = corpus.recordings[name]
        by_size[len(read_ark(path)) if ark_place(path) else Path(path).stat().st_size].append(name)
    twins = [name for names in by_size.values() if len(names) > 1 for name in names]
    with ThreadPoolExecutor(max(1, nj)) as pool:
        digests = pool.map(lambda name: _digest(corpus.recordings[name]), twins)
        first: dict[str, str] = {}
        same = {
            name: first[digest]
            for name, digest in zip(twins, digests, strict=True)
            if first.setdefault(digest, name) != name
        }
    kept, whole = [], dict[str, str]()
    for utterance in corpus.utterances:
        name = same.get(utterance.recording, utterance.recording)
        part = utterance.start is not None or utterance.end is not None
        twin = same.get(utterance.recording)
        if not part and whole.setdefault(name, utterance.key) != utterance.key:
            twin = whole[name]
        if twin:
            corpus.skipped[utterance.key] = f"same audio as {twin}"
        else:
            kept.append(utterance)
    corpus.utterances = kept


def _digest(path: str) -> str:
    if ark_place(path):
        return hashlib.sha256(read_ark(path)).hexdigest()
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _drop_without_text(corpus: Corpus, options: ImportOptions, result: Imported) -> None:
    if options.need_text:
        for utterance in corpus.utterances:
            if not utterance.text:
                corpus.skipped[utterance.key] = "no transcript"
        corpus.utterances = [u for u in corpus.utterances if u.text]
        return
    without = [u.key for u in corpus.utterances if not u.text]
    if without and len(without) < len(corpus.utterances):
        result.notes.append(
            f"{len(without)} of {len(corpus.utterances)} utterances have no transcript "
            f"({some(sorted(without), limit=3)}), so no text is written; leave them out with "
            "--need_text true"
        )


def hold_out(
    utterances: Sequence[Utterance], options: ImportOptions, notes: list[str]
) -> tuple[list[Utterance], list[Utterance]]:
    """Training and valid set: by the hash of the speaker, so the same on every machine.

    Without speakers the parts of a recording stay together. Where whole speakers cannot
    make up a valid set of about the right size, recordings do, then utterances.

    Args:
        utterances: All.
        options: Size of the valid set.
        notes: Gets what was done instead.

    Raises:
        DataError: If it would be more than half of all.
    """
    if options.valid_hours is None and options.valid_utterances is None:
        return list(utterances), []
    by_hours = options.valid_hours is not None
    wanted = options.valid_hours * 3600 if by_hours else float(options.valid_utterances or 0)  # type: ignore[operator]

    def size(of: Iterable[Utterance]) -> float:
        return sum(u.seconds if by_hours else 1.0 for u in of)

    total = size(utterances)
    if wanted > total / 2:
        unit, scale = ("h", 3600) if by_hours else ("utterances", 1)
        raise DataError(
            f"a valid set of {wanted / scale:g} {unit} is more than half of the corpus "
            f"({total / scale:.3g} {unit}); ask for less"
        )
    kinds: list[tuple[str, Callable[[Utterance], str]]] = [
        ("speakers", lambda u: u.speaker or u.recording),
        ("recordings", lambda u: u.recording),
        ("utterances", lambda u: u.key),
    ]
    for kind, name in kinds:
        groups: dict[str, list[Utterance]] = defaultdict(list)
        for utterance in utterances:
            groups[name(utterance)].append(utterance)
        taken: set[str] = set()
        gathered = 0.0
        for group in sorted(groups, key=subset_rank):
            more = size(groups[group])
            if gathered + more <= wanted * (1 + NEAR) and gathered < wanted:
                taken.add(group)
                gathered += more
        if gathered >= wanted * (1 - NEAR) or kind == "utterances":
            break
    if kind != "speakers" and any(u.speaker for u in utterances):
        notes.append(f"the valid set is made of {kind}: speakers are too few or too unequal")
    if not taken:
        taken = {min(groups, key=lambda group: (size(groups[group]), subset_rank(group)))}
    valid = [u for u in utterances if name(u) in taken]
    return [u for u in utterances if name(u) not in taken], valid


def _write(directory: Path, utterances: Sequence[Utterance], corpus: Corpus) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    parts = any(u.start is not None or u.end is not None for u in utterances)
    tables: dict[str, dict[str, str]] = {}
    if parts or any(u.key != u.recording for u in utterances):
        tables["segments"] = {
            u.key: f"{u.recording} {u.start or 0.0:.6f} "
            + ("-1" if u.end is None else f"{u.end:.6f}")
            for u in utterances
        }
    speakers = {u.key: u.speaker or u.recording for u in utterances}
    # The same tables in every set.
    if any(u.speaker for u in corpus.utterances):
        tables["utt2spk"], tables["spk2utt"] = speakers, invert(speakers)
    if all(u.text for u in corpus.utterances):
        tables["text"] = {u.key: u.text or "" for u in utterances}
    if all(u.label for u in corpus.utterances):
        tables["label"] = {u.key: u.label or "" for u in utterances}
    for name, table in tables.items():
        write_table(directory / name, table)
    used = sorted({u.recording for u in utterances})
    # The last: with it the directory is whole.
    write_table(directory / "wav.scp", {name: corpus.recordings[name] for name in used})
