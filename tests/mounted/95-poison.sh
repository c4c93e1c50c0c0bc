#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Memory failure: blocks of a small pool fail, one after the other, under a reader, a writer and a mapping. The daemon
# lives; nobody else is killed but by touching a lost page; metadata is repaired; the right pages of the right files are
# reported, and heal when they are written. Bit flips; death at any moment of a repair. With --long every block.
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
	[ $rc = 77 ] && exit 77
	[ $rc = 0 ] || die "poison.py $1"
}

pool_make $SIZE
pool_mount share=off
poison make "$MNT"
"$UMBRACTL" clone "$MNT/plain" "$MNT/shared.new" || die "clone"
mv "$MNT/shared.new" "$MNT/shared"
pool_umount
cp "$POOL" "$MEM/pristine" || die "copy"

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

say "blocks fail"
mapfile -t lbas < <(sample | tr ' ' '\n')
for ((i = 0; i < ${#lbas[@]}; i += 40)); do
	cp "$MEM/pristine" "$POOL" || die "copy"
	pool_mount share=off
	poison try "$MNT" "$UMBRACTL" "$((SEED + i))" "${lbas[@]:i:40}"
	pool_umount
	"$FSCK" -n "$POOL" >"$T/fsck" || die "fsck: $(cat "$T/fsck")"
	pool_mount share=off
	poison look "$MNT" "$UMBRACTL"
	pool_umount
done
say "${#lbas[@]} blocks"

say "mkfs -f knows the bad blocks of the pool before"
bad() {
	"$UMBRACTL" health --json "$POOL" |
		"$PYTHON" -c 'import json, sys; h = json.load(sys.stdin); print(h["retired"] + h["moved"] + h["lost"])'
}
before=$(bad)
[ "$before" -gt 0 ] || die "no bad blocks are left"
"$MKFS" -q -f --parity "$POOL" || die "mkfs -f"
after=$(bad)
[ "$after" -gt 0 ] && [ "$after" -le "$before" ] || die "$before bad blocks, then $after"
"$MKFS" -q -f "$POOL" && [ "$(bad)" = "$after" ] || die "$(bad) of $after bad blocks"
pool_mount share=off
cp "$UMBRACTL" "$MNT" || die "cp"
pool_umount
"$FSCK" -n "$POOL" >"$T/fsck" || die "fsck: $(cat "$T/fsck")"
"$MKFS" -q -f --forget-bad "$POOL" && [ "$(bad)" = 0 ] || die "not forgotten"

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
