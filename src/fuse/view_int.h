/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Internal to the shared views.
 *
 * One lock, v->lock, protects all of it. It is held for table work only: never in a system call, an
 * ioctl, a notification or a call of the engine. The hidden mount's threads take it, and no lock
 * that anybody holds while waiting for them.
 */
#ifndef UM_FUSE_VIEW_INT_H
#define UM_FUSE_VIEW_INT_H

#include "fuse/guardian.h"
#include "fuse/view.h"

#define UM_VIEW_FIRST_ID 2u     /* node id on the hidden mount; 1 is its root */
#define UM_VIEW_MIN_SIZE 32768u /* smaller files are opened faster than shared */
#define UM_VIEW_MAX 16384u      /* at once */
#define UM_VIEW_IDLE_MAX 1024u  /* those of them without a user */
#define UM_VIEW_BUCKETS 4096u
#define UM_VIEW_WARY 256u /* files remembered because a writer opened them while in a view */
#define UM_VIEW_WARY_SEC 60

struct um_share;

enum um_view_state { UM_VIEW_MAKING, UM_VIEW_READY, UM_VIEW_DEAD };

struct um_view {
	uint64_t id;
	enum um_view_state state;
	bool listed;                  /* found by content */
	struct um_view *next_id;      /* chain of the table by id */
	struct um_view *next_content; /* chain of the table by content */
	struct um_view *prev, *next;  /* idle list, or the list of the dead */
	bool idle;                    /* is in the idle list */
	struct umbra_content content;
	uint64_t hidden_ino; /* the unlinked clone, with a lookup reference; 0: given up */
	bool borrowed;   /* no clone, but a file that cannot change, as everything is read-only */
	uint64_t bound;  /* the inode that the view belongs to, or 0 */
	bool growing;    /* bound, and the engine may have a larger size than the kernel knows */
	int32_t backing; /* id of the front connection, or 0 */
	int fd;          /* bound: our own descriptor, else -1 */
	unsigned users;  /* files attached */
	struct um_share *members; /* these */
	unsigned handles;         /* opens on the hidden mount, including ours */
	unsigned unpaired;        /* those of them whose file is unknown */
	unsigned reading;         /* requests that are using hidden_ino */
	struct um_pending *pending;
	struct um_handle *first_handle;
};

/* An open that was answered with the view and whose open on the hidden mount has not been seen
 * yet. */
struct um_pending {
	struct um_pending *next;
	struct um_share *share; /* NULL: our own */
	uint64_t seq;
	uint32_t tid;
};

/* A handle of the hidden mount. */
struct um_handle {
	struct um_view *view;
	struct um_handle *next, **at; /* of the view */
	struct um_share *share;       /* NULL: our own, or unpaired */
	bool unpaired;
};

/* State of a file that is open, or of which the kernel may hold stale pages. */
struct um_share {
	uint64_t ino;
	struct um_share *next;        /* chain */
	struct um_share *next_member; /* of the view */
	struct um_view *view;         /* attached: view or bound */
	unsigned cached;              /* opens and changes through the inode's own cache */
	unsigned front, hidden;       /* opens through the view, on either mount */
	bool busy;                    /* somebody decides about it, without the lock */
	bool stale;                   /* was bound: its own cache may hold older pages */
	bool old_attr;                /* bound, and a mapping was stored to: notify the kernel */
};

struct um_hidden {
	int dev, root; /* /dev/fuse; the detached mount */
	unsigned minor;
	uint32_t proto_minor;
	pthread_t *threads;
	unsigned nthreads;
	atomic_bool stop;
};

