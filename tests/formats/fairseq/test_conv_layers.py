import pytest

from espnet_star.errors import StarError
from espnet_star.formats.fairseq.conv_layers import read_conv_layers


@pytest.mark.parametrize(
    "text",
    [
        "[(128, 10, 5)]",
        "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2",
        "[(16, 10, 5)] + [(32, 1, 1)] + [(32, 3, 2)] * 4 + [(48, 1,\n    1)] + [(48, 2, 2)] * 2",
        "2 * ([(8, 3, 2)] + [(4, 1, 1)]) * (1 + 1)",
        "[(8,) + (3, 2)] + [(4*4, 1, 1)]",
    ],
)
def test_what_fairseq_would_evaluate(text):
    """Fails if sums or repetitions are read in another order than Python's."""
    # The strings above are ours, so the thing that must never be done to a file is done here.
    assert read_conv_layers(text) == eval(text.replace("\n", ""))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("__import__('os').system('true')", "only lists, tuples, whole numbers"),
        ("[(8, 3, x)]", "found 'x'"),
        ("[(8, 3, 2)] * 2 ** 30", "found '2 ** 30'"),
        ("[(8, 3, 2)] * 65536", "more than 100 convolutions"),
        ("[(8, 3, 2)] * 99999999999", "a number is above 65536"),
        ("[(60000 * 60000, 3, 2)]", "a number is above 65536"),
        ("[(8, 3, 2)] * 60 + [(8, 3, 2)] * 60", "more than 100 convolutions"),
        ("[(8, 3, 2)] * [(8, 3, 2)]", "cannot multiply"),
        ("[(8, 3, 2)] + (8, 3, 2)", "cannot add"),
        ("[(8, 3, 2)] * 0", "got '[(8, 3, 2)] * 0'"),
        ("[(8, 3)]", "got '[(8, 3)]'"),
        ("[8, 3, 2]", "got '[8, 3, 2]'"),
        ("((8, 3, 2),)", "got '((8, 3, 2),)'"),
        ("[(8, 3, 0)]", "got '[(8, 3, 0)]'"),
        ("[(8, -3, 2)]", "found '-3'"),
        ("[(8, 3.0, 2)]", "found '3.0'"),
        ("[(8, True, 2)]", "found 'True'"),
        ("[(8, 3, 2) for _ in [1]]", "only lists, tuples, whole numbers"),
        ("[*[(8, 3, 2)]]", "only lists, tuples, whole numbers"),
        ("[(8, 3, 2)", "got '[(8, 3, 2)'"),
        ("", "got ''"),
        ("(" * 1000 + ")" * 1000, "got '((("),
        ("1 + " * 499 + "1", "got '1 + 1"),
        ("\0", "got"),
        ("[(8, 3, 2)] + " * 200, "at most 2000 characters"),
        ([[8, 3, 2]], "as text, got [[8, 3, 2]]"),
        (None, "as text, got None"),
    ],
)
def test_everything_else_is_refused_in_one_line(text, message):
    """Fails if a file could run code, eat the memory or end in a traceback."""
    with pytest.raises(StarError) as error:
        read_conv_layers(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
