"""The endpoint, through the official `openai` client and plain HTTP, on a real server with a real index."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from comparison_app.arm_pool import ArmPool
from comparison_app.errors import ExperimentError
from comparison_app.library import Library
from comparison_app.serve.api import Service, create_app
from comparison_app.workspace import Workspace
from tests.small_corpus import write_small_corpus

KEY = "a-key-for-tests"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server on a free port, over a small corpus of one's own and arms one of which is lost; yields its address."""
    import uvicorn

    folder = tmp_path_factory.mktemp("serve")
    workspace = Workspace(folder / "workspace")
    write_small_corpus(workspace.corpora / "lamp")
    experiment = folder / "arms.toml"
    experiment.write_text(
        'name = "arms"\ncorpus = "lamp"\n[[arms]]\nname = "quotes"\nkind = "rag-extractive"\n'
        '[[arms]]\nname = "lost"\nkind = "base"\nmodel = "m"\nendpoint = "http://127.0.0.1:9/v1"\n'
    )
    pool = ArmPool(workspace, experiment)
    service = Service(pool, Library(workspace, pool.renew), "lamp", KEY)
    runner = uvicorn.Server(uvicorn.Config(create_app(service), host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=runner.run, daemon=True)
    thread.start()
    while not runner.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{runner.servers[0].sockets[0].getsockname()[1]}"
    runner.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def client(server: str) -> httpx.Client:
    """A plain client that sends the key."""
    return httpx.Client(base_url=server, headers={"Authorization": f"Bearer {KEY}"}, timeout=60)


def test_the_openai_client_talks_to_every_arm(server: str) -> None:
    """Models are arms; an answer comes whole or streamed, with its sources beside it."""
    import openai

    client = openai.OpenAI(base_url=f"{server}/v1", api_key=KEY, max_retries=0)
    assert [model.id for model in client.models.list()] == ["quotes", "lost"]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How long does the lamp charge before its first use?"},
    ]
    whole = client.chat.completions.create(model="quotes", messages=messages)
    assert "4 hours" in (whole.choices[0].message.content or "")
    source = whole.model_dump()["sources"][0]
    assert (source["title"], source["section"]) == ("Battery", "Charging")
    assert "4 hours" in source["quotes"][0]
    chunks = list(
        client.chat.completions.create(
            model="lamp/quotes", messages=messages, stream=True, stream_options={"include_usage": True}
        )
    )
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert streamed == whole.choices[0].message.content
    assert any(chunk.model_dump().get("sources") for chunk in chunks)
    assert chunks[-1].usage is not None
    with pytest.raises(openai.NotFoundError, match="quotes, lost"):
        client.chat.completions.create(model="magic", messages=messages)
    with pytest.raises(openai.BadRequestError, match="2,000"):
        client.chat.completions.create(model="quotes", messages=[{"role": "user", "content": "x" * 50_000}])
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{server}/v1", api_key="wrong", max_retries=0).models.list()


def test_requests_that_make_no_sense_are_refused_with_the_reason(client: httpx.Client) -> None:
    """No messages, none of the user, messages of another shape; the server stays up."""
    for body, reason in (
        ({"model": "quotes"}, "messages must be a list"),
        ({"model": "quotes", "messages": [{"role": "system", "content": "x"}]}, "none of the role user"),
        ({"model": "quotes", "messages": [{"role": "user", "content": {"a": 1}}]}, "the question is empty"),
        ({"model": "nowhere/quotes", "messages": [{"role": "user", "content": "x"}]}, "no corpus"),
    ):
        reply = client.post("/v1/chat/completions", json=body)
        assert reply.status_code in (400, 404)
        assert reason in reply.json()["error"]["message"]
    assert client.get("/health").json()["status"] == "ok"


def test_every_refusal_has_the_shape_of_openais_errors(client: httpx.Client) -> None:
    """Broken JSON, a body of another kind, missing fields, unknown routes and methods: a message, and where it is."""
    headers = {"Content-Type": "application/json"}
    for method, path, body, status, words in (
        ("POST", "/v1/chat/completions", b'{"model": ', 400, "the body is not JSON"),
        ("POST", "/v1/chat/completions", b"[1]", 400, "body: "),
        ("PUT", "/v1/documents/x", b"{}", 400, "body.text: "),
        ("GET", "/v1/search", b"", 400, "query.q: "),
        ("GET", "/v1/nowhere", b"", 404, "Not Found"),
        ("DELETE", "/v1/models", b"", 405, "Method Not Allowed"),
    ):
        reply = client.request(method, path, content=body, headers=headers)
        assert (reply.status_code, reply.json()["error"]["type"]) == (status, "invalid_request_error"), path
        assert words in reply.json()["error"]["message"]


