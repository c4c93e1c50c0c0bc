#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Memory failure: blocks of a small pool fail, one after the other, under a reader, a writer and a mapping. The daemon
# survives; nobody is killed except by touching a lost page; metadata is repaired; the right pages of the right files are
# reported, and are good again when written; with parity none is lost. Bit flips; crashes at any moment of a repair. With
# --long every block of the pool, on persistent memory and in a plain file (both on tmpfs, where pages can be made to
# fail), without and with checksums and parity.
# backends: dax
# seconds: 150 3000
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
MEM_SIZE=200M
start
[ -x "$UMBRACTL" ] || die "umbractl is not built"
SIZE=24M BLOCKS=6144

poison() {
	local rc
	"$PYTHON" "$LIB/poison.py" "$@"
	rc=$?
	[ $rc = 77 ] && skip "$(tail -n 1 "$T/outcomes")" >&2
	[ $rc = 0 ] || die "poison.py $1: $(grep -h FAIL "$T/outcomes" 2>/dev/null)" >&2
}

# pristine FORM: a pool with the files, in $MEM/pristine. Forms: dax, file; with + for checksums and parity.
pristine() {
	local features=()
	case $1 in
	dax*) export PMEM_IS_PMEM_FORCE=1 ;;
	*) export PMEM_IS_PMEM_FORCE=0 ;;
	esac
	[[ $1 == *+ ]] && features=(--data-csum --parity)
	rm -f "$POOL"
	pool_make $SIZE "${features[@]}"
	pool_mount share=off
	poison make "$MNT"
	"$UMBRACTL" clone "$MNT/plain" "$MNT/shared.new" || die "clone"
	mv "$MNT/shared.new" "$MNT/shared"
	pool_umount
	cp "$POOL" "$MEM/pristine" || die "copy"
}

# Where metadata and data lie: the first blocks of chunks; and some from all over.
sample() {
	"$PYTHON" - "$SEED" "$BLOCKS" "$(long 8 0)" <<-'PY'
		import random, sys
		seed, blocks, n = map(int, sys.argv[1:])
		all = list(range(blocks))
		if n:
		    rng = random.Random(seed)
		    all = [rng.choice(range(c, c + 24)) for c in range(0, blocks, 512) for i in range(2)]
		    all += rng.sample(range(blocks), n)
		    all = sorted(set(all + [0, 1, 2, 8 + 1, 512, 520]))
		print(*all)
	PY
}

if [ "$LONG" = 1 ]; then
	UMBRA_EVERY_BLOCK=1 "$BUILD/tests/unit/test_failure" || die "test_failure, every block"
fi

# each FORM LBA...: the blocks fail in turn; a fresh pool for each 200.
each() {
	local form=$1 i
	shift
	pristine "$form"
	: >"$T/outcomes"
	for ((i = 1; i <= $#; i += 200)); do
		cp "$MEM/pristine" "$POOL" || die "copy"
		pool_mount share=off
		poison try "$MNT" "$UMBRACTL" "$((SEED + i))" "${@:i:200}" >>"$T/outcomes"
		pool_umount
		"$FSCK" -n "$POOL" >"$T/fsck" || die "fsck: $(cat "$T/fsck")"
		pool_mount share=off
		poison look "$MNT" "$UMBRACTL"
		pool_umount
	done
	say "$form: $# blocks failed, one after the other"
	awk -F'\t' '{ n[$1 "\t" $2] += $3 } END { for (k in n) print k "\t" n[k] }' "$T/outcomes" | sort |
		awk -F'\t' '{ printf "  %-24s %-24s %d\n", $1, $2, $3 }'
}

mapfile -t lbas < <(sample | tr ' ' '\n')
each file+ "${lbas[@]}"
each dax+ "${lbas[@]}"
[ "$LONG" != 1 ] || each file "${lbas[@]}"
each dax "${lbas[@]}"

say "mkfs -f knows the bad blocks of the pool before"
bad() {
	"$UMBRACTL" health --json "$POOL" |
		"$PYTHON" -c 'import json, sys; h = json.load(sys.stdin); print(h["retired"] + h["moved"] + h["lost"])'
}
cp "$MEM/pristine" "$POOL" || die "copy"
pool_mount share=off
poison burst "$MNT" "$UMBRACTL" "$SEED"
pool_umount
before=$(bad)
[ "$before" -gt 0 ] || die "no bad blocks are left"
"$MKFS" -q -f --parity "$POOL" || die "mkfs -f"
after=$(bad)
if [ "$after" = 0 ] || [ "$after" -gt "$before" ]; then
	die "$before bad blocks, then $after"
fi
"$MKFS" -q -f "$POOL" || die "mkfs -f"
[ "$(bad)" = "$after" ] || die "$(bad) of $after bad blocks"
pool_mount share=off
cp "$UMBRACTL" "$MNT" || die "cp"
pool_umount
"$FSCK" -n "$POOL" >"$T/fsck" || die "fsck: $(cat "$T/fsck")"
"$MKFS" -q -f --forget-bad "$POOL" || die "mkfs -f --forget-bad"
[ "$(bad)" = 0 ] || die "not forgotten"

say "bits flip"
cp "$MEM/pristine" "$POOL" || die "copy"
pool_mount share=off
poison flip "$MNT" "$UMBRACTL" "$SEED"
pool_umount
"$FSCK" -n "$POOL" >"$T/fsck" || die "fsck: $(cat "$T/fsck")"

say "the daemon dies while it repairs"
for ((i = 0; i < $(long 6 60); i++)); do
	cp "$MEM/pristine" "$POOL" || die "copy"
	pool_mount share=off
	"$PYTHON" "$LIB/poison.py" burst "$MNT" "$UMBRACTL" "$((SEED + i))" >"$T/burst" 2>&1 &
	sleep "0.$((RANDOM % 9 + 1))"
	pool_kill
	wait
	"$FSCK" -n "$POOL" >"$T/fsck"
	# 4: the journal is to be replayed, or copies of tables rewritten.
	[ $? -le 4 ] || die "fsck: $(cat "$T/fsck")"
	pool_mount share=off
	poison look "$MNT" "$UMBRACTL"
	pool_umount
	"$FSCK" -n "$POOL" >"$T/fsck" || die "fsck after mount: $(cat "$T/fsck")"
done
