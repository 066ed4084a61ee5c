#!/bin/busybox sh
# PID 1 of a domain of the lab: runs the function of the scenario that has the domain's name.
. /lab/common.sh
boot
word() { sed -n "s/.*$1=\([^ ]*\).*/\1/p" /proc/cmdline; }
role=$(word role) scenario=$(word scenario) patience=$(word patience)

# ---- Words of a scenario, inside a domain ----

# publish KEY VALUE: for Dom0 to read, in the domain's own part of xenstore.
publish() { say "$1 = $2"; xenstore-write "data/$1" "$2"; }
# Ends the scenario.
fail() { publish failed "$*"; exit 1; }
# same WHAT GOT WANTED
same() { [ "$2" = "$3" ] || fail "$1: '$2', not '$3'"; say "$1: $2"; }
# told KEY VALUE SECONDS: waits until Dom0 has said so.
heard() { [ "$(xenstore-read "data/$1" 2>/dev/null)" = "$2" ]; }
told() { try "$3" heard "$1" "$2" || fail "Dom0 did not say $1=$2"; }

say "up, domain $(xenstore-read domid)"
. "/lab/scenarios/$scenario.sh"
("$role") || publish failed "its part ended with status $?"
say "end"
while sleep 1000; do :; done
