"""Run as ``python -m espnet_star.bin.star_data``."""

from espnet_star.bin.star_data import main

if __name__ == "__main__":
    main()
