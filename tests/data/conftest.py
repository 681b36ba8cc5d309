import numpy as np
import pytest
import soundfile


def sine(seconds=1.0, fs=16000, frequency=440.0, channels=1, amplitude=0.3):
    """``(T,)`` or ``(T, C)`` sine wave."""
    wave = amplitude * np.sin(2 * np.pi * frequency * np.arange(int(seconds * fs)) / fs)
    return wave if channels == 1 else np.stack([wave] * channels, axis=1)


@pytest.fixture
def make_source(tmp_path):
    """Write a source directory: {utterance: (samples, rate, file ending) or path or bytes}."""

    def build(audio, name="source", **tables):
        directory = tmp_path / name
        (directory / "audio").mkdir(parents=True)
        lines = []
        for key, entry in audio.items():
            path = directory / "audio" / f"{key}.wav"
            if isinstance(entry, bytes):
                path.write_bytes(entry)
            elif isinstance(entry, str):
                path = entry
            else:
                samples, rate, ending = entry
                path = path.with_suffix(f".{ending}")
                soundfile.write(path, samples, rate)
            lines.append(f"{key} {path}\n")
        (directory / "wav.scp").write_text("".join(lines))
        for table, content in tables.items():
            text = "".join(f"{key} {value}".rstrip() + "\n" for key, value in content.items())
            (directory / table).write_text(text, encoding="utf-8")
        return directory

    return build


@pytest.fixture
def tone():
    """The `sine` function."""
    return sine
