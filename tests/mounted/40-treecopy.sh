#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A real tree is copied in and compared: at once, after a remount, after kill -9.
# backends: dax file
# long-backends: dax file loop
# beside: yes
# seconds: 300 3600
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
start
trees=(/usr/include /etc)
size=2G
if [ "$LONG" = 1 ]; then
	trees=(/usr /etc)
	# What /usr takes, its small files inline or in blocks of 4 KiB, and a quarter more.
	size=$(($(du -s --apparent-size -B1M /usr | cut -f1) * 5 / 4 + 1024))M
	avail=$(df --output=avail -B1M "$T" | tail -n1)
	[ "$BACKEND" != file ] || [ "${size%M}" -lt "$avail" ] || skip "$size are not free below $T"
fi

compare() {
	local t
	for t in "${trees[@]}"; do
		diff -r --no-dereference "$t" "$MNT$t" >"$T/diff" 2>&1 ||
			die "$1: $t: $(grep -v '^diff ' "$T/diff" | head -n1)"
		"$PYTHON" "$LIB/treecmp.py" "$t" "$MNT$t" >"$T/meta" 2>&1 ||
			die "$1: $t: $(head -n1 "$T/meta")"
		say "$1: $t: $(tail -n1 "$T/meta")"
	done
}

pool_make "$size"
pool_mount
# Something of everything that /usr may lack.
mkdir "$T/extra"
for ((i = 0; i < 50; i++)); do
	echo "file $i" >"$T/extra/f$i"
	ln "$T/extra/f$i" "$T/extra/l$i"
	touch -d "20$((i % 30 + 10))-01-02 03:04:05.00$((i + 100))" "$T/extra/f$i"
done
mkfifo "$T/extra/fifo"
truncate -s 100M "$T/extra/sparse"
ln -s "$(printf 'x%.0s' {1..1000})" "$T/extra/long-link"
setfattr -n user.test -v "value" "$T/extra/f1" 2>/dev/null
setfacl -m u:nobody:r,g:daemon:rw "$T/extra/f2" 2>/dev/null
setfacl -d -m u:nobody:rx "$T/extra" 2>/dev/null
chmod 4755 "$T/extra/f3"
chown 1234:5678 "$T/extra/f4"
rm "$T/extra/fifo" # diff would read it
trees+=("$T/extra")

for t in "${trees[@]}"; do
	mkdir -p "$MNT$(dirname "$t")"
	before=$(now)
	cp -a "$t" "$MNT$t" || die "cp -a $t"
	say "$t: $(find "$MNT$t" -xdev | wc -l) entries, $(du -sm "$MNT$t" | cut -f1) MiB in" \
		"$(awk -v a="$before" -v b="$(now)" 'BEGIN { printf "%.1f", b - a }') s"
done
compare "at once"
pool_remount
compare "after a remount"
pool_kill_check_mount
compare "after kill -9"
pool_finish
