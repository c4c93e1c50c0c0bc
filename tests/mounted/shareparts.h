/* SPDX-License-Identifier: BSD-3-Clause */
/* shareparts: what must be in the files, the ways of reading them, and what this process has open. */
#ifndef TESTS_MOUNTED_SHAREPARTS_H
#define TESTS_MOUNTED_SHAREPARTS_H

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/sendfile.h>

#include "views.h"

enum {
	UNIT = 512,
	PAGE = 4096,
	PER = PAGE / UNIT,
	FILES = 6,
	PROCESSES = 4,
	PAGES = 48, /* that all files have */
	TAIL = 16,  /* more at most */
	ALL = PAGES + TAIL,
	UNITS = ALL * PER,
	WORDS = UNIT / 8,
	ROUND = 120, /* operations */
	RUN = 6,     /* pages, of one owner */
};

struct file {
	uint64_t stamp[UNITS]; /* 0: zeros */
	unsigned char owner[ALL];
	unsigned size; /* units; of the owner of the tail */
};

struct shared {
	struct file file[FILES];
	_Atomic uint64_t stamp;
	atomic_bool failed, ends, writeback;
	pthread_barrier_t barrier;
	unsigned victim; /* of the end of the round; FILES: none */
	unsigned views;  /* files that everybody first opens for reading in this round: bits */
	unsigned what;
	atomic_ulong ops, refused, clones, rounds;
};

static struct shared *sh;

static struct handle {
	int fd, direct, ro; /* -1: not open */
	unsigned char *map; /* of fd, or of ro; ALL pages */
	bool stores;        /* may store to it */
} handle[FILES];

static uint64_t *buf, *got;       /* aligned, of a file's length */
static char last[FILES][ALL][24]; /* what this process last did to a page */

static struct file *of(unsigned f)
{
	return &sh->file[f];
}

static const char *path_of(unsigned f)
{
	static char path[2][300];
	static unsigned turn;
	char *p = path[turn ^= 1];

	snprintf(p, sizeof(path[0]), "%s/p%u", dir, f);
	return p;
}

/* ---- what must be there ------------------------------------------------------------------------------- */

static void fill(uint64_t *out, uint64_t stamp)
{
	for (unsigned i = 0; i < WORDS; i++)
		out[i] = stamp ? stamp * 0x9e3779b97f4a7c15ull + i : 0;
}

static void fill_range(uint64_t *out, const struct file *x, unsigned u, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		fill(out + (size_t)i * WORDS, x->stamp[u + i]);
}

static void expect(const uint64_t *is, unsigned f, unsigned u, unsigned n, const char *how)
{
	static uint64_t want[WORDS];

	for (unsigned i = 0; i < n; i++) {
		fill(want, of(f)->stamp[u + i]);
		for (unsigned w = 0; w < WORDS; w++)
			if (is[(size_t)i * WORDS + w] != want[w])
				fail("file %u, page %u, byte %u, by %s: %llx, must be %llx (stamp "
				     "%llu); "
				     "the page is owned by %u; last here: %s; range %u+%u units",
					f, (u + i) / PER, (u + i) % PER * UNIT + w * 8, how,
					(unsigned long long)is[(size_t)i * WORDS + w],
					(unsigned long long)want[w],
					(unsigned long long)of(f)->stamp[u + i],
					of(f)->owner[(u + i) / PER], last[f][(u + i) / PER], u, n);
	}
}

/* ---- reading ---------------------------------------------------------------------------------------- */

static void read_all(int fd, void *to, unsigned u, unsigned n)
{
	for (size_t done = 0, len = (size_t)n * UNIT; done < len;) {
		ssize_t r =
			pread(fd, (char *)to + done, len - done, (off_t)((size_t)u * UNIT + done));

		if (r <= 0)
			fail("read of %zu at %zu: %zd %s", len - done, (size_t)u * UNIT + done, r,
				r ? strerror(errno) : "");
		done += (size_t)r;
	}
}

