#!/usr/bin/env bash
# Checks docs/openapi.json, and the running API against it: schemathesis with all of its checks, in all of its phases, for every kind of
# caller. Starts an installation of its own on free ports, and installs the tools it needs into a directory of its own.
# Usage: check.sh [EXAMPLES [SEED]], so many generated requests per operation and caller. Ends with `N passed, N failed`.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
examples=${1:-10}
seed=${2:-$RANDOM}
export PYTHONDONTWRITEBYTECODE=1
tmp=$(mktemp -d)
# The servers run as another user where this is root.
chmod 0711 "$tmp"
passed=0
failed=0

finish() {
    [ ! -d "$tmp/dev" ] || target/debug/posduif dev stop --data-dir "$tmp/dev" >/dev/null
    rm -rf "$tmp"
}
trap finish EXIT

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

tools() {
    python3 -m venv "$tmp/venv" &&
        "$tmp/venv/bin/pip" install --quiet --disable-pip-version-check \
            openapi-spec-validator==0.9.0 pg8000==1.31.5 schemathesis==4.32.5 && return
    echo "openapi-spec-validator, pg8000 and schemathesis could not be installed from PyPI into a virtual environment"
    return 1
}

# Limits of callers have tests of their own; here they would hide what is asked about.
installation() {
    cargo build --quiet --locked -p posduif -p posduif-ingester -p posduif-sync-api &&
        POSDUIF__RATE_LIMIT__ENABLED=false POSDUIF__AUTH__ENROLLMENT_TTL=24h POSDUIF__AUTH__JWT_EXPIRATION=86400 \
            POSDUIF__API__SHUTDOWN_DEADLINE=1s target/debug/posduif dev --detach --data-dir "$tmp/dev"
}

# What the last run did with the API.
summary() {
    sed -n 's/^ *\([0-9]* generated\)/    \1/p' "$tmp/output"
}

check "the tools can be had" tools
check "docs/openapi.json is OpenAPI 3.1" "$tmp/venv/bin/openapi-spec-validator" --schema 3.1 docs/openapi.json
check "every example in docs/openapi.json fits its schema" "$tmp/venv/bin/python" tests/openapi/examples.py docs/openapi.json
check "an installation starts" installation

if [ "$failed" -eq 0 ]; then
    echo "seed $seed, $examples examples"
    # Whoever can end other people's credentials comes last.
    for caller in nobody device web operator; do
        check "the credentials of $caller can be had" \
            "$tmp/venv/bin/python" tests/openapi/caller.py "$caller" "$tmp/dev/running.json" "$tmp/$caller.toml"
        check "schemathesis finds nothing as $caller" "$tmp/venv/bin/schemathesis" --no-color \
            --config-file "$tmp/$caller.toml" run "$(cat "$tmp/$caller.toml.url")" --seed "$seed" --max-examples "$examples" \
            --report json --report-json-path "$tmp/$caller.json"
        summary
    done
    check "every operation has succeeded for some caller" \
        "$tmp/venv/bin/python" tests/openapi/reached.py docs/openapi.json "$tmp/"{nobody,device,web,operator}.json
    check "the API has failed at nothing" bash -c "! grep 'by a fault of the server' '$tmp/dev/'*.log"
fi

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
