/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The hidden mount: detached, in no namespace, reached only through its descriptor. Its threads
 * implement the protocol themselves, since little of it is needed: files named by number, opened,
 * read, and, when bound, written.
 *
 * The front mount's requests, and the kernel on behalf of its users, wait for these threads. So
 * they wait for nobody: no system call on either mount, no notification but one of attributes, which
 * waits for nothing, no locks but the engine's and v->lock.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "fuse/message.h"
#include "fuse/proto.h"
#include "fuse/remount.h"
#include "fuse/view_int.h"
#include "fuse/worker.h"

#define PAGES (UM_MAX_IO / UM_BLOCK)
#define BUFFER (UM_MAX_IO + 2 * UM_BLOCK)
#define FOREVER ((uint64_t)UM_FOREVER_SEC)
#define READ_AHEAD_KB 1024

struct request {
	struct um_views *v;
	const struct fuse_in_header *in;
	const char *arg;
	size_t len;
};

static void reply(const struct request *r, int err, const void *data, size_t len)
{
	struct fuse_out_header out = {.error = err, .unique = r->in->unique};
	struct iovec iov[2] = {{&out, sizeof(out)}, {(void *)data, err ? 0 : len}};

	out.len = (uint32_t)(iov[0].iov_len + iov[1].iov_len);
	/* It fails if the request was interrupted or the mount is gone: nothing to be done. */
	if (writev(r->v->hidden.dev, iov, iov[1].iov_len ? 2 : 1) < 0 && errno != ENOENT &&
		errno != ENODEV)
		um_message(UMBRA_LOG_WARN, "hidden mount: answering failed: %s", strerror(errno));
}

/* ---- files -------------------------------------------------------------------------------------------- */

/* The inode whose content a view shows now. */
struct target {
	struct um_view *view;
	uint64_t ino;
	bool bound; /* it may be changed */
};

/* Keeps it for the caller until done_with(). */
static int target(struct um_views *v, uint64_t id, struct target *out)
{
	int err = 0;

	*out = (struct target){0};
	pthread_mutex_lock(&v->lock);
	out->view = um_view_by_id(v, id);
	if (out->view) {
		out->bound = out->view->bound;
		out->ino = out->bound ? out->view->bound : out->view->hidden_ino;
	}
	if (out->ino)
		out->view->reading++;
	else
		err = -ESTALE;
	pthread_mutex_unlock(&v->lock);
	return err;
}

static void done_with(struct um_views *v, const struct target *t)
{
	uint64_t clone;

	pthread_mutex_lock(&v->lock);
	clone = um_view_unread(v, t->view);
	pthread_mutex_unlock(&v->lock);
	if (clone)
		umbra_forget(v->m->fs, clone, 1);
}

static void fill(uint64_t id, uint64_t size, struct fuse_attr *out)
{
	*out = (struct fuse_attr){.ino = id,
		.nlink = 1,
		.mode = S_IFREG | 0600,
		.size = size,
		.blocks = (size + 511) / 512,
		.blksize = UM_BLOCK};
	if (id == FUSE_ROOT_ID)
		*out = (struct fuse_attr){
			.ino = id, .nlink = 2, .mode = S_IFDIR | 0700, .blksize = UM_BLOCK};
}

/*
 * A size must not reach the kernel by a reply: see "Sizes the kernel must know" in src/DESIGN.md.
 * It ignores that of one to a request from before a notification. If the engine already had the new
 * size above, `growing` was set before and is now, or the kernel has set the size itself meanwhile.
 */
static void hush(struct um_views *v, uint64_t id)
{
	const struct um_view *view;
	bool growing;

	pthread_mutex_lock(&v->lock);
	view = um_view_by_id(v, id);
	growing = view && view->growing;
	pthread_mutex_unlock(&v->lock);
	if (growing)
		um_hidden_inval_attr(v, id);
}

static int size_of(struct um_views *v, uint64_t id, uint64_t *out)
{
	struct umbra_attr attr;
	struct target t;
	int err;

	*out = 0;
	if (id == FUSE_ROOT_ID)
		return 0;
	err = target(v, id, &t);
	if (err)
		return err;
	err = umbra_getattr(v->m->fs, t.ino, &attr);
	done_with(v, &t);
	*out = err ? 0 : (uint64_t)attr.st.st_size;
	hush(v, id);
	return err;
}

/* The name must not be cached: then the inode goes, with its pages, as soon as nobody has it open
 * any more. */
