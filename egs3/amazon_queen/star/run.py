#!/usr/bin/env python3
"""A student of about 4 M parameters from Whisper base's encoder, through ESPnet3 (README.md)."""

from espnet_star.espnet3.launch import main

# Lightning and DataLoader workers import this file again.
if __name__ == "__main__":
    main()
