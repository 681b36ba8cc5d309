"""Around the steps: trainer, updates, losses that are not finite, ranks that die, shards."""
