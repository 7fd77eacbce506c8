"""Image -> class probabilities.

What is named here is imported when it is first asked for: most of it takes torch, which takes
seconds, and who needs the rest alone must not wait for it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