struct um_views {
	struct um_mount *m;
	pthread_mutex_t lock;
	pthread_cond_t changed; /* a state that somebody may wait for */
	pthread_cond_t work;    /* for the keeper */
	struct um_share *share[UM_VIEW_BUCKETS];
	struct um_view *by_id[UM_VIEW_BUCKETS];
	struct um_view *by_content[UM_VIEW_BUCKETS];
	struct um_view *idle_first, *idle_last; /* least recently used first */
	struct um_view *dead;
	unsigned nviews, nidle;
	uint64_t next_id;
	bool enabled;
	bool closing, inval;
	bool stirred; /* files may have been removed or changed */
	bool removed; /* some certainly were removed */
	struct {
		uint64_t ino;
		int64_t until;
	} wary[UM_VIEW_WARY];
	unsigned next_wary;
	uint64_t stat_made, stat_view_opens, stat_cached_opens, stat_binds, stat_txtbsy,
		stat_unpaired;
	unsigned nbacking;
	struct um_hidden hidden;
	struct um_guardian *guardian;
	pthread_t keeper;
	/*
	 * For a mount that began read-only, like m->gate: the daemon's threads hold it for reading
	 * while they are inside the engine. Ordered after m->gate, whose holders may wait for the
	 * hidden mount's threads.
	 */
	pthread_rwlock_t gate;
};

/* ---- view.c; all under v->lock ---------------------------------------------------------------------- */

struct um_view *um_view_by_id(struct um_views *v, uint64_t id);
struct um_view *um_view_by_content(struct um_views *v, const struct umbra_content *content);
/* Adds a new one, MAKING and listed; NULL: no memory, or too many. */
struct um_view *um_view_add(struct um_views *v, const struct umbra_content *content);
void um_view_unlist(struct um_views *v, struct um_view *view);
void um_view_set_idle(struct um_views *v, struct um_view *view, bool idle);
/* Nobody uses it, and nobody will: the keeper releases what it has. */
void um_view_bury(struct um_views *v, struct um_view *view);
/* Frees the struct of a dead view once nothing refers to it any more. */
void um_view_free_if_done(struct um_views *v, struct um_view *view);
/* Ends what `reading` counted; the result is as of take_hidden. */
uint64_t um_view_unread(struct um_views *v, struct um_view *view);
/* Releases the unlinked clone, if no request is using it: to be forgotten without the lock;
 * else 0. */
uint64_t um_view_take_hidden(struct um_view *view);

/* Without the lock: gives a MAKING view its clone, file and backing id, from ino. */
int um_view_make(struct um_views *v, struct um_view *view, uint64_t ino);
/* Without the lock: an unlinked clone of ino with that content, and a reference to it. */
int um_view_clone(
	struct um_views *v, uint64_t ino, const struct umbra_content *want, uint64_t *out);
/* Without the lock: our own descriptor, on which the view's file can be written. */
int um_view_open_own(struct um_views *v, struct um_view *view, int flags, int *out_fd);

/* ---- state.c; under v->lock --------------------------------------------------------------------------- */

struct um_share *um_share_find(struct um_views *v, uint64_t ino);
/* A handle of the hidden mount was opened, or released. */
struct um_handle *um_handle_open(struct um_views *v, struct um_view *view, uint32_t tid);
void um_handle_release(struct um_views *v, struct um_handle *handle);
/* Leaves the view if nothing of it is open any more, and frees structs without information. */
void um_share_settle(struct um_views *v, struct um_share *s);

/* ---- passthrough.c -------------------------------------------------------------------------------------- */

/* A backing id of the front connection for the file fd: above 0, or -errno. */
int um_backing_open(const struct um_mount *m, int fd);
void um_backing_close(const struct um_mount *m, int32_t id);

/* ---- hidden.c --------------------------------------------------------------------------------------------- */

int um_hidden_start(struct um_views *v);
/* Detaches the mount; users who still have it mapped get errors. */
void um_hidden_stop(struct um_views *v);
void um_hidden_inval_attr(struct um_views *v, uint64_t id);
/* The pages of a range (len 0: to the end) too, waiting for those in flight. */
void um_hidden_drop(struct um_views *v, uint64_t id, uint64_t off, uint64_t len);

#endif
