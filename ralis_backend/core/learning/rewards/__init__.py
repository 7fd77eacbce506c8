"""Scores of parsings -> a better segmenter: "Semantic segmentation with reward" (RSS).

The method is arXiv:2505.17905. Its abstract, its captions and the names of its parts were at hand,
its formulas were not: docstrings mark with [P] what the paper says and with [D] what is our design.
"""