static void on_lookup(const struct request *r)
{
	struct fuse_entry_out out = {.attr_valid = FOREVER};
	uint64_t id, size;
	char *end;
	int err;

	if (!r->len || r->arg[r->len - 1]) {
		reply(r, -EINVAL, NULL, 0);
		return;
	}
	id = strtoull(r->arg, &end, 16);
	err = *end || id < UM_VIEW_FIRST_ID ? -ENOENT : size_of(r->v, id, &size);
	if (!err) {
		out.nodeid = id;
		fill(id, size, &out.attr);
	}
	reply(r, err, &out, sizeof(out));
}

static void on_getattr(const struct request *r)
{
	struct fuse_attr_out out = {.attr_valid = FOREVER};
	uint64_t size;
	int err = size_of(r->v, r->in->nodeid, &size);

	fill(r->in->nodeid, size, &out.attr);
	reply(r, err, &out, sizeof(out));
}

static void on_setattr(const struct request *r)
{
	const struct fuse_setattr_in *in = (const void *)r->arg;
	struct fuse_attr_out out = {.attr_valid = FOREVER};
	struct umbra_attr attr = {0}, now;
	struct target t;
	int err;

	if (r->len < sizeof(*in)) {
		reply(r, -EINVAL, NULL, 0);
		return;
	}
	err = target(r->v, r->in->nodeid, &t);
	if (err) {
		reply(r, err, NULL, 0);
		return;
	}
	if (!(in->valid & FATTR_SIZE)) {
		err = umbra_getattr(r->v->m->fs, t.ino, &now);
	} else if (!t.bound) {
		err = -EPERM;
	} else {
		attr.st.st_size = (off_t)in->size;
		err = umbra_setattr(r->v->m->fs, t.ino, &attr, UMBRA_SET_SIZE, &now);
	}
	if (!err)
		fill(r->in->nodeid, (uint64_t)now.st.st_size, &out.attr);
	done_with(r->v, &t);
	reply(r, err, &out, sizeof(out));
}

/* The front mount handles O_TRUNC, O_APPEND and the access mode. */
static void on_open(const struct request *r)
{
	struct fuse_open_out out = {.open_flags = FOPEN_KEEP_CACHE | FOPEN_NOFLUSH};
	struct um_handle *h = NULL;
	struct um_view *view;
	int err = -ENOENT;

	pthread_mutex_lock(&r->v->lock);
	view = um_view_by_id(r->v, r->in->nodeid);
	if (view) {
		h = um_handle_open(r->v, view, r->in->pid);
		err = h ? 0 : -ENOMEM;
	}
	pthread_mutex_unlock(&r->v->lock);
	out.fh = (uintptr_t)h;
	reply(r, err, &out, sizeof(out));
}

static void on_release(const struct request *r)
{
	const struct fuse_release_in *in = (const void *)r->arg;

	if (r->len < sizeof(*in)) {
		reply(r, -EINVAL, NULL, 0);
		return;
	}
	pthread_mutex_lock(&r->v->lock);
	um_handle_release(r->v, (struct um_handle *)(uintptr_t)in->fh);
	pthread_mutex_unlock(&r->v->lock);
	reply(r, 0, NULL, 0);
}

/* ---- data ------------------------------------------------------------------------------------------------ */

static void answer_read(
	struct um_views *v, uint64_t unique, int err, const struct iovec *data, unsigned n)
{
	struct fuse_out_header out = {.unique = unique, .error = err, .len = sizeof(out)};
	struct iovec iov[PAGES + 3] = {{&out, sizeof(out)}};

	if (err)
		n = 0;
	for (unsigned i = 0; i < n; i++) {
		iov[i + 1] = data[i];
		out.len += (uint32_t)data[i].iov_len;
	}
	if (writev(v->hidden.dev, iov, (int)n + 1) < 0 && errno != ENOENT && errno != ENODEV)
		um_message(UMBRA_LOG_WARN, "hidden mount: answering failed: %s", strerror(errno));
}

/* Plain files: answered when the data has arrived, by a thread of the engine. */
struct fetched {
	struct um_views *v;
	struct target t;
	uint64_t unique;
};

static void on_fetched(void *arg, int err, const struct iovec *iov, unsigned n)
{
	struct fetched *f = arg;

	answer_read(f->v, f->unique, err, iov, n);
	done_with(f->v, &f->t);
	atomic_fetch_sub(&f->v->m->fetching, 1);
	free(f);
}

