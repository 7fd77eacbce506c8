"""Kinds of policies, as their files name them in `kind`."""

RALIS = "ralis-policy"
AGNOSTIC = "agnostic-policy"
ADAPTIVE = "adaptive-policy"
MISICAL = "misical-policy"
