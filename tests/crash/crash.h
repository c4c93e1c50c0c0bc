/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Crash tests. They run short sequences of operations on a small pool in memory, record every
 * store, flush and drain, and then go through the states that a power cut could have left: each is
 * mounted (which replays the journal), checked as fsck does, compared with the tree before and
 * after the operation in flight, changed, and checked again.
 *
 * Possible states. Everything drained before the cut is present. Of each cache line stored to and
 * not yet drained, any prefix of its stores is present, flushed or not; a store of more than 8
 * bytes tears at 8-byte boundaries. Non-temporal stores are not ordered among each other, so any of
 * their words may be present. (H. LeBlanc et al., "Chipmunk: Investigating crash-consistency in
 * persistent-memory file systems", EuroSys 2023; the workloads are those of J. Mohan et al.,
 * "Finding crash-consistency bugs with bounded black-box crash testing", OSDI 2018.) For pools in
 * plain files, lines are sectors of 512 bytes and drains are barriers.
 *
 * A run is repeatable: the clock, the pool's UUID and all choices follow from the seed. A state's
 * name, config/ops:point.state, is printed with each failure; --repro runs a single state.
 */
#ifndef TESTS_CRASH_CRASH_H
#define TESTS_CRASH_CRASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/fs.h"
#include "pool/backend.h"
#include "umbra/check.h"
#include "umbra/umbra.h"

#define MADE_SIZE UM_POOL_MIN_SIZE                /* size of a new pool */
#define POOL_SIZE (MADE_SIZE + 4 * UM_CHUNK_SIZE) /* size of its medium, up to which it can grow */
#define B UM_BLOCK_SIZE

/* Ends the program: the test itself is broken. */
void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
void *xalloc(size_t size);
/* Parses an option's value; dies if it is not a number. */
uint64_t number_of(const char *text);
/* The source of our own memory. */
extern struct crash_memory {
	void *(*calloc)(size_t n, size_t size);
	void *(*realloc)(void *at, size_t size);
} crash_memory;
/* Returns a permanent copy of the text. */
const char *intern(const char *text);
/* Makes room for n + 1 elements of an array. */
void grow(void *array, size_t n, size_t *cap, size_t size);

/* ---- chance (util.c) ---------------------------------------------------------------------------- */

uint64_t mix64(uint64_t x);
uint64_t mix_text(uint64_t seed, const char *text);
/* xorshift64*; state must not be 0. */
uint64_t rnd(uint64_t *state);
static inline uint64_t rnd_below(uint64_t *state, uint64_t n)
{
	return (rnd(state) >> 16) % n;
}
/* Bytes that identify the write they come from. */
void pattern(uint8_t *buf, size_t len, uint64_t seed);

/* ---- images (image.c) ------------------------------------------------------------------------------ */

/*
 * A pool in memory whose stores can be undone: a state costs what it changes, not a copy of the
 * pool. An indirect pool has a second array, the contents of the file: `base` is then the daemon's
 * private mapping of it.
 */
struct image {
	uint8_t *base;
	uint8_t *file;      /* indirect pools, else NULL */
	uint8_t *own;       /* indirect: one byte per block, set if it is a private page */
	uint8_t *log;       /* old bytes, each run followed by a struct that describes it */
	size_t len, cap;    /* of the log */
	struct trace *into; /* recorder of its stores, or NULL */
	bool direct;
};
void image_open(struct image *img, bool direct);
void image_close(struct image *img);
/* The contents of the medium: base, or file. */
static inline uint8_t *image_medium(struct image *img)
{
	return img->direct ? img->base : img->file;
}
/* Stores to an array of the image, saving the old contents. src NULL: zeros. */
void image_set(struct image *img, uint8_t *array, uint64_t off, const void *src, size_t len);
/* The effect of a power cut: the medium gets these bytes. */
void image_put(struct image *img, uint64_t off, const void *src, size_t len);
size_t image_mark(const struct image *img);
void image_rollback(struct image *img, size_t mark);
/* Iterates over the stores to an array in the log, last first; *at is 0 initially. */
bool image_log_next(
	const struct image *img, size_t *at, const uint8_t *array, uint64_t *off, uint64_t *len);
/* Makes the stores so far permanent. */
void image_keep(struct image *img);
/* Replaces the whole medium. */
void image_copy(struct image *img, const uint8_t *medium);
/* Images that a pool may be opened over, known by address. The live one is recorded through
 * libpmem's calls. */
void image_register(struct image *img, bool live);

