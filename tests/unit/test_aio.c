/* SPDX-License-Identifier: BSD-3-Clause */
/* Asynchronous requests, by rings and by threads, with short and failing results; fetches of file
 * data. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <linux/fs.h>
#include <unistd.h>

#include <cmocka.h>

#include "fs/fs.h"
#include "pool/aio.h"
#include "pool/polled.h"
#include "skip.h"

#define N 300u /* more than a ring has entries */
#define LEN 8192u

struct batch {
	int fd;
	char path[64];
	struct um_aio io[N + 1];
	uint8_t *buf;
	atomic_uint done;
};

static atomic_uint calls;
static unsigned fail_at; /* the result to spoil, counted from 1 */
static int fail_with;

static atomic_uint unaligned; /* transfers begun at no multiple of what the request says */

static int spoil(const struct um_aio *io, int result)
{
	if (io->align && io->at % io->align)
		atomic_fetch_add(&unaligned, 1);
	if (atomic_fetch_add(&calls, 1) + 1 != fail_at)
		return result;
	if (fail_with < 0)
		return fail_with;
	return io->op == UM_AIO_SYNC || result < 512 ? result : 512; /* short */
}

static void on_done(struct um_aio *io)
{
	struct batch *b = io->arg;

	atomic_fetch_add(&b->done, 1);
}

static void batch_open(struct batch *b)
{
	memset(b, 0, sizeof(*b));
	strcpy(b->path, "/var/tmp/umbrafs-aio.XXXXXX");
	b->fd = mkstemp(b->path);
	assert_true(b->fd >= 0);
	assert_return_code(unlink(b->path), errno);
	b->buf = malloc((size_t)N * LEN);
	assert_non_null(b->buf);
}

static void batch_close(struct batch *b)
{
	close(b->fd);
	free(b->buf);
}

static void fill(struct batch *b)
{
	for (size_t i = 0; i < (size_t)N * LEN; i++)
		b->buf[i] = (uint8_t)(i / LEN * 7 + i);
}

/* Hands all in at once; how many failed. */
static unsigned run(struct batch *b, enum um_aio_op op)
{
	struct um_aio_engine *engine;
	unsigned failed = 0;

	assert_int_equal(um_aio_open("test", &engine), 0);
	atomic_store(&b->done, 0);
	for (unsigned i = 0; i < N; i++)
		b->io[i] = (struct um_aio){.op = op,
			.fd = b->fd,
			.buf = b->buf + (size_t)i * LEN,
			.len = LEN,
			.off = (uint64_t)i * LEN,
			.done = on_done,
			.arg = b,
			.next = i + 1 < N ? &b->io[i + 1] : NULL};
	um_aio_submit(engine, b->io);
	um_aio_close(engine);
	assert_int_equal(atomic_load(&b->done), N);
	for (unsigned i = 0; i < N; i++)
		failed += b->io[i].err != 0;
	return failed;
}

static void write_and_read(void)
{
	struct batch b;

	batch_open(&b);
	fill(&b);
	assert_int_equal(run(&b, UM_AIO_WRITE), 0);
	assert_int_equal(run(&b, UM_AIO_SYNC), 0);
	memset(b.buf, 0, (size_t)N * LEN);
	assert_int_equal(run(&b, UM_AIO_READ), 0);
	for (size_t i = 0; i < (size_t)N * LEN; i++)
		assert_int_equal(b.buf[i], (uint8_t)(i / LEN * 7 + i));
	batch_close(&b);
}

static void all_is_done_by_rings(void **state)
{
	(void)state;
	write_and_read();
}

static void and_by_threads(void **state)
{
	(void)state;
	um_aio_refuse_ring = true;
	write_and_read();
	um_aio_refuse_ring = false;
}

static void short_and_interrupted_ones_are_gone_on_with(void **state)
{
	static const int with[] = {0, -EINTR, -EAGAIN};

	(void)state;
	um_aio_fault = spoil;
	for (unsigned threads = 0; threads < 2; threads++) {
		um_aio_refuse_ring = threads;
		for (unsigned i = 0; i < 3; i++) {
			fail_with = with[i];
			atomic_store(&calls, 0);
			fail_at = 1 + 37 * i;
			write_and_read();
		}
	}
	um_aio_fault = NULL;
	um_aio_refuse_ring = false;
}

