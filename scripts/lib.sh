# What the scripts share. Sourced, with bash.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# nginx, dnsmasq and nft live in sbin, which is not on every user's path.
# rustup's directory is on it only after the next login.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin
export PATH

say() { printf '\033[1m── %s\033[0m\n' "$*"; }
die() {
    printf '%s\n' "$*" >&2
    exit 1
}

# An executable by that name. (command -v alone is content with any file.)
has() {
    local path
    path=$(command -v "$1") && [ -x "$path" ]
}

# Fills AS_ROOT with what makes a command root's: nothing, or sudo.
AS_ROOT=()
become_root() {
    [ "$(id -u)" != 0 ] || return 0
    command -v sudo >/dev/null || return 1
    AS_ROOT=(sudo)
}

# Where cargo puts what it builds.
target_dir() { echo "${CARGO_TARGET_DIR:-target}"; }
