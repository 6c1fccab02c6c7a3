"""Connections on which nothing is asked for, or never to the end."""

import asyncio
import socket
import threading
import time

import pytest
import uvicorn
from toy_serving import until

from lvdm_rt.serve import connections
from lvdm_rt.serve.connections import AskingProtocol

HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


async def slowly(scope, receive, send):
    """Answer after three looks, of which each would end an idle connection."""
    await asyncio.sleep(0.6)
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def connect(monkeypatch):
    """Connect to a server that looks every fifth of a second."""
    monkeypatch.setattr(connections, "_PATIENCE", 0.2)
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(slowly, http=AskingProtocol, log_config=None, lifespan="off", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    until(lambda: server.started)
    yield lambda: socket.create_connection(listening.getsockname(), timeout=10)
    server.should_exit = True
    thread.join()
    listening.close()


@pytest.mark.slow
@pytest.mark.parametrize("said", [b"", b"G", HEAD])
def test_a_connection_that_never_asks_is_ended(connect, said):
    with connect() as connection:
        connection.sendall(said)
        began = time.monotonic()
        assert connection.recv(100) == b""
        assert time.monotonic() - began < 5


@pytest.mark.slow
def test_one_that_has_asked_once_is_ended_as_well(connect):
    with connect() as connection:
        connection.sendall(HEAD + b"\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        connection.sendall(b"G")  # which makes it wait for more
        until(lambda: connection.recv(1000) == b"", 5)


@pytest.mark.slow
def test_one_that_waits_for_its_answer_is_not(connect):
    with connect() as connection:
        for _ in range(2):
            connection.sendall(HEAD + b"\r\n")
            told = b""
            while not told.endswith(b"\r\n\r\nok"):
                told += (more := connection.recv(1000))
                assert more, "it was ended"
