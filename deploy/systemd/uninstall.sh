#!/bin/sh
# Stops the engine, which drains first, and removes what install.sh and upgrade.sh have made.
#
#   sudo deploy/systemd/uninstall.sh [--purge] [--prefix DIR] [--dry-run]
#
#   --purge           also the configuration, its credentials and the state directory: rows that wait
#                     in the journal and a private database are lost
#   --prefix, --dry-run   as for install.sh
#
# Without --purge a configuration that was changed, credentials and the state directory stay. So does
# the account, which may own files elsewhere.
set -eu

here=$(CDPATH='' cd "$(dirname "$0")" && pwd -P)
# shellcheck source-path=SCRIPTDIR source=places.sh
. "$here/places.sh"
read_options '--purge --prefix --dry-run' "$@"

[ ! -f "$unit" ] || systemd disable --now fintickstreams.service
if [ -n "$purge" ]; then
    run rm -rf "$etc" "$state"
elif [ -f "$etc/fts.toml" ] && [ "$(cat "$etc/fts.toml")" = "$(written "$here/fts.toml")" ]; then
    run rm -f "$etc/fts.toml"
fi
[ "$(readlink "$command" 2>/dev/null)" != "$opt/current/bin/fts" ] || run rm -f "$command"
run rm -f "$unit" "$account"
run rm -rf "$opt"
# Directories that are empty now, from below; of a machine only our own.
folders="$etc/credentials $etc"
[ -z "$prefix" ] || folders="$folders $prefix/etc/sysusers.d $prefix/etc/systemd/system
    $prefix/etc/systemd $prefix/etc $prefix/usr/local/bin $prefix/usr/local $prefix/usr $prefix/opt"
for folder in $folders; do
    [ -n "$dry_run" ] || rmdir "$folder" 2>/dev/null || true
done
systemd daemon-reload
