#!/usr/bin/env bash
# make test-container: builds the image from deploy/Dockerfile and runs it as deploy/compose.yaml does, beside two real
# servers: it copies, streams, says how it is, runs as nobody in particular with nothing to write on but its volume, and ends
# in order.
#
# No image is pulled: the bases that the Dockerfile names by ARG are made here, of Debian's packages (mmdebstrap) and of the
# Rust toolchain and the pg_dump that the other tests use. Containers share the host's network, since not every kernel has
# another. What takes long lies in .cache/container; nothing keeps running, and no container, volume or image of it is
# left anywhere else.
#
#   PROFILE=dev   a quicker build of Relevo
set -euo pipefail
umask 022
export LC_ALL=C

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
cache=$repository/.cache/container
postgres=$repository/.cache/postgres
profile=${PROFILE:-release}
suite=bookworm
image=localhost/relevo-test:latest
work=

say() { printf '%s\n' "$*"; }
section() { printf '\n== %s\n' "$*"; }
fail() { printf 'test-container: %s\n' "$*" >&2; exit 1; }

# Storage of its own, which goes at the end: what else this machine has of images and containers is not touched.
pod() { podman --root "$cache/storage" --runroot "$cache/run" --runtime runc --log-level fatal "$@"; }

# Also what a run has left that was killed.
remove_containers() {
    if [ -d "$cache/storage" ]; then
        pod rm --force --all --time 0 >/dev/null 2>&1 || true
        pod volume rm --force --all >/dev/null 2>&1 || true
        pod image rm --force --all >/dev/null 2>&1 || true
        rm -rf "$cache/storage" "$cache/run"
    fi
}

# --- the end, whatever comes ---------------------------------------------------------------------------------------

pids=()
tidy() {
    local status=$? pid
    trap - EXIT INT TERM
    if [ -n "$work" ]; then
        if [ "$status" != 0 ] && [ -d "$cache/storage" ]; then
            for name in relevo-a relevo-b; do
                if pod container exists "$name" 2>/dev/null; then
                    say "--- the end of the log of $name ---"
                    pod logs --tail 30 "$name" 2>&1 || true
                fi
            done
        fi
        remove_containers
        for pid in "${pids[@]}"; do kill -QUIT "$pid" 2>/dev/null || true; done
        for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
        rm -rf "$work"
    fi
    exit "$status"
}

# until SECONDS WHAT COMMAND…: waits for a condition.
until_true() {
    local limit=$(($(date +%s) + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$(date +%s)" -lt "$limit" ] || fail "not in time: $what"
        sleep 0.2
    done
}

# --- the bases -----------------------------------------------------------------------------------------------------

# base NAME PACKAGES: a minimal Debian with these, kept as an archive.
base() {
    local archive=$cache/$1-$suite.tar new=$cache/$1-$suite.new.tar
    [ -f "$archive" ] && return
    say "making the base $1 ($suite${2:+, with $2})"
    # What is made here can be made again: nothing need be forced to disk.
    mmdebstrap --quiet --variant=minbase --dpkgopt=force-unsafe-io ${2:+--include="$2"} "$suite" "$new"
    mv "$new" "$archive"
}

import() { pod import --quiet "${@:3}" "$cache/$2-$suite.tar" "localhost/relevo-test-$1:latest" >/dev/null; }

# An image with pg_dump where packages put it, and its libraries where it looks for them.
client_image() {
    local folder=$work/client bin program library place
    bin=$(readlink -f "$postgres/client-18/bin")
    program=$(readlink -f "$bin/pg_dump")
    install -D "$program" "$folder/usr/lib/postgresql/18/bin/pg_dump"
    while read -r library; do
        case $library in
            /lib/*|/usr/lib/*-linux-gnu/*) place=$(dirname "$(readlink -f "$library")") ;;
            *) place=$(realpath -m "/usr/lib/postgresql/18/bin/$(realpath --relative-to "$(dirname "$program")" \
                "$(dirname "$(readlink -f "$library")")")") ;;
        esac
        case ${library##*/} in libc.so.*|libm.so.*|libpthread.so.*|ld-linux*) continue ;; esac
        install -D -m 0644 "$library" "$folder$place/${library##*/}"
    done < <(ldd "$program" | sed -n 's/.*=> \(\/[^ ]*\).*/\1/p')
    printf 'FROM localhost/relevo-test-runtime:latest\nCOPY . /\n' >"$work/client.Dockerfile"
    pod build --quiet --file "$work/client.Dockerfile" --tag localhost/relevo-test-client:latest "$folder" >/dev/null
}