/* ---- the record (trace.c, interpose.c) -------------------------------------------------------------- */

enum event_kind {
	EV_CACHED, /* a store through the cache, not yet flushed */
	EV_NT,     /* non-temporal; to a file: a write */
	EV_FLUSH,
	EV_DRAIN, /* a fence; to a file: a barrier */
	EV_BEGIN, /* of the call numbered `off` */
	EV_END,
};
struct event {
	enum event_kind kind;
	uint32_t len;
	uint64_t off;
	size_t at; /* of the bytes, in trace->bytes */
};
struct trace {
	struct event *event;
	size_t n, cap;
	uint8_t *bytes;
	size_t nbytes, cap_bytes;
	uint8_t *shadow; /* the pool according to the recorded stores alone; NULL: not kept */
	bool compare;    /* at each drain, not only at the end */
	void (*moment)(struct trace *trace, void *arg); /* called before each drain */
	void *arg;
	char bypass[160]; /* the first unrecorded store found, as text */
};
void trace_clear(struct trace *trace);
void trace_free(struct trace *trace);
void trace_add(
	struct trace *trace, enum event_kind kind, uint64_t off, const void *src, size_t len);
/* Looks for stores that bypassed the recorder. */
void trace_compare(struct trace *trace, const uint8_t *base);

/* The pool recorded by libpmem's functions, which interpose.c replaces; NULL: they only store. */
extern struct trace *live_trace;
extern uint8_t *live_base;
/* The clock that the engine sees: advances by a fixed step with each reading. */
extern uint64_t fake_nsec, fake_step;

/* ---- stores in flight, and the states they allow (flight.c) ------------------------------------------- */

#define LINE 64u
#define SECTOR 512u
struct piece {
	uint16_t off, len; /* in its line */
	bool nt, flushed;
	uint32_t seq;  /* order of issue */
	uint32_t next; /* of the line: index + 1 */
	size_t at;     /* of its bytes, in flight->bytes */
};
struct line {
	uint64_t number;      /* address / unit */
	uint32_t first, last; /* pieces: index + 1 */
	uint16_t n;
};
struct flight {
	unsigned unit;    /* LINE or SECTOR */
	unsigned density; /* maximum number of states taken of each family */
	struct line *line;
	size_t nline, cap_line;
	struct piece *piece;
	size_t npiece, cap_piece;
	uint8_t *bytes;
	size_t nbytes, cap_bytes;
	uint32_t *index; /* line number -> index + 1; open addressing, a power of two */
	size_t nindex;
	uint32_t seq; /* stores noted since the start */
};
void flight_free(struct flight *f);
void flight_clear(struct flight *f);
void flight_store(struct flight *f, uint64_t off, const uint8_t *src, size_t len, bool nt);
void flight_flush(struct flight *f, uint64_t off, size_t len);
/* Copies what is in flight. */
void flight_copy(struct flight *to, const struct flight *from);
/* Drained pieces leave; they are stored to each of the images. */
void flight_drain(struct flight *f, struct image **img, unsigned n);
/* Number of states possible now; puts one of them on the image (the caller rolls back). Numbers
 * from there on: everything. */
uint64_t flight_states(const struct flight *f);
void flight_put(const struct flight *f, uint64_t state, uint64_t seed, struct image *img);
/* Describes a state, for a failure's report. */
void flight_describe(const struct flight *f, uint64_t state, uint64_t seed, FILE *out);

/* ---- trees (snapshot.c) ------------------------------------------------------------------------------- */

struct node {
	uint64_t ino, size, blocks, rdev, xattrs, target;
	struct timespec time[4];
	uint32_t mode, nlink, uid, gid, flags;
	uint32_t path;         /* offset in text */
	uint32_t first, nunit; /* hashes of its content */
};
static_assert(sizeof(struct node) == 6 * 8 + 4 * 16 + 8 * 4, "compared as bytes: no gaps");
struct snapshot {
	struct node *node;
	size_t n, cap;
	char *text;
	size_t ntext, cap_text;
	uint64_t *hash;
	size_t nhash, cap_hash;
	uint64_t digest;
	/* The open file, which may have no name; its hashes follow the tree's. ino 0: none. */
	struct node open;
};
void snapshot_free(struct snapshot *s);
/* Unit by which content is hashed: blocks, or sectors where data may tear there. */
extern unsigned snapshot_unit;
/* Reads the whole tree. 0 or -errno, with the failed operation in why. */
int snapshot_take(struct umbra_fs *fs, struct snapshot *s, char *why, size_t size);
/* Reads the open file, too; it is no part of what is compared. After snapshot_take. */
int snapshot_take_open(
	struct umbra_fs *fs, struct snapshot *s, uint64_t ino, char *why, size_t size);
