#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A database under load while the daemon is killed: it is consistent and has every acknowledged transaction.
# backends: dax file
# beside: yes
# seconds: 300 1200
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start
"$PYTHON" -c 'import sqlite3' 2>/dev/null || skip "python3 without sqlite3"
rounds=$(long 6 40)
RANDOM=$SEED
pool_make 256M
for ((i = 1; i <= rounds; i++)); do
	mode=wal
	((i % 2)) && mode=delete
	pool_mount
	"$PYTHON" "$LIB/sqlite_load.py" run "$MNT/db" "$MEM/acked" "$mode" &
	load=$!
	usleep=$((RANDOM % 1500 + 300))
	sleep "$(printf '%d.%03d' $((usleep / 1000)) $((usleep % 1000)))"
	no_etxtbsy
	pool_kill
	wait $load
	pool_fsck
	pool_mount
	"$PYTHON" "$LIB/sqlite_load.py" check "$MNT/db" "$MEM/acked" || die "round $i ($mode)"
	no_etxtbsy
	pool_finish
done
