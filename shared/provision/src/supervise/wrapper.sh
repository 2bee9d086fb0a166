#!/bin/sh
# $1 lists the signals that end the process, mildest first; the rest is its command. Prints the process id, waits
# until the process ends or standard input closes, and ends with the status of the process.
signals=$1
shift
exec 3<&0
"$@" </dev/null 3<&- >&2 &
process=$!
echo "$process"
exec >/dev/null
(
    while read -r _ <&3; do :; done
    for signal in $signals; do
        kill -s "$signal" "$process" 2>/dev/null || exit 0
        tries=50
        while [ "$tries" -gt 0 ] && kill -0 "$process" 2>/dev/null; do
            sleep 0.1
            tries=$((tries - 1))
        done
    done
) 2>/dev/null &
watcher=$!
exec 3<&-
wait "$process"
status=$?
kill -s KILL "$watcher" 2>/dev/null
exit "$status"
