#!/bin/sh
# Creates the secrets that docker-compose.yml mounts, once. A secret that exists is kept: replacing a password that
# a running database already has would lock everybody out.
set -eu

dir=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)/secrets

# The directory is what keeps other users of this host out. The files in it stay readable by all, because compose
# bind-mounts them with their owner and mode as they are here, and the containers run under user ids of their own:
# a 0600 file of yours could not be read by any of them.
umask 077
mkdir -p "$dir"
chmod 700 "$dir"

for name in jwt_secret postgres_admin_password posduif_admin_password posduif_ingester_password posduif_api_password \
    redis_ingester_password redis_api_password redis_tool_password; do
    file=$dir/$name
    if [ -e "$file" ]; then
        echo "kept     $file"
        continue
    fi
    # Written under another name and linked into place: a run cut short leaves no half secret, and `ln` refuses
    # to replace one that another run has made meanwhile. Hexadecimal needs no quoting anywhere.
    new=$(mktemp "$dir/.new.XXXXXX")
    od -An -tx1 -N32 /dev/urandom | tr -d ' \n' >"$new"
    if [ "$(wc -c <"$new")" -ne 64 ]; then
        rm -f "$new"
        echo "no 32 random bytes could be read from /dev/urandom" >&2
        exit 1
    fi
    chmod 444 "$new"
    ln "$new" "$file"
    rm -f "$new"
    echo "created  $file"
done

# Redis is given hashes: 64 hexadecimal digits, as its list of users has them. They follow from the passwords, so they are
# made anew each time.
for user in ingester api tool; do
    new=$(mktemp "$dir/.new.XXXXXX")
    sha256sum <"$dir/redis_${user}_password" | cut -c 1-64 | tr -d '\n' >"$new"
    if [ "$(wc -c <"$new")" -ne 64 ]; then
        rm -f "$new"
        echo "sha256sum gave no hash" >&2
        exit 1
    fi
    chmod 444 "$new"
    mv -f "$new" "$dir/redis_${user}_sha256"
done
