#!/bin/sh
# Install the project, editable, with locked dependencies: install.sh VENV LOCKFILE
#
# Makes the virtual environment first if it is not there. Debian leaves ensurepip out of python3, so `python3 -m venv`
# may fail on a fresh system. Ways around it, in this order: install python3-venv (as root); use the system's pip from
# outside; fetch Debian's pip as a file (no root needed).
set -eu

venv=$1
lock=$2
python=${PYTHON:-python3}

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

has_ensurepip() {
    "$python" -c 'from ensurepip import bootstrap' 2>/dev/null
}

# Sets pip to the command that installs into the virtual environment.
pip_from_outside() {
    "$python" -m venv --clear --without-pip "$venv"
    if "$python" -m pip --version >/dev/null 2>&1; then
        pip="$python -m pip --python $venv/bin/python"
        return
    fi
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
    echo "install.sh: no ensurepip, no pip: fetching Debian's pip as a file"
    temporary=$(mktemp -d)
    trap 'rm -rf "$temporary"' EXIT
    mkdir -p "$temporary/lists/partial" "$temporary/cache/archives/partial"
    own="-o Dir::State::lists=$temporary/lists -o Dir::Cache=$temporary/cache"
    # shellcheck disable=SC2086  # options, to be split
    (cd "$temporary" && apt-get $own -qq update && apt-get $own -qq download python3-pip-whl) || return 1
    dpkg-deb -x "$temporary"/python3-pip-whl_*.deb "$temporary"
    wheel=$(find "$temporary" -name 'pip-*.whl')
    "$venv/bin/python" "$wheel/pip" install --quiet --no-index "$wheel"
    pip="$venv/bin/python -m pip"
}

command -v "$python" >/dev/null || fail "$python is missing: install Python 3.11 or newer"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "Python 3.11 or newer is needed, this is $("$python" --version); another one can be named: PYTHON=..."

pip="$venv/bin/python -m pip"
if ! $pip --version >/dev/null 2>&1; then
    if ! has_ensurepip && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "install.sh: Python lacks ensurepip: installing python3-venv"
        { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends python3-venv; } ||
            echo "install.sh: that failed; trying without" >&2
    fi
    if has_ensurepip; then
        "$python" -m venv --clear "$venv"
    else
        pip_from_outside || fail "no way to get pip: as root, apt-get install python3-venv, then try again"
    fi
fi

export PIP_DISABLE_PIP_VERSION_CHECK=1
$pip install --quiet --require-hashes -r "$lock"
$pip install --quiet --no-deps --no-build-isolation --editable .
