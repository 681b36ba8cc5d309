"""Tries what SUPERB's tasks need of s3prl's environment, and prints a JSON object.

It runs there, so it imports the standard library alone, and works on any Python 3.
"""

import importlib
import importlib.metadata
import json
import pathlib
import platform
import sys
import tempfile
import wave

PACKAGES = ("espnet-s3prl", "s3prl", "torch", "torchaudio", "transformers", "numpy", "pandas")


def problem():
    """The package of the nine tasks."""
    importlib.import_module("s3prl.problem")


def upstream():
    """The upstream that reads a Hugging Face HuBERT."""
    getattr(importlib.import_module("s3prl.hub"), "hf_hubert_custom")  # noqa: B009


def run_downstream():
    """s3prl's first command line, with the expert of query by example."""
    for name in ("run_downstream", "downstream.quesst14_dtw.expert"):
        importlib.import_module(f"s3prl.{name}")


def sox_effects():
    """SoX effects, gone from torchaudio 2.9; before that they need libsox."""
    import torch
    import torchaudio

    effects = importlib.import_module("torchaudio.sox_effects")
    assert torchaudio is not None
    effects.apply_effects_tensor(torch.zeros(1, 1600), 16000, [["gain", "-3.0"]])


def torchaudio_info():
    """torchaudio.info of a path, as SuperbKS calls it; gone from torchaudio 2.9."""
    import torchaudio

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "a.wav"
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16000)
            file.writeframes(bytes(3200))
        torchaudio.info(path)


def pandas_iteritems():
    """Series.iteritems, which s3prl/dataio/corpus/base.py calls; gone from pandas 2."""
    import pandas

    pandas.Series([1]).iteritems()


def cuda():
    """A GPU that torch sees."""
    import torch

    assert torch.cuda.is_available(), "torch.cuda.is_available() is False"


CHECKS = (cuda, problem, upstream, run_downstream, sox_effects, torchaudio_info, pandas_iteritems)


def attempt(check):
    """Why something does not work, None if it does."""
    try:
        check()
    except BaseException as error:  # whatever an import may raise, SystemExit included
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"{type(error).__name__}: {lines[0] if lines else ''}".rstrip(": ")
    return None


def versions():
    """Versions of the packages that are there."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def main():
    """Print what does not work of the checks named, and the versions."""
    wanted = set(sys.argv[1:])
    missing = {c.__name__: attempt(c) for c in CHECKS if c.__name__ in wanted}
    content = {"versions": versions(), "missing": {k: v for k, v in missing.items() if v}}
    # Alone on the last line: what is imported may print.
    print(f"\n{json.dumps(content)}")


if __name__ == "__main__":
    main()
