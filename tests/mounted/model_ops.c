/* SPDX-License-Identifier: BSD-3-Clause */
/* Model test: the operations. */
#include "model.h"

#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#define MAX_IO 200000

/* Does the same on both sides; `i` is the side. The value both gave. */
#define BOTH(call)                                                                                 \
	({                                                                                         \
		long m_r[2];                                                                       \
		int m_e[2];                                                                        \
		for (int i = 0; i < 2; i++) {                                                      \
			errno = 0;                                                                 \
			m_r[i] = (long)(call);                                                     \
			m_e[i] = errno;                                                            \
		}                                                                                  \
		m_result(m_r[0], m_e[0], m_r[1], m_e[1]);                                          \
		m.failed |= m_r[0] < 0;                                                            \
		m_r[0];                                                                            \
	})

static unsigned char data[MAX_IO], got[2][MAX_IO];

void m_fill_names(void)
{
	for (int i = 0; i < M_NAMES; i++) {
		char *n = m.names[i];

		snprintf(n, sizeof(m.names[i]), "%c", 'a' + i);
		if (i == M_NAMES - 1) /* the longest */
			for (int k = 1; k < 255; k++)
				n[k] = (char)(k % 2 ? 'z' : 0x80 + k % 100);
		if (i == M_NAMES - 2)
			strcpy(n, "name with\n\t \"odd\" bytes \\ \xff\xfe");
	}
}

/* Entry of an open directory of the oracle, at random; false when it has none. */
static bool random_entry(int dirfd, char name[256], bool *is_dir)
{
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY);
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	unsigned seen = 0;

	if (!d)
		return false;
	for (struct dirent *e; (e = readdir(d));) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (m_pick(++seen))
			continue;
		strcpy(name, e->d_name);
		*is_dir = e->d_type == DT_DIR;
	}
	closedir(d);
	return seen;
}

/* A path that exists: a walk down the oracle that ends somewhere. */
static bool existing_path(char buf[M_PATH])
{
	int at = dup(m.root[1]);
	char name[256];
	bool is_dir;
	size_t n = 0;

	while (at >= 0 && n < M_PATH / 2 && random_entry(at, name, &is_dir)) {
		int next = -1;

		n += (size_t)snprintf(buf + n, M_PATH - n, "%s%s", n ? "/" : "", name);
		if (is_dir && m_pick(3))
			next = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
		close(at);
		at = next;
	}
	if (at >= 0)
		close(at);
	return n;
}

static const char *random_path(char buf[M_PATH])
{
	unsigned depth = m_pick(20);
	size_t n = 0;

	if (m_pick(5) < 3 && existing_path(buf)) {
		n = strlen(buf);
		if (m_pick(4)) /* itself, or a name that may be new below or beside it */
			return buf;
		if (m_pick(2) && strrchr(buf, '/'))
			n = (size_t)(strrchr(buf, '/') - buf);
		snprintf(buf + n, M_PATH - n, "/%s", m.names[m_pick(M_NAMES)]);
		return buf;
	}
	depth = depth < 8 ? 1 : depth < 16 ? 2 : 3;
	for (unsigned i = 0; i < depth; i++)
		n += (size_t)snprintf(
			buf + n, M_PATH - n, "%s%s", i ? "/" : "", m.names[m_pick(M_NAMES)]);
	return buf;
}

/* A path that may well be free: a name in a directory that exists. */
static const char *random_new(char buf[M_PATH])
{
	size_t n = 0;

	if (m_pick(4) == 0)
		return random_path(buf);
	buf[0] = 0;
	if (m_pick(3) && existing_path(buf)) {
		struct stat st;
		char *slash = strrchr(buf, '/');

		if (fstatat(m.root[1], buf, &st, AT_SYMLINK_NOFOLLOW) || !S_ISDIR(st.st_mode))
			*(slash ? slash : buf) = 0;
		n = strlen(buf);
	}
	snprintf(buf + n, M_PATH - n, "%s%s", n ? "/" : "", m.names[m_pick(M_NAMES)]);
	return buf;
}

