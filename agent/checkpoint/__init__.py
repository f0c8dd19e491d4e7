"""Checkpoints: which there are, whether they are complete, whether their hashes hold."""
