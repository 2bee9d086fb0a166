"""Starts HAProxy with the shipped configuration before replicas on loopback; only addresses and `maxconn` change."""

import atexit
import http.client
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import report
from replicas import Dns, Replica, free_port

SHIPPED = (Path(__file__).resolve().parents[2] / "deploy/docker/haproxy.cfg").read_text()
HAPROXY = sys.argv[1]
API, ADMIN = free_port(), free_port()
TMP = tempfile.TemporaryDirectory(prefix="posduif-balancer-")

dns = Dns()
replicas = {a: Replica(a, API, ADMIN) for a in ("127.0.0.2", "127.0.0.3", "127.0.0.4")}


class Balancer:
    def __init__(self, name, replace=()):
        self.port, self.admin = free_port(), free_port()
        addresses = [
            ("dns 127.0.0.11:53", f"dns 127.0.0.1:{dns.port}"),
            ("bind :8080", f"bind 127.0.0.1:{self.port}"),
            ("bind :8404", f"bind 127.0.0.1:{self.admin}"),
            ("api:8080", f"api:{API}"),
            ("port 9090", f"port {ADMIN}"),
            # A machine that tests may allow fewer descriptors than compose grants the container.
            ("maxconn 20000", "maxconn 200"),
        ]
        config = SHIPPED
        for old, new in [*addresses, *replace]:
            assert old in config, f"{old!r} is no longer in haproxy.cfg"
            config = config.replace(old, new)
        file = Path(TMP.name, f"{name}.cfg")
        file.write_text(config)
        self.log = Path(TMP.name, f"{name}.log")
        self.process = subprocess.Popen(
            [HAPROXY, "-db", "-f", file], stdout=self.log.open("w"), stderr=subprocess.STDOUT
        )
        atexit.register(self.stop)

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def ask(self, method, path, headers=(), port=None, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=15)
        connection.request(method, path, body=body, headers=dict(headers))
        return connection.getresponse()

    def replica(self, method="GET", body=None):
        answer = self.ask(method, "/api/users", body=body)
        text = answer.read()
        return json.loads(text)["replica"] if answer.status == 200 else answer.status

    def seen(self, count=12):
        return {self.replica() for _ in range(count)}


def set_replicas(balancer, *addresses):
    dns.addresses = list(addresses)
    report.eventually(lambda: balancer.seen() == set(addresses), f"requests reach exactly {addresses}")


def arrivals(balancer, gap):
    """How late each event of a stream arrived, in seconds."""
    answer = balancer.ask("GET", "/sse/mobile/phone", {"X-Gap": str(gap)})
    assert answer.status == 200, answer.status
    lines = iter(answer.readline, b"")
    return [time.monotonic() - float(line.split()[1]) for line in lines if line.startswith(b"data:")]


balancer = Balancer("shipped")


def haproxy_accepts_the_shipped_configuration():
    file = Path(TMP.name, "check.cfg")
    file.write_text(SHIPPED)
    subprocess.run([HAPROXY, "-c", "-f", file], check=True, capture_output=True)


def the_balancer_is_healthy_before_any_replica_exists():
    def healthy():
        try:
            return balancer.ask("GET", "/healthz", port=balancer.admin).status == 200
        except ConnectionRefusedError:
            assert balancer.process.poll() is None, balancer.log.read_text()
            return False

    report.eventually(healthy, "/healthz answers")
    metrics = balancer.ask("GET", "/metrics", port=balancer.admin)
    assert metrics.status == 200 and b"haproxy_" in metrics.read()


def without_a_replica_the_answer_is_the_contracts_error():
    answer = balancer.ask("GET", "/api/users")
    error = json.loads(answer.read())["error"]
    assert answer.status == 503 and answer.headers["Retry-After"], answer.status
    assert answer.headers["Content-Type"] == "application/json"
    assert error["code"] == "SYNC_ERROR" and len(error["request_id"]) == 36, error


def requests_spread_over_all_replicas_that_dns_names():
    set_replicas(balancer, "127.0.0.2", "127.0.0.3")


def streams_spread_over_all_replicas():
    before = {a: r.streams for a, r in replicas.items()}
    answers = [balancer.ask("GET", "/sse/web/user", {"X-Gap": "0.2"}) for _ in range(6)]
    assert all(answer.status == 200 for answer in answers)
    opened = {a: r.streams - before[a] for a, r in replicas.items()}
    for answer in answers:
        answer.close()
    assert opened == {"127.0.0.2": 3, "127.0.0.3": 3, "127.0.0.4": 0}, opened