static void fill_data(size_t len)
{
	uint64_t x = m_random();

	if (m_pick(12) == 0) {
		memset(data, 0, len);
		return;
	}
	for (size_t i = 0; i < len; i++) {
		x = x * 6364136223846793005ull + 1442695040888963407ull;
		data[i] = (unsigned char)(x >> 56);
	}
}

static size_t random_len(void)
{
	switch (m_pick(8)) {
	case 0:
		return 4096 * (1 + m_pick(20));
	case 1:
		return 1 + m_pick(MAX_IO - 1);
	case 2:
		return 4096;
	case 3:
		return m_pick(3);
	default:
		return 1 + m_pick(9000);
	}
}

static off_t random_off(void)
{
	switch (m_pick(8)) {
	case 0:
		return 4096 * (off_t)m_pick(100);
	case 1:
		return m_pick(600000);
	case 2:
		return m_pick(40) == 0 ? 3000000 + m_pick(100000) : 0;
	case 3:
	case 4:
		return 0;
	default:
		return m_pick(30000);
	}
}

/* Something that tmpfs does to the times and others do not, or the other way round. */
static void set_both_times(int fds[2])
{
	struct timespec ts[2] = {{1000 + m_pick(1000), m_pick(1000000000)}, {0, 0}};

	ts[1] = (struct timespec){1000000000 + m_pick(1000), m_pick(1000000000)};
	for (int i = 0; i < 2; i++)
		if (futimens(fds[i], ts))
			m_differ("futimens: %s", strerror(errno));
}

static bool open_both(const char *path, int flags, int fds[2])
{
	long r[2];
	int e[2];

	for (int i = 0; i < 2; i++) {
		errno = 0;
		fds[i] = openat(m.root[i], path, flags | O_NONBLOCK | O_CLOEXEC, 0666);
		r[i] = fds[i] < 0 ? -1 : 0;
		e[i] = errno;
	}
	m_result(r[0], e[0], r[1], e[1]);
	m.failed |= r[0] < 0;
	return r[0] >= 0;
}

static void close_both(int fds[2])
{
	for (int i = 0; i < 2; i++)
		if (close(fds[i]))
			m_differ("close: %s", strerror(errno));
}

static bool is_regular(int fds[2], off_t *size)
{
	struct stat st;

	if (fstat(fds[1], &st))
		m_differ("fstat: %s", strerror(errno));
	*size = st.st_size;
	return S_ISREG(st.st_mode);
}

/* A pair of descriptors: one of the open handles, or a file opened by a random path. */
static bool some_file(int flags, int fds[2], bool *out_close)
{
	char path[M_PATH];
	unsigned h = m_pick(M_HANDLES);

	*out_close = false;
	if (m_pick(2) && m.handle[h].open) {
		fds[0] = m.handle[h].a;
		fds[1] = m.handle[h].b;
		m_note("use handle %u", h);
		return true;
	}
	m_note("open %s flags %o", random_path(path), flags);
	*out_close = true;
	return open_both(path, flags, fds);
}

/* ---- names ---------------------------------------------------------------------------------------- */

static void op_mkdir(void)
{
	char path[M_PATH];
	mode_t mode = 0700 + m_pick(0100);

	m_note("mkdir %s", random_new(path));
	BOTH(mkdirat(m.root[i], path, mode));
}

static void op_mknod(void)
{
	static const mode_t types[] = {S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK, S_IFREG};
	char path[M_PATH];
	mode_t mode = types[m_pick(5)] | 0600 | m_pick(0100);
	dev_t dev = makedev(42, m_pick(1000)); /* a number no driver has */

	m_note("mknod %s %o", random_new(path), mode);
	BOTH(mknodat(m.root[i], path, mode, dev));
}

static void op_symlink(void)
{
	char path[M_PATH], target[M_PATH];

	m_note("symlink %s -> %s", random_new(path), random_path(target));
	BOTH(symlinkat(target, m.root[i], path));
}

