"""What a look at an image may give besides probabilities."""

MAPS = ("bald", "deep_bald", "embeddings", "mirrored")
"""What a look at an image may be asked for, by name; each takes time."""