static int fetch(const struct request *r, const struct target *t, const struct fuse_read_in *in)
{
	struct fetched *f = malloc(sizeof(*f));
	int err;

	if (!f)
		return -EAGAIN;
	*f = (struct fetched){r->v, *t, r->in->unique};
	atomic_fetch_add(&r->v->m->fetching, 1);
	err = umbra_fetch(r->v->m->fs, t->ino, in->offset, in->size, NULL, on_fetched, f);
	if (err) {
		atomic_fetch_sub(&r->v->m->fetching, 1);
		free(f);
	}
	return err;
}

static void on_read(const struct request *r)
{
	const struct fuse_read_in *in = (const void *)r->arg;
	struct umbra_fs *fs = r->v->m->fs;
	struct iovec iov[PAGES + 2];
	struct target t;
	unsigned n = 0;
	size_t len = 0;
	int err = r->len < sizeof(*in) || in->size > UM_MAX_IO ? -EINVAL : 0;

	if (!err)
		err = target(r->v, r->in->nodeid, &t);
	if (err) {
		reply(r, err, NULL, 0);
		return;
	}
	err = fetch(r, &t, in);
	if (!err)
		return;
	umbra_read_begin(fs);
	if (err == -EOPNOTSUPP || err == -EAGAIN)
		err = umbra_read_iov(fs, t.ino, in->offset, in->size, iov, PAGES + 2, &n, &len);
	answer_read(r->v, r->in->unique, err, iov, n);
	umbra_read_end(fs);
	done_with(r->v, &t);
}

/* Pages of a mapping were stored to: the front inode has new times, which the kernel cannot
 * know. */
static void note_mapped_write(struct um_views *v, uint64_t ino)
{
	struct um_share *s;

	pthread_mutex_lock(&v->lock);
	s = um_share_find(v, ino);
	if (s) {
		s->old_attr = true;
		v->inval = true;
		pthread_cond_signal(&v->work);
	}
	pthread_mutex_unlock(&v->lock);
}

/* A reply that waits for the medium, without a thread. */
struct syncing {
	struct um_views *v;
	struct target t;
	uint64_t unique;
	ssize_t written; /* bytes for the reply to a write; -1: not a write */
};

static void on_synced(void *arg, int err)
{
	struct syncing *s = arg;
	struct fuse_in_header in = {.unique = s->unique};
	struct fuse_write_out out = {.size = (uint32_t)s->written};

	reply(&(struct request){.v = s->v, .in = &in}, err, &out, s->written < 0 ? 0 : sizeof(out));
	done_with(s->v, &s->t);
	atomic_fetch_sub(&s->v->m->fetching, 1);
	free(s);
}

static void reply_synced(const struct request *r, const struct target *t, ssize_t written)
{
	struct fuse_write_out out = {.size = (uint32_t)written};
	struct syncing *s = malloc(sizeof(*s));

	if (s) {
		*s = (struct syncing){r->v, *t, r->in->unique, written};
		atomic_fetch_add(&r->v->m->fetching, 1);
		umbra_fsync_start(r->v->m->fs, t->ino, false, false, on_synced, s);
		return;
	}
	reply(r, umbra_fsync(r->v->m->fs, t->ino, false), &out, written < 0 ? 0 : sizeof(out));
	done_with(r->v, t);
}

static void on_write(const struct request *r)
{
	const struct fuse_write_in *in = (const void *)r->arg;
	struct fuse_write_out out = {0};
	unsigned flags = 0;
	bool sync = false;
	struct target t;
	ssize_t n;
	int err = r->len < sizeof(*in) || in->size > r->len - sizeof(*in) ? -EINVAL : 0;

	if (!err)
		err = target(r->v, r->in->nodeid, &t);
	if (err) {
		reply(r, err, NULL, 0);
		return;
	}
	if (r->v->m->sync & MS_SYNCHRONOUS)
		flags |= UMBRA_WRITE_SYNC;
	/* The kernel records the error for our descriptor, not for those of the file. */
	if (in->write_flags & FUSE_WRITE_CACHE)
		flags |= UMBRA_WRITE_LATE | UMBRA_WRITE_CACHED;
	n = -EPERM;
	if (t.bound)
		n = umbra_write_start(
			r->v->m->fs, t.ino, in + 1, in->size, in->offset, flags, &sync);
	if (n >= 0 && in->write_flags & FUSE_WRITE_CACHE)
		note_mapped_write(r->v, t.ino);
	if (n >= 0 && sync) {
		reply_synced(r, &t, n);
		return;
	}
	done_with(r->v, &t);
	out.size = n < 0 ? 0 : (uint32_t)n;
	reply(r, n < 0 ? (int)n : 0, &out, sizeof(out));
}