static void op_link(void)
{
	char a[M_PATH], b[M_PATH];
	int flags = m_pick(4) ? 0 : AT_SYMLINK_FOLLOW;

	m_note("link %s %s", random_path(a), random_new(b));
	BOTH(linkat(m.root[i], a, m.root[i], b, flags));
}

static void op_unlink(void)
{
	char path[M_PATH];

	m_note("unlink %s", random_path(path));
	BOTH(unlinkat(m.root[i], path, 0));
}

static void op_rmdir(void)
{
	char path[M_PATH];

	m_note("rmdir %s", random_path(path));
	BOTH(unlinkat(m.root[i], path, AT_REMOVEDIR));
}

static void op_rename(void)
{
	static const unsigned flags[] = {0, 0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE, 3};
	char a[M_PATH], b[M_PATH];
	unsigned f = flags[m_pick(7)];

	m_note("rename %s %s flags %u", random_path(a), m_pick(2) ? random_new(b) : random_path(b),
		f);
	BOTH(renameat2(m.root[i], a, m.root[i], b, f));
}

static int remove_tree(int dirfd, const char *name, int depth)
{
	DIR *d;
	int fd, rc = 0;

	if (!unlinkat(dirfd, name, 0))
		return 0;
	if (errno != EISDIR || depth > 64)
		return -1;
	fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
	d = fd >= 0 ? fdopendir(fd) : NULL;
	if (!d)
		return -1;
	for (struct dirent *e; (e = readdir(d));)
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			rc |= remove_tree(fd, e->d_name, depth + 1);
	closedir(d);
	return rc || unlinkat(dirfd, name, AT_REMOVEDIR) ? -1 : 0;
}

static void op_remove_tree(void)
{
	char path[M_PATH];

	m_note("remove tree %s", random_path(path));
	BOTH(remove_tree(m.root[i], path, 0));
}

/* A directory gets many entries at once, or loses some of them. */
static void op_many(void)
{
	char dir[M_PATH], path[M_PATH + 32];
	unsigned from = m_pick(300), n = m_pick(80), kind = m_pick(3);

	m_note("many %s %u+%u kind %u", random_path(dir), from, n, kind);
	if (BOTH(mkdirat(m.root[i], dir, 0755)) < 0 && errno != EEXIST)
		return;
	for (unsigned k = from; k < from + n; k++) {
		snprintf(path, sizeof(path), "%s/entry-number-%u", dir, k);
		m_note("many: kind %u %s", kind, path);
		if (kind == 0)
			BOTH(unlinkat(m.root[i], path, 0));
		else if (kind == 1)
			BOTH(mknodat(m.root[i], path, S_IFREG | 0644, 0));
		else
			BOTH(symlinkat("somewhere", m.root[i], path));
	}
}

/* ---- attributes ------------------------------------------------------------------------------------ */

static void op_chmod(void)
{
	char path[M_PATH];
	mode_t mode = m_pick(010000);

	m_note("chmod %s %o", random_path(path), mode);
	BOTH(fchmodat(m.root[i], path, mode, 0));
}

static void op_chown(void)
{
	char path[M_PATH];
	uid_t uid = m_pick(3) ? m_pick(5) : (uid_t)-1;
	gid_t gid = m_pick(3) ? m_pick(5) : (gid_t)-1;

	m_note("chown %s %d %d", random_path(path), (int)uid, (int)gid);
	BOTH(fchownat(m.root[i], path, uid, gid, AT_SYMLINK_NOFOLLOW));
}

static void op_utimens(void)
{
	static const int64_t secs[] = {0, 1, 1000000000, -1, -2208988800, 1400000000};
	char path[M_PATH];
	struct timespec ts[2];

	for (int k = 0; k < 2; k++) {
		ts[k].tv_sec = secs[m_pick(6)];
		ts[k].tv_nsec = m_pick(1000000000);
		if (m_pick(4) == 0)
			ts[k].tv_nsec = m_pick(2) ? UTIME_OMIT : UTIME_NOW;
	}
	m_note("utimens %s", random_path(path));
	BOTH(utimensat(m.root[i], path, ts, AT_SYMLINK_NOFOLLOW));
}

