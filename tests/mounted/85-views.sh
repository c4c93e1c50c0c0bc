#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Shared views: one copy in the page cache for all clones, nothing stale, nothing left over.
# backends: dax file
# long-backends: dax file loop
# seconds: 300 3600
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start
RANDOM=$SEED

# Hangs are failures: no process of the test may be stuck some time after the daemon's end.
none_stuck() {
	local i p
	for ((i = 0; i < 100; i++)); do
		kill -0 "$1" 2>/dev/null || return 0
		sleep 0.05
	done
	for p in /proc/[0-9]*; do
		[ "$(awk '{ print $3 }' "$p/stat" 2>/dev/null)" = D ] && say "$p: $(cat "$p/comm") $(cat "$p/wchan")"
	done
	return 1
}

pool_make 1G
pool_mount
[ "$(counter views)" = 0 ] || die "no counter of views"
if grep -q "do not share page cache" "$LOG"; then
	skip "$(grep "do not share page cache" "$LOG")"
fi

say "one copy"
dd if=/dev/urandom of="$MNT/src" bs=1M count=16 2>/dev/null
for i in $(seq 16); do
	"$UMBRACTL" clone "$MNT/src" "$MNT/clone$i" || die "clone"
done
sleep 0.2
"$HELPERS/pagesame" "$MNT"/clone* >"$T/same" || die "pagesame: $(cat "$T/same")"
cat "$T/same"
read -r pages _ same _ <"$T/same"
[ "$same" = $((15 * pages)) ] || die "not all pages are the same: $(cat "$T/same")"
for i in 1 2 3; do
	cmp "$MNT/src" "$MNT/clone$i" || die "clone$i differs"
done

say "exec"
cp "$(command -v bash)" "$MNT/shell"
for i in 1 2 3; do
	"$UMBRACTL" clone "$MNT/shell" "$MNT/shell$i"
	chmod 755 "$MNT/shell$i"
	[ "$("$MNT/shell$i" -c 'echo $((6 * 7))')" = 42 ] || die "exec of a clone"
done
"$MNT/shell1" -c 'sleep 2; :' &
pid=$!
sleep 0.3
( : >>"$MNT/shell1") 2>/dev/null && die "a running program was opened for writing"
( : >>"$MNT/shell2") 2>/dev/null || die "a clone of a running program was not to be written"
kill $pid
wait $pid 2>/dev/null

say "a writer beside a reader of the same file"
"$UMBRACTL" clone "$MNT/src" "$MNT/db"
exec 7<"$MNT/db"
head -c 4096 <&7 >/dev/null
exec 8<>"$MNT/db" || die "a writer was refused"
printf 'NEW!' >&8
[ "$(dd if="$MNT/db" bs=1 count=4 2>/dev/null)" = 'NEW!' ] || die "a new reader sees old bytes"
exec 9<"$MNT/db"
[ "$(head -c 4 <&9)" = 'NEW!' ] || die "a reader sees old bytes"
exec 7<&- 8>&- 9<&-
cmp -n 4096 "$MNT/src" "$MNT/clone1" || die "a clone changed"
[ "$(counter etxtbsy)" = 0 ] || die "ETXTBSY: $(counter etxtbsy)"

say "space"
rm -f "$MNT"/clone* "$MNT/src" "$MNT/db" "$MNT"/shell*
[ "$(counter views_idle)" = "$(counter views)" ] || die "views in use: $(counter views)"
stat -f "$MNT" >/dev/null
[ "$(counter views)" = 0 ] || die "$(counter views) views are left without a file"

say "ordinary work on clones"
mkdir "$MNT/work"
head -c 300000 /dev/urandom | base64 >"$MNT/work/big"
if command -v git >/dev/null; then
	(cd "$MNT/work" && git init -q . && git add -A &&
		git -c user.name=a -c user.email=a@b commit -q -m one) || die "git"
fi
"$PYTHON" - "$MNT/work/db" <<'END' || die "sqlite"
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("create table t (a integer primary key, b text)")
db.executemany("insert into t (b) values (?)", (("x" * 100,) for _ in range(3000)))
db.commit()
END
for i in 1 2; do
	"$UMBRACTL" clone -r -q "$MNT/work" "$MNT/work$i" || die "clone -r"
	"$PYTHON" - "$MNT/work$i/db" <<'END' || die "sqlite on a clone"
import sqlite3, sys
reader, writer = sqlite3.connect(sys.argv[1]), sqlite3.connect(sys.argv[1])
with open(sys.argv[1], "rb") as raw:
    raw.read(100000)
    assert reader.execute("select count(*) from t").fetchone()[0] == 3000
    writer.execute("delete from t where a % 2")
    writer.commit()
    assert reader.execute("select count(*) from t").fetchone()[0] == 1500
    assert writer.execute("pragma integrity_check").fetchone()[0] == "ok"
END
	if command -v git >/dev/null; then
		(cd "$MNT/work$i" && git status --short && echo "$i" >>big &&
			git -c user.name=a -c user.email=a@b commit -q -a -m two && git gc -q &&
			git fsck) >"$T/git.out" 2>&1 || die "git on a clone: $(cat "$T/git.out")"
	fi
done
[ "$(counter etxtbsy)" = 0 ] || die "ETXTBSY in ordinary work: $(counter etxtbsy)"
rm -rf "$MNT"/work*

say "coherence"
"$HELPERS/viewtest" "$MNT" "$SEED" 4 "$(long 5000 300000)" || die "viewtest"
[ "$(counter view_binds)" -gt 0 ] || die "no view was ever bound"
rm -f "$MNT"/*
pool_finish

rounds=$(long 10 200)
say "$rounds kills"
slowest=0
pool_mount
for ((i = 1; i <= rounds; i++)); do
	[ $i = 1 ] || pool_mount
	rm -f "$MNT"/p* 2>/dev/null
	{
		"$HELPERS/viewtest" "$MNT" $((SEED * 1000 + i)) 4 10000000 >/dev/null 2>&1
		date +%s%N >"$T/ended"
	} &
	load=$!
	sleep "0.$((RANDOM % 9))$((RANDOM % 9))1"
	killed=$(date +%s%N)
	pool_kill
	none_stuck $load || die "round $i: the load does not end"
	wait $load
	took=$((($(cat "$T/ended") - killed) / 1000000))
	[ $took -gt $slowest ] && slowest=$took
	pool_fsck
done
say "all users were back after $slowest ms at most"
say "a server killed while it waits for itself"
pool_mount
timeout -s KILL 60 "$PYTHON" "$LIB/view_hang.py" "$MNT" "$(cat "$T/pid")" || die "users hang, or come back late"
pool_kill
pool_fsck
pool_mount
say "a lazy unmount, and a signal, with a mapping alive"
dd if=/dev/urandom of="$MNT/src" bs=1M count=4 2>/dev/null
"$UMBRACTL" clone "$MNT/src" "$MNT/clone"
exec 7<"$MNT/clone"
umount -l -i "$MNT"
head -c 100000 <&7 >/dev/null || die "a reader lost its file"
exec 7<&-
pool_wait || die "the daemon stays after a lazy unmount"
pool_mount
exec 7<"$MNT/clone"
kill -TERM "$(cat "$T/pid")"
sleep 0.5
exec 7<&-
pool_wait || die "the daemon stays after SIGTERM"
pgrep -x umbrafs-guard -a | grep -F "$MNT" && die "the guardian stays"
pool_fsck