void snapshot_copy(struct snapshot *to, const struct snapshot *from);
bool snapshot_equal(const struct snapshot *a, const struct snapshot *b);
/* What a call may leave half done: see struct world. */
struct mix {
	uint64_t ino; /* 0: nothing */
	bool size;    /* its size, too */
	bool torn;    /* blocks of its content may be of both */
};
/* Is `s` equal to `a` or `b` or, for the file in `mix`, between them: in content block by block,
 * and in times and blocks? */
bool snapshot_between(const struct snapshot *s, const struct snapshot *a, const struct snapshot *b,
	struct mix mix);
/* Is `s` equal to `a`, except for content, unit by unit, that its files have in one of these n, as open
 * files without a name, too? */
bool snapshot_like(
	const struct snapshot *s, const struct snapshot *a, const struct snapshot *some, size_t n);
/* Reports where they differ. */
void snapshot_diff(const struct snapshot *want, const struct snapshot *got, FILE *out);
const struct node *snapshot_find(const struct snapshot *s, const char *path);

/* ---- operations (ops.c, calls.c) -------------------------------------------------------------------------- */

enum call_kind {
	CALL_NONE,
	CALL_MKNOD,
	CALL_SYMLINK,
	CALL_LINK,
	CALL_UNLINK,
	CALL_RMDIR,
	CALL_RENAME,
	CALL_TMPFILE, /* its inode is "the open file" until CALL_RELEASE */
	CALL_OPEN,
	CALL_LINK_OPEN,
	CALL_WRITE_OPEN,
	CALL_TRUNCATE_OPEN,
	CALL_RELEASE,
	CALL_WRITE,
	CALL_APPEND,
	CALL_TRUNCATE,
	CALL_FALLOCATE,
	CALL_SETXATTR,
	CALL_REMOVEXATTR,
	CALL_CHMOD,
	CALL_CHOWN,
	CALL_UTIMENS,
	CALL_FLAGS,
	CALL_CLONE,
	CALL_CLONE_AT, /* the second path is new */
	CALL_CLONE_RANGE,
	CALL_COPY_RANGE,
	CALL_DEDUPE,
	CALL_SYNC,
	CALL_REAP,
	CALL_CHECKPOINT,
	CALL_GROW,
	CALL_CLOSE, /* the last one */
};
struct call {
	enum call_kind kind;
	const char *a, *b; /* paths, names */
	uint64_t off, len, to;
	unsigned flags;
};
#define CALLS_MAX 6
struct op {
	const char *name;
	struct call call[CALLS_MAX]; /* up to the first CALL_NONE */
};
extern const struct op crash_ops[];
extern const unsigned crash_nops;
int op_find(const char *name);

struct world {
	struct umbra_fs *fs;
	uint64_t open;   /* inode of the open file, 0: none */
	uint64_t writes; /* counts, so that no two write the same bytes */
	struct mix mix;  /* what a cut within the last call may leave between before and after */
};
/* 0 or -errno: an operation may fail, if it has no effect. */
int call_run(struct world *w, const struct call *call);
/* Releases the open file. */
void world_end(struct world *w);
/* One more call, of any kind, on any existing file. */
void random_call(struct world *w, const struct snapshot *tree, uint64_t *rng, struct call *out);

#define CRASH_CSUM 1u /* checksums of file data */
#define CRASH_PARITY 2u
struct config {
	const char *name;
	unsigned copies;
	bool direct;
	enum umbra_data_mode data;
	void (*fill)(struct world *w);
	unsigned features; /* CRASH_* */
};
extern const struct config crash_configs[];
extern const unsigned crash_nconfigs;
/* Makes the pool with which a config's workloads begin, on the image's medium. */
void config_make(const struct config *config, struct image *img);
int config_mount(const struct config *config, struct image *img, struct umbra_fs **out);

/* ---- judging a state (judge.c) ------------------------------------------------------------------------------- */

/* A call of a workload that was made. */
struct called {
	struct call call;
	struct mix mix; /* what a cut within it may leave between before and after */
	int ret;
	bool explore; /* examine states within */
};

