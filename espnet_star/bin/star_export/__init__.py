"""A student, or an ESPnet model built on it, in the forms that others read: written and proved."""

from espnet_star.bin.command import Subcommands

_OWN = Subcommands(__name__, __doc__)
get_parser, main = _OWN.get_parser, _OWN.main
