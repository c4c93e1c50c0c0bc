#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Allocations and system calls of the programs fail, one in each run: a program ends with a message or does its work;
# it does not crash or hang, and the pool is consistent afterwards. (For the engine alone: tests/faults.)
# backends: dax
# long-backends: dax file
# seconds: 200 14400
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start
[ "${UMBRA_SLOW:-0}" = 0 ] || skip "a sanitizer's allocator cannot be stood in for"
PRELOAD=$BUILD/tests/faults/fault_preload.so
[ -f "$PRELOAD" ] || die "$PRELOAD is not built"
FAULTS=$T/faults
PATIENCE=20
runs=0 errors=0
# Each program gets this long.
seconds=$(long 2 900)

# fault N COMMAND...: its exit code; 124 for a hang.
fault() {
	local n=$1
	shift
	rm -f "$FAULTS"
	timeout -k 5 60 env LD_PRELOAD="$PRELOAD" UMBRA_FAULT="$n" UMBRA_FAULT_LOG="$FAULTS" "$@" >"$T/out" 2>&1
}

# A program that becomes another does not say: then some more than it makes.
calls_of() {
	[ -f "$FAULTS" ] || echo "calls 80" >"$FAULTS"
	awk '$1 == "calls" { n = $2 } END { print n + 0 }' "$FAULTS"
}

# Which calls: all of them, or as many as the time allows, spread over all.
order() {
	awk -v n="$1" -v seed="$SEED" 'BEGIN {
		step = int(n * 0.618) + 1
		for (; gcd(n, step) != 1; step++);
		for (i = 0; i < n; i++) print (seed * 31 + i * step) % n + 1
	}
	function gcd(a, b) { return b ? gcd(b, a % b) : a }'
}

bad_end() {
	cat "$T/out"
	cat "$FAULTS" 2>/dev/null
	die "$*"
}

# each NAME CHECK COMMAND...: CHECK is called after each run, with the exit code.
each() {
	local name=$1 check=$2 n i rc end
	shift 2
	before
	fault 0 "$@"
	n=$(calls_of)
	[ "$n" -gt 0 ] || die "$name makes no calls"
	end=$((SECONDS + seconds))
	for i in $(order "$n"); do
		[ $SECONDS -lt $end ] || break
		before
		fault "$i" "$@"
		rc=$?
		# 125 to 127 are what "umbractl exec" says of itself.
		{ [ $rc != 124 ] && [ $rc -lt 128 ]; } || bad_end "$name ends with $rc when its call $i fails"
		runs=$((runs + 1))
		[ $rc = 0 ] || errors=$((errors + 1))
		"$check" $rc
	done
}

# ---- mkfs, fsck: on a pool of their own

template=$MEM/template
pool_make 64M
pool_mount
cp -r /etc/pam.d /etc/ssl "$MNT/" 2>/dev/null
cp "$UMBRAFS" "$MNT/big"
cp "$MNT/big" "$MNT/clone"
pool_finish
cp --sparse=always "$POOL" "$template"

before() { cp --sparse=always "$template" "$POOL"; }
check_mkfs() {
	[ "$1" = 0 ] || return 0
	"$FSCK" -n -f "$POOL" >"$T/fsck" 2>&1 || bad_end "a new pool is not sound: $(tail -n3 "$T/fsck")"
}
check_fsck() {
	"$FSCK" -y -f "$POOL" >"$T/fsck" 2>&1
	"$FSCK" -n -f "$POOL" >"$T/fsck" 2>&1 || bad_end "fsck leaves: $(tail -n3 "$T/fsck")"
}
check_clean() {
	"$FSCK" -n -f "$POOL" >"$T/fsck" 2>&1 || bad_end "fsck finds: $(tail -n3 "$T/fsck")"
}
each mkfs check_mkfs "$MKFS" -q -f "$POOL"
each "fsck -n" check_clean "$FSCK" -n -f "$POOL"
each "fsck -y" check_clean "$FSCK" -y -f "$POOL"
# The same with something to repair: the first blocks of metadata behind the journal, in the first copy.
cp --sparse=always "$template" "$MEM/damaged"
dd if=/dev/zero of="$MEM/damaged" bs=4096 seek=1 count=1 conv=notrunc status=none
before() { cp --sparse=always "$MEM/damaged" "$POOL"; }
each "fsck -y of a damaged pool" check_fsck "$FSCK" -y -f "$POOL"

# ---- umbractl: on a mount

before() { :; }
cp --sparse=always "$template" "$POOL"
pool_mount
any() { :; }
each "umbractl info" any "$UMBRACTL" info "$MNT"
each "umbractl stat" any "$UMBRACTL" stat "$MNT"
each "umbractl map" any "$UMBRACTL" map "$MNT/big"
each "umbractl du" any "$UMBRACTL" du "$MNT"
before() { rm -rf "$MNT/made"; }
each "umbractl clone" any "$UMBRACTL" clone "$MNT/pam.d" "$MNT/made"
each "umbractl exec" any "$UMBRACTL" exec cp --reflink=always "$MNT/big" "$MNT/made"
before() { :; }
each "umbractl dedupe" any "$UMBRACTL" dedupe "$MNT/big" "$MNT/clone"
pool_finish

# ---- the daemon

# Whoever asks may get an error, but an answer.
use() {
	timeout 20 bash -c '
		cd "$1" || exit 0
		echo new >new; mkdir d; cp big d/copy; cp new d/two; mv d/two d/three
		truncate -s 100 clone; cat pam.d/* >/dev/null; ls -lR . >/dev/null; sync big
		rm -rf ssl; true' bash "$MNT" >"$T/use" 2>&1
	[ $? != 124 ] || bad_end "a user of the mount hangs"
}

daemon() {
	local n=$1
	cp --sparse=always "$template" "$POOL"
	rm -f "$FAULTS"
	: >"$LOG"
	if UMBRA_WRAP="env LD_PRELOAD=$PRELOAD UMBRA_FAULT=$n UMBRA_FAULT_LOG=$FAULTS" pool_try_mount; then
		use
		umount "$MNT" 2>/dev/null || umount -l "$MNT" 2>/dev/null
		pool_wait || bad_end "the daemon does not end"
	fi
	umount -l "$MNT" 2>/dev/null
	[ "$(cat "$T/rc" 2>/dev/null)" -lt 124 ] ||
		bad_end "the daemon ends with $(cat "$T/rc") when its call $n fails"
	check_clean
}

daemon 0
n=$(calls_of)
[ "$n" -gt 100 ] || die "the daemon makes $n calls"
end=$((SECONDS + 3 * seconds))
mounts=0
for i in $(order "$n"); do
	[ $SECONDS -lt $end ] || break
	daemon "$i"
	mounts=$((mounts + 1))
done
say "$runs runs of tools with a call that failed, $errors of them ended with an error; $mounts of the daemon ($n calls)"
