"""A local server that speaks the OpenAI chat protocol, for tests: it answers by a function of the last message."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@contextmanager
def chat_server(
    reply: Callable[[str], str], *, latency: float = 0.0, failures: int = 0, tells_usage: bool = True
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Serve on a free port of this machine; yields the base URL and the list of requests seen.

    The first `failures` requests are answered with 503, as a busy server does. Without `tells_usage` a stream that is
    asked for its usage is refused, as servers do that do not know the wish.
    """
    seen: list[dict[str, Any]] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            try:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            except ValueError:  # the client was killed while it was sending
                return
            with lock:
                seen.append({"body": body, "key": self.headers.get("Authorization")})
                busy = len(seen) <= failures
            time.sleep(latency)
            if busy:
                self._send(503, {"error": {"message": "busy"}})
            elif "stream_options" in body and not tells_usage:
                self._send(400, {"error": {"message": "Unrecognized request argument: stream_options"}})
            elif body.get("stream"):
                usage = (body.get("stream_options") or {}).get("include_usage")
                self._stream(body, reply(body["messages"][-1]["content"]), bool(usage))
            else:
                self._send(200, _completion(body["model"], reply(body["messages"][-1]["content"])))

        def _send(self, status: int, data: dict[str, Any]) -> None:
            content = json.dumps(data).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with suppress(BrokenPipeError):  # a client that was killed is not waiting
                self.wfile.write(content)

        def _stream(self, body: dict[str, Any], text: str, usage: bool) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for word in text.split():
                piece = {"delta": {"content": word + " ", "role": "assistant"}, "index": 0, "finish_reason": None}
                self.wfile.write(f"data: {json.dumps(_chunk(piece))}\n\n".encode())
            last = {"delta": {}, "index": 0, "finish_reason": "stop"}
            self.wfile.write(f"data: {json.dumps(_chunk(last))}\n\n".encode())
            if usage:
                told = {**_completion(body["model"], text), "object": "chat.completion.chunk", "choices": []}
                self.wfile.write(f"data: {json.dumps(told)}\n\n".encode())
            self.wfile.write(b"data: [DONE]\n\n")

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", seen
    finally:
        server.shutdown()
        server.server_close()


def _completion(model: str, text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 11, "completion_tokens": len(text.split()), "total_tokens": 11 + len(text.split())}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": model, "choices": [choice], "usage": usage}


def _chunk(choice: dict[str, Any]) -> dict[str, Any]:
    return {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}
