#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Files that share blocks, changed at once by several processes in parts that lie next to each other, in all ways, and
# read in all ways; what was there is there after kill -9, and all space is free once the files are removed.
# backends: dax file
# long-backends: dax file loop
# seconds: 60 900
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start

used() {
	df --output=used "$MNT" | tail -n1
}
run() { # END
	local before after i
	before=$(used)
	timeout 600 "$HELPERS/shareparts" run "$MNT" "$SEED" "$(long 3 120 2)" "$MEM/model" || die "seed $SEED"
	"$1"
	"$HELPERS/shareparts" verify "$MNT" "$MEM/model" || die "after $1, seed $SEED"
	rm -f "$MNT"/p*
	for ((i = 0; i < 50; i++)); do
		after=$(used)
		[ "$after" -le "$before" ] && break
		sleep 0.1
	done
	[ "$after" -le "$before" ] || die "in use before: $before KiB, after: $after KiB"
}

heal=()
[ "$BACKEND" = dax ] || heal=(--data-csum --parity)
pool_make 256M "${heal[@]}"
pool_mount
run pool_kill_check_mount
run pool_remount
pool_umount
say "writeback"
pool_mount writeback
run pool_kill_check_mount
pool_finish
