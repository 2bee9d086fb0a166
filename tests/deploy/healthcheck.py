"""The containers' health check against servers that are well, unwell, silent and absent."""

import contextlib
import socket
import subprocess
import threading
from pathlib import Path

import report

SCRIPT = Path(__file__).resolve().parents[2] / "deploy/docker/healthcheck.sh"


def verdict(answer):
    with socket.create_server(("127.0.0.1", 0)) as server:
        asked = []

        def serve():
            client, _ = server.accept()
            with client, contextlib.suppress(ConnectionResetError):
                # bash writes a request line by line; a server that answers earlier would break it off.
                request = b""
                while not request.endswith(b"\r\n\r\n"):
                    request += client.recv(1024)
                asked.append(request)
                client.sendall(answer)
                client.recv(1024)

        threading.Thread(target=serve, daemon=True).start()
        code = check(server.getsockname()[1])
        assert asked[0].startswith(b"GET /healthz HTTP/1.1\r\n"), asked
        return code


def check(port):
    return subprocess.run(["bash", SCRIPT, str(port)], capture_output=True, timeout=4.5).returncode


def a_process_that_answers_200_is_healthy():
    assert verdict(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK") == 0


def a_process_that_answers_anything_else_is_not():
    assert verdict(b"HTTP/1.1 503 Service Unavailable\r\n\r\n") == 1
    assert verdict(b"HTTP/1.1 2000\r\n\r\n") == 1


def a_process_that_accepts_and_says_nothing_is_not_within_the_engines_deadline():
    assert verdict(b"") == 1


def an_absent_process_is_not():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert check(port) == 1


report.run(
    a_process_that_answers_200_is_healthy,
    a_process_that_answers_anything_else_is_not,
    a_process_that_accepts_and_says_nothing_is_not_within_the_engines_deadline,
    an_absent_process_is_not,
)
