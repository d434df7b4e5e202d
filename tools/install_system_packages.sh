#!/bin/sh
# Install programs that pip cannot: each argument is PROGRAM:PACKAGE.  With `--venv PYTHON FOLDER` make a virtual
# environment on a Debian whose Python came without the module for it.
set -eu

install() {
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "Installing $* with apt." >&2
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
    else
        echo "Please install $* (Debian, Ubuntu: sudo apt install $*), then run make again." >&2
        exit 1
    fi
}

if [ "${1:-}" = --venv ]; then
    rm -rf "$3"
    install python3-venv
    exec "$2" -m venv "$3"
fi

missing=
for pair in "$@"; do
    command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
done
# shellcheck disable=SC2086  # package names hold no spaces
[ -z "$missing" ] || install $missing
