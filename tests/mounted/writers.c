/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * writers run DIR LOGS PROCESSES SEED ROUND: processes that change their own directories below DIR
 * as fast as they can until the daemon dies. Each records in a file on another filesystem which
 * operation it is about to do and which was the last to succeed.
 *
 * writers verify DIR LOGS PROCESSES SEED ROUND: the result must be that of the operations that
 * succeeded; the one in flight is done or not done; of a write in flight this holds for each 4 KiB
 * block.
 *
 * Operations follow from (seed, process, round, number) and the state before, so the log is a
 * number. One more process works without a log on large files and shared directories, to disturb
 * the others; its results are left to fsck. Another reads the writers' files through mappings, so
 * that clones are open through views when the daemon dies.
 */
#include "writers.h"

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *fmt, ...)
{
	va_list ap;

	printf("FAIL: ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	fflush(stdout);
	_exit(1);
}

/* ---- what is there ---------------------------------------------------------------------------- */

static bool read_blocks(int fd, struct file *out)
{
	static uint64_t buf[FBLOCKS * BLOCK / 8];

	if (pread(fd, buf, sizeof(buf), 0) != (ssize_t)out->nblocks * BLOCK)
		return false;
	for (unsigned b = 0; b < out->nblocks; b++) {
		const uint64_t *p = buf + b * (BLOCK / 8);

		out->tag[b] = p[0];
		for (unsigned i = 1; i < BLOCK / 8; i++) {
			if (p[i] == p[0])
				continue;
			printf("block %u is mixed: %llx and, at byte %u, %llx\n", b,
				(unsigned long long)p[0], i * 8, (unsigned long long)p[i]);
			return false;
		}
	}
	return true;
}

static bool read_file(int fd, struct file *out)
{
	static unsigned char value[XATTR_MAX], want[XATTR_MAX];
	struct stat st;
	ssize_t n;

	memset(out, 0, sizeof(*out));
	if (fstat(fd, &st) || st.st_size % BLOCK || st.st_size > FBLOCKS * BLOCK)
		return false;
	out->nlink = (unsigned)st.st_nlink;
	out->mode = st.st_mode & 07777;
	out->nblocks = (unsigned)(st.st_size / BLOCK);
	if (!read_blocks(fd, out))
		return false;
	n = fgetxattr(fd, "user.tag", value, sizeof(value));
	if (n < 0)
		return errno == ENODATA;
	if (n < 8)
		return false;
	memcpy(&out->xtag, value, 8);
	return n == (ssize_t)xattr_value(out->xtag, want) && !memcmp(value, want, (size_t)n);
}

static void read_name(int root, int i, ino_t inos[NAMES], struct state *out)
{
	char path[32];
	struct stat st;
	int fd;

	name_path(i, path);
	out->name[i] = -1;
	fd = openat(root, path, O_RDONLY);
	if (fd < 0 && errno == ENOENT)
		return;
	if (fd < 0 || fstat(fd, &st))
		fail("%s: %s", path, strerror(errno));
	inos[i] = st.st_ino;
	for (int k = 0; k < i; k++)
		if (out->name[k] >= 0 && inos[k] == st.st_ino)
			out->name[i] = out->name[k];
	if (out->name[i] < 0) {
		out->name[i] = i;
		if (!read_file(fd, &out->file[i]))
			fail("%s: unsound content (size %lld)", path, (long long)st.st_size);
	}
	close(fd);
}

/* Reads the tree as a state. A file's number is that of the first name that leads to it. */
static void read_state(int root, struct state *out)
{
	ino_t inos[NAMES];

	memset(out, 0, sizeof(*out));
	for (int d = 0; d < NDIR; d++) {
		char path[32];
		struct stat st;

		snprintf(path, sizeof(path), "d%d", d);
		out->dir[d] = !fstatat(root, path, &st, AT_SYMLINK_NOFOLLOW);
		if (!out->dir[d] && errno != ENOENT)
			fail("%s: %s", path, strerror(errno));
	}
	for (int i = 0; i < NAMES; i++)
		read_name(root, i, inos, out);
}

static unsigned count_entries(int root, const char *path)
{
	int fd = openat(root, path, O_RDONLY | O_DIRECTORY);
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	unsigned n = 0;

	if (!d)
		fail("%s: %s", path, strerror(errno));
	for (struct dirent *e; (e = readdir(d));)
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

/* Nothing but the known names may be there. */
static void check_entries(int root, int proc, const struct state *is)
{
	unsigned names = 0, entries = count_entries(root, ".");

	for (int i = 0; i < NAMES; i++)
		names += is->name[i] >= 0;
	for (int d = 0; d < NDIR; d++) {
		char path[32];

		snprintf(path, sizeof(path), "d%d", d);
		if (is->dir[d])
			entries += count_entries(root, path) - 1;
	}
	if (names != entries)
		fail("process %d: %u entries, %u of them known", proc, entries, names);
}

/* ---- comparison ---------------------------------------------------------------------------------- */

static const char *file_differs(const struct file *is, const struct file *must)
{
	if (is->nlink != must->nlink)
		return "link count";
	if (is->mode != must->mode)
		return "mode";
	if (is->xtag != must->xtag)
		return "xattr";
	if (is->nblocks != must->nblocks)
		return "size";
	for (unsigned b = 0; b < is->nblocks; b++)
		if (is->tag[b] != must->tag[b])
			return "content";
	return NULL;
}

/* A write or copy in flight: old or new in each block, and any size between. */
static bool file_between(const struct file *is, const struct file *a, const struct file *b)
{
	if (is->nlink != a->nlink || is->mode != a->mode || is->xtag != a->xtag)
		return false;
	if (is->nblocks < a->nblocks || is->nblocks > b->nblocks)
		return false;
	for (unsigned i = 0; i < is->nblocks; i++) {
		uint64_t old = i < a->nblocks ? a->tag[i] : 0;

		if (is->tag[i] != old && is->tag[i] != b->tag[i])
			return false;
	}
	return true;
}

static char why[200];

/* `between`: number in `must` of a file that may be anywhere between `old` and `must`, or -1. */
static bool name_differs(const struct state *is, const struct state *must, int i, int between,
	const struct state *old, int seen[NAMES])
{
	const struct file *a, *b;
	const char *what;
	char path[32];

	name_path(i, path);
	if ((is->name[i] >= 0) != (must->name[i] >= 0)) {
		snprintf(
			why, sizeof(why), "%s is %s", path, is->name[i] >= 0 ? "there" : "missing");
		return true;
	}
	if (is->name[i] < 0)
		return false;
	if (seen[must->name[i]] >= 0 && seen[must->name[i]] != is->name[i]) {
		snprintf(why, sizeof(why), "%s is not the link it was", path);
		return true;
	}
	seen[must->name[i]] = is->name[i];
	a = &is->file[is->name[i]];
	b = &must->file[must->name[i]];
	if (between >= 0 && must->name[i] == between && file_between(a, &old->file[between], b))
		return false;
	what = file_differs(a, b);
	if (what)
		snprintf(why, sizeof(why), "%s: %s differs", path, what);
	return what;
}

static bool state_differs(
	const struct state *is, const struct state *must, int between, const struct state *old)
{
	int seen[NAMES];

	memset(seen, -1, sizeof(seen));
	for (int d = 0; d < NDIR; d++) {
		if (is->dir[d] == must->dir[d])
			continue;
		snprintf(why, sizeof(why), "directory d%d is %s", d,
			is->dir[d] ? "there" : "missing");
		return true;
	}
	for (int i = 0; i < NAMES; i++)
		if (name_differs(is, must, i, between, old, seen))
			return true;
	return false;
}

/* ---- a process ------------------------------------------------------------------------------------ */

static uint64_t process_seed(unsigned long seed, int proc, unsigned long round)
{
	return seed * 1000003 + (uint64_t)proc * 10007 + round * 101;
}

static struct log *open_log(const char *logs, int proc, bool fresh)
{
	char path[4096];
	int fd;
	struct log *log;

	snprintf(path, sizeof(path), "%s/log%d", logs, proc);
	fd = open(path, O_RDWR | O_CREAT | (fresh ? O_TRUNC : 0), 0600);
	if (fd < 0 || ftruncate(fd, sizeof(*log)))
		fail("%s: %s", path, strerror(errno));
	log = mmap(NULL, sizeof(*log), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (log == MAP_FAILED)
		fail("%s: %s", path, strerror(errno));
	return log;
}

static int open_root(const char *dir, int proc, unsigned long round, bool make)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/round%lu/p%d", dir, round, proc);
	if (make && mkdir(path, 0755))
		fail("%s: %s", path, strerror(errno));
	fd = open(path, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		fail("%s: %s", path, strerror(errno));
	return fd;
}

static bool daemon_gone(int err)
{
	return err == ENOTCONN || err == ECONNABORTED || err == ECANCELED || err == EIO ||
	       err == ENXIO;
}

__attribute__((noreturn)) static void writer(
	int root, const char *logs, int proc, unsigned long seed, unsigned long round)
{
	struct log *log = open_log(logs, proc, false);
	uint64_t s = process_seed(seed, proc, round);
	static struct state state;

	state_init(&state);
	for (uint64_t n = 1;; n++) {
		struct op op;
		int rc;

		op_make(s, n, &op);
		if (!op_valid(&state, &op))
			continue;
		__atomic_store_n(&log->started, n, __ATOMIC_SEQ_CST);
		rc = op_do(root, &state, &op);
		/* The reader has it, with others, through a view. */
		while (rc == -ETXTBSY) {
			usleep(1000);
			rc = op_do(root, &state, &op);
		}
		if (rc && daemon_gone(-rc))
			_exit(0);
		if (rc)
			fail("process %d, operation %llu (%s) failed: %s", proc,
				(unsigned long long)n, op_name(&op), strerror(-rc));
		op_apply(&state, &op);
		__atomic_store_n(&log->acked, n, __ATOMIC_SEQ_CST);
	}
}

static int churn_write(const char *path, uint64_t r, bool cut)
{
	static char buf[1 << 20];
	int err = 0, fd = open(path, O_RDWR | O_CREAT, 0644);

	if (fd < 0)
		return errno;
	if (pwrite(fd, buf, 1 + (r >> 20) % sizeof(buf), (off_t)((r >> 10) % 3000000)) < 0)
		err = errno;
	if (cut && ftruncate(fd, (off_t)((r >> 15) % 1000000)))
		err = errno;
	close(fd);
	return err;
}

/* No log, no order: what a busy machine does beside. */
__attribute__((noreturn)) static void churn(const char *dir, unsigned long seed)
{
	char path[4200], other[4200];
	uint64_t r = seed;

	for (;;) {
		unsigned k, kind;
		int err = 0;

		r = r * 6364136223846793005ull + 1442695040888963407ull;
		k = (unsigned)(r >> 33) % 20;
		kind = (unsigned)(r >> 50) % 6;
		snprintf(other, sizeof(other), "%s/shared%u", dir, k % 2);
		mkdir(other, 0755);
		snprintf(path, sizeof(path), "%s/shared%u/f%u", dir, k % 2, k);
		snprintf(other, sizeof(other), "%s/shared%u/f%u", dir, (k + 1) % 2, k / 2);
		if (kind < 3)
			err = churn_write(path, r, kind == 2);
		else if (kind == 3 ? rename(path, other) : unlink(path))
			err = errno;
		if (daemon_gone(err))
			_exit(0);
	}
}

/*
 * Reads through a mapping and keeps it for a moment. A page is never touched, the daemon may be
 * dead: the kernel is given it to read, who says EFAULT. (MADV_POPULATE_READ tries for ever then,
 * before Linux 6.9.)
 */
static int look_at(const char *path, int sink)
{
	static const struct timespec moment = {.tv_nsec = 1000000};
	int fd = open(path, O_RDONLY), err = fd < 0 ? errno : 0;
	void *map;

	if (err)
		return err;
	map = mmap(NULL, FBLOCKS * BLOCK, PROT_READ, MAP_SHARED, fd, 0);
	if (map != MAP_FAILED) {
		if (pwrite(sink, map, 8 * BLOCK, 0) < 0)
			err = errno;
		nanosleep(&moment, NULL);
		munmap(map, FBLOCKS * BLOCK);
	}
	close(fd);
	return err;
}

/* Of the writers' files, clones among them, open and mapped for reading: views, where there are
 * any. */
__attribute__((noreturn)) static void reader(const char *dir, int procs, unsigned long round)
{
	char path[4200], name[32];
	int sink = memfd_create("sink", MFD_CLOEXEC);
	uint64_t r = round;

	if (sink < 0)
		fail("memfd_create: %s", strerror(errno));
	for (;;) {
		r = r * 6364136223846793005ull + 1442695040888963407ull;
		name_path((int)((r >> 33) % NAMES), name);
		snprintf(path, sizeof(path), "%s/round%lu/p%d/%s", dir, round,
			(int)((r >> 50) % (unsigned)procs), name);
		if (daemon_gone(look_at(path, sink)))
			_exit(0);
	}
}

static int run(
	const char *dir, const char *logs, int procs, unsigned long seed, unsigned long round)
{
	char path[4096];
	int status, rc = 0, top = open(dir, O_RDONLY | O_DIRECTORY);

	snprintf(path, sizeof(path), "%s/round%lu", dir, round);
	if (top < 0 || mkdir(path, 0755))
		fail("%s: %s", path, strerror(errno));
	for (int p = 0; p < procs; p++)
		munmap(open_log(logs, p, true), sizeof(struct log));
	for (int p = 0; p < procs + 2; p++) {
		int root = p < procs ? open_root(dir, p, round, true) : -1;
		pid_t pid = fork();

		if (pid < 0)
			fail("fork: %s", strerror(errno));
		if (!pid && p < procs)
			writer(root, logs, p, seed, round);
		/*
		 * By paths from within: those from outside lead elsewhere once the dead mount is
		 * away, which may be before this process comes to run.
		 */
		if (!pid && fchdir(top))
			_exit(!daemon_gone(errno));
		if (!pid && p == procs)
			churn(".", seed + round);
		if (!pid)
			reader(".", procs, round);
		if (root >= 0)
			close(root);
	}
	while (wait(&status) > 0 || errno == EINTR)
		if (WIFEXITED(status) && WEXITSTATUS(status))
			rc = 1;
	close(top);
	return rc;
}

/* ---- verification ---------------------------------------------------------------------------------- */

static uint64_t verify_process(
	const char *dir, const char *logs, int proc, unsigned long seed, unsigned long round)
{
	static struct state is, must, after;
	struct log *log = open_log(logs, proc, false);
	uint64_t s = process_seed(seed, proc, round), done = 0;
	struct op op;
	int root = open_root(dir, proc, round, false);

	state_init(&must);
	for (uint64_t n = 1; n <= log->acked; n++) {
		op_make(s, n, &op);
		if (!op_valid(&must, &op))
			continue;
		op_apply(&must, &op);
		done++;
	}
	read_state(root, &is);
	check_entries(root, proc, &is);
	close(root);
	if (!state_differs(&is, &must, -1, NULL))
		return done;
	if (log->started > log->acked) {
		op_make(s, log->started, &op);
		after = must;
		op_apply(&after, &op);
		if (!state_differs(&is, &after, op_in_pieces(&after, &op), &must))
			return done;
		printf("if the operation in flight is done: %s\n", why);
		state_differs(&is, &must, -1, NULL);
	}
	fail("process %d, round %lu, after operation %llu (in flight: %s): %s", proc, round,
		(unsigned long long)log->acked, log->started > log->acked ? op_name(&op) : "none",
		why);
}

int main(int argc, char **argv)
{
	unsigned long seed, round;
	uint64_t total = 0;
	int procs;

	if (argc != 7) {
		fprintf(stderr, "usage: writers run|verify DIR LOGS PROCESSES SEED ROUND\n");
		return 2;
	}
	umask(0);
	procs = atoi(argv[4]);
	seed = strtoul(argv[5], NULL, 0);
	round = strtoul(argv[6], NULL, 0);
	if (!strcmp(argv[1], "run"))
		return run(argv[2], argv[3], procs, seed, round);
	for (int p = 0; p < procs; p++)
		total += verify_process(argv[2], argv[3], p, seed, round);
	printf("%llu operations present\n", (unsigned long long)total);
	return 0;
}
