/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Coherence of shared views: processes that open, read, map, write, clone, truncate, punch, rename over
 * and unlink clones of one file at random. Each process changes files of its own only, so that it knows
 * what every byte must be; all their files begin as clones of one base, so that all are in the same views.
 *
 *   viewtest DIR SEED PROCESSES OPERATIONS
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "views.h"

enum { FILES = 5, SLOTS = 10, MAPS = 10, PAGE = 4096, MAX = 512 << 10, BASE = 192 << 10 };

/* What an inode must contain. */
struct content {
	unsigned refs; /* names, slots, maps */
	size_t size;
	unsigned readers; /* slots and maps that may be in a view */
	unsigned char data[MAX];
};

struct slot {
	struct content *c;
	int fd;
	bool writes;
};
struct map {
	struct content *c;
	unsigned char *at;
	bool writes;
};

static unsigned long nbusy;
static struct content *name[FILES];
static struct slot slot[SLOTS];
static struct map map[MAPS];
static unsigned char base[BASE];

static const char *path_of(unsigned i)
{
	static char path[4][320];
	static unsigned at;

	at = (at + 1) % 4;
	snprintf(path[at], sizeof(path[at]), "%s/p%u.%u", dir, me, i);
	return path[at];
}

static void put(struct content *c)
{
	if (!--c->refs)
		free(c);
}

static bool same(const struct content *c, const unsigned char *got, size_t off, size_t len)
{
	return !memcmp(c->data + off, got, len);
}

static void differs(const struct content *c, const unsigned char *got, size_t off, size_t len)
{
	size_t i = 0;

	while (i < len && c->data[off + i] == got[i])
		i++;
	fail("byte %zu is %02x, must be %02x (size %zu)", off + i, got[i], c->data[off + i],
		c->size);
}

/* A range within the file; false when it is empty. */
static bool range(const struct content *c, size_t *off, size_t *len)
{
	if (!c->size)
		return false;
	*off = rnd((uint32_t)c->size);
	*len = 1 + rnd(rnd(3) ? PAGE : 64 << 10);
	if (*len > c->size - *off)
		*len = c->size - *off;
	return true;
}

/* ---- operations ------------------------------------------------------------------------------------ */

/* A new file over the name, or none before: a clone of the base or of another. */
static void op_new(void)
{
	unsigned i = rnd(FILES), from = rnd(FILES);
	struct content *c = calloc(1, sizeof(*c));
	char tmp[320], basepath[320];
	int src, dst;

	op = "new";
	snprintf(tmp, sizeof(tmp), "%s/p%u.tmp", dir, me);
	snprintf(basepath, sizeof(basepath), "%s/base", dir);
	dst = open(tmp, O_RDWR | O_CREAT | O_EXCL, 0644);
	CHECK(dst >= 0);
	if (rnd(3) && name[from] && name[from]->size) {
		src = open(path_of(from), O_RDONLY);
		c->size = name[from]->size;
		memcpy(c->data, name[from]->data, c->size);
	} else {
		src = open(basepath, O_RDONLY);
		c->size = BASE;
		memcpy(c->data, base, BASE);
	}
	CHECK(src >= 0);
	clone_into(src, dst, 0, 0);
	close(src);
	close(dst);
	if (name[i] && !rnd(4)) {
		CHECK(!unlink(path_of(i)));
		CHECK(!rename(tmp, path_of(i)));
	} else {
		CHECK(!rename(tmp, path_of(i)));
	}
	if (name[i])
		put(name[i]);
	c->refs = 1;
	name[i] = c;
}

static void op_open(void)
{
	struct slot *s = &slot[rnd(SLOTS)];
	unsigned i = rnd(FILES);
	bool writes = !rnd(3), cut = writes && !rnd(12);
	int fd;

	op = writes ? "open for writing" : "open for reading";
	if (s->c || !name[i])
		return;
	fd = open(path_of(i),
		(writes ? O_RDWR : O_RDONLY) | (cut ? O_TRUNC : 0) | (rnd(10) ? 0 : O_DIRECT));
	if (fd < 0 && errno == ETXTBSY && writes && name[i]->readers) {
		nbusy++;
		return;
	}
	CHECK(fd >= 0);
	if (cut) {
		memset(name[i]->data, 0, name[i]->size);
		name[i]->size = 0;
	}
	*s = (struct slot){name[i], fd, writes};
	s->c->refs++;
	s->c->readers += !writes;
}

static void op_close(void)
{
	struct slot *s = &slot[rnd(SLOTS)];

	op = "close";
	if (!s->c)
		return;
	CHECK(!close(s->fd));
	s->c->readers -= !s->writes;
	put(s->c);
	s->c = NULL;
}

