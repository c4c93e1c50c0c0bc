/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Files that share blocks, changed by several processes at once in parts that are next to each other.
 *
 * Each page of each file belongs to one process for the length of a round; runs of pages are short, so
 * nearly every page has neighbours of others. Whoever owns a page knows what must be in it, however it
 * was changed (write, store, direct write, clone, copy, hole, ...) and however it is read, since nothing
 * that the others do is about that page. What is behind the pages that all files have, the tail, and
 * with it the size, belongs to one process too. At the end of a round nothing runs: everything is compared
 * in all ways, then a file is cloned as a whole, replaced or removed, and the pages get new owners.
 *
 *   shareparts run DIR SEED SECONDS MODEL   MODEL: what must be there, for
 *   shareparts verify DIR MODEL
 */
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/wait.h>
#include <time.h>

#include "shareparts.h"

/* ---- changes ------------------------------------------------------------------------------------------ */

struct range {
	unsigned f, u, n;
};

static bool writable(unsigned f)
{
	return handle[f].fd >= 0 || handle[f].direct >= 0;
}

/* Some units of ours among the pages that all files have; false: none. */
static bool pick(bool writes, bool whole, struct range *out)
{
	for (int tries = 0; tries < 40; tries++) {
		unsigned f = rnd(FILES), p = rnd(PAGES), e = p;

		if (of(f)->owner[p] != me || (writes && !writable(f)) ||
			(!writes && any_fd(f) < 0 && handle[f].direct < 0))
			continue;
		while (e < PAGES && of(f)->owner[e] == me)
			e++;
		*out = (struct range){f, p * PER, (1 + rnd(e - p)) * PER};
		if (!whole) {
			unsigned skip = rnd(out->n);

			out->u += skip;
			out->n = 1 + rnd(out->n - skip);
		}
		return true;
	}
	return false;
}

static void new_stamps(const struct range *r)
{
	for (unsigned i = 0; i < r->n; i++)
		of(r->f)->stamp[r->u + i] = 1 + atomic_fetch_add(&sh->stamp, 1);
}

static void note(const struct range *r)
{
	for (unsigned p = r->u / PER; p <= (r->u + r->n - 1) / PER; p++)
		snprintf(last[r->f][p], sizeof(last[0][0]), "%s %u+%u", op, r->u % PER, r->n);
}

static void write_all(int fd, const void *from, const struct range *r)
{
	ssize_t n = pwrite(fd, from, (size_t)r->n * UNIT, (off_t)r->u * UNIT);

	if (n != (ssize_t)r->n * UNIT)
		fail("write of %u units: %zd %s", r->n, n, n < 0 ? strerror(errno) : "");
}

static int change_fd(unsigned f)
{
	const struct handle *h = &handle[f];

	return h->fd >= 0 && (h->direct < 0 || rnd(2)) ? h->fd : h->direct;
}

static void do_write(void)
{
	struct range r;

	if (!pick(true, false, &r))
		return;
	op = "write";
	new_stamps(&r);
	note(&r);
	fill_range(buf, of(r.f), r.u, r.n);
	write_all(change_fd(r.f), buf, &r);
	look(r.f, r.u, r.n, rnd(6));
}

static void do_direct(void)
{
	struct range r;

	if (!pick(true, rnd(2), &r) || handle[r.f].direct < 0)
		return;
	op = "direct write";
	new_stamps(&r);
	note(&r);
	fill_range(buf, of(r.f), r.u, r.n);
	write_all(handle[r.f].direct, buf, &r);
	look(r.f, r.u, r.n, rnd(6));
}

static void do_store(void)
{
	struct range r;

	if (!pick(true, false, &r) || !handle[r.f].stores)
		return;
	op = "store";
	new_stamps(&r);
	note(&r);
	fill_range((uint64_t *)(handle[r.f].map + (size_t)r.u * UNIT), of(r.f), r.u, r.n);
	if (!rnd(4))
		CHECK(!msync(handle[r.f].map + (size_t)r.u / PER * PAGE, PAGE,
			rnd(2) ? MS_SYNC : MS_ASYNC));
	look(r.f, r.u, r.n, rnd(6));
}

