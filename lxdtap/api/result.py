"""What a call to the daemon came to: the result, and the exceptions that carry it.

Pure: a result is made of what was exchanged, wherever it was, on the wire or in a recording.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lxdtap import content, lxd
from lxdtap.content import Content, Document, Json, Text
from lxdtap.errors import LxdtapError
from lxdtap.log import debugformat
from lxdtap.log.entries import TransactionEntry
from lxdtap.redact import Redactor
from lxdtap.transaction import Body, Request, Timing, Transaction

LONGEST = 2000
"""Characters of an answer that stand in an error message, where it has no words for the error."""


@dataclass(frozen=True, slots=True)
class APIRequest:
    """The request, as it was sent.

    Attributes:
        method: such as ``GET``, in capitals.
        url: the whole URL, its query included.
        body: what was sent; None where there was no body, or it was streamed.
        headers: those that the caller gave.

    Example:
        >>> APIRequest("GET", "http+unix://%2Flxd/1.0/images").url
        'http+unix://%2Flxd/1.0/images'
    """

    method: str
    url: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class APIResponse:
    """The daemon's response, read to its end.

    Attributes:
        status_code: the HTTP status.
        headers: names in any case; the first one counts where a name was sent twice.
        content: the whole body, uncompressed.

    Example:
        >>> response = APIResponse(200, {"Content-Type": "application/json"}, b'{"type": "sync"}')
        >>> response.json()
        {'type': 'sync'}
    """

    status_code: int
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""

    @property
    def text(self) -> str:
        """The body as text; what is not UTF-8 becomes U+FFFD."""
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:  # noqa: ANN401 - whatever the daemon said
        """The body's JSON.

        Raises:
            ValueError: it is not JSON.
        """
        return json.loads(self.content)


class Result:
    """A transaction from the caller's point of view.

    Attributes:
        request: what was sent.
        response: what came back.
        transaction: the same as the tap sees it, with times; None where it was streamed and
            has not ended.
        data: the response's JSON; None where it is not JSON, as for a file.
        metadata: the JSON's ``metadata``; None where there is none.

    Example:
        >>> request = APIRequest("GET", "http+unix://%2Flxd/1.0")
        >>> says = b'{"type": "sync", "metadata": {"auth": "trusted"}}'
        >>> result = Result(request, APIResponse(200, {}, says))
        >>> result.metadata["auth"]
        'trusted'
        >>> result
        <GET http+unix://%2Flxd/1.0: 200, 49 bytes>
    """

    def __init__(
        self, request: APIRequest, response: APIResponse, entry: TransactionEntry | None = None
    ) -> None:
        self.request = request
        self.response = response
        self.data = _json(response)
        self._entry = entry

    @property
    def metadata(self) -> Any:  # noqa: ANN401 - whatever the daemon said
        """The ``metadata`` of :attr:`data`."""
        return self.data.get("metadata") if isinstance(self.data, dict) else None

    @property
    def transaction(self) -> Transaction | None:
        """The transaction, without its secrets."""
        return None if self._entry is None else self._entry.transaction

    def request_summary(self) -> str:
        """Method, URL and, where there was one, the body: the first half of the DEBUG text."""
        if self._entry is not None:
            return debugformat.request_summary(self._entry.transaction, self._entry.request)
        asked = Transaction(0, "", Request(self.request.method, self.url), Timing(0, 0))
        says = _read(self.request.body or b"", self.request.headers)
        return debugformat.request_summary(asked, says)

    def response_summary(self) -> str:
        """``HTTP/`` and the status, then the body: the second half of the DEBUG text."""
        return debugformat.response_summary(self.response.status_code, self._says)

    def validate(self) -> None:
        """Raise where the daemon reported an error, in the status or anywhere in the metadata.

        Raises:
            APINotFoundException: HTTP 404.
            APIException: HTTP 400 or more, or a nested ``status_code`` of 400 or more.
        """
        if self.response.status_code == 404:
            raise APINotFoundException(self)
        if self.response.status_code >= lxd.FAILED:
            raise APIException(self)
        self.validate_metadata(self.data)

    def validate_metadata(self, data: Json) -> None:
        """Raise where ``metadata``, or metadata within it, has a ``status_code`` of 400 or more.

        An operation that failed says so behind an HTTP 200 (LXD's shared/api/operation.go); LXD
        5.0.3 and later say even an error so, once they have begun to answer a wait.

        Raises:
            APIException: it has.
        """
        if lxd.failure(data):
            raise APIException(self)

    @property
    def error(self) -> str:
        """The daemon's words for what failed, without secrets; empty where nothing did."""
        said = self._entry.error if self._entry is not None else ""
        said = said or Redactor().text(lxd.failure(self.data))
        if said or self.response.status_code < lxd.FAILED:
            return said
        match self._says:
            case Document(value):
                return json.dumps(value)[:LONGEST]
            case Text(text):
                return text.strip()[:LONGEST]
        return f"HTTP/{self.response.status_code}"

    def __repr__(self) -> str:
        size = len(self.response.content)
        return f"<{self.request.method} {self.url}: {self.response.status_code}, {size} bytes>"

    @property
    def url(self) -> str:
        """The URL without its secrets, for people."""
        if self._entry is None:
            return Redactor().text(self.request.url)
        return self._entry.transaction.url

    def wait_url(self, timeout: float) -> str | None:
        """Where to wait for the operation that was begun; None where there is none.

        LXD takes whole seconds (lxd/operations.go), and waits without end for ``-1``.
        """
        path = self.data.get("operation") if isinstance(self.data, dict) else None
        if not (path and isinstance(path, str)):
            return None
        path, _, query = path.partition("?")
        seconds = -1 if timeout < 0 or math.isinf(timeout) else math.ceil(timeout)
        more = f"&{query}" if query else ""
        return f"{path}/wait?timeout={seconds}{more}"

    @property
    def _shown(self) -> APIRequest:
        """The request as error messages may show it."""
        return APIRequest(self.request.method, self.url)

    def _broke_off(self, reason: str) -> APIConnectionError:
        """The error, in the core's words where it has any."""
        seen = self.transaction.broken if self.transaction is not None else ""
        return APIConnectionError(self._shown, seen or reason)

    @property
    def _says(self) -> Content:
        """What the response's body says, without secrets."""
        if self._entry is not None:
            return self._entry.response
        return _read(self.response.content, self.response.headers)


def _read(data: bytes, headers: Mapping[str, str]) -> Content:
    body = Body(len(data), data)
    return Redactor().content(content.read(body, tuple(headers.items())))


def _json(response: APIResponse) -> Any:  # noqa: ANN401 - whatever the daemon said
    kind = next((v for k, v in response.headers.items() if k.lower() == "content-type"), "")
    if "json" not in kind.lower() and not response.content.startswith((b"{", b"[")):
        return None
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None


class APIException(LxdtapError):  # noqa: N818 - the name that programs know
    """The daemon reported an error. The message is ``METHOD URL error``.

    Attributes:
        result: the whole transaction.
        error: the daemon's words.

    Example:
        >>> request = APIRequest("GET", "http+unix://%2Flxd/1.0/instances/c1")
        >>> says = b'{"type": "error", "error": "Instance not found", "error_code": 404}'
        >>> print(APINotFoundException(Result(request, APIResponse(404, {}, says))))
        GET http+unix://%2Flxd/1.0/instances/c1 Instance not found
    """

    def __init__(self, result: Result) -> None:
        self.result = result
        self.error = result.error
        super().__init__(f"{result.request.method} {result.url} {self.error}")

    def __reduce__(self) -> tuple[type[APIException], tuple[Result]]:
        """Pickled as its result, from which all else follows."""
        return type(self), (self.result,)


class APINotFoundException(APIException):
    """The daemon answered 404: there is no such thing.

    Example:
        .. code-block:: python

            try:
                api.get("instances/c2")
            except APINotFoundException:
                print("there is no c2")
    """


class APIConnectionError(LxdtapError):
    """A call broke off before its answer was complete.

    Attributes:
        request: what was asked.
        reason: how it broke off.

    Example:
        >>> request = APIRequest("GET", "http+unix://%2Flxd/1.0")
        >>> print(APIConnectionError(request, "the daemon closed the connection"))
        GET http+unix://%2Flxd/1.0 the daemon closed the connection
    """

    def __init__(self, request: APIRequest, reason: str) -> None:
        super().__init__(f"{request.method} {request.url} {reason}")
        self.request = request
        self.reason = reason

    def __reduce__(self) -> tuple[type[APIConnectionError], tuple[APIRequest, str]]:
        """Pickled as what it was made of."""
        return type(self), (self.request, self.reason)
