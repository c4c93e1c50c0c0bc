# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# What tools/check runs, suite by suite.

# Files of the project: git's list if there is one, else everything that is not built.
um_files() {
	if git -C "$UM_SRC" rev-parse --git-dir >/dev/null 2>&1; then
		git -C "$UM_SRC" ls-files -co --exclude-standard
	else
		(cd "$UM_SRC" && find . -name .git -prune -o -path './build*' -prune -o -type f -printf '%P\n')
	fi
}

um_check_format() {
	local files
	mapfile -t files < <(um_files | grep -E '\.[ch]$')
	cd "$UM_SRC" && clang-format --dry-run -Werror "${files[@]}"
}

# Every text file names its licence in its first lines; images and licence texts do not.
um_check_spdx() {
	local files
	cd "$UM_SRC" || return 1
	mapfile -t files < <(um_files |
		grep -vE '^LICENSE|\.(img|xz|gz|zst|png|svg|bin|dat|json|expected)$' | um_existing)
	awk 'FNR <= 5 && /SPDX-License-Identifier: / { named[FILENAME] = 1 }
		FNR >= 5 { nextfile }
		END {
			for (i = 1; i < ARGC; i++)
				if (!(ARGV[i] in named)) {
					print "FAIL: " ARGV[i] " has no SPDX-License-Identifier line"
					bad = 1
				}
			exit bad
		}' "${files[@]}"
}

# Those that git lists and that have not been removed.
um_existing() {
	local f
	while IFS= read -r f; do
		[ ! -f "$f" ] || echo "$f"
	done
}

um_check_shell() {
	local f files=() bad=0
	cd "$UM_SRC" || return 1
	mapfile -t files < <(um_files | um_existing | xargs -d '\n' awk '
		FNR == 1 && /^#!.*\/(ba)?sh|^# shellcheck shell/ { print FILENAME }
		{ nextfile }')
	for f in "${files[@]}"; do
		bash -n "$f" || bad=1
	done
	if command -v shellcheck >/dev/null; then
		shellcheck -x -S warning -e SC2034,SC2054 "${files[@]}" || bad=1
	fi
	return $bad
}

um_suite_style() {
	um_beside style/clang-format 120 "$UM_SRC/tools/lib/call" um_check_format
	um_beside style/spdx 60 "$UM_SRC/tools/lib/call" um_check_spdx
	um_beside style/shell 120 "$UM_SRC/tools/lib/call" um_check_shell
}

# Unit tests by their names in tests/unit/meson.build; under TSan only those that start threads.
um_unit_names() {
	local f
	for f in "$UM_SRC"/tests/unit/test_*.c; do
		[ -f "$f" ] || continue
		[ "$1" = tsan ] && ! grep -q pthread_create "$f" && continue
		f=${f##*/test_}
		echo "${f%.c}"
	done
	[ "$1" = tsan ] || grep 'if name in' "$UM_SRC/tests/unit/meson.build" | grep -o "'[a-z_]*'" |
		tr -d "'" | sed 's/$/-features/'
	[ "$1" != unit ] || echo report
}

# A mounted test says in comments near its top: "backends: dax file", "long-backends: ...",
# "seconds: LIMIT LONG-LIMIT", and "beside: yes" if others of these may run at the same time.
um_mounted_note() {
	sed -n "1,30s/^# $2: //p" "$1" | head -n1
}

# Lines of "name script back end limit".
um_mounted_tests() {
	local f b limits backends
	for f in "$UM_SRC"/tests/mounted/[0-9][0-9]-*.sh; do
		[ -f "$f" ] || continue
		read -r -a limits <<<"$(um_mounted_note "$f" seconds)"
		backends=$(um_mounted_note "$f" backends)
		[ "$LONG" = 1 ] && backends=$(um_mounted_note "$f" long-backends)
		[ -n "$backends" ] || backends=$(um_mounted_note "$f" backends)
		for b in ${backends:-dax}; do
			echo "mounted/$(basename "$f" .sh)[$b] ${f##*/} $b ${limits[LONG]:-${limits[0]:-300}}"
		done
	done
}

um_names_of_kind() {
	local kind=$1
	case $kind in
	default)
		um_unit_names unit | sed 's,^,unit/,'
		printf '%s\n' crash/states crash/threads crash/threads-mutants crash/mutants
		;;
	*)
		um_unit_names "$kind" | sed "s,^,$kind/,"
		[ "$kind" = asan ] && printf '%s\n' crash/asan faults/file faults/dax "${UM_FUZZERS[@]/#/fuzz/}"
		;;
	esac
	[ "$kind" = default ] && um_vm_tests | cut -d' ' -f1
	[ "$kind" = "$MOUNTED_BUILD" ] && um_mounted_tests | cut -d' ' -f1
}

