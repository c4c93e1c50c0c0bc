#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# kill -9 of the daemon at random moments under a parallel load: the next mount works, fsck finds nothing, and
# every acknowledged operation is present. The load clones, dedupes, and maps clones through shared views.
# backends: dax file
# long-backends: dax file loop
# vm: devdax
# seconds: 300 7200
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start
rounds=$(long 12 100 2)
procs=3
RANDOM=$SEED
pool_make 512M
mkdir "$MEM/logs"
total=0
for ((round = 1; round <= rounds; round++)); do
	opts=
	((round % 3)) || opts=data=inplace
	pool_mount "$opts"
	"$HELPERS/writers" run "$MNT" "$MEM/logs" "$procs" "$SEED" "$round" >"$T/writers.out" 2>&1 &
	writers=$!
	# The directories must be there before the logs count.
	for ((i = 0; i < 500; i++)); do
		[ -d "$MNT/round$round/p$((procs - 1))" ] && break
		sleep 0.01
	done
	usleep=$((RANDOM % 900 + 20))
	sleep "$(printf '%d.%03d' $((usleep / 1000)) $((usleep % 1000)))"
	pool_kill
	wait $writers || {
		cat "$T/writers.out"
		die "round $round: a writer failed before the kill"
	}
	pool_fsck
	pool_mount "$opts"
	"$HELPERS/writers" verify "$MNT" "$MEM/logs" "$procs" "$SEED" "$round" >"$T/verify.out" 2>&1 || {
		cat "$T/verify.out"
		die "$(sed -n 's/^FAIL: //p' "$T/verify.out" | head -n1)"
	}
	total=$((total + $(awk '/operations present/ { print $1 }' "$T/verify.out")))
	# The tree of the round before goes while a later one is worked on.
	[ -d "$MNT/round$((round - 1))" ] && rm -rf "$MNT/round$((round - 1))"
	pool_finish
done
say "$rounds kills, $total acknowledged operations, all present"