def an_event_passes_at_once_and_not_when_the_stream_ends():
    late = arrivals(balancer, gap=0.5)
    assert len(late) == 4 and max(late) < 0.25, late


def a_silent_stream_outlives_the_ordinary_time_outs():
    short = Balancer("short", [("timeout client 60s", "timeout client 1s"), ("timeout server 60s", "timeout server 1s")])
    report.eventually(lambda: reachable(short), "the second balancer has found the replicas")
    late = arrivals(short, gap=2.5)
    assert len(late) == 4 and max(late) < 0.25, late
    short.stop()


def reachable(other):
    try:
        return other.replica() in replicas
    except ConnectionRefusedError:
        return False


def what_a_client_says_about_its_address_is_dropped():
    forged = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9", "X-Real-IP": "203.0.113.9"}
    answer = balancer.ask("GET", "/api/users", forged | {"X-Request-ID": "mine"})
    headers = json.loads(answer.read())["headers"]
    assert [v for k, v in headers if k == "x-forwarded-for"] == ["127.0.0.1"], headers
    assert not [k for k, v in headers if "203.0.113.9" in v or v == "mine"], headers
    assert len([v for k, v in headers if k == "x-request-id"]) == 1, headers


def a_get_that_one_replica_does_not_answer_is_answered_by_another():
    for _ in range(4):
        answer = balancer.ask("GET", "/api/drop-on/127.0.0.2")
        assert answer.status == 200, answer.status
        assert json.loads(answer.read())["replica"] == "127.0.0.3"
    assert "GET" in replicas["127.0.0.2"].dropped, "the balancer never tried the failing replica"


def a_post_that_was_not_answered_is_never_sent_again():
    answer = balancer.ask("POST", "/api/drop", body=b"{}")
    error = json.loads(answer.read())["error"]
    assert answer.status == 502 and error["code"] == "SYNC_ERROR", (answer.status, error)
    sent = sum(replica.dropped.count("POST") for replica in replicas.values())
    assert sent == 1, f"sent {sent} times"


def a_replica_that_is_added_gets_requests_without_a_reload():
    set_replicas(balancer, "127.0.0.2", "127.0.0.3", "127.0.0.4")


def no_request_is_lost_when_a_replica_dies():
    replicas["127.0.0.4"].kill()
    answers = [balancer.replica(method, body=b"{}") for method in ("GET", "POST") * 10]
    assert set(answers) == {"127.0.0.2", "127.0.0.3"}, answers


def a_replica_that_is_removed_gets_no_more_requests():
    set_replicas(balancer, "127.0.0.3")


def neither_tokens_nor_tickets_are_logged():
    balancer.ask("GET", "/api/enrollment/TOPSECRET/qr.svg").read()
    balancer.ask("GET", "/sse/web/user?ticket=TOPSECRET", {"X-Gap": "0"}).read()
    report.eventually(lambda: "/sse/web/user " in balancer.log.read_text().splitlines()[-1], "the request is logged")
    text = balancer.log.read_text()
    assert "/api/enrollment/* 200" in text and "TOPSECRET" not in text, text[-600:]


def a_stop_lets_a_running_stream_go_on_and_then_ends():
    answer = balancer.ask("GET", "/sse/mobile/phone", {"X-Gap": "0.3"})
    balancer.process.send_signal(signal.SIGUSR1)
    assert answer.read().count(b"data:") == 4
    assert balancer.process.wait(timeout=15) == 0


report.run(
    haproxy_accepts_the_shipped_configuration,
    the_balancer_is_healthy_before_any_replica_exists,
    without_a_replica_the_answer_is_the_contracts_error,
    requests_spread_over_all_replicas_that_dns_names,
    streams_spread_over_all_replicas,
    an_event_passes_at_once_and_not_when_the_stream_ends,
    a_silent_stream_outlives_the_ordinary_time_outs,
    what_a_client_says_about_its_address_is_dropped,
    a_get_that_one_replica_does_not_answer_is_answered_by_another,
    a_post_that_was_not_answered_is_never_sent_again,
    a_replica_that_is_added_gets_requests_without_a_reload,
    no_request_is_lost_when_a_replica_dies,
    a_replica_that_is_removed_gets_no_more_requests,
    neither_tokens_nor_tickets_are_logged,
    a_stop_lets_a_running_stream_go_on_and_then_ends,
)
