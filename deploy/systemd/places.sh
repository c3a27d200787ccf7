# shellcheck shell=sh disable=SC2034,SC2154 # what is set here is used there, and the other way round
# What install.sh, upgrade.sh and uninstall.sh have in common: options, places, the steps of a release.
# Sourced by them. A release is a directory of its own, /opt/fintickstreams/VERSION-CHECKSUM, and
# `current` a link to the one that runs, so that an upgrade can be taken back.

umask 022

die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }
say() { printf '%s\n' "$*"; }

prefix='' dry_run='' starts=yes purge='' rollback='' python=''

read_options() { # read_options "allowed options" "$@"
    allowed=$1
    shift
    while [ $# -gt 0 ]; do
        case " $allowed " in *" $1 "*) ;; *) usage "$1" ;; esac
        case $1 in
            --prefix | --python)
                [ $# -ge 2 ] || usage "$1 without a value"
                if [ "$1" = --prefix ]; then prefix=$2; else python=$2; fi
                shift
                ;;
            --dry-run) dry_run=yes ;;
            --no-start) starts='' ;;
            --purge) purge=yes ;;
            --rollback) rollback=yes ;;
        esac
        shift
    done
    prefix=${prefix%/}
    case $prefix in '' | /*) ;; *) die "--prefix needs an absolute path" ;; esac
    # They are written into a unit and into scripts, where other letters would mean something.
    case $prefix in *[!A-Za-z0-9/._-]*) die "--prefix: letters, digits and ._-/ only" ;; esac
    if [ -z "$prefix$dry_run" ] && [ "$(id -u)" != 0 ]; then
        die "only root can do that; try --dry-run, or --prefix DIR for a tree of your own"
    fi
    opt=$prefix/opt/fintickstreams
    etc=$prefix/etc/fintickstreams
    unit=$prefix/etc/systemd/system/fintickstreams.service
    account=$prefix/etc/sysusers.d/fintickstreams.conf
    command=$prefix/usr/local/bin/fts
    state=$prefix/var/lib/fintickstreams
}

usage() {
    [ "$1" = --help ] || printf '%s: not understood: %s\n' "${0##*/}" "$1" >&2
    # The comment at the top of the script is its help.
    sed -n '2,/^set /{ /^#/!d; s/^# \{0,1\}//; p; }' "$0"
    [ "$1" = --help ] && exit 0
    exit 2
}

run() { # every change of the machine goes through here
    if [ -n "$dry_run" ]; then say "+ $*"; else "$@"; fi
}

systemd() { # systemctl, where the tree is that of the machine and systemd runs it
    [ -z "$prefix" ] || return 0
    if [ -n "$dry_run" ] || [ -d /run/systemd/system ]; then run systemctl "$@"; fi
}

succeed() { # whether the processes that run become those of `current`, without a hole
    [ -z "$prefix" ] || return 0
    if [ -n "$dry_run" ]; then
        say "+ $opt/current/bin/fts upgrade --match --config $etc/fts.toml"
        return 0
    fi
    systemctl --quiet is-active fintickstreams.service || return 1
    runuser -u fintickstreams -- "$opt/current/bin/fts" upgrade --match --config "$etc/fts.toml"
}

written() { # written FILE: its text, with the paths of this prefix
    sed "s#/opt/fintickstreams#$opt#g; s#/etc/fintickstreams#$etc#g; s#/var/lib/fintickstreams#$state#g" "$1"
}

put() { # put MODE FILE DESTINATION: nothing if it is there and the same
    text=$(written "$2")
    [ -f "$3" ] && [ "$(cat "$3")" = "$text" ] && return 0
    if [ -n "$dry_run" ]; then
        say "+ write $3"
        return 0
    fi
    mkdir -p "$(dirname "$3")"
    printf '%s\n' "$text" >"$3.new"
    chmod "$1" "$3.new"
    mv -f "$3.new" "$3"
}

link() { # link TARGET NAME, in one step
    [ "$(readlink "$2" 2>/dev/null)" != "$1" ] || return 0
    run mkdir -p "$(dirname "$2")"
    run ln -sfn "$1" "$2.new"
    run mv -fT "$2.new" "$2"
}

shipped='control engine shards sql deploy/wheel deploy/systemd pyproject.toml MANIFEST.in README.md LICENSE requirements.lock'

release_of() { # release_of CHECKOUT: its name, from all that is installed of it
    version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$1/pyproject.toml")
    sum=$(
        cd "$1" || exit
        # shellcheck disable=SC2086 # a list of names
        find $shipped -type f ! -path '*/__pycache__/*' ! -path '*.egg-info/*' | LC_ALL=C sort |
            xargs cksum | cksum | cut -d ' ' -f 1
    )
    printf '%s-%08x\n' "$version" "$sum"
}

find_python() {
    for name in ${python:-python3.13 python3.12 python3.11 python3}; do
        if "$name" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
        then
            command -v "$name"
            return
        fi
    done
    die "${python:+--python $python: }no Python 3.11 or newer with the venv module" \
        "(Debian, Ubuntu: apt-get install python3-venv)"
}

make_release() { # make_release CHECKOUT RELEASE: every package by the hash in the lock file
    made=$opt/$2
    [ ! -f "$made/complete" ] || return 0
    base=$(find_python)
    case $("$base" -c 'import os, sys; print(os.path.realpath(sys.base_prefix))') in
        /root/* | /home/*) # ProtectHome= of the unit
            [ -n "$prefix" ] || die "$base lives in somebody's home, where a service cannot read it"
            ;;
    esac
    say "making $made with $("$base" -V 2>&1)"
    run rm -rf "$made"
    run mkdir -p "$made"
    if [ -n "$dry_run" ]; then
        say "+ install the packages of requirements.lock and fintickstreams into $made"
        return 0
    fi
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    mkdir "$work/source"
    # shellcheck disable=SC2086 # a list of names
    (cd "$1" && tar -cf - --exclude __pycache__ --exclude '*.egg-info' $shipped) |
        tar -xf - -C "$work/source"
    "$base" -m venv "$made"
    "$made/bin/python" -m pip --disable-pip-version-check --no-input download --quiet \
        --require-hashes --only-binary :all: -r "$1/requirements.lock" -d "$work/wheels"
    "$made/bin/python" -m pip --disable-pip-version-check --no-input wheel --quiet \
        --no-deps --no-index --find-links "$work/wheels" -w "$work/wheels" "$work/source"
    "$made/bin/python" -m pip --disable-pip-version-check --no-input install --quiet \
        --no-index --find-links "$work/wheels" "fintickstreams[lake]"
    cp "$here/check-shm" "$here/fintickstreams.service" "$made/"
    chmod -R go+rX "$made"
    : >"$made/complete" # last: what has none is made anew
    rm -rf "$work"
    trap - EXIT
}

put_unit() { # put_unit RELEASE: as it came with that
    from=$opt/$1/fintickstreams.service
    [ -f "$from" ] || from=$here/fintickstreams.service # a release that is made dry
    put 644 "$from" "$unit"
    put 644 "$here/fintickstreams.sysusers" "$account"
    if [ -z "$prefix" ] && { [ -n "$dry_run" ] || command -v systemd-sysusers >/dev/null; }; then
        run systemd-sysusers "$account"
    fi
    systemd daemon-reload
}
