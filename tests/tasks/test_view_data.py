"""What a view reads, against the data that is given: before a step, for both sets, in one line."""

from argparse import Namespace

import pytest

from espnet_star.errors import StarError
from espnet_star.tasks.preflight.views import check_view_data

SPEECH, LABELS = ("wav.scp", "speech", "sound"), ("units", "labels", "text_int")


def options(train, valid, view="labelled", **others):
    return Namespace(
        view=view,
        train_data_path_and_name_and_type=train,
        valid_data_path_and_name_and_type=valid,
        **others,
    )


def test_labels_are_there_for_both_or_nobody_knows_yet():
    """Fails if ESPnet3, whose data sets the task never sees, were refused."""
    check_view_data(options([SPEECH, LABELS], [SPEECH, LABELS]))
    check_view_data(options([], []))
    check_view_data(options([SPEECH], [SPEECH], view="masked"))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            options([SPEECH], [SPEECH, LABELS]),
            "which the data has not for train; give --train_data",
        ),
        (
            options([SPEECH, LABELS], [SPEECH]),
            "which the data has not for valid; give --valid_data",
        ),
        (
            options([], [], train_shards=["a"]),
            "shards, which hold speech alone, have not for train",
        ),
    ],
)
def test_what_is_missing_is_named(args, message):
    """Fails if validation found it out, at the end of the first epoch."""
    with pytest.raises(StarError) as caught:
        check_view_data(args)
    assert message in str(caught.value) and "view labelled reads labels" in str(caught.value)