static void op_xattr(void)
{
	char path[M_PATH], full[2][M_PATH * 2], name[32];
	size_t len = m_pick(10) ? m_pick(600) : m_pick(40000);
	int flags = (int)m_pick(6);

	flags = flags == 0 ? XATTR_CREATE : flags == 1 ? XATTR_REPLACE : 0;
	snprintf(name, sizeof(name), "trusted.%c", 'a' + m_pick(6));
	random_path(path);
	for (int i = 0; i < 2; i++)
		snprintf(full[i], sizeof(full[i]), "%s/%s", m.path[i], path);
	if (m_pick(3) == 0) {
		m_note("removexattr %s %s", path, name);
		BOTH(lremovexattr(full[i], name));
	} else if (m_pick(3) == 0) {
		m_note("getxattr %s %s", path, name);
		if (BOTH(lgetxattr(full[i], name, got[i], 65536)) > 0 &&
			memcmp(got[0], got[1], (size_t)lgetxattr(full[1], name, NULL, 0)))
			m_differ("the values differ");
	} else {
		fill_data(len);
		m_note("setxattr %s %s %zu bytes flags %d", path, name, len, flags);
		BOTH(lsetxattr(full[i], name, data, len, flags));
	}
}

static void op_stat(void)
{
	char path[M_PATH];
	struct stat st[2];

	m_note("stat %s", random_path(path));
	if (BOTH(fstatat(m.root[i], path, &st[i], AT_SYMLINK_NOFOLLOW)) < 0)
		return;
	if (st[0].st_mode != st[1].st_mode || st[0].st_nlink != st[1].st_nlink)
		m_differ("mode %o links %lu, must be %o, %lu", st[0].st_mode,
			(unsigned long)st[0].st_nlink, st[1].st_mode,
			(unsigned long)st[1].st_nlink);
	if (!S_ISDIR(st[0].st_mode) && st[0].st_size != st[1].st_size)
		m_differ("size %lld, must be %lld", (long long)st[0].st_size,
			(long long)st[1].st_size);
}

/* ---- content ---------------------------------------------------------------------------------------- */

static void op_open(void)
{
	static const int flags[] = {O_RDWR | O_CREAT, O_RDWR, O_RDWR | O_CREAT | O_EXCL,
		O_RDWR | O_TRUNC, O_RDWR | O_APPEND, O_RDONLY, O_WRONLY | O_CREAT | O_TRUNC};
	char path[M_PATH];
	unsigned h = m_pick(M_HANDLES);
	int fds[2], f = flags[m_pick(7)];

	if (m.handle[h].open) {
		m_note("close handle %u", h);
		close_both((int[2]){m.handle[h].a, m.handle[h].b});
		m.handle[h].open = false;
	}
	m_note("open %s flags %o as handle %u", random_path(path), f, h);
	if (!open_both(path, f, fds))
		return;
	m.handle[h].open = true;
	m.handle[h].a = fds[0];
	m.handle[h].b = fds[1];
}

static void op_tmpfile(void)
{
	char dir[M_PATH], path[M_PATH], proc[2][64];
	int fds[2];
	size_t len = random_len();

	m_note("tmpfile in %s", m_pick(3) ? strcpy(dir, ".") : random_path(dir));
	if (!open_both(dir, O_TMPFILE | O_RDWR, fds))
		return;
	fill_data(len);
	m_note("write %zu to tmpfile", len);
	BOTH(pwrite(fds[i], data, len, 0));
	m_note("link tmpfile as %s", random_new(path));
	for (int i = 0; i < 2; i++)
		snprintf(proc[i], sizeof(proc[i]), "/proc/self/fd/%d", fds[i]);
	BOTH(linkat(AT_FDCWD, proc[i], m.root[i], path, AT_SYMLINK_FOLLOW));
	close_both(fds);
}

