#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What tools/check makes of what a unit test prints: a case that was skipped is told, with its reason, and counted.
# And tests that run beside each other: each gets its own verdict, and um_run waits for them.
set -u
src=$1
# shellcheck source=../../tools/lib/report.sh
. "$src/tools/lib/report.sh"
# shellcheck source=../../tools/lib/install.sh
. "$src/tools/lib/install.sh"
# shellcheck disable=SC2034
PATTERNS=() LIST=0
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
um_report_begin "$tmp/logs"

# As cmocka has it, a list of them at the end.
cases() {
	printf '%s\n' '[==========] tests: Running 3 test(s).' '[ RUN      ] works' '[       OK ] works' \
		'[ RUN      ] needs_a_thing' 'SKIP: there is no such thing here' '[  SKIPPED ] needs_a_thing' \
		'[ RUN      ] says_nothing' '[  SKIPPED ] says_nothing' '[==========] tests: 3 test(s) run.' \
		'[  PASSED  ] 1 test(s).' '[  SKIPPED ] tests: 2 test(s), listed below:' \
		'[  SKIPPED ] needs_a_thing' '[  SKIPPED ] says_nothing' ' 2 SKIPPED TEST(S)'
	return "$1"
}
export -f cases

fails=0
want() {
	[ "$1" = "$2" ] && return
	echo "FAIL: $3: got \"$1\", not \"$2\""
	fails=1
}

um_run unit/a 10 bash -c 'cases 0' >"$tmp/out"
want "$UM_PASSED $UM_FAILED $UM_SKIPPED" "1 0 2" "a test with two cases skipped"
want "$(sed 's/([0-9.]* s)/()/' "$tmp/out")" "PASS unit/a ()
SKIP unit/a: needs_a_thing (): there is no such thing here
SKIP unit/a: says_nothing (): no reason given" "the lines"
um_run unit/b 10 bash -c 'cases 1' >"$tmp/out"
want "$UM_PASSED $UM_FAILED $UM_SKIPPED" "1 1 4" "a test that failed"
um_run unit/c 10 true >"$tmp/out"
want "$UM_PASSED $UM_FAILED $UM_SKIPPED" "2 1 4" "a test without any"
um_run unit/d 10 sh -c 'echo "SKIP: not here"; exit 77' >"$tmp/out"
want "$(sed 's/([0-9.]* s)/()/' "$tmp/out")" "SKIP unit/d (): not here" "a script that was skipped"

# The first waits for what the second makes, unless there is one processor.
[ "$(nproc)" -gt 1 ] || touch "$tmp/second"
um_beside beside/first 20 bash -c "until [ -e '$tmp/second' ]; do sleep 0.1; done; cases 1" >"$tmp/out"
um_beside beside/second 20 touch "$tmp/second" >>"$tmp/out"
um_run beside/third 20 sh -c 'echo "SKIP: not here"; exit 77' >>"$tmp/out"
want "$UM_PASSED $UM_FAILED $UM_SKIPPED" "3 2 8" "three tests, two of them beside each other"
want "$(sed 's/ (.*//' "$tmp/out" | sort | tr '\n' ,)" "FAIL beside/first,PASS beside/second,\
SKIP beside/first: needs_a_thing,SKIP beside/first: says_nothing,SKIP beside/third," "their lines"
want "$(tail -n1 "$tmp/out" | sed 's/([0-9.]* s)/()/')" "SKIP beside/third (): not here" "um_run waits for those before"
UM_ROOM=$tmp/room
mkdir "$UM_ROOM"
um_beside beside/fourth 20 test -d "$UM_ROOM" >"$tmp/out"
UM_ROOM=
um_settle >>"$tmp/out"
want "$(sed 's/ (.*//' "$tmp/out")" "PASS beside/fourth" "a test with a directory"
[ ! -e "$tmp/room" ] || want there gone "its directory afterwards"
exit $fails
