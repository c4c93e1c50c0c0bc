# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# The image of a virtual machine: Debian's kernel, unpacked once into a cache below the build directory, and a small
# initrd that hands over to the host's own files.

# Modules that a guest may need, by directory; the rest of the package (sound, graphics, network cards) is dropped.
VM_MODULES=(kernel/fs kernel/net/9p kernel/lib kernel/crypto kernel/arch kernel/mm kernel/drivers/acpi
	kernel/drivers/block kernel/drivers/char kernel/drivers/dax kernel/drivers/nvdimm kernel/drivers/virtio
	kernel/drivers/vdpa kernel/drivers/md kernel/drivers/scsi kernel/drivers/target)
# What the initrd loads, in this order.
VM_EARLY=(virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci 9pnet 9pnet_virtio
	netfs fscache 9p overlay)

vm_skip() {
	echo "SKIP: $*"
	exit 77
}

# Exits as a skipped test when this machine cannot run a virtual machine.
vm_need_programs() {
	local c
	[ "$(uname -m)" = x86_64 ] || vm_skip "virtual machines are made for x86_64 only"
	for c in qemu-system-x86_64 busybox cpio depmod ndctl mkfs.xfs python3; do
		command -v "$c" >/dev/null || vm_skip "$c is not installed (tools/lib/install.sh, UM_VM_PACKAGES)"
	done
}

# The compressed kernel inside a bzImage, so that a guest need not unpack it (PVH boot): 5 to 9 s a start in
# software emulation. Any failure leaves the bzImage, which boots as well.
vm_vmlinux() {
	python3 - "$1" "$2" <<'END' || cp "$1" "$2"
import lzma, sys
image = open(sys.argv[1], "rb").read()
at = image.find(b"\xfd7zXZ\x00")
out = lzma.LZMADecompressor().decompress(image[at:]) if at >= 0 else b""
if out[:4] != b"\x7fELF":
    sys.exit(1)
open(sys.argv[2], "wb").write(out)
END
}

vm_kernel_package() {
	apt-cache depends linux-image-amd64 2>/dev/null |
		awk '$1 == "Depends:" && $2 ~ /^linux-image-[0-9]/ { print $2; exit }'
}

# vm_kernel DIR: unpacks the newest Debian kernel below DIR: vmlinux, version, lib/modules/VERSION. The cloud
# kernel will not do: it has neither memory failure handling nor machine checks nor 9p.
vm_kernel() {
	local dir=$1 name version d new=$1.new
	[ -f "$dir/version" ] && return 0
	rm -rf "$new" && mkdir -p "$new/deb" "$new/x" || return 1
	command -v apt-get >/dev/null || vm_skip "no apt-get to fetch a kernel with"
	name=$(vm_kernel_package)
	if [ -z "$name" ]; then
		timeout 60 apt-get update -q >/dev/null 2>&1
		name=$(vm_kernel_package)
	fi
	[ -n "$name" ] || vm_skip "no package linux-image-amd64 to be had"
	(cd "$new/deb" && { timeout 120 apt-get -q download "$name" >download.log 2>&1 ||
		{ timeout 60 apt-get update -q >/dev/null 2>&1 && timeout 60 apt-get -q download "$name" >download.log 2>&1; }; }) ||
		vm_skip "cannot download $name: $(tail -n1 "$new/deb/download.log")"
	dpkg -x "$new"/deb/*.deb "$new/x" || return 1
	version=$(ls "$new/x/lib/modules")
	mkdir -p "$new/lib/modules/$version"
	cp "$new/x/lib/modules/$version"/modules.{builtin,order} "$new/lib/modules/$version/" || return 1
	for d in "${VM_MODULES[@]}"; do
		[ -d "$new/x/lib/modules/$version/$d" ] || continue
		mkdir -p "$new/lib/modules/$version/${d%/*}"
		mv "$new/x/lib/modules/$version/$d" "$new/lib/modules/$version/$d" || return 1
	done
	depmod -b "$new" "$version" || return 1
	vm_vmlinux "$new/x/boot/vmlinuz-$version" "$new/vmlinux" || return 1
	rm -rf "$new/deb" "$new/x" "$dir"
	echo "$version" >"$new/version"
	mv "$new" "$dir"
}

# vm_initrd KERNEL-DIR OUT: busybox, the modules that reach the host's files, tests/vm/init.
vm_initrd() {
	local kernel=$1 out=$2 version tree m file
	version=$(cat "$kernel/version")
	[ -f "$out" ] && [ "$out" -nt "$VM_SRC/init" ] && [ "$out" -nt "$kernel/version" ] && return 0
	tree=$(mktemp -d) || return 1
	mkdir -p "$tree"/{bin,dev,proc,sys,mod,host,up,new}
	cp "$(command -v busybox)" "$tree/bin/busybox" && cp "$VM_SRC/init" "$tree/init" || return 1
	# With its libraries, if it is not the static one.
	ldd "$tree/bin/busybox" 2>/dev/null | grep -o '/[^ ]*' | while read -r file; do
		mkdir -p "$tree${file%/*}" && cp -L "$file" "$tree$file"
	done
	for m in "${VM_EARLY[@]}"; do
		file=$(find "$kernel/lib/modules/$version" -name "$m.ko*" | head -n1)
		[ -z "$file" ] || cp "$file" "$tree/mod/" || return 1
		[ -z "$file" ] || echo "${file##*/}" >>"$tree/mod/order"
	done
	chmod 755 "$tree/init"
	(cd "$tree" && find . | cpio -o -H newc --quiet | gzip -1) >"$out.$$" && mv "$out.$$" "$out"
	rm -rf "$tree"
}
