# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# Runs tests, one after the other or some beside each other, and keeps count.

UM_PASSED=0
UM_FAILED=0
UM_SKIPPED=0
declare -A UM_RUNNING=() # process: "name|limit|log|time of its start in ns|its directory"
UM_ROOM=                 # directory of the tests that are started, or empty; removed at their end
UM_LOGS=
UM_FAILURES=()
UM_FAILED_LOGS=()

um_report_begin() {
	UM_LOGS=$1
	rm -rf "$UM_LOGS"
	mkdir -p "$UM_LOGS"
}

# The last word of a run. False when something failed.
um_report_end() {
	local f
	if [ ${#UM_FAILURES[@]} -gt 0 ]; then
		echo
		echo "Failed:"
		for f in "${UM_FAILURES[@]}"; do
			echo "  $f"
		done
		for f in "${UM_FAILED_LOGS[@]}"; do
			um_excerpt "$f"
		done
	fi
	echo "$UM_PASSED passed, $UM_FAILED failed, $UM_SKIPPED skipped"
	[ "$UM_FAILED" = 0 ]
}

# Is this name asked for?
um_wanted() {
	local p
	[ ${#PATTERNS[@]} = 0 ] && return 0
	for p in "${PATTERNS[@]}"; do
		# shellcheck disable=SC2053
		[[ $1 == $p || $1 == *"$p"* ]] && return 0
	done
	return 1
}

um_verdict() {
	local verdict=$1 name=$2 secs=$3 why=${4:-}
	case $verdict in
	PASS) UM_PASSED=$((UM_PASSED + 1)) ;;
	SKIP) UM_SKIPPED=$((UM_SKIPPED + 1)) ;;
	FAIL)
		UM_FAILED=$((UM_FAILED + 1))
		UM_FAILURES+=("$name: $why")
		;;
	esac
	printf '%s %s (%s s)%s\n' "$verdict" "$name" "$secs" "${why:+: $why}"
}

# Why did it fail or skip: the line that says so, else the log's last one.
um_reason() {
	local log=$1 word=$2 line
	line=$(grep -a "^$word: " "$log" | tail -n1)
	[ -n "$line" ] || line=$(grep -av '^[[:space:]]*$' "$log" | tail -n1)
	printf '%s' "${line#"$word": }" | tr -d '\000-\010\013-\037' | cut -c1-200
}

# What a log says of the failure, for those who see no more than what the run printed: forty lines from
# the first that looks like it, else the last forty.
um_excerpt() {
	local log=$1 at
	at=$(grep -anE -m1 'WARNING: ThreadSanitizer|ERROR: (Address|Leak)Sanitizer|runtime error:|\[  (ERROR|FAILED)|^FAIL' \
		"$log" | cut -d: -f1)
	echo
	echo "From ${log##*/}:"
	if [ -n "$at" ]; then
		tail -n "+$at" "$log" | head -n 40
	else
		tail -n 40 "$log"
	fi | tr -d '\000-\010\013-\037' | cut -c1-200 | sed 's/^/  | /'
}

# um_skipped_cases NAME LOG: cases of a unit test that could not be done here, each with its reason (tests/unit/skip.h).
um_skipped_cases() {
	local case why
	while IFS=$'\t' read -r case why; do
		um_verdict SKIP "$1: $case" 0.0 "$why"
	done < <(tr -d '\000-\010\013-\037' <"$2" | awk '
		/^\[ RUN / { why = "no reason given" }
		/^SKIP: / { why = substr($0, 7) }
		/^\[  SKIPPED \] [^ ]+$/ && !seen[$4]++ { print $4 "\t" substr(why, 1, 200) }')
}

# um_start NAME SECONDS COMMAND...: in the background, in a session of its own, so that what it leaves behind can be
# ended as a group; its process is $!.
um_start() {
	local name=$1 limit=$2 log
	shift 2
	log=$UM_LOGS/${name//\//-}.log
	setsid timeout -k 20 "$limit" "$@" >"$log" 2>&1 </dev/null 9>&- &
	UM_RUNNING[$!]="$name|$limit|$log|$(date +%s%N)|$UM_ROOM"
}

# um_end PROCESS RC: what is to be said of a test that has ended; 0 when it passed.
um_end() {
	local pid=$1 rc=$2 name limit log start room secs why
	IFS='|' read -r name limit log start room <<<"${UM_RUNNING[$pid]}"
	unset "UM_RUNNING[$pid]"
	kill -KILL "-$pid" 2>/dev/null
	secs=$(($(date +%s%N) - start))
	secs=$(printf '%d.%d' $((secs / 1000000000)) $((secs / 100000000 % 10)))
	if [ -n "$room" ]; then
		um_clean_below "$room"
		rm -rf --one-file-system "$room"
	fi
	case $rc in
	0) um_verdict PASS "$name" "$secs" ;;
	77) um_verdict SKIP "$name" "$secs" "$(um_reason "$log" SKIP)" ;;
	124 | 137)
		um_verdict FAIL "$name" "$secs" "not done after $limit s; log $log"
		;;
	*)
		why=$(um_reason "$log" FAIL)
		um_verdict FAIL "$name" "$secs" "${why:-exit code $rc}; log $log"
		;;
	esac
	[ "$rc" = 77 ] || um_skipped_cases "$name" "$log"
	[ "$rc" = 0 ] || [ "$rc" = 77 ] || UM_FAILED_LOGS+=("$log")
	[ "$rc" = 0 ]
}

# Waits for one of those that run.
um_wait_one() {
	local pid rc
	wait -n -p pid "${!UM_RUNNING[@]}"
	rc=$?
	um_end "$pid" $rc
}

# um_asked NAME: is it to be run now? With --list it is only named.
um_asked() {
	um_wanted "$1" || return 1
	[ "$LIST" = 1 ] || return 0
	echo "$1"
	return 1
}

# um_run NAME SECONDS COMMAND...: runs it if wanted, and nothing beside it; 0 when it passed or was not wanted.
um_run() {
	um_asked "$1" || return 0
	um_settle
	um_start "$@"
	um_wait_one
}

# um_beside NAME SECONDS COMMAND...: the same beside others begun like this, one for each processor. For tests that
# are neither slowed down by that nor about how long something takes.
um_beside() {
	um_asked "$1" || return 0
	while [ ${#UM_RUNNING[@]} -ge "$(nproc)" ]; do
		um_wait_one
	done
	um_start "$@"
}

# Waits for all that run.
um_settle() {
	while [ ${#UM_RUNNING[@]} -gt 0 ]; do
		um_wait_one
	done
}
