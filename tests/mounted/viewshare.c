/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Coherence of shared views, all processes on the same files: each opens, reads, maps, stores, writes, clones,
 * copies, truncates, punches, renames over and unlinks the same set of clones at random.
 *
 * The model is in memory that the processes share. A file is units of 1 KiB; each unit was written with a stamp
 * of its own, from which all its words follow. With a file's lock held a read must show exactly the model's
 * bytes and size. Without, beside whatever runs, each word must be of a stamp that was there at some
 * moment of the read: neither older, nor from another file.
 *
 *   viewshare DIR SEED PROCESSES SECONDS
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "views.h"

enum {
	UNIT = 1024,
	PER_BLOCK = 4,
	UNITS = 128, /* of a file at most */
	BASE = 64,   /* of a new one */
	PAGE = 4096,
	NAMES = 10,
	INODES = 256,
	SLOTS = 8, /* open files of a process */
	MAPS = 6,
	RING = 16,
	WORDS = UNIT / 8,
	PATIENCE = 300, /* times 10 ms for a release on its way */
};

/* The stamps of a unit, the latest RING of them. done < begun: the change to ring[begun] is on its way. */
struct unit {
	atomic_uint begun, done;
	_Atomic uint64_t ring[RING];
};

struct inode {
	pthread_rwlock_t lock;
	atomic_int refs;    /* names, slots, maps; 0: free */
	atomic_int readers; /* handles that may be in a view, and mappings */
	unsigned size;      /* units */
	struct unit unit[UNITS];
};

struct name {
	pthread_rwlock_t lock;
	struct inode *inode; /* NULL: no such file */
};

struct shared {
	struct name name[NAMES];
	struct inode inode[INODES];
	_Atomic uint64_t stamp;
	atomic_bool failed;
	atomic_ulong ops, busy, late, racy;
};

static struct shared *sh;
static struct slot {
	struct inode *f;
	int fd;
	bool writes;
} slot[SLOTS];
static struct map {
	struct inode *f;
	unsigned char *at;
	bool writes;
} map[MAPS];
static uint64_t buf[UNITS * WORDS];

/* ---- the model ------------------------------------------------------------------------------------ */

static uint64_t fresh(void)
{
	return atomic_fetch_add(&sh->stamp, 1) + 1;
}

static uint64_t word_of(uint64_t stamp, unsigned word)
{
	return stamp ? stamp * 0x9e3779b97f4a7c15ull + word : 0;
}

static uint64_t stamp_now(struct inode *f, unsigned u)
{
	return atomic_load(&f->unit[u].ring[atomic_load(&f->unit[u].done) % RING]);
}

/* Before the change, under the lock; the readers without it take the new stamp too from here on. */
static void begin(struct inode *f, unsigned u, uint64_t stamp)
{
	unsigned next = atomic_load(&f->unit[u].begun) + 1;

	atomic_store(&f->unit[u].ring[next % RING], stamp);
	atomic_store(&f->unit[u].begun, next);
}

static void end(struct inode *f, unsigned u)
{
	atomic_store(&f->unit[u].done, atomic_load(&f->unit[u].begun));
}

static void end_all(struct inode *f)
{
	for (unsigned u = 0; u < UNITS; u++)
		end(f, u);
}

static struct inode *inode_new(void)
{
	for (;;) {
		struct inode *f = &sh->inode[rnd(INODES)];
		int none = 0;

		if (!atomic_compare_exchange_strong(&f->refs, &none, 1))
			continue;
		f->size = 0;
		for (unsigned u = 0; u < UNITS; u++) {
			begin(f, u, 0);
			end(f, u);
		}
		return f;
	}
}

static void put(struct inode *f)
{
	atomic_fetch_sub(&f->refs, 1);
}

static void unlock(struct inode *f)
{
	pthread_rwlock_unlock(&f->lock);
}

