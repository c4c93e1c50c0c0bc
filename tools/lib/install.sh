# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# The list of Debian packages, and installing those that are missing.

# To build the programs.
UM_BUILD_PACKAGES=(gcc libc6-dev meson ninja-build pkg-config libfuse3-dev libpmem-dev liburing-dev
	libxxhash-dev libblkid-dev uuid-dev libseccomp-dev libjson-c-dev)
# To run them.
UM_RUN_PACKAGES=(fuse3 util-linux mount)
# To check them.
UM_CHECK_PACKAGES=(libcmocka-dev clang-format acl attr e2fsprogs git python3 procps diffutils xz-utils)
# To check them in virtual machines, where these can run; the kernel is fetched by tests/vm/image.sh.
UM_VM_PACKAGES=(qemu-system-x86 qemu-utils busybox-static cpio kmod ndctl xfsprogs)

um_say() {
	printf '%s\n' "$*"
}

um_die() {
	printf '%s: %s\n' "${UM_PROGRAM:-umbrafs}" "$*" >&2
	exit 1
}

# um_need_root WHY
um_need_root() {
	[ "$(id -u)" = 0 ] || um_die "must run as root ($1): try sudo $0"
}

um_missing_packages() {
	local p
	for p in "$@"; do
		dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q '^install ok installed' ||
			printf '%s\n' "$p"
	done
}

# um_install PACKAGE...: installs those that are missing.
um_install() {
	local missing
	if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
		command -v meson >/dev/null && command -v ninja >/dev/null && command -v cc >/dev/null &&
			return 0
		um_die "no apt-get here: install these Debian packages, or what they are called" \
			"on this system, by hand and run again: $*"
	fi
	mapfile -t missing < <(um_missing_packages "$@")
	[ ${#missing[@]} = 0 ] && return 0
	um_say "installing ${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	# Lists may be absent (a fresh image) or out of date: try as it is first, it saves a minute.
	apt-get install -y -q --no-install-recommends "${missing[@]}" </dev/null && return 0
	apt-get update -q </dev/null || um_die "apt-get update failed: is there a network?"
	apt-get install -y -q --no-install-recommends "${missing[@]}" </dev/null ||
		um_die "could not install: ${missing[*]}"
}

# um_build DIR [MESON OPTION...]: configures when needed, builds, installs into DIR/inst.
um_build() {
	local dir=$1
	shift
	if [ ! -f "$dir/build.ninja" ]; then
		rm -rf "$dir/meson-private" "$dir/meson-info"
		meson setup "$dir" "$UM_SRC" --prefix "$dir/inst" --libdir lib "$@" || return 1
	fi
	ninja -C "$dir" || return 1
	meson install -C "$dir" --no-rebuild --quiet
}

# um_wait_unmounted DIR [SECONDS]
um_is_mounted() {
	local dir=${1// /\\040}
	awk -v d="$dir" '$5 == d { found = 1 } END { exit !found }' /proc/self/mountinfo
}

# All mount points at or below a directory, deepest first.
um_mounts_below() {
	awk -v d="${1// /\\040}" '$5 == d || index($5, d "/") == 1 { print $5 }' /proc/self/mountinfo |
		sed 's/\\040/ /g' | tac
}

# Process ids of umbrafs daemons that serve a pool at or below a directory.
um_daemons_below() {
	local p arg
	for p in /proc/[0-9]*; do
		[ "$(cat "$p/comm" 2>/dev/null)" = umbrafs ] || continue
		while IFS= read -r -d '' arg; do
			case $arg in "$1" | "$1"/*)
				echo "${p#/proc/}"
				break
				;;
			esac
		done <"$p/cmdline" 2>/dev/null
	done
}

# um_clean_below DIR: removes what a run left below DIR: daemons, mounts, loop devices.
um_clean_below() {
	local dir=$1 m p
	[ -n "$dir" ] && [ -d "$dir" ] || return 0
	for p in $(um_daemons_below "$dir"); do
		kill -9 "$p" 2>/dev/null
	done
	# Before the mounts: the kernel tells a loop device's file by its path as long as that leads there. A device that
	# is in use goes with its last user.
	if command -v losetup >/dev/null; then
		losetup -n -O NAME,BACK-FILE 2>/dev/null | while read -r m p; do
			case $p in "$dir"/*) losetup -d "$m" 2>/dev/null ;; esac
		done
	fi
	while IFS= read -r m; do
		umount -l -i "$m" 2>/dev/null
	done < <(um_mounts_below "$dir")
	return 0
}
