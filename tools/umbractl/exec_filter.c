// SPDX-License-Identifier: BSD-3-Clause
/* The seccomp filter of umbractl exec: four ioctl numbers are notified, everything else is
 * allowed. */
#include "exec.h"

#include <errno.h>
#include <linux/fiemap.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

/* The other system call tables of this machine; an unknown one is allowed. */
static int add_arches(scmp_filter_ctx ctx)
{
	static const uint32_t arches[] = {
#if defined(__x86_64__)
		SCMP_ARCH_X86,
		SCMP_ARCH_X32,
#elif defined(__aarch64__)
		SCMP_ARCH_ARM,
#endif
		SCMP_ARCH_NATIVE
	};
	size_t i;

	for (i = 0; i < sizeof(arches) / sizeof(arches[0]); i++) {
		int err = seccomp_arch_add(ctx, arches[i]);

		if (err && err != -EEXIST)
			return err;
	}
	return 0;
}

static int add_rules(scmp_filter_ctx ctx)
{
	static const uint32_t cmds[] = {FICLONE, FICLONERANGE, FIDEDUPERANGE, FS_IOC_FIEMAP};
	size_t i;

	for (i = 0; i < sizeof(cmds) / sizeof(cmds[0]); i++) {
		/* The kernel uses the low 32 bits of the register as the command, and so do we. */
		int err = seccomp_rule_add(ctx, SCMP_ACT_NOTIFY, SCMP_SYS(ioctl), 1,
			SCMP_A1(SCMP_CMP_MASKED_EQ, 0xffffffffull, cmds[i]));

		if (err)
			return err;
	}
	return 0;
}

/* libseccomp exports programs to a descriptor only. */
static int export_program(scmp_filter_ctx ctx, struct sock_fprog *prog)
{
	int fd = memfd_create("filter", MFD_CLOEXEC), err;
	off_t len;

	if (fd < 0)
		return -errno;
	err = seccomp_export_bpf(ctx, fd);
	len = lseek(fd, 0, SEEK_END);
	if (!err && (len <= 0 || len % (off_t)sizeof(struct sock_filter)))
		err = -EPROTO;
	if (!err) {
		prog->len = (unsigned short)((size_t)len / sizeof(struct sock_filter));
		prog->filter = malloc((size_t)len);
		if (!prog->filter)
			err = -ENOMEM;
		else if (pread(fd, prog->filter, (size_t)len, 0) != len)
			err = -EIO;
	}
	close(fd);
	return err;
}

/* Only for this machine's own table: others have a different struct statfs. */
static int add_statfs(scmp_filter_ctx ctx)
{
	int err = seccomp_rule_add_exact(ctx, SCMP_ACT_NOTIFY, SCMP_SYS(statfs), 0);

	return err ? err : seccomp_rule_add_exact(ctx, SCMP_ACT_NOTIFY, SCMP_SYS(fstatfs), 0);
}

static int make_program(bool statfs, struct sock_fprog *prog)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
	int err;

	prog->filter = NULL;
	if (!ctx)
		return -ENOMEM;
	err = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_ALLOW);
	if (!err && statfs)
		err = add_statfs(ctx);
	if (!err)
		err = add_arches(ctx);
	if (!err)
		err = add_rules(ctx);
	if (!err)
		err = export_program(ctx, prog);
	seccomp_release(ctx);
	return err;
}

/*
 * libseccomp 2.5 does not know WAIT_KILLABLE_RECV, so the system call is made here. SPEC_ALLOW
 * avoids the speculation mitigations with which some kernels slow down filtered tasks: nothing is
 * confined here.
 */
static int load(const struct sock_fprog *prog, bool *out_killable)
{
	unsigned long flags = SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_SPEC_ALLOW;
	long fd;

	*out_killable = true;
	fd = syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER,
		flags | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, prog);
	if (fd < 0 && errno == EINVAL) {
		*out_killable = false;
		fd = syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER, flags, prog);
	}
	return fd < 0 ? -errno : (int)fd;
}

int um_filter_install(bool statfs, bool *out_nnp, bool *out_killable)
{
	struct sock_fprog prog;
	int fd;

	*out_nnp = false;
	fd = make_program(statfs, &prog);
	if (!fd)
		fd = load(&prog, out_killable);
	/* Without CAP_SYS_ADMIN a filter may only be installed by a task that cannot gain
	 * privileges. */
	if (fd == -EACCES) {
		*out_nnp = true;
		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
			fd = -errno;
		else
			fd = load(&prog, out_killable);
	}
	free(prog.filter);
	return fd;
}
