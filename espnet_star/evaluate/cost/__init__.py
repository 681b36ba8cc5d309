"""Parameters, operations, time and memory of encoders."""
