#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Clones of one file, each written in one place, removed in random order: counts and space are exact
# afterwards.
# backends: dax
# long-backends: dax file
# beside: yes
# seconds: 120 900
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start
[ -x "$UMBRACTL" ] || die "umbractl is not built"
export UMBRACTL

clones() {
	"$PYTHON" "$LIB/manyclones.py" "$MNT" "$1" "$count" "$SEED" || die "$1"
}

# Bytes and inodes in use.
used() {
	sync -f "$MNT"
	df --output=used,iused -B1 "$MNT" | tail -n1
}

count=$(long 1000 10000)
pool_make "$(long 512M 1G)"
pool_mount
clones source
clones sole
before=$(used)
say "$count clones, each written in one place"
clones make
clones check
say "the same after kill -9"
pool_kill
pool_mount
clones check
say "removed in random order"
clones remove
# Their blocks are given up in the background.
for ((i = 0; i < PATIENCE * 10; i++)); do
	[ "$(counter orphans_pending)" = 0 ] && break
	sleep 0.1
done
clones sole
after=$(used)
[ "$before" = "$after" ] || die "in use before: $before, after: $after"
pool_remount
after=$(used)
[ "$before" = "$after" ] || die "in use before: $before, after a remount: $after"
clones sole
pool_finish
