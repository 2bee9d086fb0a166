#!/bin/bash
# healthcheck PORT: exit 0 if the admin port answers /healthz with 200.
# Written in bash because the slim image has it, and an HTTP client installed for this alone would be one more
# package to patch.
set -u

port=${1:?usage: healthcheck PORT}

# A process that accepts and then hangs is not healthy: the answer has a deadline shorter than the engine's.
exec 3<>"/dev/tcp/127.0.0.1/${port}" || exit 1
printf 'GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3 || exit 1
read -r -t 3 _ status _ <&3 || exit 1
[ "$status" = 200 ]
