#!/bin/sh
# Makes the files of an overlay's Secret: the addresses that are given, and random tokens, once.
#
#   deploy/kubernetes/secrets.sh OVERLAY DATABASE_URL REDIS_URL
set -eu
umask 077

[ $# -eq 3 ] || { sed -n '2,4{ s/^# \{0,1\}//; p; }' "$0" >&2; exit 2; }
mkdir -p "$1/secrets"
cd "$1/secrets"
printf '%s\n' "$2" >database_url
printf '%s\n' "$3" >redis_url
for token in control_token read_token; do
    [ -s $token ] || od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >$token
done
