#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Clones between their ioctl and their fallocate; nothing written behind the new end of a file that becomes longer is
# lost; writes beside clones leave a page cache that agrees with the pool.
# backends: dax
# long-backends: dax file loop
# seconds: 120 1200
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start

pool_make 256M
pool_mount
say "armed clones"
"$HELPERS/clonearm" "$MNT" || die "clonearm"
say "written behind the new end"
"$HELPERS/clonesize" "$MNT" "$(long 8 200 3)" clone || die "clonesize"
say "writes beside clones"
"$HELPERS/clonewrite" "$MNT" "$(long 6 60 2)" cached || die "clonewrite"
rm -f "$MNT"/*
no_views=
if [ "$(counter views)" = "" ] || grep -q "do not share page cache" "$LOG"; then
	no_views="bound files only, as there are no views here: $(grep "do not share page cache" "$LOG")"
else
	"$HELPERS/clonesize" "$MNT" "$(long 6 200 3)" bound || die "clonesize bound"
	"$HELPERS/clonewrite" "$MNT" "$(long 4 60 2)" bound || die "clonewrite bound"
	[ "$(counter view_binds)" -gt 0 ] || die "nothing was bound"
fi
rm -f "$MNT"/*
pool_finish
[ -z "$no_views" ] || skip "$no_views"