static void do_hole(void)
{
	struct range r;
	bool zero = rnd(2);

	if (!pick(true, rnd(2), &r))
		return;
	op = zero ? "zero" : "punch";
	for (unsigned i = 0; i < r.n; i++)
		of(r.f)->stamp[r.u + i] = 0;
	note(&r);
	CHECK(!fallocate(change_fd(r.f),
		(zero ? FALLOC_FL_ZERO_RANGE : FALLOC_FL_PUNCH_HOLE) | FALLOC_FL_KEEP_SIZE,
		(off_t)r.u * UNIT, (off_t)r.n * UNIT));
	look(r.f, r.u, r.n, rnd(6));
}

static bool overlap(const struct range *a, const struct range *b)
{
	return a->f == b->f && a->u < b->u + b->n && b->u < a->u + a->n;
}

/* Where something comes from, and where it goes, of the same length. */
static bool pick_two(bool whole, struct range *from, struct range *to)
{
	unsigned n;

	if (!pick(false, whole, from) || !pick(true, whole, to))
		return false;
	if (whole && !rnd(3) && from->f != to->f) {
		/* The same place, if both are ours. */
		for (unsigned p = to->u / PER; p < (to->u + to->n) / PER; p++)
			if (of(from->f)->owner[p] != me)
				return !overlap(from, to) && false;
		from->u = to->u;
		from->n = to->n;
	}
	n = from->n < to->n ? from->n : to->n;
	from->n = to->n = n;
	return !overlap(from, to);
}

static void take_stamps(const struct range *from, const struct range *to)
{
	memcpy(&of(to->f)->stamp[to->u], &of(from->f)->stamp[from->u], from->n * sizeof(uint64_t));
	note(to);
}

static void copy_range(int in, const struct range *from, int out, const struct range *to)
{
	off_t a = (off_t)from->u * UNIT, b = (off_t)to->u * UNIT;
	size_t len = (size_t)from->n * UNIT;

	while (len) {
		ssize_t n = copy_file_range(in, &a, out, &b, len, 0);

		if (n <= 0)
			fail("copy_file_range of %zu: %zd %s", len, n, n ? strerror(errno) : "");
		len -= (size_t)n;
	}
}

static int source_fd(unsigned f)
{
	return any_fd(f) >= 0 ? any_fd(f) : handle[f].direct;
}

static void do_copy(void)
{
	struct range from, to;

	if (!pick_two(rnd(2), &from, &to))
		return;
	op = "copy";
	take_stamps(&from, &to);
	copy_range(source_fd(from.f), &from, change_fd(to.f), &to);
	look(to.f, to.u, to.n, rnd(6));
}

static void do_clone(void)
{
	struct range from, to;
	uint64_t done;
	int in, err;

	if (!pick_two(true, &from, &to) || sh->writeback)
		return;
	op = "clone";
	in = source_fd(from.f);
	take_stamps(&from, &to);
	CHECK(!sync_file_range(in, (off_t)from.u * UNIT, (off_t)from.n * UNIT,
		SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER));
	err = um_ioc_clone(in, (uint64_t)from.u * UNIT, (uint64_t)from.n * UNIT, change_fd(to.f),
		(uint64_t)to.u * UNIT, &done);
	if (err)
		fail("clone: %s", strerror(-err));
	look(to.f, to.u, to.n, rnd(6));
}

static void do_dedupe(void)
{
	struct um_ioc_token token;
	struct range from, to;
	struct um_ioc_clone io = {.op = UM_CLONE_DEDUPE};
	bool same;

	if (!pick_two(true, &from, &to))
		return;
	op = "dedupe";
	CHECK(!fdatasync(source_fd(from.f)));
	CHECK(!fdatasync(change_fd(to.f)));
	same = !memcmp(
		&of(to.f)->stamp[to.u], &of(from.f)->stamp[from.u], from.n * sizeof(uint64_t));
	note(&to);
	CHECK(!ioctl(source_fd(from.f), UM_IOC_TOKEN, &token));
	memcpy(io.token, token.token, sizeof(io.token));
	io.src_off = (uint64_t)from.u * UNIT;
	io.len = (uint64_t)from.n * UNIT;
	io.dst_off = (uint64_t)to.u * UNIT;
	CHECK(!ioctl(change_fd(to.f), UM_IOC_CLONE, &io));
	if (io.status != (same ? FILE_DEDUPE_RANGE_SAME : FILE_DEDUPE_RANGE_DIFFERS))
		fail("dedupe says %d, same is %d", io.status, same);
	look(to.f, to.u, to.n, rnd(6));
}

