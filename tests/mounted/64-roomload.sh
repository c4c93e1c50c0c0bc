#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A pool is grown and trimmed under load: many processes write, clone and remove files; data that must stay does, and
# the pool is consistent at the end, also after kill -9.
# backends: file
# long-backends: dax file loop
# seconds: 120 300
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start
pool_make 96M --data-csum
pool_mount discard
# Files that nobody changes, and a clone of each, in pieces all over the pool.
mkdir "$MNT/keep" "$MNT/load" "$MNT/clones"
for i in $(seq 40); do head -c $((i * 9973)) /dev/urandom >"$MNT/keep/$i"; done
(cd "$MNT/keep" && sha256sum -- *) >"$T/sums"
seconds=$(long 15 120 5)
"$HELPERS/stress" "$MNT/load" "$seconds" "$SEED" >"$T/stress.out" 2>&1 &
stress=$!
end=$((SECONDS + seconds))
(
	n=0
	while [ $SECONDS -lt $end ]; do
		"$UMBRACTL" clone -q -r "$MNT/keep" "$MNT/clones/$n" 2>/dev/null &&
			printf x | dd of="$MNT/clones/$n/$((n % 40 + 1))" bs=1 seek=4097 conv=notrunc status=none 2>/dev/null
		head -c 3M /dev/urandom >"$MNT/clones/blob$n" 2>/dev/null
		[ $n -ge 3 ] && rm -rf "$MNT/clones/$((n - 3))" "$MNT/clones/blob$((n - 3))"
		n=$((n + 1))
	done
	echo $n >"$T/rounds"
) &
cloner=$!
size=96
grown=0
trims=0
while [ $SECONDS -lt $end ]; do
	if [ $size -lt 400 ]; then
		size=$((size + 18))
		if [ "$BACKEND" = loop ]; then
			truncate -s ${size}M "$MEM/image" && losetup -c "$POOL" || die "a larger loop device"
		fi
		"$UMBRACTL" grow "$MNT" ${size}M >"$T/out" 2>&1 || die "grow to $size MiB: $(cat "$T/out")"
		grown=$((grown + 1))
	fi
	"$UMBRACTL" trim "$MNT" >"$T/out" 2>&1 || die "trim: $(cat "$T/out")"
	trims=$((trims + 1))
	(cd "$MNT/keep" && sha256sum --quiet -c "$T/sums") >"$T/out" 2>&1 || die "files have changed: $(head -n3 "$T/out")"
	sleep 0.3
done
wait $cloner
wait $stress || die "stress: $(tail -n3 "$T/stress.out")"
say "grown $grown times, trimmed $trims times, $(cat "$T/rounds") rounds of clones"
fstrim "$MNT" || die "fstrim"
fstrim -l 100 "$MNT" 2>"$T/out" && die "fstrim of less than a block"
[ $grown -gt 0 ] && [ $trims -gt 0 ] || die "nothing was done under load"
log_ok
(cd "$MNT/keep" && sha256sum --quiet -c "$T/sums") || die "files have changed"
no_etxtbsy
sync "$MNT/keep/1"
pool_kill_check_mount
(cd "$MNT/keep" && sha256sum --quiet -c "$T/sums") || die "files have changed over kill -9"
pool_finish