build_image() {
    local sysroot registry=${CARGO_HOME:-$HOME/.cargo}/registry
    sysroot=$(rustc --print sysroot)
    (cd "$repository" && cargo fetch --locked --quiet </dev/null)
    mkdir -p "$cache/target"
    # The Dockerfile as it is; only its ARGs differ. Mounted are the toolchain, the sources of the crates, and what was
    # compiled the last time.
    pod build --quiet --format docker --network host --layers=false --ulimit nofile=1024:1024 \
        --file "$repository/deploy/Dockerfile" --tag "$image" \
        --build-arg BUILD_IMAGE=localhost/relevo-test-build:latest \
        --build-arg PG_CLIENT_IMAGE=localhost/relevo-test-client:latest \
        --build-arg RUNTIME_IMAGE=localhost/relevo-test-runtime:latest \
        --build-arg CARGO_NET_OFFLINE=true --build-arg PROFILE="$profile" \
        --build-arg REVISION="$(git -C "$repository" rev-parse HEAD)" \
        --volume "$sysroot:/usr/local/rust:ro" --volume "$registry:/root/.cargo/registry" \
        --volume "$cache/target:/src/target" \
        "$repository" >"$work/build.log" 2>&1 || { tail -n 60 "$work/build.log" >&2; fail "the image cannot be built"; }
}

look_at_image() {
    local found
    inspect() { pod image inspect --format "$1" "$image"; }
    say "size: $(($(inspect '{{.Size}}') / 1000000)) MB ($profile), of which the base is $(($(pod image inspect \
        --format '{{.Size}}' localhost/relevo-test-runtime:latest) / 1000000)) MB"
    expect() { [ "$2" = "$3" ] || fail "$1: expected $3, found $2"; }
    expect "the user" "$(inspect '{{.Config.User}}')" 65532:65532
    expect "the signal to stop" "$(inspect '{{.Config.StopSignal}}')" SIGTERM
    expect "the entry point" "$(inspect '{{json .Config.Entrypoint}}')" '["relevo"]'
    found=$(pod image inspect "$image" | tr -d ' \n')
    case $found in *'"relevo","healthcheck"'*) ;; *) fail "the image has no health check: $found" ;; esac
    case $found in *'"org.opencontainers.image.revision":"'*) ;; *) fail "the image has no labels: $found" ;; esac
}

# --- the databases -------------------------------------------------------------------------------------------------

# Servers refuse to run as root.
as_server=()
if [ "$(id -u)" = 0 ]; then
    server_user=postgres
    id -u postgres >/dev/null 2>&1 || server_user=nobody
    as_server=(setpriv --reuid="$server_user" --regid="$(id -g "$server_user")" --clear-groups)
fi

