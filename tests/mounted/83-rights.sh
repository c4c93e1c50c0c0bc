#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# No interface lets anybody clone what they may not read, or into what they may not write.
# backends: dax
# long-backends: dax file loop
# beside: yes
# seconds: 60 60
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start
need unshare setpriv

attempt() {
	timeout 60 "$@" || die "see above: $*"
}

pool_make 256M
pool_mount cache=none # attributes are asked for each time: `swap` needs a place to hold the supervisor up
chmod 755 "$T"
chmod 777 "$MNT"

say "the ioctls of the mount"
attempt "$PYTHON" "$LIB/test_rights.py" tokens "$MNT"

"$UMBRACTL" exec true 2>"$T/probe" || skip "$(cat "$T/probe")"
say "a user's ioctls"
attempt "$UMBRACTL" exec "$PYTHON" "$LIB/test_rights.py" ioctls "$MNT"

say "a supervisor that sees another pid namespace's /proc"
cp "$MNT/guarded" "$MNT/guarded2"
chmod 644 "$MNT/guarded" "$MNT/guarded2"
attempt unshare -p -f "$UMBRACTL" exec "$PYTHON" "$LIB/test_rights.py" foreign "$MNT"

say "a program executed while a clone is under way"
attempt "$UMBRACTL" exec "$PYTHON" "$LIB/test_rights.py" swap "$MNT" "$(cat "$T/pid")"

say "paths looked up for --as-xfs"
attempt "$UMBRACTL" exec --as-xfs "$PYTHON" "$LIB/test_rights.py" statfs "$MNT"
pool_finish