/* A write whose buffer is a mapping of a file here, or a pipe that was filled from one. */
static void do_from_mapping(void)
{
	struct range from, to;
	const char *at;
	struct iovec iov;
	int p[2];

	if (!pick_two(rnd(2), &from, &to) || !handle[from.f].map)
		return;
	at = (char *)handle[from.f].map + (size_t)from.u * UNIT;
	if (rnd(3) || from.n * UNIT > 32768) {
		op = "write of a mapping";
		take_stamps(&from, &to);
		write_all(change_fd(to.f), at, &to);
	} else {
		off_t off = (off_t)to.u * UNIT;
		size_t len = (size_t)from.n * UNIT;

		op = "vmsplice";
		take_stamps(&from, &to);
		iov = (struct iovec){(void *)(uintptr_t)at, len};
		CHECK(!pipe(p));
		CHECK(vmsplice(p[1], &iov, 1, 0) == (ssize_t)len);
		while (len) {
			ssize_t n = splice(p[0], NULL, change_fd(to.f), &off, len, 0);

			CHECK(n > 0);
			len -= (size_t)n;
		}
		close(p[0]);
		close(p[1]);
	}
	look(to.f, to.u, to.n, rnd(6));
}

/* A read whose buffer is a mapping of a file here. */
static void do_into_mapping(void)
{
	struct range from, to;
	int fd;

	if (!pick_two(rnd(2), &from, &to) || !handle[to.f].stores)
		return;
	fd = handle[from.f].direct >= 0 ? handle[from.f].direct : any_fd(from.f);
	op = fd == handle[from.f].direct ? "direct read into a mapping" : "read into a mapping";
	/* With writeback a dedupe of the other file would lose it: src/DESIGN.md, "Writeback". */
	if (sh->writeback && fd == handle[from.f].direct)
		return;
	take_stamps(&from, &to);
	read_all(fd, handle[to.f].map + (size_t)to.u * UNIT, from.u, from.n);
	look(to.f, to.u, to.n, rnd(6));
}

/* ---- the tail ------------------------------------------------------------------------------------------ */

static void tail_look(unsigned f)
{
	struct stat st;
	int fd = any_fd(f);

	CHECK(!(fd >= 0 && rnd(2) ? fstat(fd, &st) : stat(path_of(f), &st)));
	if (st.st_size != (off_t)of(f)->size * UNIT)
		fail("file %u: size %lld, must be %lld", f, (long long)st.st_size,
			(long long)of(f)->size * UNIT);
	if (of(f)->size > PAGES * PER)
		look(f, PAGES * PER, of(f)->size - PAGES * PER, rnd(6));
}

static void tail_cut(unsigned f, int fd)
{
	unsigned size = PAGES * PER + rnd(TAIL * PER + 1), was = of(f)->size;

	op = "truncate";
	of(f)->size = size;
	for (unsigned u = size < was ? size : was; u < UNITS; u++)
		of(f)->stamp[u] = 0;
	if (rnd(2))
		CHECK(!ftruncate(fd, (off_t)size * UNIT));
	else if (truncate(path_of(f), (off_t)size * UNIT))
		fail("truncate: %s", strerror(errno));
}

static void tail_append(unsigned f, int fd)
{
	struct range r = {f, of(f)->size, 0};

	op = "append";
	if (r.u >= UNITS)
		return;
	r.n = 1 + rnd(UNITS - r.u);
	new_stamps(&r);
	note(&r);
	fill_range(buf, of(f), r.u, r.n);
	of(f)->size += r.n;
	write_all(fd, buf, &r);
}

static void tail_clone(unsigned f, int fd)
{
	struct range from, to = {f, of(f)->size, 0};
	uint64_t done;
	int in, err;

	op = "clone behind the end";
	if (!pick(false, true, &from) || from.f == f || to.u % PER || to.u + from.n > UNITS)
		return;
	to.n = from.n;
	in = source_fd(from.f);
	take_stamps(&from, &to);
	of(f)->size += to.n;
	CHECK(!sync_file_range(in, (off_t)from.u * UNIT, (off_t)from.n * UNIT,
		SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER));
	if (sh->writeback || rnd(3) == 0) {
		copy_range(in, &from, fd, &to);
		return;
	}
	err = um_ioc_clone(in, (uint64_t)from.u * UNIT, (uint64_t)from.n * UNIT, fd,
		(uint64_t)to.u * UNIT, &done);
	if (err)
		fail("%s", strerror(-err));
}

