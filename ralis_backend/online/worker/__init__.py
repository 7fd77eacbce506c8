"""The worker: sync -> train -> rank -> publish, for each project, until nothing is due.

Level-triggered: each pass compares what is with what should be, so a kill at any moment costs
at most the step in progress, and no label.

What is named here is imported when it is first asked for: who only reads a project needs no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
