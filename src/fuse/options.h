/* SPDX-License-Identifier: BSD-3-Clause */
/* Mount options: what `-o` understands, for the daemon and for the mount helper. */
#ifndef UM_FUSE_OPTIONS_H
#define UM_FUSE_OPTIONS_H

#include "umbra/umbra.h"

/* Which files of shared content are opened through views (view.h). */
enum um_share_policy {
	UM_SHARE_OFF,
	UM_SHARE_IMMUTABLE, /* immutable ones */
	UM_SHARE_AUTO,      /* all that no writer was seen to come to while they were read */
	UM_SHARE_ALL,
};

struct um_options {
	struct umbra_options fs; /* wait_lock is the daemon's own business */
	unsigned long ms_flags; /* MS_* of mount(2): ro, nosuid, nodev, noexec, sync, dirsync ... */
	unsigned long ms_named; /* which of them an option spoke of, for or against */
	bool cache_none;        /* no file page stays in the kernel's page cache */
	bool writeback;         /* the kernel keeps what is written, and sizes and times: back.h */
	enum um_share_policy share;
	bool allow_other;
	bool remount;       /* the helper's business */
	bool fuseblk;       /* the kernel knows the block device: sync(2) and umount(2) reach us */
	unsigned threads;   /* 0: chosen from the number of processors */
	unsigned busy_poll; /* microseconds for which a thread polls for the next request */
	char context[1024]; /* SELinux context options, as given */
};

/* The defaults; privileged: as root. */
void um_options_init(struct um_options *opt, bool privileged);
/*
 * Takes a list as given to -o, later words overriding earlier ones. -EINVAL with a sentence in msg for
 * an option that is unknown or whose value is unsound; sloppy: unknown ones are passed over.
 */
int um_options_parse(
	struct um_options *opt, const char *list, bool sloppy, char *msg, size_t msg_len);
/* What goes for a filesystem as a whole, not for one of its mounts, as a list that can be parsed again. */
void um_options_text(const struct um_options *opt, char *out, size_t len);
/*
 * Does a list for a second mount ask for what a filesystem in use does not have? Then the word that does is in out. have:
 * parsed from its um_options_text().
 */
bool um_options_differ(const struct um_options *have, const char *list, char *out, size_t len);

#endif
