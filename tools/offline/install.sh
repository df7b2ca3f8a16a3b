#!/bin/sh
# Installs Rootward from this folder, without any network, into a new virtual environment.
#
#   ./install.sh FOLDER SIGNER.pem
#
# FOLDER is made. SIGNER.pem is the public key of whoever made this bundle, as it came to you by another way; the
# signer.pem that lies here only once you have compared it (VERIFY.txt). Every file here is checked before one is used:
# a changed, missing or additional one ends this. PYTHON names another interpreter than the first fitting one on PATH.
set -eu
umask 022
here=$(cd "$(dirname "$0")" && pwd)

fail() {
    echo "rootward: $1" >&2
    exit 1
}

[ $# = 2 ] || fail "usage: ./install.sh FOLDER SIGNER.pem"
[ ! -e "$1" ] || fail "$1 is there already. Name a folder that does not exist."
[ -f "$2" ] || fail "there is no public key at $2."
signer=$(cd "$(dirname "$2")" && pwd)/$(basename "$2")
mkdir -p "$(dirname "$1")"
folder=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
cd "$here"

# What is here is what was signed.
for program in openssl sha256sum; do
    command -v "$program" >/dev/null || fail "needs $program, which checks what is installed."
done
openssl pkeyutl -verify -pubin -inkey "$signer" -rawin -in MANIFEST -sigfile MANIFEST.sig >/dev/null 2>&1 ||
    fail "MANIFEST is not signed by $2. Nothing was installed: this bundle was changed, or it is another one's."
sha256sum --check --strict --quiet MANIFEST >&2 ||
    fail "the files named above are missing, or not those that were signed. Nothing was installed."
found=$(find . ! -type d ! -path ./MANIFEST ! -path ./MANIFEST.sig | sed 's|^\./||' | LC_ALL=C sort)
named=$(sed 's/^[0-9a-f]*  //' MANIFEST | LC_ALL=C sort)
[ "$found" = "$named" ] || fail "there are files here that MANIFEST does not name. Nothing was installed."

# The wheels are for CPython 3.11, 3.12 and 3.13 on x86-64 and arm64 with glibc 2.28 or newer.
fits() {
    "$1" -I -c 'import platform as p, sys
libc, version = p.libc_ver()
ok = sys.implementation.name == "cpython" and (3, 11) <= sys.version_info[:2] <= (3, 13)
ok = ok and p.machine() in ("x86_64", "aarch64") and libc == "glibc"
sys.exit(not (ok and [int(n) for n in version.split(".")[:2]] >= [2, 28]))' >/dev/null 2>&1
}
if [ -n "${PYTHON:-}" ]; then
    python=$PYTHON
    fits "$python" || python=
else
    for python in python3 python3.13 python3.12 python3.11 ''; do
        if [ -z "$python" ] || fits "$python"; then break; fi
    done
fi
[ -n "$python" ] ||
    fail "needs Python 3.11, 3.12 or 3.13 on PATH (or PYTHON=/path/to/python3), on x86-64 or arm64 with glibc 2.28."
"$python" -I -c 'import venv' 2>/dev/null || fail "$python lacks the venv module: on Debian it is in python3-venv."

trap 'rm -rf "$folder"' EXIT
trap 'exit 1' HUP INT TERM
# No pip in the environment: it runs from its wheel, so neither ensurepip nor python3-venv has to be there.
"$python" -I -m venv --without-pip "$folder" || fail "$folder cannot be made."
for wheel in wheels/pip-*.whl; do :; done
pip() { "$folder/bin/python" -I "$wheel/pip" --isolated --quiet --disable-pip-version-check --no-input "$@"; }
pip install --no-index --find-links wheels --only-binary :all: --no-deps --require-hashes --no-cache-dir \
    --requirement requirements.txt || fail "pip could not install the wheels; what was made is removed."
pip check || fail "the wheels do not fit each other; what was made is removed."
version=$("$folder/bin/rootward" --version) || fail "the installed program does not start; what was made is removed."
trap - EXIT
echo "rootward: installed $version: $folder/bin/rootward"
