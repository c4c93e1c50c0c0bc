/* SPDX-License-Identifier: BSD-3-Clause */
/* Mount options: those accepted by `-o`, for the daemon and for the mount helper. */
#ifndef UM_FUSE_OPTIONS_H
#define UM_FUSE_OPTIONS_H

#include "umbra/umbra.h"

/* Which files of shared content are opened through views (view.h). */
enum um_share_policy {
	UM_SHARE_OFF,
	UM_SHARE_IMMUTABLE, /* immutable ones */
	UM_SHARE_AUTO, /* all, except those that a writer recently opened while they were read */
	UM_SHARE_ALL,
};

struct um_options {
	struct umbra_options fs; /* try_lock is set by the daemon itself */
	unsigned long ms_flags; /* MS_* of mount(2): ro, nosuid, nodev, noexec, sync, dirsync ... */
	unsigned long ms_named; /* those of them that an option named */
	bool cache_none;        /* no file page stays in the kernel's page cache */
	bool writeback;         /* the kernel keeps what is written, and sizes and times: back.h */
	bool no_handles;        /* file handles of the mount cannot be opened */
	enum um_share_policy share;
	bool uring; /* requests come over io_uring: uring.h */
	bool allow_other;
	bool remount;       /* for the helper */
	bool fuseblk;       /* the kernel knows the block device: sync(2) and umount(2) reach us */
	unsigned threads;   /* 0: chosen from the number of processors */
	char context[1024]; /* SELinux context options, as given */
};

/* The defaults; privileged: those for root. */
void um_options_init(struct um_options *opt, bool privileged);
/* Parses a list as given to -o; later words override earlier ones. -EINVAL with a message in msg
 * for an option that is unknown or has an invalid value; sloppy: unknown ones are ignored. */
int um_options_parse(
	struct um_options *opt, const char *list, bool sloppy, char *msg, size_t msg_len);
/* The options of a filesystem as a whole, not of one of its mounts, as a list that can be parsed
 * again. */
void um_options_text(const struct um_options *opt, char *out, size_t len);
/* Does a list for a second mount ask for what a filesystem in use does not have? Then that word is
 * in out. have: parsed from its um_options_text(). */
bool um_options_differ(const struct um_options *have, const char *list, char *out, size_t len);

#endif
