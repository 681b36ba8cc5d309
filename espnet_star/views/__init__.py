"""What is fed to whom, one view a file; a new one needs a line in ``VIEWS``."""

from espnet_star.registry import Registry
from espnet_star.views.base import Pass, View
from espnet_star.views.labelled import LabelledView
from espnet_star.views.masked import MaskedView
from espnet_star.views.mixed import MixedView
from espnet_star.views.noisy import NoisyView
from espnet_star.views.plain import PlainView
from espnet_star.views.two_takes import TwoTakesView

VIEWS: Registry[View] = Registry(
    "view",
    View,  # type: ignore[type-abstract]
    {
        "plain": PlainView,
        "masked": MaskedView,
        "labelled": LabelledView,
        "mixed": MixedView,
        "noisy": NoisyView,
        "two_takes": TwoTakesView,
    },
)

__all__ = [
    "VIEWS",
    "LabelledView",
    "MaskedView",
    "MixedView",
    "NoisyView",
    "Pass",
    "PlainView",
    "TwoTakesView",
    "View",
]
