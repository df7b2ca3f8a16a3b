#!/bin/sh
# Makes .venv with Python 3.11 or newer and installs a lock file into it, and this project from source.
#
#   tools/bootstrap.sh venv            makes .venv, afresh if one is there
#   tools/bootstrap.sh install FILE    installs FILE (hashes are checked, wheels only) and the project into .venv
#
# PYTHON names another interpreter than the first fitting one on PATH. Works where the venv module or pip is missing,
# as on Debian without python3-venv; as root it installs that package when nothing else helps.
set -eu
cd "$(dirname "$0")/.."

fits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
can() { "$python" -c "import $1" >/dev/null 2>&1; }
fail() {
    echo "rootward: $1" >&2
    exit 1
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        fits "$PYTHON" || fail "PYTHON=$PYTHON is not Python 3.11 or newer."
        python=$PYTHON
        return
    fi
    for python in python3 python3.14 python3.13 python3.12 python3.11; do
        if fits "$python"; then return; fi
    done
    fail "needs Python 3.11 or newer on PATH (on Debian: apt-get install python3 python3-venv), or PYTHON=/path/to/python3."
}

make_venv() {
    rm -rf .venv
    # Debian splits ensurepip off into python3-venv: the venv module imports without it and then fails half way.
    if can venv && can ensurepip; then
        "$python" -m venv .venv
    elif can venv && can pip; then
        "$python" -m venv --without-pip .venv # pip_install then uses the interpreter's own pip
    elif can virtualenv; then
        "$python" -m virtualenv --quiet --python "$python" .venv
    elif [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && [ -z "${apt_tried:-}" ]; then
        apt_tried=1
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        echo "rootward: installing python$version-venv, which Python needs to make .venv"
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq
        apt-get install -y -qq --no-install-recommends "python$version-venv" >/dev/null ||
            apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
        make_venv
    else
        fail "$python cannot make a virtual environment: as root, run 'apt-get install python3-venv' (or install pip or virtualenv for it), then run make again."
    fi
    # A virtual environment knows its own place: the Makefile makes a new one when the tree was moved or copied.
    pwd >.venv/.tree
}

pip_install() {
    if .venv/bin/python -c 'import pip' >/dev/null 2>&1; then
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input "$@"
    else
        find_python
        "$python" -m pip --python .venv/bin/python install --quiet --disable-pip-version-check --no-input "$@"
    fi
}

case "${1:-}" in
venv)
    find_python
    make_venv
    ;;
install)
    echo "rootward: installing $2"
    pip_install --require-hashes --only-binary :all: -r "$2"
    pip_install --no-deps --no-build-isolation --editable .
    ;;
*)
    fail "usage: tools/bootstrap.sh venv | install FILE"
    ;;
esac