# Is a build needed for the tests asked for?
um_kind_wanted() {
	local name
	[ ${#PATTERNS[@]} = 0 ] && return 0
	um_wanted "build/$1" && return 0
	while IFS= read -r name; do
		um_wanted "$name" && return 0
	done < <(um_names_of_kind "$1")
	return 1
}

# um_suite_build KIND: default, asan or tsan. Built before whatever of it is wanted; once.
declare -A UM_BUILT=()
um_suite_build() {
	local kind=$1 opts=(-Dwerror=true -Dseeded_bugs=true -Dpoison=true) PATTERNS_KEPT=("${PATTERNS[@]}") rc
	[ -z "${UM_BUILT[$kind]:-}" ] || return 0
	um_kind_wanted "$kind" || return 0
	case $kind in
	# Without -Werror: instrumented code makes the compiler warn of what is not there.
	asan) opts=(-Dpoison=true -Db_sanitize=address,undefined -Db_lundef=false) ;;
	tsan) opts=(-Dpoison=true -Db_sanitize=thread -Db_lundef=false) ;;
	esac
	PATTERNS=()
	um_run "build/$kind" 900 "$UM_SRC/tools/lib/call" um_build "$CHECK_DIR/$kind" \
		"${opts[@]}"
	rc=$?
	PATTERNS=("${PATTERNS_KEPT[@]}")
	UM_BUILT[$kind]=$rc
}

# um_skip_unbuilt KIND NAME: true, with a message, if the build it needs failed.
um_skip_unbuilt() {
	[ "$LIST" = 0 ] && [ "${UM_BUILT[$1]:-0}" != 0 ] && um_wanted "$2" || return 1
	um_verdict SKIP "$2" 0.0 "build/$1 failed"
}

# Options of the sanitizers. Their run time cannot cope with the kernel's widest address
# randomisation, hence setarch.
um_sanitizer_env() {
	export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0:exitcode=99:detect_stack_use_after_return=0
	export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
	export TSAN_OPTIONS=halt_on_error=0:exitcode=66:second_deadlock_stack=1:history_size=4
}

# um_suite_unit BUILD PREFIX
um_suite_unit() {
	local kind=$1 prefix=$2 name limit=300 factor=1
	um_sanitizer_env
	export UMBRA_LONG=$LONG
	if [ "$LONG" = 1 ]; then
		limit=3600
		factor=12
	fi
	if [ "$kind" != default ]; then
		limit=$((limit * 3))
		factor=$((factor * 5))
	fi
	while IFS= read -r name; do
		um_skip_unbuilt "$kind" "$prefix/$name" && continue
		um_beside "$prefix/$name" "$limit" setarch "$(uname -m)" -R \
			meson test -C "$CHECK_DIR/$kind" --no-rebuild -v --logbase "$name" \
			--timeout-multiplier "$factor" "$name"
	done < <(um_unit_names "$prefix")
}