/* Direct I/O takes whole sectors only: what comes short is read anew from the start of one. */
static void short_direct_reads_are_gone_on_with_at_a_block(void **state)
{
	struct um_aio_engine *engine;
	struct batch b;

	(void)state;
	um_aio_fault = spoil;
	fail_with = 0;
	for (unsigned threads = 0; threads < 2; threads++) {
		um_aio_refuse_ring = threads;
		batch_open(&b);
		fail_at = 0;
		fill(&b);
		assert_int_equal(run(&b, UM_AIO_WRITE), 0);
		memset(b.buf, 0, LEN);
		atomic_store(&calls, 0);
		atomic_store(&unaligned, 0);
		fail_at = 1;
		assert_int_equal(um_aio_open("test", &engine), 0);
		b.io[0].op = UM_AIO_READ;
		b.io[0].align = 4096;
		b.io[0].next = NULL;
		um_aio_submit(engine, b.io);
		um_aio_close(engine);
		assert_int_equal(b.io[0].err, 0);
		assert_int_equal(atomic_load(&calls), 2);
		assert_int_equal(atomic_load(&unaligned), 0);
		for (size_t i = 0; i < LEN; i++)
			assert_int_equal(b.buf[i], (uint8_t)i);
		batch_close(&b);
	}
	um_aio_fault = NULL;
	um_aio_refuse_ring = false;
}

static int nothing_more(const struct um_aio *io, int result)
{
	(void)io;
	return result > 512 ? 512 : result;
}

static void and_given_up_when_they_stay_short(void **state)
{
	struct um_aio_engine *engine;
	struct batch b;

	(void)state;
	batch_open(&b);
	fill(&b);
	assert_int_equal(run(&b, UM_AIO_WRITE), 0);
	um_aio_fault = nothing_more;
	assert_int_equal(um_aio_open("test", &engine), 0);
	b.io[0].op = UM_AIO_READ;
	b.io[0].align = 4096;
	b.io[0].next = NULL;
	um_aio_submit(engine, b.io);
	um_aio_close(engine);
	um_aio_fault = NULL;
	assert_int_equal(b.io[0].err, -EIO);
	batch_close(&b);
}

static void a_failure_is_that_of_one_request(void **state)
{
	struct batch b;

	(void)state;
	um_aio_fault = spoil;
	fail_with = -EIO;
	for (unsigned threads = 0; threads < 2; threads++) {
		um_aio_refuse_ring = threads;
		for (unsigned op = UM_AIO_READ; op <= UM_AIO_SYNC; op++) {
			batch_open(&b);
			fail_at = 0;
			fill(&b);
			assert_int_equal(run(&b, UM_AIO_WRITE), 0);
			atomic_store(&calls, 0);
			fail_at = 100;
			assert_int_equal(run(&b, (enum um_aio_op)op), 1);
			batch_close(&b);
		}
	}
	um_aio_fault = NULL;
	um_aio_refuse_ring = false;
}

static void the_end_of_the_file_is_an_error(void **state)
{
	struct batch b;

	(void)state;
	batch_open(&b);
	assert_return_code(ftruncate(b.fd, LEN + 100), errno);
	assert_int_equal(run(&b, UM_AIO_READ), N - 1);
	batch_close(&b);
}

/* ---- by the caller itself ------------------------------------------------------------------------------------ */

#define READERS 3u
#define READS 1500u /* so many that both ways are tried, and tried again */

struct reader {
	struct batch b;
	struct um_aio_engine *engine;
	unsigned at, bad;
};

static void on_read(struct um_aio *io)
{
	(void)io;
}

static void *reader_main(void *arg)
{
	struct reader *r = arg;
	uint8_t *buf = malloc(LEN);

	for (unsigned i = 0; i < READS && buf; i++) {
		size_t k = (i * 7 + r->at) % N;
		struct um_aio io = {.op = UM_AIO_READ,
			.fd = r->b.fd,
			.buf = buf,
			.len = LEN,
			.off = (uint64_t)k * LEN,
			.done = on_read};

		memset(buf, 0, LEN);
		um_aio_here(r->engine, &io, true);
		r->bad += io.err || memcmp(buf, r->b.buf + k * LEN, LEN) != 0;
	}
	r->bad += !buf;
	free(buf);
	return NULL;
}

