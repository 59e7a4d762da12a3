#!/bin/sh
# Sees to it that the programs are there that the tests start or use. The embedded PostgreSQL comes by itself.
set -eu

missing=''
for program in redis-server strace unshare nsenter ip curl awk; do
    command -v "$program" >/dev/null || missing="$missing $program"
done
# One test starts `forebay dev` with installed PostgreSQL programs only.
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || missing="$missing postgresql"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    # Its programs are wanted, not a server that runs.
    install -d /etc/postgresql-common/createcluster.d
    echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.d/no-main-cluster.conf
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends \
        redis-server strace util-linux iproute2 curl mawk postgresql >/dev/null
else
    echo "the tests need these programs on the PATH:$missing" >&2
    exit 1
fi
