"""One module a command, named as ESPnet names its own."""
