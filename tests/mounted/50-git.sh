#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# git on the mount: a repository is created, cloned, checked and repacked, across a kill of the daemon.
# backends: dax file
# beside: yes
# seconds: 300 900
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start
need git
pool_make "$(long 1G 4G)"
pool_mount
export HOME=$T GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=test GIT_AUTHOR_EMAIL=t@example.org
export GIT_COMMITTER_NAME=test GIT_COMMITTER_EMAIL=t@example.org
git config --global safe.directory '*'
git config --global init.defaultBranch main
git config --global gc.auto 0

run() {
	"$@" >>"$T/git.log" 2>&1 || {
		tail -n 5 "$T/git.log"
		die "$*"
	}
}

run git init "$MNT/origin"
cp -a "$SRC/src" "$SRC/include" "$SRC/tests" "$SRC/tools" "$MNT/origin/"
mkdir "$MNT/origin/usr-include"
cp -a "/usr/include$(long /linux "")/." /usr/include/stdio.h "$MNT/origin/usr-include/"
cd "$MNT/origin" || die "cd"
run git add -A
run git commit -q -m first
for ((i = 0; i < $(long 10 60); i++)); do
	echo "/* change $i */" >>src/DESIGN.md
	git mv "usr-include/stdio.h" "usr-include/stdio-$i.h" 2>/dev/null
	git mv "usr-include/stdio-$i.h" "usr-include/stdio.h" 2>/dev/null
	run git commit -q -a -m "change $i"
done
cd /
run git clone "$MNT/origin" "$MNT/clone"
run git clone --no-local "$MNT/origin" "$MNT/far"
run git -C "$MNT/clone" fsck --full --strict
no_etxtbsy
pool_kill_check_mount
run git -C "$MNT/origin" fsck --full
run git -C "$MNT/far" fsck --full
[ -z "$(git -C "$MNT/far" status --porcelain)" ] || die "the clone is not clean after kill -9"
run git -C "$MNT/origin" gc -q
run git -C "$MNT/origin" fsck --full
run git -C "$MNT/clone" checkout -q -b other HEAD~5
run git -C "$MNT/clone" worktree add -q "$MNT/tree" main
[ -z "$(git -C "$MNT/tree" status --porcelain)" ] || die "a fresh worktree is not clean"
say "$(git -C "$MNT/origin" rev-list --count HEAD) commits, $(git -C "$MNT/origin" ls-files | wc -l) files"
no_etxtbsy
pool_finish
