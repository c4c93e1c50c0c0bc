#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# This project is built on the mount, and its unit tests run there.
# backends: dax
# long-backends: dax file
# vm: no
# beside: yes
# seconds: 600 900
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start
need meson ninja
pool_make 1G
pool_mount
mkdir "$MNT/src"
tar -C "$SRC" --exclude=./build --exclude=./.git --exclude='./build*' -cf - . | tar -C "$MNT/src" -xf - ||
	die "copying the sources"
cd "$MNT/src" || die "cd"
meson setup build -Dtests="$(long false true)" >"$T/build.log" 2>&1 &&
	ninja -C build >>"$T/build.log" 2>&1 || {
	tail -n 5 "$T/build.log"
	die "the build on the mount failed"
}
built=$(find build -name 'umbrafs' -type f -perm -u+x | head -n1)
[ -n "$built" ] || die "no umbrafs was built"
"$built" -V || die "what was built on the mount does not run"
if [ "$LONG" = 1 ]; then
	meson test -C build --suite unit >>"$T/build.log" 2>&1 || {
		tail -n 15 "$T/build.log"
		die "unit tests built and run on the mount"
	}
fi
cd /
no_etxtbsy
pool_remount
"$MNT/src/$built" -V || die "what was built does not run after a remount"
no_etxtbsy
pool_finish