static void read_pipe(int fd, void *to, unsigned u, unsigned n)
{
	off_t off = (off_t)u * UNIT;
	size_t len = (size_t)n * UNIT, done = 0;
	int p[2];

	CHECK(!pipe(p));
	while (done < len) {
		size_t part = len - done < 32768 ? len - done : 32768;
		ssize_t r = rnd(2) ? splice(fd, &off, p[1], NULL, part, 0)
				   : sendfile(p[1], fd, &off, part);

		CHECK(r > 0);
		for (ssize_t in = 0; in < r;) {
			ssize_t k = read(p[0], (char *)to + done, (size_t)(r - in));

			CHECK(k > 0);
			in += k;
			done += (size_t)k;
		}
	}
	close(p[0]);
	close(p[1]);
}

static int any_fd(unsigned f)
{
	const struct handle *h = &handle[f];

	return h->fd >= 0 && (h->ro < 0 || rnd(2)) ? h->fd : h->ro;
}

/* In one of the ways that are open. */
static void look(unsigned f, unsigned u, unsigned n, unsigned way)
{
	struct handle *h = &handle[f];
	int fd = any_fd(f);

	if (way == 0 && h->direct >= 0) {
		read_all(h->direct, got, u, n);
		expect(got, f, u, n, "direct read");
	} else if (way == 1 && h->map) {
		memcpy(got, h->map + (size_t)u * UNIT, (size_t)n * UNIT);
		expect(got, f, u, n, "mapping");
	} else if (way == 2 && fd >= 0) {
		read_pipe(fd, got, u, n);
		expect(got, f, u, n, "splice");
	} else if (way == 3) {
		fd = open(path_of(f), O_RDONLY | (rnd(4) ? 0 : O_DIRECT));
		CHECK(fd >= 0);
		read_all(fd, got, u, n);
		close(fd);
		expect(got, f, u, n, "a new open");
	} else if (fd >= 0) {
		read_all(fd, got, u, n);
		expect(got, f, u, n, fd == h->ro ? "read of ro" : "read");
	}
}

/* ---- handles ------------------------------------------------------------------------------------------ */

static void release(unsigned f)
{
	struct handle *h = &handle[f];

	if (h->map) {
		if (rnd(2))
			CHECK(!munmap(h->map, ALL * PAGE));
		else
			CHECK(mmap(h->map, ALL * PAGE, PROT_NONE,
				      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == h->map);
		munmap(h->map, ALL * PAGE);
	}
	if (h->fd >= 0)
		close(h->fd);
	if (h->direct >= 0)
		close(h->direct);
	if (h->ro >= 0)
		close(h->ro);
	*h = (struct handle){-1, -1, -1, NULL, false};
}

static int open_for_writing(unsigned f, int flags)
{
	int fd = open(path_of(f), O_RDWR | flags);

	if (fd < 0 && errno == ETXTBSY)
		atomic_fetch_add(&sh->refused, 1);
	else if (fd < 0)
		fail("open %u: %s", f, strerror(errno));
	return fd;
}

static void acquire(unsigned f)
{
	struct handle *h = &handle[f];
	unsigned how = rnd(8);

	if (how < 4 && h->ro < 0) {
		h->ro = open(path_of(f), O_RDONLY);
		CHECK(h->ro >= 0);
	}
	if (how != 0 && how != 4)
		h->fd = open_for_writing(f, 0);
	if (how == 4 || how == 5 || how == 2)
		h->direct = open_for_writing(f, O_DIRECT);
	if (rnd(4) && (h->fd >= 0 || h->ro >= 0)) {
		h->stores = h->fd >= 0;
		h->map = mmap(NULL, ALL * PAGE, h->stores ? PROT_READ | PROT_WRITE : PROT_READ,
			MAP_SHARED, h->stores ? h->fd : h->ro, 0);
		CHECK(h->map != MAP_FAILED);
	}
}

#endif
