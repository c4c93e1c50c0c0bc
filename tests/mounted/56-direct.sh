#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# O_DIRECT writes, asynchronous ones too, beside reads through the page cache: what has been written is what is read. Also
# with more writes under way than the kernel has room for, and when the daemon dies meanwhile.
# backends: dax file
# long-backends: dax file loop
# seconds: 60 300
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start

SECONDS_EACH=$(long 3 30)
pool_make 64M
pool_mount
# Linux 6.6; before that the daemon leaves such writes to the kernel.
for piece in 65536 4096; do
	timeout 120 "$HELPERS/directread" "$MNT/file-$piece" "$SECONDS_EACH" "$piece" || die "pieces of $piece: exit $?"
	say "ok: pieces of $piece"
done
"$HELPERS/directread" "$MNT/file" 600 4096 >"$T/out" 2>&1 &
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
pool_mount
# The end with writes under way.
"$HELPERS/directread" "$MNT/file" 600 4096 >"$T/out" 2>&1 &
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