static void op_write(void)
{
	int fds[2];
	bool mine;
	size_t len = random_len();
	off_t off = random_off();

	if (!some_file(m_pick(3) ? O_RDWR | O_CREAT : O_RDWR, fds, &mine))
		return;
	fill_data(len);
	m_note("write %zu at %lld", len, (long long)off);
	BOTH(pwrite(fds[i], data, len, off));
	if (mine)
		close_both(fds);
}

static void op_append(void)
{
	char path[M_PATH];
	int fds[2];
	size_t len = random_len();

	m_note("append %s %zu", random_path(path), len);
	if (!open_both(path, O_WRONLY | O_APPEND, fds))
		return;
	fill_data(len);
	m_note("append: write");
	BOTH(write(fds[i], data, len));
	close_both(fds);
}

static void op_read(void)
{
	int fds[2];
	bool mine;
	size_t len = random_len();
	off_t off = random_off();
	long n;

	if (!some_file(O_RDONLY, fds, &mine))
		return;
	m_note("read %zu at %lld", len, (long long)off);
	n = BOTH(pread(fds[i], got[i], len, off));
	if (n > 0 && memcmp(got[0], got[1], (size_t)n))
		m_differ("what was read differs");
	if (mine)
		close_both(fds);
}

static void op_truncate(void)
{
	int fds[2];
	bool mine;
	off_t size, len = m_pick(4) ? random_off() : random_off() + (off_t)random_len();

	if (!some_file(O_RDWR, fds, &mine))
		return;
	m_note("ftruncate to %lld", (long long)len);
	if (is_regular(fds, &size) && size == len) {
		/* Whether this counts as a change is the filesystem's choice. */
		BOTH(ftruncate(fds[i], len));
		set_both_times(fds);
	} else {
		BOTH(ftruncate(fds[i], len));
	}
	if (mine)
		close_both(fds);
}

static int zero_range(int fd, off_t off, off_t len, bool keep_size)
{
	struct stat st;
	off_t end = off + len;

	if (fstat(fd, &st))
		return -1;
	if (keep_size && end > st.st_size)
		end = st.st_size;
	if (end > st.st_size && ftruncate(fd, end))
		return -1;
	/* Not by writing: the descriptor may be one that appends. */
	return off < end ? fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, end - off)
			 : 0;
}