/* Polling or asleep, alone or not, interrupted and short ones as well. */
static void a_caller_reads_for_itself(void **state)
{
	static const uint64_t poll_ns[] = {0, 1, 50000, 1000000000};
	struct um_aio_engine *engine;
	struct reader r[READERS];
	pthread_t thread[READERS];
	struct batch b;

	(void)state;
	batch_open(&b);
	fill(&b);
	assert_int_equal(run(&b, UM_AIO_WRITE), 0);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(um_aio_open("test", &engine), 0);
		um_aio_poll(engine, poll_ns[i]);
		fail_with = 0;
		fail_at = 700;
		atomic_store(&calls, 0);
		um_aio_fault = spoil;
		for (unsigned k = 0; k < READERS; k++) {
			r[k] = (struct reader){.b = b, .engine = engine, .at = k * 31};
			assert_int_equal(pthread_create(&thread[k], NULL, reader_main, &r[k]), 0);
		}
		for (unsigned k = 0; k < READERS; k++) {
			assert_int_equal(pthread_join(thread[k], NULL), 0);
			assert_int_equal(r[k].bad, 0);
		}
		assert_int_equal(atomic_load(&calls), READERS * READS + 1); /* one went on */
		um_aio_fault = NULL;
		um_aio_close(engine);
	}
	batch_close(&b);
}

#define NO_POLLING "no polling here: one processor, or no io_uring of Linux 5.19"

static void *late_writer(void *arg)
{
	usleep(2000);
	return (void *)(uintptr_t)(write(*(int *)arg, "late", 4) != 4);
}

/* Only polling can read a pipe. A result that comes late is waited for, polling or not. */
static void a_late_result_is_waited_for(void **state)
{
	static const uint64_t max_ns[] = {1, 5000000000};

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct um_polled *p = um_polled_open(max_ns[i]);
		char buf[16] = "";
		ssize_t got = -ESPIPE;
		pthread_t thread;
		void *failed;
		int fds[2];

		if (!p)
			skip_because(NO_POLLING);
		assert_return_code(pipe(fds), errno);
		assert_int_equal(pthread_create(&thread, NULL, late_writer, &fds[1]), 0);
		for (unsigned k = 0; k < 100 && got == -ESPIPE; k++)
			got = um_polled_read(p, fds[0], buf, sizeof(buf), 0);
		assert_int_equal(got, 4);
		assert_memory_equal(buf, "late", 4);
		pthread_join(thread, &failed);
		assert_null(failed);
		close(fds[0]);
		close(fds[1]);
		um_polled_close(p);
	}
}

/* A result that polling brings is the kernel's: the bytes that there are, or the error. */
static void an_error_polled_for_is_reported(void **state)
{
	struct um_polled *p = um_polled_open(1000000);
	char buf[16];
	int fds[2];

	(void)state;
	if (!p)
		skip_because(NO_POLLING);
	assert_return_code(pipe(fds), errno);
	for (unsigned i = 0; i < 1100; i++) {
		assert_int_equal(um_polled_read(p, -1, buf, sizeof(buf), 0), -EBADF);
		assert_true(um_polled_read(p, fds[1], buf, sizeof(buf), 0) <
			    0); /* the end for writing */
	}
	close(fds[0]);
	close(fds[1]);
	um_polled_close(p);
}

/* ---- fetches ------------------------------------------------------------------------------------------------ */

struct want {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
	int err;
	size_t len;
	uint8_t bytes[3 << 20];
	unsigned turn; /* every other fetch gets mem */
	bool misplaced;
};

static _Alignas(4096) uint8_t mem[1 << 20];

/* Whoever has them in mem can move them to their places in one pass. */
static bool in_their_places(const struct iovec *iov, unsigned n)
{
	const uint8_t *place = mem;
	unsigned inside = 0;

	for (unsigned i = 0; i < n; place += iov[i++].iov_len) {
		const uint8_t *at = iov[i].iov_base;

		if (at < mem || at >= mem + sizeof(mem))
			continue;
		inside++;
		if (at < place || at + iov[i].iov_len > mem + sizeof(mem))
			return false;
	}
	return !inside || inside == n;
}