static void on_fallocate(const struct request *r)
{
	const struct fuse_fallocate_in *in = (const void *)r->arg;
	struct target t;
	int err = r->len < sizeof(*in) ? -EINVAL : target(r->v, r->in->nodeid, &t);

	if (!err) {
		err = t.bound ? umbra_fallocate(
					r->v->m->fs, t.ino, (int)in->mode, in->offset, in->length)
			      : -EPERM;
		done_with(r->v, &t);
	}
	reply(r, err, NULL, 0);
}

static void on_fsync(const struct request *r)
{
	struct target t;
	int err = target(r->v, r->in->nodeid, &t);

	if (err)
		reply(r, err, NULL, 0);
	else
		reply_synced(r, &t, -1);
}

/* ---- the mount -------------------------------------------------------------------------------------------- */

/* No AUTO_INVAL_DATA: pages stay. No ATOMIC_O_TRUNC: sizes change by SETATTR only. */
static void on_init(const struct request *r)
{
	const struct fuse_init_in *in = (const void *)r->arg;
	const uint32_t want = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_MAX_PAGES |
			      FUSE_EXPLICIT_INVAL_DATA | FUSE_PARALLEL_DIROPS | FUSE_DO_READDIRPLUS;
	struct um_init_out out = {.major = FUSE_KERNEL_VERSION,
		.minor = 31, /* nothing newer is used here */
		.max_background = 64,
		.congestion_threshold = 48,
		.max_write = UM_MAX_IO,
		.time_gran = 1,
		.max_pages = PAGES};

	if (r->len < 16) {
		reply(r, -EINVAL, NULL, 0);
		return;
	}
	out.max_readahead = in->max_readahead;
	out.flags = want & in->flags & ~FUSE_DO_READDIRPLUS;
	reply(r, 0, &out, sizeof(out));
}

static void handle(const struct request *r)
{
	switch (r->in->opcode) {
	case FUSE_INIT:
		on_init(r);
		break;
	case FUSE_LOOKUP:
		on_lookup(r);
		break;
	case FUSE_GETATTR:
		on_getattr(r);
		break;
	case FUSE_SETATTR:
		on_setattr(r);
		break;
	case FUSE_OPEN:
		on_open(r);
		break;
	case FUSE_RELEASE:
		on_release(r);
		break;
	case FUSE_READ:
		on_read(r);
		break;
	case FUSE_WRITE:
		on_write(r);
		break;
	case FUSE_FALLOCATE:
		on_fallocate(r);
		break;
	case FUSE_FSYNC:
		on_fsync(r);
		break;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
		break;
	case FUSE_DESTROY:
		reply(r, 0, NULL, 0);
		break;
	default:
		reply(r, -ENOSYS, NULL, 0);
	}
}

/* Somebody aborted the connection: what is open fails, but no more files are opened through it. */
static void lost(struct um_views *v)
{
	pthread_mutex_lock(&v->lock);
	if (v->enabled)
		um_message(UMBRA_LOG_ERROR,
			"the hidden mount was ended: clones no longer share page cache");
	v->enabled = false;
	pthread_mutex_unlock(&v->lock);
}

static void *serve(void *arg)
{
	struct um_views *v = arg;
	/* Aligned so that the data of a write begins on a page. */
	const size_t head = sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in);
	char *map = mmap(NULL, BUFFER, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *buf = map + UM_BLOCK - head;
	bool entered;

	if (map == MAP_FAILED) {
		um_message(UMBRA_LOG_ERROR, "hidden mount: no memory for a thread's buffer");
		return NULL;
	}
	while (!atomic_load(&v->hidden.stop)) {
		ssize_t n = read(v->hidden.dev, buf, BUFFER - UM_BLOCK + head);
		struct request r = {.v = v, .in = (const void *)buf};

		if (n < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT))
			continue;
		if (n < (ssize_t)sizeof(*r.in))
			break; /* the mount is gone */
		r.arg = buf + sizeof(*r.in);
		r.len = (size_t)n - sizeof(*r.in);
		entered = um_gate_enter(v->m, &v->gate);
		handle(&r);
		um_gate_leave(&v->gate, entered);
	}
	munmap(map, BUFFER);
	if (!atomic_load(&v->hidden.stop))
		lost(v);
	return NULL;
}

