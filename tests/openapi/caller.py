"""A kind of caller and a running installation in, the configuration of schemathesis for that caller out.

Random requests alone would meet nobody and nothing: the configuration names users, messages, devices, enrolment tokens and cursors that are
there. Whatever a run may end (devices, log-ins, other users) belongs to others than the caller.
"""

import json
import secrets
import sys
import urllib.request

TOKENS = 40
# Of a parameter's values, so many name something that is there.
PROBABILITY = 0.7


class Api:
    def __init__(self, base):
        self.base = base

    def ask(self, method, path, body=None, headers=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **(headers or {})}
        request = urllib.request.Request(self.base + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def log_in(self, username, password):
        """A token and the id of its user."""
        answer = self.ask("POST", "/api/auth/login", {"username": username, "password": password})
        return answer["token"], answer["user"]["id"]

    def invite(self, token):
        return self.ask("POST", "/api/enrollment/create", {}, bearer(token))["token"]

    def enrol(self, token):
        """A device of a new user."""
        name = "phone-" + secrets.token_hex(4)
        body = {"token": self.invite(token), "device_id": name, "username": name}
        return self.ask("POST", "/api/enrollment/complete", body)

    def send(self, token, recipient):
        body = {"recipient_id": recipient, "content": "Hello"}
        return self.ask("POST", "/api/messages", body, bearer(token))["id"]


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def by_device(device):
    return {"X-Device-ID": device["device_id"], **bearer(device["device_token"])}


def dictionaries(api, callers, device, passwords):
    """Values that name something, by the name of their dictionary."""
    (bob, bob_id), (jane, jane_id) = callers["Bob"], callers["Jane"]
    messages = [api.send(bob, jane_id), api.send(jane, bob_id), api.send(bob, device["user_id"])]
    start = api.ask("GET", "/api/sync/incoming?since=start", headers=by_device(device))
    expendable = [api.enrol(jane) for _ in range(3)]
    return {
        "users": [bob_id, jane_id, device["user_id"], *(other["user_id"] for other in expendable)],
        "messages": messages,
        "devices": [other["device_id"] for other in expendable],
        "own_device": [device["device_id"]],
        "own_user": [bob_id],
        "tokens": [api.invite(bob) for _ in range(TOKENS)],
        "cursors": ["start", start["cursor"]],
        "usernames": ["Bob"],
        "passwords": [passwords["Bob"]],
        "files": ["index.html", "swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png"],
        "tables": ["public.messages", "public.users"],
    }


# Which parameter of an operation takes its values from which dictionary.
NAMED = {
    "GET /api/users/{id}": {"path.id": "users"},
    "POST /api/users/{id}/disable": {"path.id": "users"},
    "POST /api/users/{id}/enable": {"path.id": "users"},
    "POST /api/messages": {"body.recipient_id": "users"},
    "GET /api/messages": {"query.with": "users", "query.recipient_id": "users"},
    "GET /api/messages/{id}": {"path.id": "messages"},
    "PUT /api/messages/{id}/read": {"path.id": "messages"},
    "DELETE /api/devices/{id}": {"path.id": "devices"},
    "GET /api/enrollment/{token}": {"path.token": "tokens"},
    "GET /api/enrollment/{token}/qr.svg": {"path.token": "tokens"},
    "POST /api/enrollment/complete": {"body.token": "tokens"},
    "POST /api/auth/login": {"body.username": "usernames", "body.password": "passwords"},
    "GET /api/sync/incoming": {"query.since": "cursors"},
    "POST /api/sync/outgoing": {
        "body.reads[*]": "messages",
        "body.messages[*].recipient_id": "users",
        "body.changes[*].table": "tables",
    },
    "GET /sse/mobile/{device_id}": {"path.device_id": "own_device", "query.since": "cursors"},
    "GET /sse/web/{user_id}": {"path.user_id": "own_user"},
    "GET /api/docs/{file}": {"path.file": "files"},
}

# Where success takes luck, and the caller that is to have it: so many examples make sure of it in a short run, too.
SURE = 30
LUCKY = {
    "nobody": ["POST /api/auth/login", "POST /api/enrollment/complete"],
    "device": ["GET /sse/mobile/{device_id}"],
    "web": [
        "GET /api/enrollment/{token}/qr.svg",
        "GET /api/messages/{id}",
        "POST /api/messages",
        "PUT /api/messages/{id}/read",
        "GET /sse/web/{user_id}",
    ],
    "operator": ["DELETE /api/devices/{id}", "POST /api/users/{id}/disable", "POST /api/users/{id}/enable"],
}

# Requests that fit the document and are refused with a 400 or a 410 all the same.
REFUSED = {
    "POST /api/enrollment/complete": (400, "no schema tells which tokens are known, unused and not expired"),
    "GET /api/enrollment/{token}": (400, "a token that was used is INVALID_TOKEN"),
    "GET /api/enrollment/{token}/qr.svg": (400, "a token that was used is INVALID_TOKEN"),
    "GET /api/sync/incoming": (410, "a cursor is opaque: no schema tells which ones are this device's and still good"),
}
ACCEPTED = ["2xx", "3xx", "401", "403", "404", "409", "429", "5xx"]


def configuration(caller, credentials, values, examples):
    # Nothing is carried over from one run to the next.
    lines = ["[cache]", "enabled = false", "[checks]", "enabled = true", "[phases]", "enabled = true"]
    for scheme, credential in credentials.items():
        kind = "bearer" if scheme in ("web", "device_token") else "api_key"
        lines += [f"[auth.openapi.{scheme}]", f"{kind} = {json.dumps(credential)}"]
    for name, known in values.items():
        lines += [f"[dictionaries.{name}]", f"values = {json.dumps(known)}"]
    for operation in sorted({*NAMED, *REFUSED}):
        lines += ["[[operations]]", f"include-name = {json.dumps(operation)}"]
        if operation.startswith("GET /sse/"):
            # A stream has no end: what it begins with is looked at.
            lines += ["max-stream-events = 1", "request-timeout = 5"]
            # A ticket that the run itself was given before is taken for one that was made up, and its success for a hole.
            lines.append("generation.with-security-parameters = false")
        bindings = NAMED.get(operation, {}).items()
        entries = [f'{json.dumps(where)} = {{ dictionary = "{name}", probability = {PROBABILITY} }}' for where, name in bindings]
        if operation in REFUSED:
            status, reason = REFUSED[operation]
            lines += [f"# {reason}", f"checks.positive_data_acceptance.expected-statuses = {json.dumps([*ACCEPTED, str(status)])}"]
        if operation in LUCKY[caller]:
            lines.append(f"generation.max-examples = {max(SURE, examples)}")
        if entries:
            lines += ["[operations.parameters]", *entries]
    return "\n".join(lines) + "\n"


def main(caller, examples, running, file):
    with open(running, encoding="utf-8") as text:
        installation = json.load(text)
    api = Api(installation["api_url"])
    passwords = {user["username"]: user["password"] for user in installation["web_users"]}
    callers = {name: api.log_in(name, password) for name, password in passwords.items()}
    bob, jane = callers["Bob"][0], callers["Jane"][0]
    # Jane lets it in, so that Bob cannot revoke it.
    device = api.enrol(jane)
    credentials = {
        "nobody": {},
        "device": {"device_id": device["device_id"], "device_token": device["device_token"]},
        "web": {"web": bob},
        "operator": {"web": bob},
    }
    with open(file, "w", encoding="utf-8") as text:
        values = dictionaries(api, callers, device, passwords)
        text.write(configuration(caller, credentials[caller], values, int(examples)))


main(*sys.argv[1:])
