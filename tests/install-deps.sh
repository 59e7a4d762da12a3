#!/bin/sh
# Sees to it that the programs are there that the tests start or use. The embedded PostgreSQL comes by itself.
set -eu

missing=''
for program in redis-server strace unshare nsenter curl; do
    command -v "$program" >/dev/null || missing="$missing $program"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends redis-server strace util-linux curl >/dev/null
else
    echo "the tests need these programs on the PATH:$missing" >&2
    exit 1
fi
