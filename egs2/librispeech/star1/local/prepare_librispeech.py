"""LibriSpeech to Kaldi-style data directories, by lhotse, after a check of what is there."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fetch_librispeech import OPENSLR, fetch_lm, fetch_parts
from librispeech_tree import SETS, check_part, corpus_folder, parts_of

from espnet_star.bin.command import run_tool, str2bool
from espnet_star.data.errors import DataError
from espnet_star.data.kaldi import write_table
from espnet_star.errors import first_line
from espnet_star.files.staging import staged

MARKER = ".librispeech.json"
# An utterance is a file of its own: these two say so once more, and rounded.
NEEDLESS = ("segments", "reco2dur")


def get_parser() -> argparse.ArgumentParser:
    """Options; those of ``local/data.sh``."""
    parser = argparse.ArgumentParser(prog="local/data.sh", description=__doc__)
    parser.add_argument(
        "--sets",
        nargs="+",
        default=["train_960", "dev", "train_clean_100", "dev_clean", "test_clean"],
        metavar="SET",
        help=f"What to write, and with it what to fetch: {', '.join(SETS)}",
    )
    parser.add_argument(
        "--librispeech",
        type=Path,
        help="LibriSpeech/ or its parent, where you have the corpus; nothing is fetched then",
    )
    parser.add_argument(
        "--download_dir", type=Path, default=Path("downloads"), help="Gets what is fetched"
    )
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="Gets the sets")
    parser.add_argument(
        "--lm",
        type=str2bool,
        default=False,
        help="Also fetch the official 4-gram and its words to DOWNLOAD_DIR/lm",
    )
    parser.add_argument(
        "--allow_fewer",
        type=str2bool,
        default=False,
        help="Accept parts with another number of utterances than LibriSpeech's",
    )
    parser.add_argument(
        "--keep_archives", type=str2bool, default=False, help="Keep archives once unpacked"
    )
    parser.add_argument("--base_url", default=OPENSLR, help="OpenSLR or a mirror of it")
    parser.add_argument("--nj", type=int, default=8, help="Threads that read audio headers")
    return parser


def prepare(args: argparse.Namespace) -> None:
    """Fetch, check, and write every set.

    Raises:
        StarError: On an unknown set, or whatever is missing or damaged.
    """
    wanted = {name.replace("-", "_"): parts_of(name) for name in args.sets}
    parts = list(dict.fromkeys(part for group in wanted.values() for part in group))
    if args.librispeech is not None:
        corpus = corpus_folder(args.librispeech)
    else:
        corpus = fetch_parts(parts, args.download_dir, args.base_url, args.keep_archives)
    if args.lm:
        fetch_lm(args.download_dir / "lm", args.base_url)
    # All of it before lhotse reads the first header.
    counts = {part: check_part(corpus, part, args.allow_fewer) for part in parts}
    manifests: dict[str, dict[str, Any]] = {}
    for name, group in wanted.items():
        facts = {"corpus": str(corpus), "parts": {part: counts[part] for part in group}}
        target = args.data_dir / name
        if _is_written(target, facts):
            print(f"{target} is up to date: {sum(facts['parts'].values())} utterances")
            continue
        for part in group:
            if part not in manifests:
                manifests[part] = read_part(corpus, part, counts[part], args.nj)
        write_set([manifests[part] for part in group], target, facts)
        print(f"{target}: {sum(facts['parts'].values())} utterances of {', '.join(group)}")


def _is_written(target: Path, facts: dict[str, Any]) -> bool:
    try:
        return json.loads((target / MARKER).read_text(encoding="utf-8")) == facts
    except (OSError, ValueError):
        return False


def read_part(corpus: Path, part: str, count: int, nj: int) -> dict[str, Any]:
    """Recordings and supervisions of a part.

    Raises:
        DataError: If lhotse cannot read a file, or leaves utterances out.
    """
    try:
        from lhotse.recipes import prepare_librispeech
    except ImportError:
        raise DataError(
            "lhotse is needed for LibriSpeech; install it with: pip install espnet_star[recipes]"
        ) from None
    try:
        found = prepare_librispeech(corpus, dataset_parts=[part], num_jobs=nj)[part]
    except Exception as error:  # the audio library's own kinds
        reason = first_line(error).removesuffix(" Details:")
        raise DataError(
            f"{corpus / part}: an audio file cannot be read ({reason}); unpack the archive again"
        ) from error
    if len(found["supervisions"]) != count:
        raise DataError(
            f"{corpus / part}: lhotse took {len(found['supervisions'])} of {count} utterances; "
            "look at its warnings above"
        )
    return found


def write_set(manifests: Sequence[dict[str, Any]], target: Path, facts: dict[str, Any]) -> None:
    """Export the parts of a set to one Kaldi-style directory, whole or not at all."""
    from lhotse import RecordingSet, SupervisionSet
    from lhotse.kaldi import export_to_kaldi

    recordings = [item for manifest in manifests for item in manifest["recordings"]]
    supervisions = [item for manifest in manifests for item in manifest["supervisions"]]
    (target / MARKER).unlink(missing_ok=True)
    with staged(target) as scratch:
        export_to_kaldi(
            RecordingSet.from_recordings(sorted(recordings, key=lambda item: item.id)),
            SupervisionSet.from_segments(sorted(supervisions, key=lambda item: item.id)),
            scratch,
        )
        # lhotse writes a pipe through ffmpeg, which training could not read.
        paths = {item.id: item.sources[0].source for item in recordings}
        write_table(scratch / "wav.scp", paths)
        for name in NEEDLESS:
            (scratch / name).unlink(missing_ok=True)
        (scratch / MARKER).write_text(json.dumps(facts), encoding="utf-8")


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = get_parser().parse_args(cmd)
    run_tool("local/data.sh", lambda: prepare(args))


if __name__ == "__main__":
    main()