static void op_fallocate(void)
{
	static const int modes[] = {0, FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
		FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
	int fds[2], mode = modes[m_pick(5)];
	bool mine;
	off_t size, off = random_off(), len = (off_t)random_len() + 1;

	if (!some_file(O_RDWR, fds, &mine))
		return;
	m_note("fallocate mode %d at %lld len %lld", mode, (long long)off, (long long)len);
	if (is_regular(fds, &size) && (fcntl(fds[1], F_GETFL) & O_ACCMODE) != O_RDONLY) {
		if (mode & FALLOC_FL_ZERO_RANGE)
			BOTH(i ? zero_range(fds[i], off, len, mode & FALLOC_FL_KEEP_SIZE)
			       : fallocate(fds[i], mode, off, len));
		else
			BOTH(fallocate(fds[i], mode, off, len));
		set_both_times(fds);
	} else if (!(mode & FALLOC_FL_ZERO_RANGE)) {
		BOTH(fallocate(fds[i], mode, off, len));
	}
	if (mine)
		close_both(fds);
}

static long plain_copy(int from, off_t from_off, int to, off_t to_off, size_t len)
{
	ssize_t n;
	static unsigned char buf[4 << 20];

	if (len > sizeof(buf))
		len = sizeof(buf);
	n = pread(from, buf, len, from_off);
	if (n <= 0)
		return n;
	return pwrite(to, buf, (size_t)n, to_off);
}

/* The clone: whole files, aligned ranges, ragged ranges. */
static void op_copy(void)
{
	char from[M_PATH], to[M_PATH];
	int src[2], dst[2];
	off_t size, from_off = 0, to_off = 0;
	size_t len = 3 << 20;

	if (m_pick(2)) {
		from_off = random_off();
		to_off = m_pick(2) ? from_off : random_off();
		len = random_len() + 1;
		if (m_pick(2)) {
			from_off &= ~4095ll;
			to_off &= ~4095ll;
			len = (len + 4095) & ~4095ul;
		}
	}
	m_note("copy from %s", random_path(from));
	if (!open_both(from, O_RDONLY, src))
		return;
	m_note("copy to %s (%lld to %lld, %zu bytes)", random_path(to), (long long)from_off,
		(long long)to_off, len);
	if (!open_both(to, O_RDWR | O_CREAT, dst)) {
		close_both(src);
		return;
	}
	if (is_regular(src, &size) && is_regular(dst, &size)) {
		struct stat a, b;

		/* Ranges of one file that overlap are refused by the kernel; not our subject. */
		if (fstat(src[1], &a) || fstat(dst[1], &b))
			abort();
		if (a.st_ino != b.st_ino || a.st_dev != b.st_dev) {
			long done = 0;

			/* A copy may come up short without reason; go on until it is whole. */
			m_note("copy: done");
			BOTH(({
				long r = 0;
				off_t f = from_off, t = to_off;
				done = 0;
				if (i)
					r = plain_copy(src[1], f, dst[1], t, len);
				while (!i && (size_t)done < len) {
					r = copy_file_range(
						src[0], &f, dst[0], &t, len - (size_t)done, 0);
					if (r <= 0)
						break;
					done += r;
				}
				i || r < 0 ? r : done;
			}));
			set_both_times(dst);
		}
	}
	close_both(dst);
	close_both(src);
}

static void op_map(void)
{
	int fds[2];
	bool mine;
	off_t size;
	size_t off, len;

	if (!some_file(O_RDWR, fds, &mine))
		return;
	if (is_regular(fds, &size) && size > 0 && size < 4000000 &&
		(fcntl(fds[1], F_GETFL) & O_ACCMODE) == O_RDWR) {
		off = m_pick((unsigned)size);
		len = random_len() % ((size_t)size - off) + 1;
		fill_data(len);
		m_note("store %zu at %zu through a map of %lld", len, off, (long long)size);
		for (int i = 0; i < 2; i++) {
			unsigned char *p = mmap(
				NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, fds[i], 0);

			if (p == MAP_FAILED)
				m_differ("mmap: %s", strerror(errno));
			memcpy(got[i], p + off, len);
			memcpy(p + off, data, len);
			/* Before a kill, what was stored must have been handed over. */
			if (msync(p, (size_t)size, MS_SYNC) || munmap(p, (size_t)size))
				m_differ("msync: %s", strerror(errno));
		}
		if (memcmp(got[0], got[1], len))
			m_differ("what the maps showed differs");
		set_both_times(fds);
	}
	if (mine)
		close_both(fds);
}

static void op_fsync(void)
{
	int fds[2];
	bool mine;

	if (!some_file(O_RDONLY, fds, &mine))
		return;
	m_note("fsync");
	BOTH(m.op % 2 ? fsync(fds[i]) : fdatasync(fds[i]));
	if (mine)
		close_both(fds);
}

static const struct {
	unsigned weight;
	void (*fn)(void);
} ops[] = {{8, op_mkdir}, {2, op_mknod}, {3, op_symlink}, {6, op_link}, {6, op_unlink},
	{3, op_rmdir}, {10, op_rename}, {2, op_remove_tree}, {1, op_many}, {4, op_chmod},
	{3, op_chown}, {4, op_utimens}, {6, op_xattr}, {4, op_stat}, {8, op_open}, {2, op_tmpfile},
	{14, op_write}, {5, op_append}, {6, op_read}, {8, op_truncate}, {8, op_fallocate},
	{8, op_copy}, {6, op_map}, {1, op_fsync}};

void m_step(void)
{
	unsigned total = 0, r;

	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		total += ops[i].weight;
	r = m_pick(total);
	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		if (r < ops[i].weight) {
			m.failed = false;
			ops[i].fn();
			m.failures += m.failed;
			return;
		}
		r -= ops[i].weight;
	}
}
