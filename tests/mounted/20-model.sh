#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Random operations compared with a directory on tmpfs as the model, with remounts and kill -9 in between.
# backends: dax file
# long-backends: dax file loop
# vm: fsdax
# beside: yes
# seconds: 240 7200
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start
ops=$(long 15000 50000 300)
seeds=$(long 2 20 1)
[ "$LONG" = 1 ] && [ "$BACKEND" != dax ] && seeds=4
pool_make 512M
mkdir "$MEM/oracle"
for ((s = SEED; s < SEED + seeds; s++)); do
	pool_mount
	mkdir "$MNT/model"
	"$HELPERS/model" "$MNT/model" "$MEM/oracle" "$s" "$ops" "$CTL" || die "seed $s"
	rm -rf "$MNT/model" "$MEM/oracle"/* || die "cannot remove the tree of seed $s"
	pool_finish
done
