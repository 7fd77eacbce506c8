"""One labelling project while it runs: store, learner, worker."""
