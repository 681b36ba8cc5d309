"""ESPnet's packs: written, checked before they are unpacked, fetched from a hub."""
