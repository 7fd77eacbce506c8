"""The query networks and the policies made of them."""

from ralis_backend.core.policy.agnostic import AgnosticPolicy, AgnosticSpec
from ralis_backend.core.policy.misical import MisicalPolicy, MisicalSpec
from ralis_backend.core.policy.network import QueryNetwork
from ralis_backend.core.policy.ralis import (
    PolicyDoesNotFit,
    PolicySpec,
    RalisPolicy,
    network_inputs,
    state_images,
)

__all__ = [
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
