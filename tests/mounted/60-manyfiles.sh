#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Many files in one directory: create, list, stat, remove; the cost per file is the same at the end as at the start.
# backends: dax
# long-backends: dax file
# seconds: 300 3600
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start
n=$(long 50000 1000000)
pool_make "$(long 512M 4G)"
pool_mount
free=$(stat -f -c %f "$MNT")
mkdir "$MNT/many"
UMBRA_DAEMON=$(cat "$T/pid")
export UMBRA_DAEMON
"$HELPERS/manyfiles" "$MNT/many" "$n" || die "$n files"
rmdir "$MNT/many" || die "rmdir of the emptied directory"
left=$(($(stat -f -c %f "$MNT") - free))
say "blocks free afterwards: $left more than before"
[ $left -ge -2 ] || die "$((-left)) blocks are lost"
"$HELPERS/manyfiles" "$MNT" "$((n / 10))" keep || die "again"
pool_remount
[ "$(find "$MNT" -type f | wc -l)" = $((n / 10)) ] || die "entries are missing after a remount"
pool_finish