static int mount_detached(int dev, int *out_root)
{
	enum { CLOEXEC = 1, SET_STRING = 1, SET_FLAG = 0, CREATE = 6, NOSUID = 2, NODEV = 4 };
	char number[16];
	const char *const option[][2] = {{"source", "umbrafs-views"}, {"fd", number},
		{"rootmode", "40700"}, {"user_id", "0"}, {"group_id", "0"}};
	int fs = (int)syscall(SYS_fsopen, "fuse", CLOEXEC);
	int err = fs < 0 ? -errno : 0;

	snprintf(number, sizeof(number), "%d", dev);
	for (size_t i = 0; !err && i < sizeof(option) / sizeof(option[0]); i++)
		if (syscall(SYS_fsconfig, fs, SET_STRING, option[i][0], option[i][1], 0))
			err = -errno;
	if (!err && syscall(SYS_fsconfig, fs, SET_FLAG, "allow_other", NULL, 0))
		err = -errno;
	if (!err && syscall(SYS_fsconfig, fs, CREATE, NULL, NULL, 0))
		err = -errno;
	if (!err) {
		*out_root = (int)syscall(SYS_fsmount, fs, CLOEXEC, NOSUID | NODEV);
		err = *out_root < 0 ? -errno : 0;
	}
	if (fs >= 0)
		close(fs);
	return err;
}

static void tune(unsigned minor)
{
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/sys/class/bdi/0:%u/read_ahead_kb", minor);
	f = fopen(path, "we");
	if (f) {
		fprintf(f, "%d\n", READ_AHEAD_KB);
		fclose(f);
	}
}

static int start_threads(struct um_views *v)
{
	struct um_hidden *h = &v->hidden;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned n = cpus > 2 ? 2 * (unsigned)cpus : 4;

	h->threads = calloc(n, sizeof(*h->threads));
	if (!h->threads)
		return -ENOMEM;
	while (h->nthreads < n) {
		int err = pthread_create(&h->threads[h->nthreads], NULL, serve, v);

		if (err)
			return h->nthreads ? 0 : -err;
		pthread_setname_np(h->threads[h->nthreads++], "umbrafs-view");
	}
	return 0;
}

int um_hidden_start(struct um_views *v)
{
	struct um_hidden *h = &v->hidden;
	struct statx st;
	int err;

	h->dev = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (h->dev < 0)
		return -errno;
	err = mount_detached(h->dev, &h->root);
	if (!err)
		err = start_threads(v);
	if (!err && statx(h->root, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, &st))
		err = -errno;
	if (err) {
		um_hidden_stop(v);
		return err;
	}
	h->minor = st.stx_dev_minor;
	tune(h->minor);
	return 0;
}

void um_hidden_stop(struct um_views *v)
{
	struct um_hidden *h = &v->hidden;

	if (h->root >= 0)
		close(h->root);
	h->root = -1;
	atomic_store(&h->stop, true);
	um_threads_end(h->threads, h->nthreads);
	free(h->threads);
	h->threads = NULL;
	h->nthreads = 0;
	while (atomic_load(&v->m->fetching))
		usleep(1000);
	if (h->dev >= 0)
		close(h->dev);
	h->dev = -1;
}

static void inval(struct um_views *v, uint64_t id, int64_t off, int64_t len)
{
	struct {
		struct fuse_out_header out;
		struct fuse_notify_inval_inode_out arg;
	} msg = {
		.out = {.len = sizeof(msg), .error = FUSE_NOTIFY_INVAL_INODE},
		.arg = {.ino = id, .off = off, .len = len},
	};

	if (write(v->hidden.dev, &msg, sizeof(msg)) < 0 && errno != ENOENT && errno != ENODEV)
		um_message(UMBRA_LOG_WARN, "hidden mount: pages could not be dropped: %s",
			strerror(errno));
}

void um_hidden_inval_attr(struct um_views *v, uint64_t id)
{
	inval(v, id, -1, 0);
}

void um_hidden_drop(struct um_views *v, uint64_t id, uint64_t off, uint64_t len)
{
	um_inval_range(&off, &len);
	inval(v, id, (int64_t)off, (int64_t)len);
}
