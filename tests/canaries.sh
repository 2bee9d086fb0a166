#!/usr/bin/env bash
# The logs of a whole test run in, a failure out if any of them tells a secret or what somebody wrote.
#
# POSDUIF_TEST_LOGS names the folder in which the tests gathered their logs, those of the programs and servers that they started, and
# the lists of what they planted. A hit is told by file and line, never by its text.
set -euo pipefail
export LC_ALL=C

folder=${POSDUIF_TEST_LOGS:?run the tests with POSDUIF_TEST_LOGS=<an empty folder>, then this with the same}
cd "$folder"
fail() {
    printf 'canaries: %s\n' "$*" >&2
    exit 1
}

# What removes the folders of ended tests copies their logs first.
for _ in $(seq 300); do
    compgen -G '*.pending' >/dev/null || break
    sleep 0.2
done
compgen -G '*.pending' >/dev/null && fail "logs are still being written: end what the tests left running"

# It shall not be content with having looked at nothing.
at_least() {
    local found
    found=$({ grep -l -E -e "$3" -- $2 2>/dev/null || true; } | wc -l)
    [ "$found" -ge "$1" ] || fail "$found files $2 have $3, at least $1 must: were the tests run with POSDUIF_TEST_LOGS?"
}
shopt -s nullglob
planted=$(mktemp)
hits=$(mktemp)
trap 'rm -f "$planted" "$hits"' EXIT
# Those that are the same in every run, and those of this one.
{
    printf '%s\n' 'correct horse battery staple' 0123456789abcdef0123456789abcdef secret-of-
    cat -- *.planted </dev/null
} | sort -u >"$planted"
[ "$(wc -l <"$planted")" -ge "${LEAST_PLANTED:-200}" ] || fail "only $(wc -l <"$planted") secrets were planted"
at_least 1 'api-*[0-9].log' TRACE
at_least 3 '*-posduif-sync-api.log' TRACE
at_least 3 '*-posduif-ingester.log' TRACE
for event in 'logged in' 'log-in refused' 'device enrolled' 'device revoked' 'user disabled' 'user enabled'; do
    at_least 1 'api-*[0-9].log' "\"message\":\"$event\""
done
at_least 2 '*postgres.log' 'database system is ready'
at_least 2 '*redis.log' 'Ready to accept connections'

# What the tool prints is meant for whoever sits before it, tokens and the passwords of `posduif dev` too.
logs=()
for log in *.log; do
    [[ $log == *-posduif.log ]] || logs+=("$log")
done
search() {
    # grep tells "nothing found" by 1, which is what is hoped for.
    { grep -n "$@" -- "${logs[@]}" || [ $? -eq 1 ]; } | cut -d: -f1,2 >>"$hits"
}
search -F -f "$planted"
# A log-in; a token of enrolment, device or ticket; a URL with a password; a hashed password.
search -E 'eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.'
search -E '(^|[^A-Za-z0-9_-])[A-Za-z0-9_-]{2,}\.[A-Za-z0-9_-]{43}($|[^A-Za-z0-9_-])'
search -E '[a-z]+://[^/ "@:]*:[^/ "@]+@'
search -F '$argon2id$'
printf 'canaries: %s files, %s lines, %s planted secrets and 4 shapes; cut short: %s\n' \
    "${#logs[@]}" "$(cat -- "${logs[@]}" | wc -l)" "$(wc -l <"$planted")" \
    "$({ grep -l 'the rest was not written' -- "${logs[@]}" || true; } | wc -l)"
if [ -s "$hits" ]; then
    sort -u "$hits" | head -50 >&2
    fail "$(sort -u "$hits" | wc -l) lines of the logs in $folder tell what must not be told; look at them there"
fi
