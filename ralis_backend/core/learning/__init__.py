"""Labels -> a better segmenter."""