# Real threads meet differently each time: each bug gets the time in which it is always found.
um_find_bugs() {
	local program=$1 bug rc
	shift
	for bug in "$@"; do
		rc=0
		"$program" --bug "$bug" --budget 240 || rc=$?
		[ $rc = 1 ] || { echo "seeded bug $bug was not found: exit code $rc" && return 1; }
	done
}

# States that a power cut may leave (tests/crash), as many as the time allows, and whether the checker finds
# the seeded bugs.
um_suite_crash() {
	local budget=60 limit=300 threads=20 bugs=(19) dir=$CHECK_DIR/default/tests/crash
	if [ "$LONG" = 1 ]; then
		budget=1800
		limit=3000
		threads=600
		bugs=(18 19 21)
	fi
	um_skip_unbuilt default crash/states ||
		um_run crash/states "$limit" "$dir/crash" --budget "$budget" --seed "$SEED"
	um_skip_unbuilt default crash/threads ||
		um_run crash/threads $((threads * 2 + 180)) "$dir/crash-threads" --budget "$threads" --seed "$SEED"
	um_skip_unbuilt default crash/threads-mutants ||
		um_run crash/threads-mutants 900 "$UM_SRC/tools/lib/call" um_find_bugs "$dir/crash-threads-mutants" "${bugs[@]}"
	um_skip_unbuilt default crash/mutants ||
		um_run crash/mutants 600 "$dir/crash-mutants" --mutants --budget 20 --seed "$SEED"
}

# The same under AddressSanitizer, for a short time.
um_suite_crash_asan() {
	um_sanitizer_env
	um_skip_unbuilt asan crash/asan ||
		um_run crash/asan 300 setarch "$(uname -m)" -R \
			"$CHECK_DIR/asan/tests/crash/crash" --budget 20 --seed "$SEED"
}

# Allocations and system calls of the engine fail, one in each run; on plain files, then on files as memory.
um_suite_faults() {
	local budget=8 every=() exe=$CHECK_DIR/asan/tests/faults/faults
	if [ "$LONG" = 1 ]; then
		budget=1800
		every=(--every)
	fi
	um_sanitizer_env
	um_skip_unbuilt asan faults/file ||
		um_beside faults/file $((budget * 2 + 120)) setarch "$(uname -m)" -R \
			"$exe" --budget "$budget" --seed "$SEED" "${every[@]}"
	um_skip_unbuilt asan faults/dax ||
		um_beside faults/dax $((budget * 2 + 120)) env PMEM_IS_PMEM_FORCE=1 setarch "$(uname -m)" -R \
			"$exe" --budget "$budget" --seed "$SEED" "${every[@]}"
}

# Each fuzzer for a while, beginning with its corpus.
UM_FUZZERS=(pool pool-parity ioctl seam)
um_suite_fuzz() {
	local name target seconds=6 dir=$CHECK_DIR/asan/tests/fuzz pool=()
	[ "$LONG" = 1 ] && seconds=600
	um_sanitizer_env
	[ "$LIST" = 1 ] || mkdir -p "$CHECK_DIR/fuzz"
	for name in "${UM_FUZZERS[@]}"; do
		um_skip_unbuilt asan "fuzz/$name" && continue
		target=${name%%-*}
		pool=()
		[ "$target" = "$name" ] || pool=(UMBRA_FUZZ_POOL="${name#*-}")
		um_beside "fuzz/$name" $((seconds * 2 + 180)) env -C "$CHECK_DIR/fuzz" "${pool[@]}" setarch "$(uname -m)" -R \
			"$dir/fuzz-$target" --corpus "$UM_SRC/tests/fuzz/corpus/$target" --seconds "$seconds" \
			--seed "$SEED"
	done
}

