"""Distillation through ESPnet3's launcher and Lightning; nothing else here imports it."""