free_port() {
    local port
    while :; do
        port=$((18000 + RANDOM % 14000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
}

# server NAME MAJOR PORT: as the image of PostgreSQL begins one.
server() {
    local folder=$work/db-$1 bin
    bin=$(readlink -f "$postgres/$2/bin")
    mkdir "$folder"
    cp "$repository"/deploy/compose/initdb/* "$repository"/deploy/compose/secrets/*_password "$folder"
    if [ "$(id -u)" = 0 ]; then chown -R "$server_user" "$folder"; fi
    "${as_server[@]}" "$bin/initdb" --pgdata "$folder/data" --username postgres --auth-local trust --auth-host scram-sha-256 \
        --encoding UTF8 --no-sync >"$folder/initdb.log" 2>&1 || { cat "$folder/initdb.log"; fail "initdb failed"; }
    # No function: the number must be that of the server.
    "${as_server[@]}" "$bin/postgres" -D "$folder/data" -c port="$3" -c listen_addresses=127.0.0.1 \
        -c unix_socket_directories="$folder" -c wal_level=logical -c fsync=off >"$folder/server.log" 2>&1 &
    pids+=($!)
    until_true 60 "the server of $1" sql "$1" postgres 'SELECT 1'
    sql "$1" postgres 'CREATE DATABASE shop'
    PATH=$postgres/client-18/bin:$PATH PGHOST=$folder PGPORT=$3 POSTGRES_USER=postgres POSTGRES_DB=shop \
        RELEVO_PASSWORD_FILE=$folder/relevo_password SHOP_PASSWORD_FILE=$folder/shop_password \
        "$folder/10-roles.sh" >/dev/null
}

declare -A port=()
psql() { "$postgres/client-18/bin/psql" --no-psqlrc --quiet --tuples-only --no-align -v ON_ERROR_STOP=1 "$@"; }
# sql NODE DATABASE STATEMENT
sql() { psql --host "$work/db-$1" --port "${port[$1]}" --username postgres --dbname "$2" --command "$3"; }

# All rows of both tables, in one word.
digest() {
    sql "$1" shop "SELECT md5(string_agg(line, ',' ORDER BY line COLLATE \"C\")) FROM
        (SELECT 'c' || c::text FROM customers c UNION ALL SELECT 'o' || o::text FROM orders o) AS all_rows (line)"
}
same() { [ "$(digest a)" = "$(digest b)" ]; }

# The sample load, wherever the primary is.
load() {
    PGPASSWORD=$(cat "$repository/deploy/compose/secrets/shop_password") PGHOST=127.0.0.1,127.0.0.1 \
        PGPORT=${port[a]},${port[b]} PGTARGETSESSIONATTRS=read-write PGUSER=shop PGDATABASE=shop \
        "$postgres/client-18/bin/pgbench" --no-vacuum --file="$repository/deploy/compose/load.sql" \
        --client=4 --transactions="$1" >"$work/load.log" 2>&1 || { cat "$work/load.log"; fail "the load failed"; }
}

# --- the containers ------------------------------------------------------------------------------------------------

# As compose.yaml locks them in; the network apart.
locked_in=(--network host --read-only --cap-drop all --security-opt no-new-privileges
    --ulimit nofile=1024:1024 --ulimit nproc=1024:1024)
configured=()

# relevo OPTIONS… -- ARGUMENTS…: a command in a container of its own.
relevo() {
    local options=()
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    shift
    pod run --rm "${locked_in[@]}" "${configured[@]}" "${options[@]}" "$image" "$@"
}

# beside NODE PORT: the Relevo beside a node.
beside() {
    pod run --detach --name "relevo-$1" "${locked_in[@]}" "${configured[@]}" --volume "relevo-$1:/var/lib/relevo" \
        --env RELEVO_HTTP_LISTEN="127.0.0.1:$2" "$image" run --config /etc/relevo/relevo.toml --node "$1" >/dev/null
}

healthy() { pod exec "relevo-$1" relevo healthcheck "${@:2}"; }

# Whether its own HEALTHCHECK finds it healthy, asked as the container engine asks.
found_healthy() { pod healthcheck run "relevo-$1"; }

# stop NODE: as the container engine stops it.
stop() {
    local begun ended code
    begun=$(date +%s%N)
    pod stop --time 10 "relevo-$1" >/dev/null
    ended=$(date +%s%N)
    code=$(pod container inspect --format '{{.State.ExitCode}}' "relevo-$1")
    say "SIGTERM to relevo-$1: exit code $code after $(((ended - begun) / 1000000)) ms"
    [ "$code" = 0 ] || fail "relevo-$1 ended with exit code $code"
    [ $(((ended - begun) / 1000000)) -lt 8000 ] || fail "relevo-$1 took too long to end"
}

look_into() {
    local node=$1
    [ "$(pod exec "relevo-$node" id -u)" = 65532 ] || fail "it does not run as 65532"
    if pod exec "relevo-$node" touch /etc/relevo-was-here 2>/dev/null; then fail "its root file system can be written"; fi
    pod exec "relevo-$node" touch /var/lib/relevo/spool-can-be-written
    grep -q '^CapEff:[[:space:]]*0*$' <(pod exec "relevo-$node" cat /proc/1/status) || fail "it has capabilities"
    # A hook is a command line, so there is a shell; psql is none of its business.
    pod exec "relevo-$node" /bin/sh -c 'command -v psql' >/dev/null && fail "psql is in the image"
    pod exec "relevo-$node" /bin/sh -c '/usr/lib/postgresql/*/bin/pg_dump --version'
}

main() {
    local tool http_a http_b
    for tool in podman runc mmdebstrap rustc cargo; do
        command -v "$tool" >/dev/null || fail "$tool is missing: make fetch and tests/tools/fetch.sh container install it"
    done
    mkdir -p "$cache"
    exec 9>"$cache/.lock"
    flock 9
    remove_containers
    work=$(mktemp -d /tmp/relevo-container.XXXXXX)
    chmod 0755 "$work"
    trap tidy EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM

    section "The image"
    base runtime ca-certificates
    base build ca-certificates,gcc,libc6-dev,libssl-dev,pkg-config
    import runtime runtime
    import build build --change 'ENV PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
    client_image
    build_image
    look_at_image

    section "Two databases, a (PostgreSQL 17) and b (18), and a Relevo beside each"
    port=([a]=$(free_port) [b]=$(free_port))
    server a 17 "${port[a]}"
    server b 18 "${port[b]}"
    psql --host "$work/db-a" --port "${port[a]}" --username postgres --dbname shop --file "$work/db-a/20-shop.sql"
    sed -e "s|@db-a/|@127.0.0.1:${port[a]}/|" -e "s|@db-b/|@127.0.0.1:${port[b]}/|" \
        "$repository/deploy/compose/relevo.toml" >"$work/relevo.toml"
    configured=(--volume "$work/relevo.toml:/etc/relevo/relevo.toml:ro" --env RELEVO_CONFIG=/etc/relevo/relevo.toml
        --volume "$repository/deploy/compose/secrets/relevo_password:/run/secrets/relevo_password:ro")
    relevo -- init --primary a --once
    relevo -- init --primary a --once
    http_a=$(free_port) http_b=$(free_port)
    beside a "$http_a"
    beside b "$http_b"
    until_true 60 "relevo-a is healthy" found_healthy a
    until_true 60 "relevo-b is healthy" found_healthy b
    until_true 120 "relevo-b is ready" healthy b --ready
    healthy a --ready
    load 200
    until_true 60 "both databases are equal" same
    say "copied and streamed: both hold $(sql b shop 'SELECT count(*) FROM orders') orders, the same"

    section "What it is locked into"
    look_into b
    relevo --user 12345:23456 -- status >"$work/status"
    say "as user 12345: $(grep '^state' "$work/status")"

    section "Stopped, and started again"
    stop b
    if relevo --env RELEVO_HTTP_LISTEN="127.0.0.1:$http_b" -- healthcheck 2>/dev/null; then
        fail "who does not run is found healthy"
    fi
    load 100
    pod start relevo-b >/dev/null
    until_true 60 "relevo-b is ready again" healthy b --ready
    until_true 60 "both databases are equal" same

    section "A switchover"
    pod exec relevo-a relevo switchover --to b
    until_true 60 "relevo-a follows" healthy a --ready
    load 100
    until_true 60 "both databases are equal" same
    relevo -- init --primary a --once
    stop a
    stop b
    say
    say "The image works."
}

# In one line with the end: what is changed in this file while it runs is not read any more.
main; exit
