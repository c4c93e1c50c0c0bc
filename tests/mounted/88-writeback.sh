#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The mount option writeback: guarantees while the kernel keeps written data; and other tests with this option.
# backends: dax
# long-backends: dax file loop
# seconds: 300 1800
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start

check() { # CASE [ARGUMENT...]
	local case=$1
	shift
	timeout 120 "$PYTHON" "$LIB/writeback.py" "$MNT" "$UMBRACTL" "$case" "$@" || die "$case"
	say "ok: $case"
}
check_exec() {
	timeout 120 "$UMBRACTL" exec "$PYTHON" "$LIB/writeback.py" "$MNT" "$UMBRACTL" "$1" || die "$1"
	say "ok: $1, supervised"
}
# Starts case_hold and waits until it has written.
hold() {
	rm -f "$T/hold"
	"$PYTHON" "$LIB/writeback.py" "$MNT" "$UMBRACTL" hold >"$T/hold" &
	holder=$!
	for ((i = 0; i < 200; i++)); do
		[ -s "$T/hold" ] && return
		sleep 0.05
	done
	die "hold"
}
hold_end() {
	kill -9 $holder 2>/dev/null
	wait $holder 2>/dev/null
}

pool_make 512M
fails_with "writeback without a page cache" 1 "$UMBRAFS" "$POOL" "$MNT" -o cache=none,writeback
pool_mount writeback
grep -q "clones do not share page cache: the kernel does that or writeback" "$LOG" || die "nothing says why nothing is shared"
[ "$(grep -c "do not share page cache" "$LOG")" = 1 ] || die "said more than once"
for case in kept times space seek clone dedupe append partial maps flags; do
	check $case
done
check_exec fiemap
check_exec ficlone
pool_remount
check remembered
rm -rf "${MNT:?}"/*

say "what a clone by ioctl was refused for holds nothing"
before=$(df --output=used "$MNT" | tail -n1)
head -c 20M /dev/urandom >"$MNT/big"
"$UMBRACTL" clone "$MNT/big" "$MNT/copy" || die "clone"
rm "$MNT/big" "$MNT/copy"
after=$(df --output=used "$MNT" | tail -n1)
[ $((after - before)) -lt 1000 ] || die "in use before: $before KiB, after: $after KiB"

say "the daemon's end"
hold
pool_kill
hold_end
pool_fsck
pool_mount writeback
check held synced
hold
kill -TERM "$(cat "$T/pid")"
pool_wait || die "the daemon stays after SIGTERM"
hold_end
umount -l "$MNT" 2>/dev/null
pool_fsck
pool_mount writeback
check held all

say "read-only and back"
exec 7>"$MNT/busy"
echo held >&7
mount -o remount,ro "$MNT" 2>/dev/null && die "read-only while a file is open for writing"
exec 7>&-
echo more >>"$MNT/busy"
mount -i -o remount,ro "$MNT" || die "remount,ro"
[ "$(cat "$MNT/busy")" = "$(printf 'held\nmore')" ] || die "lost at remount,ro"
mount -i -o remount,rw "$MNT" || die "remount,rw"
echo again >>"$MNT/busy"
pool_finish
[ "$BACKEND" = loop ] || rm -f "$POOL"

say "a full pool"
[ "$BACKEND" = loop ] || pool_make 96M
if [ "$BACKEND" != loop ]; then
	pool_mount writeback
	check full
	rm -f "$MNT"/*
	check mapfull
	pool_finish
	# Without the option mappings are written back as well.
	pool_mount
	check mapfull
	pool_finish
fi

[ "$BACKEND" = loop ] && exit 0
under writeback 10-posix.sh
under writeback 21-data.sh
under writeback 20-model.sh
under writeback 52-sqlite.sh
under writeback 50-git.sh
