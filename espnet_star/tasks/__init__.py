"""ESPnet tasks: distillation, and ESPnet's own with the student registered."""