def test_a_body_that_is_too_large_is_refused_before_it_is_read(server: str, client: httpx.Client) -> None:
    """What announces more than may come gets 413 at once; what announces nothing, as soon as more has come."""
    import http.client

    from comparison_app.serve.limits import LARGEST_FORM, LARGEST_JSON

    for path, kind, size in (
        ("/v1/documents?corpus=big", "multipart/form-data; boundary=x", LARGEST_FORM + 1),
        ("/v1/chat/completions", "application/json", LARGEST_JSON + 1),
    ):
        connection = http.client.HTTPConnection(server.removeprefix("http://"), timeout=60)
        connection.putrequest("POST", path)
        for name, value in (("Authorization", f"Bearer {KEY}"), ("Content-Type", kind), ("Content-Length", str(size))):
            connection.putheader(name, value)
        connection.endheaders()
        reply = connection.getresponse()
        assert reply.status == 413 and b"MB; send less at once" in reply.read()
        connection.close()
    endless = iter([b'{"text": "'] + [b"x" * 1_000_000] * (LARGEST_JSON // 1_000_000 + 1))
    reply = client.put("/v1/documents/big", content=endless, headers={"Content-Type": "application/json"})
    assert reply.status_code == 413 and "send less" in reply.json()["error"]["message"]
    assert client.get("/health").json()["status"] == "ok"


@pytest.mark.slow
def test_a_lost_endpoint_is_an_error_and_not_the_end(client: httpx.Client) -> None:
    """The stream of an arm behind a dead address names the address and ends as streams do."""
    body = {"model": "lost", "stream": True, "messages": [{"role": "user", "content": "Why?"}]}
    streamed = client.post("/v1/chat/completions", json=body).text
    assert "127.0.0.1:9/v1 did not answer" in streamed
    assert streamed.endswith("data: [DONE]\n\n")
    assert client.get("/health").status_code == 200


def test_a_document_is_added_found_answered_and_removed(client: httpx.Client) -> None:
    """Put, index, ask: the new document answers; deleted and indexed again, it does not."""
    text = "# Remote control\n\nThe remote control of the lamp reaches 9 metres through open air.\n"
    assert client.put("/v1/documents/remote", json={"text": text}).json()["title"] == "Remote control"
    assert client.post("/v1/index").status_code == 202
    assert _indexed(client)["report"]["added"] >= 1
    found = client.get("/v1/search", params={"q": "reach of the remote control"}).json()
    assert found[0]["document"] == "remote"
    assert set(found[0]["scores"]) >= {"dense", "lexical", "fused"}
    body = {"model": "quotes", "messages": [{"role": "user", "content": "How far does the remote control reach?"}]}
    answer = client.post("/v1/chat/completions", json=body).json()
    assert "9 metres" in answer["choices"][0]["message"]["content"]
    assert client.get("/v1/documents/remote").json()["text"].startswith("# Remote control")
    assert client.delete("/v1/documents/remote").json() == {"deleted": "remote"}
    client.post("/v1/index")
    assert _indexed(client)["report"]["removed"] == 1
    found = client.get("/v1/search", params={"q": "reach of the remote control"}).json()
    assert "remote" not in {row["document"] for row in found}


def test_pictures_and_checked_sentences_come_with_the_sources(client: httpx.Client, tmp_path: Path) -> None:
    """A source's pictures are served under headers that let a drawing run nothing; nothing else of the disk is."""
    lamp = Path(next(item["path"] for item in client.get("/v1/corpora").json() if item["name"] == "lamp"))
    (lamp / "assets").mkdir(exist_ok=True)
    (lamp / "assets" / "hook.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    text = "# Hook\n\n## Hanging\n\nThe hook folds out by 70 degrees.\n\n![The hook](../assets/hook.svg)\n"
    assert client.put("/v1/documents/hook", json={"text": text}).status_code == 200
    client.post("/v1/index")
    _indexed(client)
    body = {"model": "quotes", "messages": [{"role": "user", "content": "By how many degrees does the hook fold out?"}]}
    answer = client.post("/v1/chat/completions", json=body).json()
    (sentence,) = answer["versus"]["sentences"]
    assert (sentence["status"], sentence["span"][0], answer["versus"]["unsupported"]) == ("supported", "hook", [])
    source = answer["sources"][0]
    assert source["source"]["name"] == "Hook › Hanging"
    assert source["pictures"] == [{"title": "The hook", "url": "/v1/pictures/hook.svg?corpus=lamp"}]
    picture = client.get(source["pictures"][0]["url"])
    assert picture.headers["content-type"].startswith("image/svg+xml")
    assert "sandbox" in picture.headers["content-security-policy"]
    for path in ("..%2Fmanifest.json", "none.png", "%2Fetc%2Fpasswd", "..%2F..%2F..%2Fsecret.png"):
        assert client.get(f"/v1/pictures/{path}").status_code == 404
    client.delete("/v1/documents/hook")


def test_uploads_and_the_shipped_corpora_are_guarded(client: httpx.Client) -> None:
    """An upload makes a corpus; wrong kinds, names that lead out and shipped corpora are refused."""
    files = [("files", ("knob.md", b"# Knob\n\nTurn the knob.\n")), ("files", ("virus.exe", b"MZ"))]
    report = client.post("/v1/documents", params={"corpus": "uploaded"}, files=files).json()
    assert (report["added"], list(report["skipped"])) == (["knob"], ["virus.exe"])
    assert "uploaded" in {item["name"] for item in client.get("/v1/corpora").json()}
    assert client.post("/v1/documents", params={"corpus": "../out"}, files=files).status_code == 400
    shipped = client.put("/v1/documents/x", params={"corpus": "tern-manual"}, json={"text": "# X"})
    assert "copy it" in shipped.json()["error"]["message"]
    assert client.get("/v1/documents/..%2F..%2Fsecret").status_code in (400, 404)
    assert client.put("/v1/documents/.hidden", json={"text": "# X"}).status_code == 400


def test_an_unknown_experiment_is_said_before_serving(tmp_path: Path) -> None:
    """The pool names the file."""
    with pytest.raises(ExperimentError, match="nothing"):
        ArmPool(Workspace(tmp_path), tmp_path / "nothing.toml")


def _indexed(client: httpx.Client) -> dict[str, object]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        state = client.get("/v1/index").json()
        if state["state"] in ("done", "failed"):
            return dict(state)
        time.sleep(0.05)
    raise AssertionError("the index was not finished in a minute")