static void tail_store(unsigned f)
{
	struct range r = {f, PAGES * PER, of(f)->size - PAGES * PER};

	op = "store in the tail";
	if (!handle[f].stores || !r.n)
		return;
	new_stamps(&r);
	note(&r);
	fill_range((uint64_t *)(handle[f].map + (size_t)r.u * UNIT), of(f), r.u, r.n);
}

static void do_tail(void)
{
	unsigned f = rnd(FILES);
	int fd;

	if (of(f)->owner[PAGES] != me || !writable(f))
		return;
	fd = handle[f].fd >= 0 ? handle[f].fd : handle[f].direct;
	switch (rnd(4)) {
	case 0:
		tail_cut(f, fd);
		break;
	case 1:
		/* The kernel makes a file longer after a direct write: src/DESIGN.md. */
		if (handle[f].fd >= 0)
			tail_append(f, fd);
		break;
	case 2:
		tail_clone(f, fd);
		break;
	default:
		tail_store(f);
	}
	tail_look(f);
}

/* ---- what changes nothing --------------------------------------------------------------------------- */

static void do_look(void)
{
	struct range r;

	op = "look";
	if (pick(false, false, &r))
		look(r.f, r.u, r.n, rnd(6));
}

static void do_nothing(void)
{
	unsigned f = rnd(FILES);
	struct handle *h = &handle[f];
	struct stat st;
	int fd = source_fd(f);

	op = "sync";
	if (fd < 0)
		return;
	switch (rnd(8)) {
	case 0:
		CHECK(!fdatasync(fd));
		break;
	case 1:
		CHECK(!posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
		break;
	case 2:
		if (h->map)
			CHECK(!madvise(h->map, ALL * PAGE, MADV_DONTNEED));
		break;
	case 3:
		CHECK(!fchmod(fd, 0600 | rnd(8)));
		break;
	case 4:
		release(f);
		acquire(f);
		break;
	case 5:
		if (writable(f) && (!fallocate(change_fd(f), FALLOC_FL_COLLAPSE_RANGE, 0, PAGE) ||
					   errno != EOPNOTSUPP))
			fail("collapse: %s", strerror(errno));
		break;
	default:
		CHECK(!fstat(fd, &st));
		if (st.st_size < PAGES * PAGE)
			fail("file %u: size %lld", f, (long long)st.st_size);
	}
}

static void one(void)
{
	static void (*const fn[])(void) = {do_write, do_direct, do_store, do_store, do_hole,
		do_copy, do_clone, do_clone, do_dedupe, do_from_mapping, do_into_mapping, do_tail,
		do_look, do_look, do_nothing};

	nops++;
	atomic_fetch_add(&sh->ops, 1);
	fn[rnd(sizeof(fn) / sizeof(fn[0]))]();
}

/* ---- rounds ---------------------------------------------------------------------------------------- */

static void wait_all(void)
{
	pthread_barrier_wait(&sh->barrier);
}

static void owners(void)
{
	for (unsigned f = 0; f < FILES; f++) {
		unsigned n = 0, who = 0;

		for (unsigned p = 0; p < PAGES; p++, n--) {
			if (!n) {
				n = 1 + rnd(RUN);
				who = rnd(PROCESSES);
			}
			of(f)->owner[p] = (unsigned char)who;
		}
		memset(of(f)->owner + PAGES, (int)rnd(PROCESSES), TAIL);
	}
}

/* Nothing is running: what the kernel has cached of the attributes must be what is true. */
static void check_attr(unsigned f)
{
	struct statx is, must;

	CHECK(!statx(AT_FDCWD, path_of(f), AT_STATX_DONT_SYNC, STATX_BASIC_STATS, &is));
	CHECK(!statx(AT_FDCWD, path_of(f), AT_STATX_SYNC_AS_STAT, STATX_BASIC_STATS, &is));
	CHECK(!statx(AT_FDCWD, path_of(f), AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &must));
	if (is.stx_size != must.stx_size || is.stx_size != (uint64_t)of(f)->size * UNIT)
		fail("file %u: size %llu, of the server %llu, must be %u", f,
			(unsigned long long)is.stx_size, (unsigned long long)must.stx_size,
			of(f)->size * UNIT);
	if (is.stx_blocks != must.stx_blocks)
		fail("file %u: %llu blocks are %llu", f, (unsigned long long)is.stx_blocks,
			(unsigned long long)must.stx_blocks);
	if (memcmp(&is.stx_mtime, &must.stx_mtime, sizeof(is.stx_mtime)) ||
		memcmp(&is.stx_ctime, &must.stx_ctime, sizeof(is.stx_ctime)))
		fail("file %u: times are outdated", f);
}

static void check_all(void)
{
	op = "end of a round";
	for (unsigned f = me; f < FILES; f += PROCESSES) {
		for (unsigned way = 0; way < 5; way++)
			look(f, 0, of(f)->size, way);
		check_attr(f);
	}
}

static void clone_whole(unsigned from, unsigned to)
{
	int in = open(path_of(from), O_RDONLY), out;
	uint64_t done;
	int err;

	CHECK(in >= 0);
	out = open(path_of(to), O_RDWR | O_CREAT, 0644);
	if (out < 0 && errno == ETXTBSY) {
		close(in);
		return;
	}
	CHECK(out >= 0);
	CHECK(!fdatasync(in));
	if (of(to)->size > of(from)->size)
		CHECK(!ftruncate(out, (off_t)of(from)->size * UNIT));
	err = um_ioc_clone(in, 0, 0, out, 0, &done);
	sh->writeback = err == -EOPNOTSUPP;
	if (sh->writeback)
		copy_range(in, &(struct range){from, 0, of(from)->size}, out,
			&(struct range){to, 0, of(from)->size});
	else if (err)
		fail("clone: %s", strerror(-err));
	close(in);
	close(out);
	memcpy(of(to)->stamp, of(from)->stamp, sizeof(of(to)->stamp));
	of(to)->size = of(from)->size;
	atomic_fetch_add(&sh->clones, 1);
}

/* By one process, while the others wait: new sharing. */
static void between(void)
{
	unsigned to = sh->victim, from = rnd(FILES);

	op = "whole clone";
	for (unsigned n = rnd(4); n; n--) {
		unsigned other = rnd(FILES);

		if (other != from && other != to)
			clone_whole(from, other);
	}
	if (to < FILES && to != from && sh->what) {
		char temp[300];

		op = "replace";
		snprintf(temp, sizeof(temp), "%s/temp", dir);
		if (sh->what == 1) {
			CHECK(!unlink(path_of(to)));
		} else {
			/* Others may still have it open, by the name before. */
			CHECK(!rename(path_of(to), temp));
		}
		of(to)->size = 0;
		clone_whole(from, to);
		if (sh->what == 2)
			CHECK(!unlink(temp));
	} else if (to < FILES && to != from) {
		clone_whole(from, to);
	}
	if (!rnd(3)) {
		int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);

		if (fd >= 0 && write(fd, "1", 1) != 1)
			fail("drop_caches");
		close(fd);
	}
	owners();
}