um_suite_mounted() {
	local name script backend limit how n=0 run=() slow=0
	um_suite_build "$MOUNTED_BUILD"
	um_sanitizer_env
	if [ "$MOUNTED_BUILD" != default ]; then
		run=(setarch "$(uname -m)" -R)
		slow=1
	fi
	while read -r name script backend limit; do
		um_skip_unbuilt "$MOUNTED_BUILD" "$name" && continue
		n=$((n + 1))
		[ $slow = 0 ] || limit=$((limit * 6))
		UM_ROOM=
		if [ "$LIST" = 0 ] && um_wanted "$name"; then
			UM_ROOM=$TMP/$n
			mkdir -p "$UM_ROOM"
		fi
		how=um_run
		[ "$(um_mounted_note "$UM_SRC/tests/mounted/$script" beside)" = yes ] && how=um_beside
		$how "$name" "$limit" env UMBRA_BUILD="$CHECK_DIR/$MOUNTED_BUILD" UMBRA_T="$UM_ROOM" \
			UMBRA_BACKEND="$backend" UMBRA_LONG="$LONG" UMBRA_SEED="$SEED" \
			UMBRA_SLOW="$slow" \
			"${run[@]}" bash "$UM_SRC/tests/mounted/$script"
	done < <(um_mounted_tests)
	UM_ROOM=
	um_settle
}

# ---- virtual machines with real persistent memory (tests/vm) ---------------------------------------------

# Lines of "name script back end limit machine": the tests of tests/vm, which name the machine they need; then mounted
# tests with "vm: BACKENDS", with --long also those with "vm: long" and all that have the back end dax, on both; none with
# "vm: no".
um_vm_tests() {
	local f b mark limits factor=1
	for f in "$UM_SRC"/tests/vm/[0-9][0-9]-*.sh; do
		[ -f "$f" ] || continue
		read -r -a limits <<<"$(um_mounted_note "$f" seconds)"
		mark=
		[ "$LONG" = 1 ] && mark=$(um_mounted_note "$f" long-backends)
		for b in ${mark:-$(um_mounted_note "$f" backends)}; do
			echo "vm/$(basename "$f" .sh)[$b] vm/${f##*/} $b $((limits[0])) $(um_mounted_note "$f" machine)"
		done
	done
	for f in "$UM_SRC"/tests/mounted/[0-9][0-9]-*.sh; do
		mark=$(um_mounted_note "$f" vm)
		[ "$mark" != no ] && [ "$mark$LONG" != long0 ] || continue
		if [ "$LONG" = 1 ]; then
			[ -n "$mark" ] || [[ " $(um_mounted_note "$f" backends) " == *" dax "* ]] || continue
			mark='devdax fsdax'
		fi
		read -r -a limits <<<"$(um_mounted_note "$f" seconds)"
		[ "$LONG" = 1 ] && factor=12
		for b in $mark; do
			echo "vm/$(basename "$f" .sh)[$b] mounted/${f##*/} $b $((limits[0] * factor)) nvdimm"
		done
	done
}

# um_vm_verdict DIR FILE NAME WHY-SKIPPED: the result that the guest left for one test.
um_vm_verdict() {
	local dir=$1 file=$2 name=$3 log=$UM_LOGS/${3//\//-}.log rc ns
	cat "$dir/$file.log" "$dir/$file.dmesg" >"$log" 2>/dev/null
	rc=$(cat "$dir/$file.rc" 2>/dev/null)
	ns=$(cat "$dir/$file.ns" 2>/dev/null || echo 0)
	ns=$(printf '%d.%d' $((ns / 1000000000)) $((ns / 100000000 % 10)))
	case $rc in
	0) um_verdict PASS "$name" "$ns" ;;
	77) um_verdict SKIP "$name" "$ns" "$(um_reason "$dir/$file.log" SKIP)" ;;
	'') [ -z "$4" ] || um_verdict SKIP "$name" "$ns" "$4"
		[ -n "$4" ] || um_verdict FAIL "$name" "$ns" "the machine did not come to its end; log $log" ;;
	124 | 137) um_verdict FAIL "$name" "$ns" "not done in time; log $log" ;;
	*) um_verdict FAIL "$name" "$ns" "$(um_reason "$dir/$file.log" FAIL); log $log" ;;
	esac
}