static void op_map(void)
{
	struct slot *s = &slot[rnd(SLOTS)];
	struct map *m = &map[rnd(MAPS)];
	int prot = PROT_READ | (s->writes ? PROT_WRITE : 0);

	op = "mmap";
	if (!s->c || m->c)
		return;
	m->at = mmap(NULL, MAX, prot, MAP_SHARED, s->fd, 0);
	CHECK(m->at != MAP_FAILED);
	m->c = s->c;
	m->writes = s->writes;
	m->c->refs++;
	m->c->readers++;
}

static void op_unmap(void)
{
	struct map *m = &map[rnd(MAPS)];

	op = "munmap";
	if (!m->c)
		return;
	CHECK(!munmap(m->at, MAX));
	m->c->readers--;
	put(m->c);
	m->c = NULL;
}

/* A buffer that O_DIRECT takes; whole blocks are asked for, and what is behind the end does not count. */
static unsigned char *buffer(void)
{
	static unsigned char *buf;

	if (!buf && posix_memalign((void **)&buf, PAGE, MAX + PAGE))
		fail("no memory");
	return buf;
}

static void op_read(void)
{
	const struct slot *s = &slot[rnd(SLOTS)];
	unsigned char *buf = buffer();
	size_t off, len;
	ssize_t n;

	op = "read";
	if (!s->c || !range(s->c, &off, &len))
		return;
	off -= off % PAGE;
	len = (len + PAGE - 1) / PAGE * PAGE;
	n = pread(s->fd, buf, len, (off_t)off);
	if (len > s->c->size - off)
		len = s->c->size - off;
	if (n != (ssize_t)len)
		fail("%zd bytes (%s), must be %zu at %zu of %zu", n, n < 0 ? strerror(errno) : "-",
			len, off, s->c->size);
	if (!same(s->c, buf, off, len))
		differs(s->c, buf, off, len);
}

static void op_load(void)
{
	const struct map *m = &map[rnd(MAPS)];
	size_t off, len;

	op = m->writes ? "load from a writable mapping" : "load from a mapping";
	if (m->c && range(m->c, &off, &len) && !same(m->c, m->at + off, off, len))
		differs(m->c, m->at + off, off, len);
}

static void op_store(void)
{
	const struct map *m = &map[rnd(MAPS)];
	size_t off, len;

	op = "store";
	if (!m->c || !m->writes || !range(m->c, &off, &len))
		return;
	memset(m->c->data + off, (int)rnd(256), len);
	memcpy(m->at + off, m->c->data + off, len);
	if (!rnd(4))
		CHECK(!msync(m->at, MAX, MS_SYNC));
}

static struct slot *writer(void)
{
	struct slot *s = &slot[rnd(SLOTS)];

	return s->c && s->writes ? s : NULL;
}

static void op_write(void)
{
	struct slot *s = writer();
	unsigned char *buf = buffer();
	size_t off, len;

	op = "write";
	if (!s)
		return;
	off = rnd(MAX / PAGE - 4) * PAGE;
	len = (1 + rnd(4)) * PAGE;
	if (fcntl(s->fd, F_GETFL) & O_DIRECT || off > s->c->size + 8 * PAGE) {
		off = s->c->size / PAGE * PAGE;
		if (off + len > MAX)
			return;
	} else {
		off += rnd(PAGE);
		len -= rnd(PAGE);
		if (off + len > MAX)
			return;
	}
	for (size_t i = 0; i < len; i += 64)
		memset(buf + i, (int)rnd(256), 64);
	CHECK(pwrite(s->fd, buf, len, (off_t)off) == (ssize_t)len);
	memcpy(s->c->data + off, buf, len);
	if (off + len > s->c->size)
		s->c->size = off + len;
}

static void op_truncate(void)
{
	struct slot *s = writer();
	struct content *c;
	unsigned i = rnd(FILES);
	size_t size;

	op = "truncate";
	c = s ? s->c : name[i];
	if (!c || rnd(3))
		return;
	size = rnd(2) ? rnd(MAX) : c->size > 5000 ? c->size - rnd(5000) : BASE;
	if (s) {
		CHECK(!ftruncate(s->fd, (off_t)size));
	} else if (truncate(path_of(i), (off_t)size)) {
		if (errno == ETXTBSY && c->readers) {
			nbusy++;
			return;
		}
		fail("truncate: %s", strerror(errno));
	}
	if (size < c->size)
		memset(c->data + size, 0, c->size - size);
	c->size = size;
}

static void op_punch(void)
{
	struct slot *s = writer();
	size_t off, len;

	op = "punch";
	if (!s || !range(s->c, &off, &len))
		return;
	CHECK(!fallocate(s->fd,
		rnd(2) ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
		       : FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
		(off_t)off, (off_t)len));
	memset(s->c->data + off, 0, len);
}

