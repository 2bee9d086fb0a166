#!/usr/bin/env bash
# Checks docs/openapi.json, and the running API against it: schemathesis with all of its checks, in all of its phases, for every kind of
# caller. Starts an installation of its own on free ports, and installs the tools it needs into a directory of its own.
# Usage: check.sh [EXAMPLES [SEED]], so many generated requests per operation and caller. Ends with `N passed, N failed`.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
examples=${1:-8}
seed=${2:-$RANDOM}
export PYTHONDONTWRITEBYTECODE=1
tmp=$(mktemp -d)
# The servers run as another user where this is root.
chmod 0711 "$tmp"
programs=${CARGO_TARGET_DIR:-target}/debug
passed=0
failed=0

finish() {
    [ ! -d "$tmp/dev" ] || "$programs/posduif" dev stop --data-dir "$tmp/dev" >/dev/null
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
            openapi-spec-validator==0.9.0 schemathesis==4.32.5 && return
    echo "openapi-spec-validator and schemathesis could not be installed from PyPI into a virtual environment"
    return 1
}

# Limits of callers have tests of their own; here they would hide what is asked about. So would those of live connections: a stream that
# its reader left counts until the next ping.
installation() {
    for program in posduif posduif-ingester posduif-sync-api; do
        cargo build --quiet --locked -p "$program" --bin "$program" || return
    done
    POSDUIF__RATE_LIMIT__ENABLED=false POSDUIF__AUTH__ENROLLMENT_TTL=24h POSDUIF__AUTH__JWT_EXPIRATION=86400 \
        POSDUIF__API__SSE__MAX_PER_DEVICE=1000 POSDUIF__API__SSE__MAX_PER_USER=10000 \
        "$programs/posduif" dev --detach --data-dir "$tmp/dev" &&
        api_url=$(sed -n 's/.*"api_url": "\(.*\)",/\1/p' "$tmp/dev/running.json")
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
        [ "$caller" != operator ] || check "Bob operates the tenant from now on" \
            "$programs/posduif" user add --username Bob --type web --admin --config "$tmp/dev/config.yaml"
        check "the credentials of $caller can be had" \
            "$tmp/venv/bin/python" tests/openapi/caller.py "$caller" "$examples" "$tmp/dev/running.json" "$tmp/$caller.toml"
        check "schemathesis finds nothing as $caller" "$tmp/venv/bin/schemathesis" --no-color \
            --config-file "$tmp/$caller.toml" run docs/openapi.json --url "$api_url" --seed "$seed" --max-examples "$examples" \
            --report json --report-json-path "$tmp/$caller.json"
        summary
    done
    check "every operation has succeeded for some caller" \
        "$tmp/venv/bin/python" tests/openapi/reached.py docs/openapi.json "$tmp/"{nobody,device,web,operator}.json
    check "the API has failed at nothing" bash -c "grep -q 'sync API listens' '$tmp/dev/api.log' && ! grep 'by a fault of the server' '$tmp/dev/api.log'"
fi

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
