#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A pool is filled to the last block, emptied, filled again: the same amount fits, nothing leaks, and in a full pool
# files can still be removed and truncated.
# backends: file
# long-backends: dax file loop
# beside: yes
# seconds: 300 3600
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start
pool_make "$(long 32M 1G)"
pool_mount

free_blocks() {
	stat -f -c %f "$MNT"
}

# One round first, so that what the pool keeps for itself is there.
"$HELPERS/fill" "$MNT" mixed >/dev/null && "$HELPERS/fill" "$MNT" empty || die "first round"
start_free=$(free_blocks)
for kind in small large mixed dirs small large; do
	n=$("$HELPERS/fill" "$MNT" "$kind") || {
		say "$n"
		die "filling with $kind files"
	}
	at_full=$(free_blocks)
	file="$T/filled.$kind"
	if [ -s "$file" ]; then
		was=$(cat "$file")
		diff=$((n - was))
		[ ${diff#-} -le $((was / 200)) ] || die "$kind: $n went in, $was the first time"
	fi
	echo "$n" >"$file"
	if [ "$kind" = large ]; then
		# At the brim: cutting and removing work, and what they free can be used.
		size=$(stat -c %s "$MNT/f0")
		truncate -s $((size / 2 + 123)) "$MNT/f0" || die "truncate on a full pool"
		head -c 1000000 /dev/zero >"$MNT/after" || die "no space after a truncate"
		ln "$MNT/after" "$MNT/link" || die "link"
		mv "$MNT/after" "$MNT/moved" || die "rename"
		rm "$MNT/moved" "$MNT/link" || die "unlink"
	fi
	"$HELPERS/fill" "$MNT" empty || die "emptying"
	now_free=$(free_blocks)
	say "$kind: $n in, $at_full blocks free when full, $now_free when empty"
	[ "$now_free" = "$start_free" ] || die "$kind: $now_free blocks free, $start_free before"
done
pool_finish
# A pool that is full survives its daemon, too.
pool_mount
"$HELPERS/fill" "$MNT" mixed >/dev/null || die "last round"
pool_kill_check_mount
"$HELPERS/fill" "$MNT" empty || die "emptying after kill -9"
[ "$(free_blocks)" = "$start_free" ] || die "$(free_blocks) blocks free, $start_free before the kill"
pool_finish
