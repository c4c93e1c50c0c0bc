/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Shared views: one copy in the page cache for all files of the same content.
 *
 * The kernel caches pages by inode. So files whose whole content is shared are opened with
 * FOPEN_PASSTHROUGH on a *view*, a file of a second, hidden mount of the daemon, which has one
 * inode for all of them. A view shows an unlinked clone of theirs, made for it: nobody writes to
 * it, so it does not change whatever becomes of the files (src/DESIGN.md, "Views").
 *
 * A file is in one of three states: *cached*, in the page cache of its own inode; *view*, open
 * read-only through a view, its content frozen meanwhile; *bound*, after a writer opened the only
 * file of a view: then the view is the file's page cache, and every open passes through.
 */
#ifndef UM_FUSE_VIEW_H
#define UM_FUSE_VIEW_H

#include "fuse/session.h"

struct um_views;

/* How an open is to be answered. */
struct um_grant {
	int32_t backing; /* FOPEN_PASSTHROUGH with this id; 0: the inode's own cache */
	uint64_t seq;    /* number of a passed-through open, see um_open_answer(); else 0 */
	int fd;          /* bound: our descriptor of the view; else -1 */
	bool stale;      /* the inode's own cache may hold stale pages: no KEEP_CACHE */
};
#define UM_GRANT_NONE ((struct um_grant){.fd = -1})

/* In all of these v may be NULL: then nothing is shared. */

/* Opens the hidden mount and starts its threads; shares nothing before um_views_guarded(). */
int um_views_start(struct um_mount *m, struct um_views **out);
/* Starts the guardian: from now on files are shared. */
void um_views_guarded(struct um_views *v);
/* To be called when no front request runs any more. */
void um_views_stop(struct um_views *v);

/*
 * Counts an open of ino with open(2) flags by task `tid`, and determines the reply. -ETXTBSY: a
 * writer, and the file is open through a view that other files use too. That takes a while to
 * determine, since a release may be in flight: -EAGAIN unless the caller may wait. Every success is
 * followed by one leave.
 */
int um_views_enter(
	struct um_views *v, uint64_t ino, int flags, uint32_t tid, bool wait, struct um_grant *out);
void um_views_leave(struct um_views *v, uint64_t ino, uint64_t seq);

/*
 * Brackets a change of content that does not come through the inode's own cache: SETATTR of the
 * size, fallocate, a clone, a copy. Errors as for enter. *out_fd: -1, or the descriptor through
 * which it has to be made because the inode is bound.
 */
int um_views_change_begin(struct um_views *v, uint64_t ino, bool wait, int *out_fd);
void um_views_change_end(struct um_views *v, uint64_t ino, int fd);
/* Writes stores through mappings of a bound file to the engine. */
void um_views_flush(struct um_views *v, uint64_t ino);
/* Makes the kernel drop the pages of a range (len 0: to the end) of the bound file behind fd. */
void um_views_refresh(struct um_views *v, uint64_t ino, int fd, uint64_t off, uint64_t len);
/* Brackets a change that may make the bound file behind fd longer without the kernel's knowledge.
 * On the front mount nobody can write to it meanwhile. The end tells the kernel the size. */
void um_views_grow_begin(struct um_views *v, uint64_t ino, int fd);
void um_views_grow_end(struct um_views *v, uint64_t ino, int fd);

/* Gives up views that nobody uses and that no two files can use any more, so that their space
 * becomes free. */
void um_views_sweep(struct um_views *v);
/* Number of clones of views that refer to the block: these are not reported as owners. */
unsigned um_views_count(struct um_views *v, uint64_t lba);
void um_views_discount_owners(struct um_views *v, struct umbra_owners *owners);
/* What a sweep looks for may have happened; removed: it has. */
void um_views_stir(struct um_views *v, bool removed);

/*
 * While the mount is frozen a view shows the file from which it was made, which nobody can change.
 * Before the filesystem becomes writable it gets a clone. In between nobody is inside the engine
 * but the caller, who has the mount's gate. Order: hold; umbra_remount(); own, which fails if there
 * is no space; let_go.
 */
void um_views_hold(struct um_views *v);
int um_views_own(struct um_views *v);
void um_views_let_go(struct um_views *v);

/* Is there a guardian, so that a thread may wait for what others supply? */
bool um_views_watched(struct um_views *v);

void um_views_stat(struct um_views *v, umbra_stat_fn *fn, void *arg);

#endif
