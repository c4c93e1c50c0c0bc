#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Random reads, writes, mappings, truncations, holes, clones and dedupes of a few files, compared with a model
# in memory.
# backends: dax file
# long-backends: dax file loop
# beside: yes
# seconds: 240 3600
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start
ops=$(long 8000 100000 1500)
seeds=$(long 2 5 1)
pool_make 256M
for ((s = SEED; s < SEED + seeds; s++)); do
	opts=
	((s % 2)) || opts=data=inplace
	pool_mount "$opts"
	"$HELPERS/datatest" "$MNT" "$s" "$ops" "$CTL" || die "seed $s"
	pool_finish
done
# With checksums and parity: every read is verified, and at the end all of it by fsck.
"$MKFS" -q -f --data-csum --parity "$POOL" || die "mkfs --data-csum --parity failed"
pool_mount
"$HELPERS/datatest" "$MNT" "$SEED" "$(long 4000 50000 1500)" "$CTL" || die "checksums"
pool_finish
