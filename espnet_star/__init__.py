"""STaR distillation of speech self-supervised models as an ESPnet plugin."""

__version__ = "0.1.0"
