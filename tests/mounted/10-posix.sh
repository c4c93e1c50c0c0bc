#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Every operation through the kernel, with exact results and errors.
# backends: dax file
# long-backends: dax file loop
# vm: long
# beside: yes
# seconds: 300 600
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start
pool_make "$(long 1G 1G 256M)"
pool_mount
"$HELPERS/posix" "$MNT" "${1:-*}" >"$T/posix.out" 2>&1
rc=$?
grep -v '^ok ' "$T/posix.out"
[ $rc = 0 ] || die "$(sed -n 's/^FAIL: //p' "$T/posix.out" | tail -n1)"
# What the cases left behind survives.
(cd "$MNT" && find . -xdev | sort) >"$T/before"
pool_remount
(cd "$MNT" && find . -xdev | sort) >"$T/after"
diff "$T/before" "$T/after" >/dev/null || die "names differ after a remount"
# Flags that a case that was ended may have left stop rm.
chattr -R -i -a "$MNT" 2>/dev/null
rm -rf "${MNT:?}"/* || die "cannot remove what the cases left"
pool_finish
