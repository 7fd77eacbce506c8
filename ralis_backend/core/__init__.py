"""The algorithm: arrays and tensors in, arrays and tensors out."""
