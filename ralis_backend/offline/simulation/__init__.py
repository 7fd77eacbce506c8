"""Simulations of datasets on disk: the real segmenter, or cached features for the fast one."""
