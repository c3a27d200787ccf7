#!/bin/sh
# Puts the release of this checkout in the place of the one that runs, while that collects (`fts
# upgrade`). Where that cannot be, the service is restarted; back again if the release does not start.
#
#   sudo deploy/systemd/upgrade.sh [--rollback] [--prefix DIR] [--python PYTHON] [--no-start] [--dry-run]
#
#   --rollback        back to the release before
#   --no-start        change the link; the rest is for you: `fts upgrade`, or a restart
#   --prefix, --python, --dry-run   as for install.sh
set -eu

here=$(CDPATH='' cd "$(dirname "$0")" && pwd -P)
# shellcheck source-path=SCRIPTDIR source=places.sh
. "$here/places.sh"
read_options '--rollback --prefix --python --no-start --dry-run' "$@"
checkout=$(CDPATH='' cd "$here/../.." && pwd -P)
old=$(readlink "$opt/current" 2>/dev/null) || die "nothing is installed in $opt: install.sh does that"

switch_to() { # switch_to RELEASE OTHER
    link "$1" "$opt/current"
    link "$2" "$opt/previous"
    before=$(cat "$unit" 2>/dev/null || true)
    put_unit "$1"
    [ -n "$dry_run" ] || [ "$before" = "$(cat "$unit")" ] ||
        say "the unit is another one: what is new in it holds from the next restart of the service on"
}

start() {
    [ -n "$starts" ] || return 0
    succeed || {
        say "a restart instead: what the venues send meanwhile is declared as a gap"
        systemd restart fintickstreams.service
    }
}

try() { # whether it understands the configuration, before anything is touched
    [ -z "$dry_run" ] || return 0
    "$opt/$1/bin/fts" version || die "$1 does not run here; $old goes on"
    as=''
    if [ -z "$prefix" ]; then # as the account of the service, whose credentials are there while it runs
        systemctl --quiet is-active fintickstreams.service || return 0
        as='runuser -u fintickstreams --'
    fi
    code=0
    $as "$opt/$1/bin/fts" doctor --config "$etc/fts.toml" >/dev/null || code=$?
    # 1: something cannot be reached, which is no reason to stay with the old one.
    [ "$code" -le 1 ] || die "$1 does not accept $etc/fts.toml; $old goes on"
}

if [ -n "$rollback" ]; then
    new=$(readlink "$opt/previous" 2>/dev/null) || die "there is no release before $old"
else
    new=$(release_of "$checkout")
    [ "$new" != "$old" ] || { say "$new is what is installed"; exit 0; }
    make_release "$checkout" "$new"
    try "$new"
fi

switch_to "$new" "$old"
start || { # it is back when the new one says that it is ready
    switch_to "$old" "$new"
    start || die "neither $new nor $old start: journalctl -u fintickstreams"
    die "$new does not start (journalctl -u fintickstreams); $old runs again"
}
[ -n "$dry_run" ] || say "$new is in the place of $old; back with upgrade.sh --rollback"