static void op_copy(void)
{
	const struct slot *from = &slot[rnd(SLOTS)];
	struct slot *to = writer();
	size_t off, len, at;
	off_t in, out;
	ssize_t n;

	op = "copy_file_range";
	if (!from->c || !to || from->c == to->c || !range(from->c, &off, &len))
		return;
	at = rnd(BASE);
	if (rnd(2)) {
		off -= off % PAGE;
		at -= at % PAGE;
	}
	if (at + len > MAX)
		return;
	in = (off_t)off;
	out = (off_t)at;
	n = copy_file_range(from->fd, &in, to->fd, &out, len, 0);
	if (n < 0 && errno == EBADF)
		return; /* from is write-only: there are none, so a kernel that cannot */
	CHECK(n > 0);
	memcpy(to->c->data + at, from->c->data + off, (size_t)n);
	if (at + (size_t)n > to->c->size)
		to->c->size = at + (size_t)n;
}

/* The whole of another file into one that is open, also mapped. */
static void op_clone(void)
{
	const struct slot *from = &slot[rnd(SLOTS)];
	struct slot *to = writer();

	op = "clone";
	if (!from->c || !to || from->c == to->c || !from->c->size || to->c->size > from->c->size)
		return;
	clone_into(from->fd, to->fd, 0, 0);
	memcpy(to->c->data, from->c->data, from->c->size);
	to->c->size = from->c->size;
}

static void op_stat(void)
{
	unsigned i = rnd(FILES);
	struct stat st;

	op = "stat";
	if (!name[i])
		return;
	CHECK(!stat(path_of(i), &st));
	if ((size_t)st.st_size != name[i]->size)
		fail("size %lld, must be %zu", (long long)st.st_size, name[i]->size);
}

static void op_other(void)
{
	const struct slot *s = &slot[rnd(SLOTS)];

	op = "fsync or fadvise";
	if (!s->c)
		return;
	if (rnd(2))
		CHECK(!fsync(s->fd));
	else
		posix_fadvise(s->fd, 0, 0, POSIX_FADV_WILLNEED);
}

/* ---- all ------------------------------------------------------------------------------------------------ */

static void check_all(void)
{
	unsigned char *buf = buffer();

	op = "last check";
	for (unsigned i = 0; i < FILES; i++) {
		int fd = name[i] ? open(path_of(i), O_RDONLY) : -1;
		ssize_t n;

		if (!name[i])
			continue;
		CHECK(fd >= 0);
		n = pread(fd, buf, MAX, 0);
		if (n != (ssize_t)name[i]->size)
			fail("%zd bytes, must be %zu", n, name[i]->size);
		if (!same(name[i], buf, 0, (size_t)n))
			differs(name[i], buf, 0, (size_t)n);
		close(fd);
	}
	for (unsigned i = 0; i < MAPS; i++)
		if (map[i].c && !same(map[i].c, map[i].at, 0, map[i].c->size))
			differs(map[i].c, map[i].at, 0, map[i].c->size);
}

static int work(unsigned long count)
{
	static void (*const ops[])(void) = {op_new, op_open, op_open, op_open, op_close, op_close,
		op_map, op_map, op_unmap, op_read, op_read, op_read, op_load, op_load, op_load,
		op_store, op_write, op_write, op_truncate, op_punch, op_copy, op_clone, op_stat,
		op_other};

	for (nops = 0; nops < count; nops++)
		ops[rnd(sizeof(ops) / sizeof(ops[0]))]();
	check_all();
	printf("process %u: %lu operations, ETXTBSY %lu\n", me, nops, nbusy);
	return 0;
}

static void make_base(void)
{
	char path[320];
	int fd;

	for (size_t i = 0; i < BASE; i++)
		base[i] = (unsigned char)rnd(256);
	snprintf(path, sizeof(path), "%s/base", dir);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
	if (fd < 0 || write(fd, base, BASE) != BASE || close(fd)) {
		perror(path);
		exit(1);
	}
}

int main(int argc, char **argv)
{
	unsigned procs;
	int status, bad = 0;

	if (argc != 5) {
		fprintf(stderr, "usage: viewtest DIR SEED PROCESSES OPERATIONS\n");
		return 2;
	}
	snprintf(dir, sizeof(dir), "%s", argv[1]);
	rnd_state = strtoull(argv[2], NULL, 10) * 0x9e3779b97f4a7c15ull + 1;
	procs = (unsigned)atoi(argv[3]);
	make_base();
	for (unsigned i = 0; i < procs; i++) {
		pid_t pid = fork();

		if (pid == 0) {
			me = i;
			rnd_state += (i + 1) * 0x632be59bd9b4e019ull;
			status = work(strtoul(argv[4], NULL, 10));
			fflush(stdout);
			_exit(status);
		}
	}
	while (wait(&status) > 0)
		bad |= status;
	return bad ? 1 : 0;
}