static void fetched(void *arg, int err, const struct iovec *iov, unsigned n)
{
	struct want *w = arg;

	pthread_mutex_lock(&w->lock);
	w->err = err;
	w->len = 0;
	w->misplaced = !in_their_places(iov, n);
	for (unsigned i = 0; i < n; i++) {
		memcpy(w->bytes + w->len, iov[i].iov_base, iov[i].iov_len);
		w->len += iov[i].iov_len;
	}
	w->done = true;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

static int fetch(struct umbra_fs *fs, uint64_t ino, uint64_t off, size_t len, struct want *w)
{
	int err;

	w->done = false;
	err = umbra_fetch(fs, ino, off, len, w->turn++ % 2 ? mem : NULL, fetched, w);
	if (err)
		return err;
	pthread_mutex_lock(&w->lock);
	while (!w->done)
		pthread_cond_wait(&w->cond, &w->lock);
	pthread_mutex_unlock(&w->lock);
	assert_false(w->misplaced);
	return w->err;
}

static uint64_t make_file(struct umbra_fs *fs, const char *name)
{
	struct umbra_cred cred = {0};
	struct umbra_attr attr;

	assert_int_equal(umbra_mknod(fs, 1, name, S_IFREG | 0644, 0, &cred, &attr), 0);
	return attr.st.st_ino;
}

/* Every part of a file with holes, an unaligned end and pieces here and there equals what a plain
 * read gives. */
static void fetches_read_what_reads_read(void **state)
{
	static const size_t lens[] = {1, 100, 4096, 5000, 70000, 1 << 20};
	char path[] = "/var/tmp/umbrafs-fetch.XXXXXX";
	struct umbra_mkfs_options mkfs = {.size = 64 << 20, .force = true};
	struct want *w = calloc(1, sizeof(*w));
	uint8_t *plain = malloc(3 << 20);
	struct umbra_fs *fs;
	uint64_t ino, small;
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0 && w && plain);
	close(fd);
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->cond, NULL);
	assert_int_equal(umbra_mkfs(path, &mkfs, NULL), 0);
	assert_int_equal(umbra_open(path, NULL, &fs), 0);
	ino = make_file(fs, "f");
	small = make_file(fs, "small");
	for (size_t i = 0; i < 3 << 20; i++)
		plain[i] = (uint8_t)(i * 31 + i / 4096);
	assert_int_equal(umbra_write(fs, small, plain, 77, 0, 0, NULL), 77);
	assert_int_equal(umbra_write(fs, ino, plain, 900000, 0, 0, NULL), 900000);
	for (unsigned i = 0; i < 40; i++)
		assert_int_equal(
			umbra_write(fs, ino, plain, 4096, 1000000 + 12288 * i, 0, NULL), 4096);
	assert_int_equal(umbra_write(fs, ino, plain, 300001, 2000000, 0, NULL), 300001);
	for (unsigned l = 0; l < sizeof(lens) / sizeof(lens[0]); l++) {
		for (uint64_t off = 0; off < 2400000; off += 1 + lens[l] * 3 / 2 + 40000) {
			ssize_t n = umbra_read(fs, ino, plain, lens[l], off);

			for (unsigned turn = 0; turn < 2; turn++) {
				assert_int_equal(fetch(fs, ino, off, lens[l], w), 0);
				assert_int_equal(w->len, n);
				assert_memory_equal(w->bytes, plain, (size_t)n);
			}
		}
	}
	assert_int_equal(fetch(fs, small, 7, 4096, w), 0);
	assert_int_equal(w->len, 70);
	assert_int_equal(fetch(fs, 999, 0, 4096, w), -ESTALE);
	assert_int_equal(umbra_close(fs), 0);
	unlink(path);
	free(plain);
	free(w);
}

#define CROWD 60u

struct crowd {
	pthread_mutex_t lock; /* held while they are handed in: so all are under way at once */
	pthread_cond_t cond;
	const uint8_t *plain;
	unsigned done, wrong;
	struct member {
		struct crowd *crowd;
		uint64_t off;
		size_t len;
	} member[CROWD];
};

