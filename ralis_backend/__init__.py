"""RALIS backend: active learning for image segmentation inside Label Studio.

Data reads top-down: `labelstudio` (payloads, client) -> `online` (store, learner, worker) ->
`core` (segmenter, regions, features, acquisition) and back. `offline` works on fully labelled
datasets; `app` and `cli` wire everything from `settings`.
"""

__version__ = "0.1.0"
