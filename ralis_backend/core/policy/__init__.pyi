from .adaptive import AdaptivePolicy
from .agnostic import AgnosticPolicy, AgnosticSpec
from .misical import MisicalPolicy, MisicalSpec
from .network import QueryNetwork
from .ralis import PolicyDoesNotFit, PolicySpec, RalisPolicy, network_inputs, state_images

__all__ = [
    "AdaptivePolicy",
    "AgnosticPolicy",
    "AgnosticSpec",
    "MisicalPolicy",
    "MisicalSpec",
    "PolicyDoesNotFit",
    "PolicySpec",
    "QueryNetwork",
    "RalisPolicy",
    "network_inputs",
    "state_images",
]
