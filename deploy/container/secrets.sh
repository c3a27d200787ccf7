#!/bin/sh
# Makes the secrets of compose.yaml, once: random passwords and tokens, and the addresses with them.
#
#   sudo deploy/container/secrets.sh [DIR]     default: secrets, beside this file
#
# Nobody but root gets into the folder, so the files may be read inside the containers by whatever
# account each of them runs under. The engine's are for its own group alone (10001).
set -eu
umask 077

folder=${1:-$(dirname "$0")/secrets}
engine=10001

[ "$(id -u)" = 0 ] || { echo "secrets.sh: only root can hand files to the engine's group" >&2; exit 1; }
mkdir -p "$folder"
chmod 700 "$folder"
cd "$folder"

random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

keep() { # keep MODE GROUP NAME TEXT: as it is, if it is there
    [ -e "$3" ] || printf '%s\n' "$4" >"$3.new"
    [ -e "$3" ] || mv "$3.new" "$3"
    chown "0:$2" "$3"
    chmod "$1" "$3"
}

keep 444 0 database_password "$(random)"
keep 444 0 reader_password "$(random)"
keep 440 $engine database_url "postgresql://fts:$(cat database_password)@database/fts"
# 1 GB of the newest rows; a stream that is dropped whole would be a hole nobody sees.
keep 444 0 valkey_conf "requirepass $(random)
maxmemory 1gb
maxmemory-policy noeviction
save \"\""
keep 440 $engine redis_url "redis://:$(sed -n 's/^requirepass //p' valkey_conf)@valkey/0"
keep 440 $engine control_token "$(random)"
keep 440 $engine read_token "$(random)"
keep 444 0 prometheus_token "$(cat read_token)"
keep 444 0 grafana_password "$(random)"