/* The units of data, which are those of f from `first` on, as they must be. The lock is held. */
static void compare(struct inode *f, const uint64_t *data, unsigned first, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		uint64_t stamp = stamp_now(f, first + i);

		for (unsigned w = 0; w < WORDS; w++)
			if (data[i * WORDS + w] != word_of(stamp, w))
				fail("inode %td, unit %u of %u, word %u: %llx, must be %llx (stamp "
				     "%llu)",
					f - sh->inode, first + i, f->size, w,
					(unsigned long long)data[i * WORDS + w],
					(unsigned long long)word_of(stamp, w),
					(unsigned long long)stamp);
	}
}

/* What was done when a read without the lock began. */
struct before {
	unsigned done[UNITS];
};

static void note_before(struct inode *f, struct before *b)
{
	for (unsigned u = 0; u < UNITS; u++)
		b->done[u] = atomic_load(&f->unit[u].done);
}

static void compare_racy(
	struct inode *f, const struct before *b, const uint64_t *data, unsigned first, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct unit *unit = &f->unit[first + i];
		unsigned from = b->done[first + i], to = atomic_load(&unit->begun);
		bool ok[WORDS] = {false};
		unsigned w;

		if (to - from >= RING - 1)
			continue;
		for (unsigned at = from; at != to + 1; at++) {
			uint64_t stamp = atomic_load(&unit->ring[at % RING]);

			for (w = 0; w < WORDS; w++)
				ok[w] |= data[i * WORDS + w] == word_of(stamp, w);
		}
		if (atomic_load(&unit->begun) - from >= RING - 1)
			continue;
		for (w = 0; w < WORDS; w++)
			if (!ok[w])
				fail("no lock: inode %td, unit %u, word %u: %llx was not there "
				     "during the "
				     "read (%u stamps)",
					f - sh->inode, first + i, w,
					(unsigned long long)data[i * WORDS + w], to - from + 1);
	}
	atomic_fetch_add(&sh->racy, 1);
}

/* ---- files ------------------------------------------------------------------------------------------- */

static const char *path_of(unsigned i)
{
	static char path[320];

	snprintf(path, sizeof(path), "%s/s%u", dir, i);
	return path;
}

/* Opens a name whose lock is held. -1: ETXTBSY, which is right as somebody reads the file. */
static int open_name(unsigned i, int flags)
{
	struct inode *f = sh->name[i].inode;
	int fd = -1;

	for (int tries = 0; tries < PATIENCE; tries++) {
		fd = open(path_of(i), flags);
		if (fd >= 0 || errno != ETXTBSY)
			break;
		if (atomic_load(&f->readers) > 0) {
			atomic_fetch_add(&sh->busy, 1);
			return -1;
		}
		atomic_fetch_add(&sh->late, 1);
		usleep(10000);
	}
	CHECK(fd >= 0);
	return fd;
}

static void fill_units(uint64_t *data, struct inode *f, unsigned first, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		uint64_t stamp = fresh();

		begin(f, first + i, stamp);
		for (unsigned w = 0; w < WORDS; w++)
			data[i * WORDS + w] = word_of(stamp, w);
	}
}

/* ---- operations: names -------------------------------------------------------------------------------- */

/* A new file, a clone of another or written afresh, takes the name's place. */
static void op_new(void)
{
	unsigned i = rnd(NAMES), from = rnd(NAMES);
	struct inode *f, *src, *old;
	char tmp[320];
	int fd, src_fd;

	op = "new";
	if (rnd(4)) /* files are to live through many states */
		return;
	snprintf(tmp, sizeof(tmp), "%s/tmp%u", dir, me);
	fd = open(tmp, O_RDWR | O_CREAT | O_EXCL, 0644);
	CHECK(fd >= 0);
	f = inode_new();
	pthread_rwlock_rdlock(&sh->name[from].lock);
	src = sh->name[from].inode;
	if (src && rnd(30)) {
		pthread_rwlock_rdlock(&src->lock);
		src_fd = open_name(from, O_RDONLY);
		clone_into(src_fd, fd, 0, 0);
		close(src_fd);
		f->size = src->size;
		for (unsigned u = 0; u < f->size; u++)
			begin(f, u, stamp_now(src, u));
		unlock(src);
	} else {
		fill_units(buf, f, 0, BASE);
		CHECK(pwrite(fd, buf, BASE * UNIT, 0) == BASE * UNIT);
		f->size = BASE;
	}
	pthread_rwlock_unlock(&sh->name[from].lock);
	end_all(f);
	CHECK(!close(fd));
	pthread_rwlock_wrlock(&sh->name[i].lock);
	old = sh->name[i].inode;
	if (old && !rnd(3))
		CHECK(!unlink(path_of(i)));
	CHECK(!rename(tmp, path_of(i)));
	sh->name[i].inode = f;
	pthread_rwlock_unlock(&sh->name[i].lock);
	if (old)
		put(old);
}