static void round_of(void)
{
	bool fresh[FILES];

	memset(last, 0, sizeof(last));
	for (unsigned f = 0; f < FILES; f++) {
		if (rnd(3) == 0 || sh->views >> f & 1)
			release(f);
		fresh[f] = handle[f].fd < 0 && handle[f].direct < 0 && handle[f].ro < 0;
	}
	wait_all();
	for (unsigned f = 0; f < FILES; f++)
		if (sh->views >> f & 1)
			CHECK((handle[f].ro = open(path_of(f), O_RDONLY)) >= 0);
	wait_all();
	for (unsigned i = 0, f = rnd(FILES); i < FILES; i++, f = (f + 1) % FILES)
		if (fresh[f] && rnd(5))
			acquire(f);
	for (unsigned i = 0; i < ROUND && !sh->failed; i++)
		one();
	wait_all();
	check_all();
	wait_all();
	if (sh->victim < FILES && sh->what)
		release(sh->victim);
	for (unsigned f = 0; f < FILES; f++)
		if (rnd(2))
			release(f);
	wait_all();
}

static void work(time_t until)
{
	for (unsigned f = 0; f < FILES; f++)
		handle[f] = (struct handle){-1, -1, -1, NULL, false};
	while (!sh->ends) {
		if (!me) {
			sh->victim = rnd(FILES + 2);
			sh->what = rnd(3);
			sh->views = rnd(1u << FILES) & rnd(1u << FILES);
		}
		wait_all();
		round_of();
		if (!me) {
			between();
			sh->rounds++;
			sh->ends = time(NULL) >= until;
		}
		wait_all();
	}
	for (unsigned f = 0; f < FILES; f++)
		release(f);
}

