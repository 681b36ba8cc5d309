import pytest
from amazon_queen_builders import archive_bytes, dialogue_bytes
from queen_archive import (
    Line,
    QueenError,
    clip_entries,
    pair_clips,
    read_dialogue,
    read_entry,
    read_index,
)


def pair(clips, dialogues):
    data = archive_bytes({f"{name}.SB": b"x" for name in clips} | dialogues)
    return pair_clips(data, read_index(data))


def test_index_and_entries_come_back():
    data = archive_bytes({"020006J1.SB": b"first", "AND1.DOG": b"second", "C1.SB": b""})
    index = read_index(data)
    assert list(index) == ["020006J1.SB", "AND1.DOG", "C1.SB"]
    assert [read_entry(data, entry) for entry in index.values()] == [b"first", b"second", b""]
    assert list(clip_entries(index)) == ["020006J1", "C1"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"RIFFxxxxxxxxxxxxxxxx", "start with b'QTBL', found b'RIFF'"),
        (b"", "found b''"),
        (b"QTBLCEM10", "header cut short at 9 bytes"),
        (archive_bytes({"A.SB": b"12345"})[:-1], "A.SB should end at byte 41, the file ends at 40"),
        (archive_bytes({"A.SB": b"1"})[:20], "index of 1 entries needs 36 bytes"),
        (archive_bytes({"A.SB": b"1"}, offset_error=2**31), "entry A.SB should end"),
        (archive_bytes({"../A.SB": b"1"}), "entry 0 has the name '../A.SB'"),
    ],
)
def test_damaged_archive_is_refused_with_its_name(data, message):
    with pytest.raises(QueenError, match=r"voices\.1c") as error:
        read_index(data, "voices.1c")
    assert message in str(error.value)


@pytest.mark.parametrize("levels", [3, -3])
def test_lines_are_cut_at_commands_and_counted_with_the_silent_ones(levels):
    block = dialogue_bytes(
        2,
        hero=[(0, "*FR"), (6, "Hello there.*04*02"), (0x2A, "One.*15Two?")],
        person=[(6, "*FL*02Who are *03you?"), (0x5DC9, "Bye.")],
        levels=levels,
    )
    assert list(read_dialogue(block, "BUD2.DOG")) == [
        ("020006J1", Line("JOE", "Hello there.")),
        ("02002AJ1", Line("JOE", "One.")),
        ("02002AJ2", Line("JOE", "Two?")),
        ("020006P3", Line("BUD", "Who are")),
        ("020006P4", Line("BUD", "you?")),
        ("025DC9P1", Line("BUD", "Bye.")),
    ]


def test_pairing_needs_a_clip_and_one_reading():
    dialogue = dialogue_bytes(
        29,
        hero=[(0x20, "I count doors."), (0x20, "I need a boat."), (6, "Same."), (6, "Same.")],
        person=[(6, "Well...*01No voice.")],
    )
    lines = pair(["290020J1", "290006J1", "290006P1", "C1A_001"], {"LARIS.DOG": dialogue})
    assert lines == {
        "290020J1": Line("JOE", None),
        "290006J1": Line("JOE", "Same."),
        "290006P1": Line("LARIS", "Well..."),
    }


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (b"\0" * 30, "header cut short, the entry has 30 bytes"),
        (dialogue_bytes(2, [(6, "Hello.")], [(6, "Hi.")])[:-8], "line 0 of 1 should end at"),
        (dialogue_bytes(2, [(6, "Hello.")], [(6, "Hello")])[:-3], "line 0 of 1 should end at"),
        (dialogue_bytes(2, [], [(6, "Hi.")], person_offset=9999), "should start at byte 9999"),
    ],
)
def test_damaged_dialogue_is_refused_with_its_name(block, message):
    with pytest.raises(QueenError, match=r"TAM1\.DOG") as error:
        pair(["020006J1"], {"TAM1.DOG": block})
    assert message in str(error.value)
