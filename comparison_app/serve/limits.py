"""How large a request may be: refused by what it announces, or as soon as more than that has come, and never kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comparison_app.serve import schema
from comparison_app.uploads import LARGEST_UPLOAD

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST_FORM = LARGEST_UPLOAD + 1_000_000
"""Bytes of an upload: the files, and what a form writes around them."""
LARGEST_JSON = 10_000_000
"""Bytes of every other request."""


class BodyLimit:
    """ASGI middleware that answers 413 to a request whose body is too large."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, its body counted while it is read."""
        from fastapi import HTTPException
        from starlette.responses import JSONResponse

        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        form = headers.get(b"content-type", b"").startswith(b"multipart/form-data")
        limit = LARGEST_FORM if form else LARGEST_JSON
        refusal = f"the request is larger than {limit / 1e6:.0f} MB; send less at once"
        announced = headers.get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > limit:
            await JSONResponse(schema.failure(refusal), 413)(scope, receive, send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body") or b"")
            if read > limit:
                raise HTTPException(413, refusal)
            return message

        await self._app(scope, counted, send)