static void op_open(void)
{
	struct slot *s = &slot[rnd(SLOTS)];
	unsigned i = rnd(NAMES);
	bool writes = !rnd(3), cut = writes && !rnd(10);
	struct inode *f;
	int fd;

	op = writes ? "open for writing" : "open for reading";
	if (s->f)
		return;
	pthread_rwlock_rdlock(&sh->name[i].lock);
	f = sh->name[i].inode;
	if (f && cut)
		pthread_rwlock_wrlock(&f->lock);
	if (f) {
		if (!writes) /* before: the open may be seen before it has returned */
			atomic_fetch_add(&f->readers, 1);
		for (unsigned u = 0; cut && u < f->size; u++)
			begin(f, u, 0);
		fd = open_name(i, (writes ? O_RDWR : O_RDONLY) | (cut ? O_TRUNC : 0) |
					  (rnd(12) ? 0 : O_DIRECT));
		if (cut && fd < 0)
			for (unsigned u = 0; u < f->size; u++)
				begin(f, u, stamp_now(f, u));
		if (cut && fd >= 0)
			f->size = 0;
		if (cut)
			end_all(f);
		if (fd >= 0) {
			atomic_fetch_add(&f->refs, 1);
			*s = (struct slot){f, fd, writes};
		} else if (!writes) {
			atomic_fetch_sub(&f->readers, 1);
		}
		if (cut)
			unlock(f);
	}
	pthread_rwlock_unlock(&sh->name[i].lock);
}

static void op_close(void)
{
	struct slot *s = &slot[rnd(SLOTS)];

	op = "close";
	if (!s->f)
		return;
	CHECK(!close(s->fd));
	if (!s->writes)
		atomic_fetch_sub(&s->f->readers, 1);
	put(s->f);
	s->f = NULL;
}

static void op_map(void)
{
	struct slot *s = &slot[rnd(SLOTS)];
	struct map *m = &map[rnd(MAPS)];

	op = "mmap";
	if (!s->f || m->f)
		return;
	m->at = mmap(
		NULL, UNITS * UNIT, PROT_READ | (s->writes ? PROT_WRITE : 0), MAP_SHARED, s->fd, 0);
	CHECK(m->at != MAP_FAILED);
	m->f = s->f;
	m->writes = s->writes;
	atomic_fetch_add(&m->f->refs, 1);
	atomic_fetch_add(&m->f->readers, 1);
}

static void op_unmap(void)
{
	struct map *m = &map[rnd(MAPS)];

	op = "munmap";
	if (!m->f)
		return;
	CHECK(!munmap(m->at, UNITS * UNIT));
	atomic_fetch_sub(&m->f->readers, 1);
	put(m->f);
	m->f = NULL;
}

/* ---- operations: looking ------------------------------------------------------------------------------ */

