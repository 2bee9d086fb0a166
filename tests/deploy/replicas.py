"""Stands in for what surrounds the balancer: replicas of the API on loopback addresses, and the engine's DNS server."""

import json
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Dns:
    """Answers every A query with the replicas' addresses, as the engine does for a service's name."""

    def __init__(self):
        self.addresses = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            query, client = self.socket.recvfrom(4096)
            end = query.index(b"\0", 12) + 5
            wants_a = query[end - 4 : end - 2] == b"\0\1"
            found = list(self.addresses) if wants_a else []
            head = query[:2] + struct.pack(">HHHHH", 0x8180, 1, len(found), 0, 0)
            record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 600, 4)
            body = b"".join(record + socket.inet_aton(address) for address in found)
            self.socket.sendto(head + query[12:end] + body, client)


class Replica:
    def __init__(self, address, port, admin_port):
        self.address = address
        self.dropped = []
        self.streams = 0
        replica = self

        class Api(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                if self.path.startswith("/sse/"):
                    return self.stream()
                if self.path == f"/api/drop-on/{replica.address}" or self.path == "/api/drop":
                    replica.dropped.append(self.command)
                    self.close_connection = True
                    return None
                body = {"replica": replica.address, "headers": [[k.lower(), v] for k, v in self.headers.items()]}
                body = json.dumps(body).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.do_GET()

            def stream(self):
                replica.streams += 1
                gap = float(self.headers["X-Gap"])
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for number in range(4):
                    event = f"id: {number}\ndata: {time.monotonic()}\n\n".encode()
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
                    time.sleep(gap)
                self.wfile.write(b"0\r\n\r\n")

            def log_message(self, *_):
                pass

        class Admin(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200 if self.path == "/healthz" else 503)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.servers = [Server((address, port), Api), Server((address, admin_port), Admin)]
        for server in self.servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def kill(self):
        for server in self.servers:
            server.socket.close()
            server.shutdown()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_):
        """A client that leaves is the balancer's to report."""
