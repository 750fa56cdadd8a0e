"""A client for LXD's and Incus' API that shows its user every transaction.

Its calls go through the same request core as the tap's traffic; see :class:`API`.
"""

from __future__ import annotations

from lxdtap.api.asynchronous import AsyncAPI, AsyncAPIResult, AsyncAPIStream
from lxdtap.api.result import (
    APIConnectionError,
    APIException,
    APINotFoundException,
    APIRequest,
    APIResponse,
)
from lxdtap.api.synchronous import API, APIResult, APIStream

__all__ = [
    "API",
    "APIConnectionError",
    "APIException",
    "APINotFoundException",
    "APIRequest",
    "APIResponse",
    "APIResult",
    "APIStream",
    "AsyncAPI",
    "AsyncAPIResult",
    "AsyncAPIStream",
]
