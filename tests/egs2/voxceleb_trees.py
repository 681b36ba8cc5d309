"""A miniature VoxCeleb1 in the corpus's own layout, and its lists."""

import soundfile

DEV, TEST = (10001, 10002, 10003, 10004), (10270, 10271)
# Videos of each speaker, by the part of the identification split that they are in.
PARTS = (1, 1, 2, 3)


def names(speakers=(*DEV, *TEST)):
    """Paths below ``wav`` and their part, two utterances a video."""
    return [
        (part, f"id{speaker}/vid{video}_-x{speaker % 7}/{number:05d}.wav")
        for speaker in speakers
        for video, part in enumerate(PARTS)
        for number in (1, 2)
    ]


def trials():
    """Every kind of trial over the test speakers' utterances."""
    one, two = ([path for _, path in names([speaker])] for speaker in TEST)
    lines = [f"1 {side[0]} {path}" for side in (one, two) for path in side[1:]]
    return lines + [f"0 {a} {b}" for a, b in zip(one, reversed(two), strict=True)]


def write_lists(folder):
    """The three official lists; the cleaned trials lack the last one."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{part} {path}" for part, path in names()]
    (folder / "iden_split.txt").write_text("\n".join(lines) + "\n")
    (folder / "veri_test.txt").write_text("\n".join(trials()) + "\n")
    (folder / "veri_test2.txt").write_text("\n".join(trials()[:-1]) + "\n")
    return folder


def write_tree(root, make_speech, merged=False):
    """``dev/wav`` and ``test/wav``, or one ``wav``."""
    for index, (_, path) in enumerate(names()):
        part = "test" if int(path[2:7]) in TEST else "dev"
        target = root / "wav" / path if merged else root / part / "wav" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        speech = make_speech(int(path[2:7]) % 10, 6400 + 80 * (index % 9))
        soundfile.write(target, speech, 16000)
    return root
