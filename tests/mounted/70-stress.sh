#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Processes and threads do everything at once on the same names; then fsck.
# backends: dax file
# long-backends: dax file loop
# seconds: 180 1200
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start
pool_make 256M
for ((s = SEED; s < SEED + $(long 2 10); s++)); do
	# Workers that always poll, or never, and too few or many of them.
	if ((s % 2)); then pool_mount busy_poll=1000,threads=3; else pool_mount busy_poll=0,threads=16; fi
	"$HELPERS/stress" "$MNT" "$(long 6 60)" "$s" >"$T/stress.out" 2>&1 || {
		cat "$T/stress.out"
		die "$(sed -n 's/^FAIL: //p' "$T/stress.out" | head -n1)"
	}
	find "$MNT" -type f -exec cat {} + >/dev/null || die "a file cannot be read"
	# A few names stay for the next seed.
	if ((s % 2)); then pool_finish; else
		pool_kill
		pool_fsck
	fi
done
