#!/bin/sh
# Installs the engine as a service of systemd. Run it again at any time: it does what is left to do.
#
#   sudo deploy/systemd/install.sh [--prefix DIR] [--python PYTHON] [--no-start] [--dry-run]
#
#   --prefix DIR      everything below DIR, and nothing is started: a tree to try, or for an image
#   --python PYTHON   the interpreter to use (default: the newest of 3.13, 3.12, 3.11, python3)
#   --no-start        install and do not start it
#   --dry-run         say what would be done
set -eu

here=$(CDPATH='' cd "$(dirname "$0")" && pwd -P)
# shellcheck source-path=SCRIPTDIR source=places.sh
. "$here/places.sh"
read_options '--prefix --python --no-start --dry-run' "$@"
checkout=$(CDPATH='' cd "$here/../.." && pwd -P)
release=$(release_of "$checkout")
runs=$(readlink "$opt/current" 2>/dev/null || true)
[ -z "$runs" ] || [ "$runs" = "$release" ] || die "$runs is installed: upgrade.sh puts $release in its place"

make_release "$checkout" "$release"
link "$release" "$opt/current"
link "$opt/current/bin/fts" "$command"
[ -f "$etc/fts.toml" ] || put 644 "$here/fts.toml" "$etc/fts.toml"
[ -d "$etc/credentials" ] || run mkdir -m 700 "$etc/credentials"
put_unit "$release"
[ -z "$starts" ] || systemd enable --now fintickstreams.service
[ -n "$dry_run" ] || say "$release is installed; its configuration is $etc/fts.toml"