static void crowd_fetched(void *arg, int err, const struct iovec *iov, unsigned n)
{
	const struct member *m = arg;
	struct crowd *c = m->crowd;
	size_t at = 0;
	bool wrong = err;

	pthread_mutex_lock(&c->lock);
	for (unsigned i = 0; i < n; at += iov[i++].iov_len)
		wrong = wrong || at + iov[i].iov_len > m->len ||
			memcmp(iov[i].iov_base, c->plain + m->off + at, iov[i].iov_len);
	c->wrong += wrong || at != m->len;
	c->done++;
	pthread_cond_signal(&c->cond);
	pthread_mutex_unlock(&c->lock);
}

/* More large reads at once than there are buffers that are kept; each has bytes of its own. Twice, as buffers return. */
static void large_fetches_in_a_crowd(void **state)
{
	char path[] = "/var/tmp/umbrafs-fetch.XXXXXX";
	struct umbra_mkfs_options mkfs = {.size = 64 << 20, .force = true};
	struct crowd *c = calloc(1, sizeof(*c));
	uint8_t *plain = malloc(3 << 20);
	struct umbra_fs *fs;
	uint64_t ino;
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0 && c && plain);
	close(fd);
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->cond, NULL);
	for (size_t i = 0; i < 3 << 20; i++)
		plain[i] = (uint8_t)(i * 31 + i / 4096);
	c->plain = plain;
	assert_int_equal(umbra_mkfs(path, &mkfs, NULL), 0);
	assert_int_equal(umbra_open(path, NULL, &fs), 0);
	ino = make_file(fs, "f");
	assert_int_equal(umbra_write(fs, ino, plain, 3 << 20, 0, 0, NULL), 3 << 20);
	for (unsigned turn = 0; turn < 2; turn++) {
		c->done = 0;
		pthread_mutex_lock(&c->lock);
		for (unsigned i = 0; i < CROWD; i++) {
			struct member *m = &c->member[i];

			*m = (struct member){c, i * 30011 + turn * 4096, i % 3 ? 1 << 20 : 200000};
			assert_int_equal(
				umbra_fetch(fs, ino, m->off, m->len, NULL, crowd_fetched, m), 0);
		}
		while (c->done < CROWD)
			pthread_cond_wait(&c->cond, &c->lock);
		pthread_mutex_unlock(&c->lock);
		assert_int_equal(c->wrong, 0);
	}
	assert_int_equal(umbra_close(fs), 0);
	unlink(path);
	free(plain);
	free(c);
}

static uint64_t bad_off; /* the block there fails */

static int fail_bad(const struct um_aio *io, int result)
{
	bool meets = io->off < bad_off + 4096 && bad_off < io->off + io->len;

	return io->op == UM_AIO_READ && meets ? -EIO : result;
}

static int note_lba(void *arg, const struct umbra_extent *e)
{
	*(uint64_t *)arg = e->lba;
	return 1;
}

/*
 * A read that the medium refuses: the mapping has the bytes, or fails too, and then they are made
 * again from parity. Without parity it is an error, unless they are found elsewhere.
 */
static void what_a_direct_read_cannot_have_comes_another_way(void **state)
{
	char path[] = "/var/tmp/umbrafs-fetch.XXXXXX";
	struct umbra_mkfs_options mkfs = {.size = 64 << 20, .force = true};
	struct want *w = calloc(1, sizeof(*w));
	uint8_t *plain = malloc(100000);
	struct umbra_fs *fs;
	uint64_t ino, lba;
	int fd = mkstemp(path), empty, err;

	(void)state;
	assert_true(fd >= 0 && w && plain);
	close(fd);
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->cond, NULL);
	for (unsigned parity = 0; parity < 2; parity++) {
		mkfs.parity = parity;
		assert_int_equal(umbra_mkfs(path, &mkfs, NULL), 0);
		assert_int_equal(umbra_open(path, NULL, &fs), 0);
		ino = make_file(fs, "f");
		for (size_t i = 0; i < 100000; i++)
			plain[i] = (uint8_t)(i * 31 + i / 4096);
		assert_int_equal(umbra_write(fs, ino, plain, 100000, 0, 0, NULL), 100000);
		assert_int_equal(umbra_sync(fs), 0);
		umbra_map(fs, ino, 8192, 4096, note_lba, &lba);
		bad_off = lba * 4096;
		um_aio_fault = fail_bad;
		assert_int_equal(fetch(fs, ino, 0, 100000, w), 0);
		assert_int_equal(w->len, 100000);
		assert_memory_equal(w->bytes, plain, 100000);
		/* Now loads fail, too. */
		empty = memfd_create("bad", MFD_CLOEXEC);
		assert_ptr_not_equal(mmap(fs->pool->base + bad_off, 4096, PROT_READ | PROT_WRITE,
					     MAP_SHARED | MAP_FIXED, empty, 0),
			MAP_FAILED);
		close(empty);
		err = fetch(fs, ino, 5000, 9000, w);
		assert_true(!err || (err == -EIO && !parity));
		if (!err)
			assert_memory_equal(w->bytes, plain + 5000, 9000);
		assert_int_equal(fetch(fs, ino, 12288, 9000, w), 0);
		um_aio_fault = NULL;
		assert_int_equal(umbra_close(fs), 0);
	}
	unlink(path);
	free(plain);
	free(w);
}