static void op_read(void)
{
	const struct slot *s = &slot[rnd(SLOTS)];
	unsigned first = rnd(UNITS) & ~3u, n = 4 + rnd(UNITS / 4), want;
	static uint64_t *data;
	ssize_t got;

	op = "read";
	if (!data)
		CHECK(!posix_memalign((void **)&data, PAGE, UNITS * UNIT));
	if (!s->f)
		return;
	n = (n + 3) & ~3u;
	if (n > UNITS - first)
		n = UNITS - first;
	if (rnd(3)) {
		struct before b;

		note_before(s->f, &b);
		got = pread(s->fd, data, n * UNIT, first * UNIT);
		CHECK(got >= 0);
		compare_racy(s->f, &b, data, first, (unsigned)got / UNIT);
		return;
	}
	pthread_rwlock_rdlock(&s->f->lock);
	got = pread(s->fd, data, n * UNIT, first * UNIT);
	want = first < s->f->size ? s->f->size - first : 0;
	if (want > n)
		want = n;
	if (got != (ssize_t)(want * UNIT))
		fail("%zd bytes, must be %u (size %u units, from %u)", got, want * UNIT, s->f->size,
			first);
	compare(s->f, data, first, want);
	unlock(s->f);
}

static sigjmp_buf behind_end;

static void on_bus(int sig)
{
	siglongjmp(behind_end, sig);
}

static void op_load(void)
{
	const struct map *const m = &map[rnd(MAPS)];
	const unsigned first = rnd(UNITS), most = UNITS - first < 16 ? UNITS - first : 16;
	const unsigned n = 1 + rnd(most);
	struct before b;

	op = "load";
	if (!m->f)
		return;
	if (rnd(3)) {
		note_before(m->f, &b);
		if (sigsetjmp(behind_end, 1))
			return; /* cut off meanwhile, or not there at all */
		memcpy(buf, m->at + first * UNIT, n * UNIT);
		compare_racy(m->f, &b, buf, first, n);
		return;
	}
	pthread_rwlock_rdlock(&m->f->lock);
	if (sigsetjmp(behind_end, 1))
		fail("SIGBUS within the file");
	if (first + n <= m->f->size) {
		memcpy(buf, m->at + first * UNIT, n * UNIT);
		compare(m->f, buf, first, n);
	}
	unlock(m->f);
}

static void op_stat(void)
{
	const struct slot *s = &slot[rnd(SLOTS)];
	struct stat st;

	op = "fstat";
	if (!s->f)
		return;
	pthread_rwlock_rdlock(&s->f->lock);
	CHECK(!fstat(s->fd, &st));
	if (st.st_size != (off_t)s->f->size * UNIT)
		fail("size %lld, must be %u", (long long)st.st_size, s->f->size * UNIT);
	unlock(s->f);
}

static void op_sync(void)
{
	const struct slot *s = &slot[rnd(SLOTS)];

	op = "fsync or fadvise";
	if (!s->f)
		return;
	if (rnd(2))
		CHECK(!fsync(s->fd));
	else
		posix_fadvise(s->fd, 0, 0, rnd(2) ? POSIX_FADV_WILLNEED : POSIX_FADV_DONTNEED);
}

/* ---- operations: changes ------------------------------------------------------------------------------- */

static struct slot *writer(void)
{
	struct slot *s = &slot[rnd(SLOTS)];

	return s->f && s->writes ? s : NULL;
}

static void op_write(void)
{
	struct slot *s = writer();
	unsigned first, n = 1 + rnd(rnd(4) ? 8 : 64);

	op = "write";
	if (!s)
		return;
	pthread_rwlock_wrlock(&s->f->lock);
	first = rnd(s->f->size + 6);
	if (first + n <= UNITS) {
		fill_units(buf, s->f, first, n);
		CHECK(pwrite(s->fd, buf, n * UNIT, first * UNIT) == (ssize_t)n * UNIT);
		if (first + n > s->f->size)
			s->f->size = first + n;
		end_all(s->f);
	}
	unlock(s->f);
}