/* ---- start and end ---------------------------------------------------------------------------------- */

static void first_files(void)
{
	struct range all = {0, 0, PAGES * PER};
	int fd = open(path_of(0), O_RDWR | O_CREAT | O_EXCL, 0644);

	CHECK(fd >= 0);
	new_stamps(&all);
	fill_range(buf, of(0), 0, all.n);
	write_all(fd, buf, &all);
	of(0)->size = all.n;
	close(fd);
	for (unsigned f = 1; f < FILES; f++)
		clone_whole(0, f);
}

static void buffers(void)
{
	buf = mmap(NULL, ALL * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	got = mmap(NULL, ALL * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(buf != MAP_FAILED && got != MAP_FAILED);
}

static int run(unsigned long seed, unsigned seconds, const char *model)
{
	pthread_barrierattr_t attr;
	pid_t pid[PROCESSES];
	int status, bad = 0, fd;

	pthread_barrierattr_init(&attr);
	pthread_barrierattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_barrier_init(&sh->barrier, &attr, PROCESSES);
	rnd_state = seed * 0x9e3779b97f4a7c15ull + 1;
	first_files();
	owners();
	for (unsigned i = 0; i < PROCESSES; i++) {
		pid[i] = fork();
		if (pid[i])
			continue;
		me = i;
		rnd_state += i * 0x100000001b3ull;
		for (int k = 0; k < 20; k++)
			rnd(2);
		work(time(NULL) + seconds);
		_exit(0);
	}
	for (unsigned n = 0; n < PROCESSES; n++) {
		if (wait(&status) > 0 && status && !bad++)
			for (unsigned i = 0; i < PROCESSES; i++)
				kill(pid[i], SIGKILL);
	}
	if (bad)
		return 1;
	fd = open(model, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	CHECK(fd >= 0 && write(fd, sh->file, sizeof(sh->file)) == sizeof(sh->file));
	close(fd);
	for (unsigned f = 0; f < FILES; f++) {
		fd = open(path_of(f), O_RDWR);
		CHECK(fd >= 0 && (!sh->writeback || !fsync(fd)));
		close(fd);
	}
	printf("%lu operations in %lu rounds, %lu whole clones, %lu opens refused\n",
		atomic_load(&sh->ops), atomic_load(&sh->rounds), atomic_load(&sh->clones),
		atomic_load(&sh->refused));
	return 0;
}

static int verify(const char *model)
{
	int fd = open(model, O_RDONLY);

	op = "verify";
	CHECK(fd >= 0 && read(fd, sh->file, sizeof(sh->file)) == sizeof(sh->file));
	close(fd);
	for (unsigned f = 0; f < FILES; f++) {
		handle[f] = (struct handle){-1, -1, -1, NULL, false};
		look(f, 0, of(f)->size, 3);
		check_attr(f);
	}
	return 0;
}

int main(int argc, char **argv)
{
	bool runs = argc == 6 && !strcmp(argv[1], "run");

	if (!runs && !(argc == 4 && !strcmp(argv[1], "verify"))) {
		fprintf(stderr,
			"usage: shareparts run DIR SEED SECONDS MODEL | verify DIR MODEL\n");
		return 2;
	}
	snprintf(dir, sizeof(dir), "%s", argv[2]);
	sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(sh != MAP_FAILED);
	failed = &sh->failed;
	buffers();
	return runs ? run(strtoul(argv[3], NULL, 0), (unsigned)atoi(argv[4]), argv[5])
		    : verify(argv[3]);
}