static void count_syncs(void *arg, const char *name, uint64_t value)
{
	if (!strcmp(name, "syncs"))
		*(uint64_t *)arg = value;
}

static void synced(void *arg, int err)
{
	struct want *w = arg;

	pthread_mutex_lock(&w->lock);
	w->err = err;
	w->done = true;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

/* A pool without background commits at path, a template of mkstemp, and what the answers are written to. */
static struct umbra_fs *open_quiet(char *path, struct want **out)
{
	struct umbra_mkfs_options mkfs = {.size = 64 << 20, .force = true};
	struct umbra_options opt = {.commit_seconds = 3600};
	struct want *w = calloc(1, sizeof(*w));
	struct umbra_fs *fs;
	int fd = mkstemp(path);

	assert_true(fd >= 0 && w);
	close(fd);
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->cond, NULL);
	assert_int_equal(umbra_mkfs(path, &mkfs, NULL), 0);
	assert_int_equal(umbra_open(path, &opt, &fs), 0);
	*out = w;
	return fs;
}

static void close_quiet(struct umbra_fs *fs, const char *path, struct want *w)
{
	assert_int_equal(umbra_close(fs), 0);
	unlink(path);
	free(w);
}

/* What fsync said, and whether it was there at once. */
static bool wait_synced(struct want *w)
{
	bool at_once;

	pthread_mutex_lock(&w->lock);
	at_once = w->done;
	while (!w->done)
		pthread_cond_wait(&w->cond, &w->lock);
	pthread_mutex_unlock(&w->lock);
	assert_int_equal(w->err, 0);
	return at_once;
}

/* What has to be durable before it is acknowledged: whoever writes is told, and may do other things
 * meanwhile. */
static void a_synchronous_write_waits_for_nothing(void **state)
{
	char path[] = "/var/tmp/umbrafs-fetch.XXXXXX";
	struct want *w;
	uint64_t ino, before, after;
	struct umbra_fs *fs;
	bool sync;

	(void)state;
	fs = open_quiet(path, &w);
	ino = make_file(fs, "f");
	umbra_stat(fs, count_syncs, &before);
	assert_int_equal(umbra_write_start(fs, ino, "abc", 3, 0, 0, &sync), 3);
	assert_false(sync);
	assert_int_equal(umbra_write_start(fs, ino, "abc", 3, 0, UMBRA_WRITE_SYNC, &sync), 3);
	assert_true(sync);
	assert_int_equal(umbra_set_flags(fs, ino, FS_SYNC_FL), 0);
	assert_int_equal(umbra_write_start(fs, ino, "abc", 3, 9000, 0, &sync), 3);
	assert_true(sync);
	umbra_stat(fs, count_syncs, &after);
	assert_int_equal(before, after);
	umbra_fsync_start(fs, ino, false, true, synced, w);
	wait_synced(w);
	umbra_stat(fs, count_syncs, &after);
	assert_int_equal(after, before + 1);
	assert_int_equal(umbra_write(fs, ino, "abc", 3, 90000, 0, NULL), 3);
	umbra_stat(fs, count_syncs, &after);
	assert_int_equal(after, before + 2);
	close_quiet(fs, path, w);
}

