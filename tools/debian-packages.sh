#!/bin/sh
# Sees to it that the Debian packages of tools/debian-packages.txt are there: does nothing when they are, installs the
# missing ones as root, and else says which command does.
set -eu
cd "$(dirname "$0")"

present() {
    case "$1" in
    /*) for path in $1; do if [ -e "$path" ]; then return 0; fi; done ;;
    *) PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null && return 0 ;;
    esac
    return 1
}

missing() {
    grep -v -e '^#' -e '^[[:space:]]*$' debian-packages.txt | while IFS='|' read -r package proof _; do
        if ! present "$(echo "$proof" | tr -d ' ')"; then echo "$package" | tr -d ' '; fi
    done
}

packages=$(missing | tr '\n' ' ')
if [ -z "$packages" ]; then exit 0; fi

if ! command -v apt-get >/dev/null; then
    echo "rootward: the tests need the programs of these Debian packages: $packages" >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "rootward: the tests need more Debian packages; run: sudo apt-get install -y --no-install-recommends $packages" >&2
    exit 1
fi

echo "rootward: installing for the tests: $packages"
# A package that starts its server as it is installed would open a port on every address: policy-rc.d forbids it meanwhile.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 0755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -qq -o Acquire::Retries=3 update
# shellcheck disable=SC2086 # a list of words
apt-get -qq -y -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 install --no-install-recommends $packages >/dev/null

packages=$(missing | tr '\n' ' ')
if [ -n "$packages" ]; then
    echo "rootward: installed, but their programs are still not found: $packages" >&2
    exit 1
fi