static void op_store(void)
{
	const struct map *const m = &map[rnd(MAPS)];
	const unsigned first = rnd(UNITS), most = UNITS - first < 8 ? UNITS - first : 8;
	const unsigned n = 1 + rnd(most);

	op = "store";
	if (!m->f || !m->writes)
		return;
	pthread_rwlock_wrlock(&m->f->lock);
	if (sigsetjmp(behind_end, 1))
		fail("SIGBUS within the file");
	if (first + n <= m->f->size) {
		fill_units(buf, m->f, first, n);
		memcpy(m->at + first * UNIT, buf, n * UNIT);
		end_all(m->f);
	}
	if (!rnd(4))
		CHECK(!msync(m->at, UNITS * UNIT, MS_SYNC));
	unlock(m->f);
}

/* By descriptor. */
static void op_truncate(void)
{
	struct slot *s = writer();
	unsigned size = rnd(UNITS);

	op = "ftruncate";
	if (!s || rnd(2))
		return;
	pthread_rwlock_wrlock(&s->f->lock);
	for (unsigned u = size; u < s->f->size; u++)
		begin(s->f, u, 0);
	CHECK(!ftruncate(s->fd, size * UNIT));
	s->f->size = size;
	end_all(s->f);
	unlock(s->f);
}

static void op_truncate_path(void)
{
	unsigned i = rnd(NAMES), size = rnd(UNITS);
	struct inode *f;
	int err = 0;

	op = "truncate";
	if (rnd(3))
		return;
	pthread_rwlock_rdlock(&sh->name[i].lock);
	f = sh->name[i].inode;
	if (f) {
		pthread_rwlock_wrlock(&f->lock);
		for (unsigned u = size; u < f->size; u++)
			begin(f, u, 0);
		for (int tries = 0; tries < PATIENCE; tries++) {
			err = truncate(path_of(i), size * UNIT) ? errno : 0;
			if (err != ETXTBSY || atomic_load(&f->readers) > 0)
				break;
			atomic_fetch_add(&sh->late, 1);
			usleep(10000);
		}
		if (err == ETXTBSY && atomic_load(&f->readers) > 0) {
			atomic_fetch_add(&sh->busy, 1);
			for (unsigned u = size; u < f->size; u++)
				begin(f, u, stamp_now(f, u));
		} else if (err) {
			fail("truncate: %s", strerror(err));
		} else {
			f->size = size;
		}
		end_all(f);
		unlock(f);
	}
	pthread_rwlock_unlock(&sh->name[i].lock);
}

static void op_punch(void)
{
	struct slot *s = writer();
	unsigned first, n;

	op = "punch";
	if (!s)
		return;
	pthread_rwlock_wrlock(&s->f->lock);
	first = s->f->size ? rnd(s->f->size) : 0;
	n = 1 + rnd(20);
	if (first < s->f->size) {
		if (n > s->f->size - first)
			n = s->f->size - first;
		for (unsigned u = first; u < first + n; u++)
			begin(s->f, u, 0);
		CHECK(!fallocate(s->fd,
			FALLOC_FL_KEEP_SIZE |
				(rnd(2) ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE),
			first * UNIT, n * UNIT));
		end_all(s->f);
	}
	unlock(s->f);
}

/* Both files' locks, or neither: whoever waits for one holds none. */
static bool lock_pair(struct inode *from, struct inode *to)
{
	if (from == to || pthread_rwlock_wrlock(&to->lock))
		return false;
	if (!pthread_rwlock_tryrdlock(&from->lock))
		return true;
	unlock(to);
	return false;
}

static void take_over(struct inode *from, struct inode *to, unsigned src, unsigned dst, unsigned n)
{
	for (unsigned u = 0; u < n; u++)
		begin(to, dst + u, stamp_now(from, src + u));
}

static void grow(struct inode *f, unsigned end_unit)
{
	if (end_unit > f->size)
		f->size = end_unit;
}