/* The first round shows how quick the medium is; on memory the answer then comes before the call returns. */
static void a_quick_medium_is_waited_for(void **state)
{
	char path[] = "/dev/shm/umbrafs-fetch.XXXXXX";
	struct want *w;
	unsigned here = 0, i;
	struct umbra_fs *fs;
	uint64_t ino;

	(void)state;
	fs = open_quiet(path, &w);
	ino = make_file(fs, "f");
	for (i = 0; i < 1000 && here < 10; i++) {
		assert_int_equal(umbra_write(fs, ino, "abc", 3, i, 0, NULL), 3);
		w->done = false;
		umbra_fsync_start(fs, ino, false, true, synced, w);
		here += wait_synced(w);
	}
	assert_int_equal(here, 10);
	close_quiet(fs, path, w);
}

/* Each completion of a long read, in turn: what the file has comes all the same. */
static void whatever_a_completion_says_the_bytes_come(void **state)
{
	static const int with[] = {0 /* short */, -EIO, -ENOSPC, -EAGAIN, -EINTR, -EINVAL};
	char path[] = "/var/tmp/umbrafs-fetch.XXXXXX";
	struct umbra_mkfs_options mkfs = {.size = 64 << 20, .force = true};
	struct want *w = calloc(1, sizeof(*w));
	uint8_t *plain = malloc(600000);
	struct umbra_fs *fs;
	unsigned n, tried = 0;
	uint64_t ino;
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0 && w && plain);
	close(fd);
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->cond, NULL);
	assert_int_equal(umbra_mkfs(path, &mkfs, NULL), 0);
	for (unsigned threads = 0; threads < 2; threads++) {
		um_aio_refuse_ring = threads;
		assert_int_equal(umbra_open(path, NULL, &fs), 0);
		um_aio_refuse_ring = false;
		ino = make_file(fs, threads ? "t" : "r");
		for (size_t i = 0; i < 600000; i++)
			plain[i] = (uint8_t)(i * 7 + i / 4096);
		/* In pieces: blocks of other files lie between. */
		for (unsigned i = 0; i < 600000 / 20000; i++) {
			assert_int_equal(
				umbra_write(fs, ino, plain + i * 20000, 20000, i * 20000, 0, NULL),
				20000);
			assert_int_equal(umbra_write(fs,
						 make_file(fs, (char[]){(char)('A' + i),
								       threads ? 't' : 'r', 0}),
						 plain, 8192, 0, 0, NULL),
				8192);
		}
		um_aio_fault = spoil;
		for (unsigned e = 0; e < sizeof(with) / sizeof(with[0]); e++) {
			fail_with = with[e];
			n = 1;
			for (unsigned k = 1; k <= n; k++, tried++) {
				atomic_store(&calls, 0);
				fail_at = k;
				assert_int_equal(fetch(fs, ino, 0, 600000, w), 0);
				assert_int_equal(w->len, 600000);
				assert_memory_equal(w->bytes, plain, 600000);
				if (k == 1)
					n = atomic_load(&calls);
			}
		}
		um_aio_fault = NULL;
		assert_int_equal(umbra_close(fs), 0);
	}
	assert_true(tried > 12); /* there were several */
	unlink(path);
	free(plain);
	free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_is_done_by_rings),
		cmocka_unit_test(and_by_threads),
		cmocka_unit_test(short_and_interrupted_ones_are_gone_on_with),
		cmocka_unit_test(a_failure_is_that_of_one_request),
		cmocka_unit_test(the_end_of_the_file_is_an_error),
		cmocka_unit_test(short_direct_reads_are_gone_on_with_at_a_block),
		cmocka_unit_test(and_given_up_when_they_stay_short),
		cmocka_unit_test(a_caller_reads_for_itself),
		cmocka_unit_test(a_late_result_is_waited_for),
		cmocka_unit_test(an_error_polled_for_is_reported),
		cmocka_unit_test(fetches_read_what_reads_read),
		cmocka_unit_test(large_fetches_in_a_crowd),
		cmocka_unit_test(what_a_direct_read_cannot_have_comes_another_way),
		cmocka_unit_test(whatever_a_completion_says_the_bytes_come),
		cmocka_unit_test(a_synchronous_write_waits_for_nothing),
		cmocka_unit_test(a_quick_medium_is_waited_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
