#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# O_DIRECT writes, including asynchronous ones, beside readers, mappings and writers through the page cache: reads
# return what has been written. Also with more writes in flight than the kernel has room for, and when the daemon dies
# meanwhile, with clones that share page cache and without. Files used only past the cache cause no invalidations. Who
# writes, or reads into a mapping, keeps the pages in question when others use the file past the cache.
# backends: dax file
# long-backends: dax file loop
# seconds: 120 400
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start

# Linux 6.6; before that the daemon leaves such writes to the kernel.
beside() {
	timeout 120 "$HELPERS/directread" "$MNT/file-$2-$1" "$(long 2 30)" "$1" "$2" || die "$2, pieces of $1: exit $?"
	say "ok: $2, pieces of $1"
}
direct_dd() {
	dd if=/dev/zero of="$MNT/$1" bs=4K count="$2" oflag=direct conv=notrunc 2>"$T/out" || die "$(cat "$T/out")"
}
# A write that goes through the cache while fcntl(2) sets O_DIRECT is not taken for one past it.
flips() {
	local user i
	"$HELPERS/directread" "$MNT/flip" "$(long 2 30)" 65536 flip >"$T/out" 2>&1 &
	user=$!
	for ((i = 0; i < 1200; i++)); do
		kill -0 $user 2>/dev/null || break
		sleep 0.05
	done
	if kill -0 $user 2>/dev/null; then
		stacks
		die "O_DIRECT set and cleared meanwhile: it hangs"
	fi
	wait $user || die "$(cat "$T/out")"
	say "ok: $(cat "$T/out")"
}
# What is in flight is not dropped from the cache because of what happens elsewhere in the file.
pinned() {
	timeout 120 "$HELPERS/pinned" "$MNT" "$(long 2 30)" "$1" "$2" || die "pinned $1 $2"
	rm -f "$MNT"/target "$MNT"/source
}
# With writes under way the daemon is killed, then ends in order.
ends() {
	local user i
	"$HELPERS/directread" "$MNT/file" 600 4096 read >"$T/out" 2>&1 &
	user=$!
	sleep 1
	kill -0 $user 2>/dev/null || die "$(cat "$T/out")"
	pool_kill
	for ((i = 0; i < 500; i++)); do
		kill -0 $user 2>/dev/null || break
		sleep 0.02
	done
	kill -0 $user 2>/dev/null && die "who wrote hangs when the daemon has died"
	wait $user 2>/dev/null
	pool_fsck
	pool_mount "$@"
	"$HELPERS/directread" "$MNT/file" 600 4096 read >"$T/out" 2>&1 &
	user=$!
	sleep 1
	kill "$(cat "$T/pid")"
	pool_wait || {
		stacks
		die "the daemon does not end"
	}
	kill -9 $user 2>/dev/null
	wait $user 2>/dev/null
	log_ok
	pool_fsck
}

pool_make 64M
pool_mount
direct_dd only 1000
dd if="$MNT/only" of=/dev/null bs=4K iflag=direct 2>/dev/null
direct_dd only 1000
[ "$(counter direct_drops)" = 0 ] || die "used past the cache only: $(counter direct_drops) times invalidated"
cat "$MNT/only" >/dev/null
direct_dd only 1000
direct_dd only 1000
drops=$(counter direct_drops)
[ "$drops" -gt 0 ] || die "never invalidated"
direct_dd only 1000
[ "$(counter direct_drops)" = "$drops" ] || die "it does not end: $drops, then $(counter direct_drops)"
beside 65536 stay
beside 65536 read
beside 4096 read
beside 65536 write
beside 65536 map
for case in open direct clone; do
	pinned into $case
	pinned write $case
done
flips
ends
pool_mount share=off
beside 65536 read
ends share=off
pool_mount cache=none
beside 65536 none
pool_finish
