"""Numbers on the terminal; a bug here shows 0.00 hours, or five weeks of speech."""

import pytest

from espnet_star.terminal.units import pluralize, size, span, speech


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1.0 min"),
        (3596, "59.9 min"),
        (3599, "1.0 h"),
        (960 * 3600, "960 h"),
        (6e4 * 3600, "60000 h"),
    ],
)
def test_amounts_of_speech(seconds, text):
    assert speech(seconds) == text


def test_time_bytes_and_counts():
    assert span(0.2) == "0 seconds"
    assert span(61) == "1 minute and 1 second"
    assert span(90061).startswith("1 day and")
    assert size(85_312_000) == "85.3 MB"
    assert size(67_770_000_000) == "67.8 GB"
    assert size(0) == "0 bytes"
    assert pluralize(1, "utterance") == "1 utterance"
