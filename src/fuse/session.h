/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fuse/: one mounted pool. Requests come in through seam.c, are decoded by libfuse or by the seam
 * itself, and are carried out by the ops_*.c files, which call umbra_* and nothing else of the
 * engine. No filesystem logic lives here.
 *
 * Caching. The kernel asks for each thing once: names (also their absence) and attributes are
 * returned with an unlimited timeout, and file pages stay from one open to the next. That is
 * correct because every change comes through this mount, and the kernel drops what its own requests
 * change. Other changes are notified: um_inval_attr().
 */
#ifndef UM_FUSE_SESSION_H
#define UM_FUSE_SESSION_H

#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>

#include "fuse/options.h"
#include "umbra/umbra.h"

#define UM_MAX_IO (1u << 20) /* bytes of a read or write request */
#define UM_BLOCK 4096u       /* of a pool; it is a page as well */
#define UM_FOREVER_SEC 1.0e9 /* timeout of cached names and attributes */
#define UM_ROOT_NODE 1u      /* FUSE_ROOT_ID; the pool's root inode has the same number */
/* A file handle: the flags of open(2), these, and the number of the open. */
#define UM_FH_FLAGS 0xffffffull
#define UM_FH_KILLCAP (1ull << 24) /* it had security.capability, see ops_file.c */
#define UM_FH_THROUGH (1ull << 25) /* passed through a view, which knows it by its number */
#define UM_FH_SHIFT 26             /* of the number, of which 38 bits are kept */
#define UM_FH_NUMBERS (~0ull >> UM_FH_SHIFT)

struct um_direct;
struct um_door;
struct um_guardian;
struct um_views;
struct um_uring;
struct um_workers;
struct um_grant;

/* A mount. Made by um_mount_new, served by um_mount_serve. */
struct um_mount {
	struct umbra_fs *fs;
	const struct um_options *opt;
	const char *pool; /* absolute path */
	const char *dir;  /* absolute path of the mount point */
	struct fuse_session *se;
	int dev;               /* /dev/fuse; owned by se */
	unsigned major, minor; /* of the filesystem, in mountinfo and stat(2) */
	atomic_bool readonly;
	atomic_ulong sync;  /* MS_SYNCHRONOUS, MS_DIRSYNC: of opt, or of a remount */
	bool gated;         /* it began read-only: see remount.h */
	atomic_bool frozen; /* it is, and nothing of it can change until that gate was shut */
	pthread_rwlock_t gate;
	bool inited;
	uint64_t offered;         /* INIT flags of the kernel */
	bool writeback;           /* agreed on at INIT: back.h */
	atomic_bool ending;       /* the kernel will not send the times of what it writes back */
	struct um_door *door;     /* clones, tokens: door.c */
	struct um_direct *direct; /* direct.h; NULL: before Linux 6.6 */
	struct um_views *views;   /* shared page cache: view.h; NULL: none */
	struct um_guardian *guardian; /* with writeback: back.h */
	atomic_uint late;             /* requests in separate threads: late.h */
	atomic_uint fetching;   /* requests answered when their data has arrived or is durable */
	atomic_uint forgetting; /* forgets read and not yet carried out; statfs waits for them */
	atomic_uint_fast64_t requests;
	struct um_workers *workers;
	struct um_uring *uring; /* uring.h; NULL: all requests come through /dev/fuse */
	int ended;              /* eventfd: a worker noticed the end of the session */
};

extern const struct fuse_lowlevel_ops um_ops;

/* ---- session.c ------------------------------------------------------------------------------------ */

/* Mounts fs at dir and answers INIT. source: shown as the mount's source. Errors are logged as a
 * message. The caller keeps fs. */
int um_mount_new(struct umbra_fs *fs, const struct um_options *opt, const char *pool,
	const char *source, const char *dir, struct um_mount **out);
/* Serves until the filesystem is unmounted or a signal requests the end. ready(arg) is called when
 * requests are being answered. SIGTERM, SIGINT and SIGHUP must be blocked in every thread. */
int um_mount_serve(struct um_mount *m, void (*ready)(void *arg), void *arg);
/* Unmounts if still mounted, and frees m. */
void um_mount_free(struct um_mount *m);

/* ---- shared by the ops ----------------------------------------------------------------------------- */

/* The caller; the part of fuse_ctx that requests decoded by the seam have too. */
struct um_caller {
	uid_t uid;
	gid_t gid;
	pid_t pid;
	mode_t umask;
};

