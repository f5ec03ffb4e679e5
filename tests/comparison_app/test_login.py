"""A login by OpenID Connect, gone through in a real browser with a provider of our own."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from tests.comparison_app.browser import CHROMIUM, free_port, running_app
from tests.small_corpus import write_small_corpus

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
    pytest.mark.timeout(600),
]
LONG = 120_000


@contextmanager
def provider(client: str) -> Iterator[str]:
    """Serve an OpenID Connect provider that vouches for whoever clicks "Allow"; yields its issuer's address."""
    from joserfc import jwt
    from joserfc.jwk import RSAKey

    key = RSAKey.generate_key(2048, {"kid": "one", "use": "sig", "alg": "RS256"})
    nonces: dict[str, str] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            where, asked = urlsplit(self.path), {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()}
            if where.path == "/authorize":
                code = f"code-{len(nonces)}"
                nonces[code] = asked["nonce"]
                back = f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"
                self._send(f"<a href='{back.replace('&', '&amp;')}'>Allow</a>".encode(), "text/html")
            elif where.path == "/keys":
                self._json({"keys": [key.as_dict(private=False)]})
            else:
                self._json(
                    {
                        "issuer": issuer,
                        "authorization_endpoint": f"{issuer}/authorize",
                        "token_endpoint": f"{issuer}/token",
                        "jwks_uri": f"{issuer}/keys",
                        "response_types_supported": ["code"],
                        "subject_types_supported": ["public"],
                        "id_token_signing_alg_values_supported": ["RS256"],
                    }
                )

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            now = int(time.time())
            claims = {"iss": issuer, "aud": client, "sub": "7", "iat": now, "exp": now + 600, "name": "Ada"}
            token = jwt.encode({"alg": "RS256", "kid": "one"}, {**claims, "nonce": nonces[form["code"][0]]}, key)
            self._json({"access_token": "a", "token_type": "Bearer", "expires_in": 600, "id_token": token})

        def _json(self, body: dict[str, Any]) -> None:
            self._send(json.dumps(body).encode(), "application/json")

        def _send(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()


def test_only_who_the_provider_vouches_for_comes_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the login no page shows anything; after it the visitor stays in over a reload, until logging out."""
    from playwright.sync_api import sync_playwright

    workspace = tmp_path / "workspace"
    write_small_corpus(workspace / "corpora" / "lamp")
    port = free_port()
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".streamlit").mkdir()
    with provider("versus") as issuer:
        (tmp_path / ".streamlit" / "secrets.toml").write_text(
            f'[auth]\nredirect_uri = "http://127.0.0.1:{port}/oauth2callback"\ncookie_secret = "{"c" * 40}"\n'
            f'client_id = "versus"\nclient_secret = "s"\n'
            f'server_metadata_url = "{issuer}/.well-known/openid-configuration"\n'
        )
        options = ("--corpus", "lamp", "--login")
        with running_app(workspace, tmp_path / "log", *options, port=port) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page()
            page.set_default_timeout(LONG)
            page.goto(f"{address}/documents")
            page.get_by_role("button", name="Log in").wait_for()
            assert page.get_by_text("lamp").count() == 0
            page.get_by_role("button", name="Log in").click()
            page.get_by_role("link", name="Allow").click()
            page.get_by_label("Question").wait_for()
            page.reload()
            page.get_by_label("Question").wait_for()
            page.get_by_test_id("stExpandSidebarButton").click()
            page.get_by_role("button", name="Log out").click()
            page.get_by_role("button", name="Log in").wait_for()
            assert page.get_by_label("Question").count() == 0
            browser.close()