/* One of these trees: those after consecutive calls, the last one perhaps unfinished. */
struct expect {
	const struct snapshot *tree;
	size_t n;
	const struct called *call; /* call[i] leads from tree[i] to the next */
	bool torn;                 /* data in place may be that of any of them */
};
struct judge {
	const struct config *config;
	struct image *img, *second; /* second: for a cut during recovery */
	struct snapshot got, again;
	struct trace trace; /* of a recovery */
	size_t traced;      /* events of it that are in flight */
	struct flight flight;
	const struct expect *expect; /* while a recovery is interrupted */
	bool inner_bad;
	uint64_t ring[2][2]; /* the journal's records: from, to */
	uint64_t errors;     /* error lines of the engine */
	char log[512];       /* the first of them */
	uint64_t *known;     /* hashes of recovered pools that were found good at this point */
	size_t nknown, cap_known;
	uint32_t *stamp, now;                         /* of each line: examined */
	uint64_t checks, mounts, repeats, recoveries; /* counted */
	FILE *report;                                 /* description of the failure */
	uint64_t seed;                                /* of the state */
	unsigned boot;                                /* which boot the state is recovered in */
};
void judge_open(
	struct judge *j, const struct config *config, struct image *img, struct image *second);
void judge_close(struct judge *j);
#define BOOT_LIVE 1u
#define BOOT_CUT 2u
void boot_is(unsigned boot);
void judge_log(void *arg, enum umbra_log_level level, const char *line);
/* The following states have another medium below, or other expectations. */
void judge_next_point(struct judge *j);
/* True: the state on the image is good. It is left as it was. `second` has the medium before the
 * cut. full: check everything even if recovery led to the same pool as for an earlier state. */
bool judge_state(struct judge *j, const struct expect *expect, bool full);
/*
 * The same for states that a second cut, during recovery, leaves. Both images have the state; or,
 * if first the process died and then the power failed, only the first has, and `flight` says what
 * may be missing.
 */
bool judge_recovery(struct judge *j, const struct expect *expect, const struct flight *flight);

/* ---- which workloads (plan.c) ------------------------------------------------------------------------------- */

struct options {
	uint64_t seed;
	double budget;
	unsigned seq, jobs, density, max_failures, length;
	const char *repro, *config, *only, *dump;
	bool seq_given, verbose, mutants, costs;
	unsigned mutant; /* 0: all */
};
#define PLAN_CONFIGS 32
struct plan {
	const struct options *opt;
	const struct config *config[PLAN_CONFIGS];
	unsigned nconfig;
	uint64_t ones, twos; /* how many there are */
	uint64_t stride;
};
struct workload {
	const struct config *config;
	unsigned n; /* operations; 0: random calls */
	int op[8];
	uint64_t number; /* of a random one */
};
void plan_make(struct plan *p, const struct options *opt);
/* False: there is no n-th. */
bool plan_get(const struct plan *p, uint64_t n, struct workload *out);

/* ---- workloads (run.c) ------------------------------------------------------------------------------------------ */

struct totals {
	_Atomic(uint64_t) next, workloads, points, states, repeats, checks, mounts, recoveries,
		failures, calls;
};
struct worker {
	const struct options *opt;
	struct totals *totals;
	const struct config *config;
	struct image live, disk, second;
	uint8_t *golden; /* the config's pool */
	struct trace trace;
	struct flight flight;
	struct judge judge;
	struct snapshot *snap; /* after each call; snap[0]: at the start */
	size_t nsnap, cap_snap;
	struct called *called;
	size_t ncalled, cap_called;
	char *now; /* name of the present state, in case the process dies */
	uint64_t only_point, only_state;
	bool repro;
};
#define NOW_SIZE 512
void worker_open(struct worker *w, const struct options *opt, struct totals *totals, char *now);
void worker_close(struct worker *w);
void worker_config(struct worker *w, const struct config *config);
/* Runs operations one after the other; states of the last `explore` of them are examined. */
void workload_run(struct worker *w, const int *op, unsigned n, unsigned explore);
/* The first half of it: w->trace has what was stored. */
void workload_record(struct worker *w, const int *op, unsigned n, unsigned explore);
/* Prints a table of what each operation stores, flushes and drains (costs.c). */
void costs_print(struct worker *w);
/* A long one, of random calls. */
void workload_random(struct worker *w, uint64_t number, unsigned length);
/* Runs the state with this name; false: no such name. */
bool workload_repro(struct worker *w, const char *name);

/* ---- bugs put in on purpose (mutants.c) ----------------------------------------------------------------------- */

/* Runs the tests for each of them, until it is found or the options' budget is used up. Returns the
 * number of those not found; -1 if this library has none. */
int mutants_run(const struct options *opt, uint64_t (*run)(const struct options *opt));

#endif