static inline struct um_mount *um_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}
struct umbra_cred um_cred(const struct um_caller *caller);
struct um_caller um_caller_of(fuse_req_t req);
void um_fill_entry(const struct umbra_attr *attr, struct fuse_entry_param *out);
/* After a change in directory dir: makes it durable if the mount requires it (sync, dirsync), or
 * the directory's attribute D or S. */
int um_dir_changed(const struct um_mount *m, uint64_t dir);
/* After a change of a file other than by write(2): a copy, a size, space. Makes it durable with
 * O_SYNC or O_DSYNC (fh: the descriptor's, or 0), the attribute S or the mount option sync. */
int um_changed(struct um_mount *m, uint64_t ino, uint64_t fh);
/* The kernel's copy of ino's attributes and ACLs is outdated. Safe inside any request: it only
 * marks the inode, and waits for no page and no inode lock. */
void um_inval_attr(const struct um_mount *m, uint64_t ino);
/* Makes [off, off+len) one that a notification can name: len 0, to the end, if it is longer. */
static inline void um_inval_range(uint64_t *off, uint64_t *len)
{
	if (*off > INT64_MAX)
		*off = INT64_MAX;
	if (*len > INT64_MAX - *off)
		*len = 0;
}
/* So is the file's content in [off, off+len) (len 0: to the end). Waits for pages in flight, so it
 * is only for the door's threads. Dirty pages of mappings are written first. */
void um_inval_data(const struct um_mount *m, uint64_t ino, uint64_t off, uint64_t len);
/* The kernel flagged a write or an open of an unprivileged caller: will set-id bits fall? */
bool um_drops_setid(const struct um_mount *m, uint64_t ino, const struct um_caller *caller);
/* They do, as it succeeded: those too that the engine's KILLPRIV keeps and this caller drops. */
void um_setid_dropped(const struct um_mount *m, uint64_t ino, const struct um_caller *caller);
/* The caller changed content in a way for which the kernel sends no kill flag: drops set-id
 * bits. */
int um_killpriv(const struct um_mount *m, uint64_t ino, const struct um_caller *caller);

/* ---- ops_*.c ------------------------------------------------------------------------------------------ */

void um_op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void um_op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n);
void um_op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void um_op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void um_op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void um_op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void um_op_readlink(fuse_req_t req, fuse_ino_t ino);
void um_op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name);
void um_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void um_op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void um_op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
	const char *newname, unsigned flags);
void um_op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
	struct fuse_file_info *fi);
/* The unnamed file of O_TMPFILE, opened; *out_fh as in open. Returned with a lookup reference. */
int um_tmpfile(struct um_mount *m, uint64_t parent, mode_t mode, int flags,
	const struct um_caller *caller, struct umbra_attr *out, uint64_t *out_fh);

void um_op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void um_op_setattr(
	fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi);
void um_op_statfs(fuse_req_t req, fuse_ino_t ino);

void um_op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void um_op_readdir(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void um_op_readdirplus(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void um_op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);

void um_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void um_op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void um_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void um_op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
	struct fuse_file_info *fi);
void um_op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void um_op_fallocate(
	fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi);
void um_op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi);
void um_op_copy(fuse_req_t req, fuse_ino_t src, off_t src_off, struct fuse_file_info *src_fi,
	fuse_ino_t dst, off_t dst_off, struct fuse_file_info *dst_fi, size_t len, int flags);
ssize_t um_copy(struct um_mount *m, const struct um_caller *caller, uint64_t src, uint64_t src_off,
	uint64_t dst, uint64_t dst_fh, uint64_t dst_off, uint64_t len);
/* Replies when the file is durable: to a write (of this many bytes) or, with -1, to anything else.
 * fh: 0, or the descriptor to which earlier write errors are reported. may_wait: see umbra_fsync_start. */
void um_reply_synced(
	fuse_req_t req, uint64_t ino, uint64_t fh, bool datasync, bool may_wait, ssize_t written);
/* The flags in the reply for a file opened with open(2) flags, as granted; also sets fi->fh. */
void um_open_answer(
	struct um_mount *m, uint64_t ino, struct fuse_file_info *fi, const struct um_grant *grant);
/* A number for an open: not 0. */
uint64_t um_fh_number(const struct um_mount *m);
/* The number by which views know the open, or 0. */
static inline uint64_t um_fh_seq(uint64_t fh)
{
	return fh & UM_FH_THROUGH ? fh >> UM_FH_SHIFT : 0;
}
/* The same as FOPEN_* bits, for replies that the seam writes. */
uint32_t um_open_bits(const struct fuse_file_info *fi);

void um_op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void um_op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void um_op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);

void um_op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg, struct fuse_file_info *fi,
	unsigned flags, const void *in, size_t in_size, size_t out_size);

#endif