UM_VM_DOWN= # why there are none

# um_vm_machine MACHINE SECONDS: one start for all wanted tests that need it, and what it may take.
um_vm_machine() {
	local machine=$1 total=$2 dir=$TMP/vm-$1 name script backend limit need n=0 kept=("${PATTERNS[@]}") rc opts
	local files=() names=() why=$UM_VM_DOWN log
	mkdir -p "$dir"
	while read -r name script backend limit need; do
		[ "$need" = "$machine" ] && um_wanted "$name" || continue
		n=$((n + 1))
		[ "$LONG" = 1 ] && total=$((total + limit)) || limit=$((limit < 150 ? limit : 150))
		files+=("$n") names+=("$name")
		echo "$n $limit env UMBRA_BUILD=$CHECK_DIR/default UMBRA_BACKEND=$backend UMBRA_SMOKE=$((1 - LONG))" \
			"UMBRA_SEED=$SEED UMBRA_PATIENCE=90 bash $UM_SRC/tests/$script" >>"$dir/tests"
	done < <(um_vm_tests)
	[ $n -gt 0 ] || return 0
	case $machine in
	mce) opts=(-M) ;;
	*) opts=(-m "$machine") ;;
	esac
	if [ -n "$why" ]; then
		for name in "${names[@]}"; do
			um_verdict SKIP "$name" 0.0 "no virtual machine: $why"
		done
		return 0
	fi
	PATTERNS=()
	um_run "vm/machine[$machine]" $((total + 60 + 420)) "$UM_SRC/tests/vm/run" -k "$CHECK_DIR/vm" -t "$total" \
		"${opts[@]}" "$dir"
	rc=$?
	PATTERNS=("${kept[@]}")
	log=$UM_LOGS/vm-machine[$machine].log
	if [ $rc != 0 ]; then
		why=$(sed -n 's/^SKIP: //p' "$log")
		[ -s "$dir/up" ] || UM_VM_DOWN=${why:-$(um_reason "$log" FAIL)} # the next would not come up either
	fi
	for ((n = 0; n < ${#files[@]}; n++)); do
		if [ -n "$UM_VM_DOWN" ]; then
			um_verdict SKIP "${names[n]}" 0.0 "no virtual machine: $UM_VM_DOWN"
		else
			um_vm_verdict "$dir" "${files[n]}" "${names[n]}" "$why"
		fi
	done
	rm -rf --one-file-system "$dir"
}

um_suite_vm() {
	local name wanted=0
	while read -r name _; do
		um_wanted "$name" || continue
		wanted=1
		[ "$LIST" = 0 ] || echo "$name"
	done < <(um_vm_tests)
	[ $wanted = 1 ] && [ "$LIST" = 0 ] || return 0
	um_suite_build default
	if [ "${UM_BUILT[default]:-0}" != 0 ]; then
		um_verdict SKIP vm 0.0 "build/default failed"
		return 0
	fi
	# What cannot be installed makes these tests skipped ones, no more.
	if [ "$INSTALL" = 1 ]; then
		command -v busybox >/dev/null && mapfile -t UM_VM_PACKAGES < <(printf "%s\n" "${UM_VM_PACKAGES[@]}" | grep -v busybox)
		timeout -k 10 240 "$UM_SRC/tools/lib/call" um_install "${UM_VM_PACKAGES[@]}" >"$UM_LOGS/vm-install.log" 2>&1 ||
			um_say "no virtual machines, maybe: $(um_reason "$UM_LOGS/vm-install.log" E)"
	fi
	# Bounded, however slow the machine; with --long the tests' own limits are added.
	um_vm_machine nvdimm 180
	um_vm_machine mce 90
	um_vm_machine e820 60
}