static void op_clone(void)
{
	const struct slot *from = &slot[rnd(SLOTS)];
	struct slot *to = writer();
	unsigned first, n;

	op = "clone";
	if (!from->f || !to || !lock_pair(from->f, to->f))
		return;
	first = rnd(from->f->size / PER_BLOCK + 1) * PER_BLOCK;
	n = (1 + rnd(4)) * PER_BLOCK;
	if (rnd(2) && from->f->size && to->f->size <= from->f->size) {
		take_over(from->f, to->f, 0, 0, from->f->size);
		clone_into(from->fd, to->fd, 0, 0);
		to->f->size = from->f->size;
	} else if (first + n <= from->f->size) {
		take_over(from->f, to->f, first, first, n);
		clone_into(from->fd, to->fd, first * UNIT, n * UNIT);
		grow(to->f, first + n);
	}
	end_all(to->f);
	unlock(from->f);
	unlock(to->f);
}

static void op_copy(void)
{
	const struct slot *from = &slot[rnd(SLOTS)];
	struct slot *to = writer();
	unsigned src, dst, n = 1 + rnd(24), done = 0;
	ssize_t got;

	op = "copy_file_range";
	if (!from->f || !to || !lock_pair(from->f, to->f))
		return;
	src = from->f->size ? rnd(from->f->size) : 0;
	if (n > from->f->size - src)
		n = from->f->size - src;
	dst = rnd(to->f->size + 1);
	if (n && dst + n <= UNITS) {
		take_over(from->f, to->f, src, dst, n);
		for (off_t in = src * UNIT, out = dst * UNIT; done < n * UNIT;
			done += (unsigned)got) {
			got = copy_file_range(from->fd, &in, to->fd, &out, n * UNIT - done, 0);
			CHECK(got > 0);
		}
		grow(to->f, dst + n);
		end_all(to->f);
	}
	unlock(from->f);
	unlock(to->f);
}

/* ---- all ------------------------------------------------------------------------------------------------ */

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int work(double until)
{
	static void (*const ops[])(void) = {op_new, op_open, op_open, op_open, op_open, op_close,
		op_close, op_close, op_map, op_map, op_unmap, op_read, op_read, op_read, op_read,
		op_load, op_load, op_load, op_load, op_store, op_write, op_truncate,
		op_truncate_path, op_punch, op_copy, op_clone, op_stat, op_sync};

	signal(SIGBUS, on_bus);
	failed = &sh->failed;
	for (; (nops % 64 || now() < until) && !atomic_load(failed); nops++)
		ops[rnd(sizeof(ops) / sizeof(ops[0]))]();
	atomic_fetch_add(&sh->ops, nops);
	return atomic_load(failed);
}

static void make_shared(void)
{
	pthread_rwlockattr_t attr;

	sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (sh == MAP_FAILED) {
		perror("viewshare");
		exit(1);
	}
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	for (unsigned i = 0; i < INODES; i++)
		pthread_rwlock_init(&sh->inode[i].lock, &attr);
	for (unsigned i = 0; i < NAMES; i++)
		pthread_rwlock_init(&sh->name[i].lock, &attr);
}

int main(int argc, char **argv)
{
	double until;
	int status, bad = 0;
	pid_t pid[64];
	unsigned n;

	if (argc != 5) {
		fprintf(stderr, "usage: viewshare DIR SEED PROCESSES SECONDS\n");
		return 2;
	}
	snprintf(dir, sizeof(dir), "%s", argv[1]);
	make_shared();
	until = now() + atof(argv[4]);
	n = (unsigned)atoi(argv[3]) % 65;
	for (unsigned i = 0; i < n; i++) {
		pid[i] = fork();
		if (pid[i] == 0) {
			me = i;
			rnd_state = (strtoull(argv[2], NULL, 10) * 1000 + i + 1) *
				    0x9e3779b97f4a7c15ull;
			_exit(work(until));
		}
	}
	while (wait(&status) > 0) {
		bad |= status;
		for (unsigned i = 0; status && i < n; i++) /* its locks are held for ever */
			kill(pid[i], SIGKILL);
	}
	printf("%lu operations, %lu reads without lock, ETXTBSY %lu, releases awaited %lu\n",
		atomic_load(&sh->ops), atomic_load(&sh->racy), atomic_load(&sh->busy),
		atomic_load(&sh->late));
	return bad ? 1 : 0;
}
