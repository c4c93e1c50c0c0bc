/* SPDX-License-Identifier: BSD-3-Clause */
/* Model test: compares the two trees. */
#include "model.h"

#include <sys/xattr.h>

#define MAX_ENTRIES 20000

struct entry {
	char name[256];
	ino_t ino;
	unsigned char type;
};

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

static unsigned read_dir(int dirfd, const char *path, struct entry **out)
{
	struct entry *list = NULL;
	unsigned n = 0, room = 0;
	int fd = openat(dirfd, path, O_RDONLY | O_DIRECTORY);
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;

	if (!d)
		m_differ("cannot read directory %s: %s", path, strerror(errno));
	for (struct dirent *e; (errno = 0, e = readdir(d));) {
		if (n == MAX_ENTRIES)
			m_differ("directory %s does not end", path);
		if (n == room) {
			room = room ? room * 2 : 32;
			list = realloc(list, room * sizeof(*list));
			if (!list)
				abort();
		}
		strcpy(list[n].name, e->d_name);
		list[n].ino = e->d_ino;
		list[n++].type = e->d_type;
	}
	if (errno)
		m_differ("reading directory %s: %s", path, strerror(errno));
	closedir(d);
	qsort(list, n, sizeof(*list), by_name);
	*out = list;
	return n;
}

static void same_number(const char *path, const char *what, long long a, long long b)
{
	if (a != b)
		m_differ("%s: %s is %lld, must be %lld", path, what, a, b);
}

/* Times that were set are the same to the nanosecond; those that "now" was put in, nearly. */
static void same_time(const char *path, const char *what, struct timespec a, struct timespec b)
{
	double d = (double)(a.tv_sec - b.tv_sec) + (double)(a.tv_nsec - b.tv_nsec) / 1e9;
	bool set = b.tv_sec < 1500000000;

	if (set && d != 0)
		m_differ("%s: %s is %lld.%09ld, must be %lld.%09ld", path, what,
			(long long)a.tv_sec, a.tv_nsec, (long long)b.tv_sec, b.tv_nsec);
	if (d > 3 || d < -3)
		m_differ("%s: %s is %.3f s off", path, what, d);
}

static int one_byte_open(int i, const char *path)
{
	return openat(m.root[i], path, O_RDONLY | O_NOFOLLOW | O_NOATIME);
}

static void same_content(const char *path)
{
	static char a[1 << 20], b[1 << 20];
	int fa = one_byte_open(0, path), fb = one_byte_open(1, path);
	off_t off = 0;

	if (fa < 0 || fb < 0)
		m_differ("cannot open %s: %s", path, strerror(errno));
	for (;;) {
		ssize_t na = pread(fa, a, sizeof(a), off), nb = pread(fb, b, sizeof(b), off);

		if (na != nb)
			m_differ("%s: read at %lld gave %zd (%s), must be %zd", path,
				(long long)off, na, na < 0 ? strerror(errno) : "", nb);
		if (na <= 0)
			break;
		for (ssize_t i = 0; i < na; i++)
			if (a[i] != b[i])
				m_differ("%s: byte %lld is 0x%02x, must be 0x%02x", path,
					(long long)off + i, (unsigned char)a[i],
					(unsigned char)b[i]);
		off += na;
	}
	close(fa);
	close(fb);
}

static int by_string(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sorted names of extended attributes that the model sets; a copy lives in buf. */
static unsigned xattr_names(int i, const char *path, char *buf, char **out)
{
	char full[M_PATH * 2];
	unsigned n = 0;
	ssize_t len;

	snprintf(full, sizeof(full), "%s/%s", m.path[i], path);
	len = llistxattr(full, buf, 65536);
	if (len < 0)
		m_differ("listxattr %s: %s", full, strerror(errno));
	for (char *p = buf; p < buf + len; p += strlen(p) + 1)
		if (!strncmp(p, "trusted.", 8) && n < 64)
			out[n++] = p;
	qsort(out, n, sizeof(*out), by_string);
	return n;
}

static void same_xattrs(const char *path)
{
	static char buf[2][65536], value[2][65536];
	char *names[2][64], full[2][M_PATH * 2];
	unsigned n = xattr_names(0, path, buf[0], names[0]);

	same_number(path, "number of xattrs", n, xattr_names(1, path, buf[1], names[1]));
	for (unsigned k = 0; k < n; k++) {
		ssize_t len[2];

		if (strcmp(names[0][k], names[1][k]))
			m_differ("%s: xattr %s, must be %s", path, names[0][k], names[1][k]);
		for (int i = 0; i < 2; i++) {
			snprintf(full[i], sizeof(full[i]), "%s/%s", m.path[i], path);
			len[i] = lgetxattr(full[i], names[0][k], value[i], sizeof(value[i]));
		}
		same_number(path, names[0][k], len[0], len[1]);
		if (len[0] > 0 && memcmp(value[0], value[1], (size_t)len[0]))
			m_differ("%s: value of %s differs", path, names[0][k]);
	}
}

static void same_inode(const char *path, struct stat *out)
{
	struct stat st[2];
	char target[2][4097] = {"", ""};

	for (int i = 0; i < 2; i++)
		if (fstatat(m.root[i], path, &st[i], AT_SYMLINK_NOFOLLOW))
			m_differ("%s/%s: %s", m.path[i], path, strerror(errno));
	same_number(path, "mode", st[0].st_mode, st[1].st_mode);
	same_number(path, "uid", st[0].st_uid, st[1].st_uid);
	same_number(path, "gid", st[0].st_gid, st[1].st_gid);
	same_number(path, "nlink", (long long)st[0].st_nlink, (long long)st[1].st_nlink);
	same_number(path, "rdev", (long long)st[0].st_rdev, (long long)st[1].st_rdev);
	/* A FUSE server never hears of writes to a fifo: the kernel keeps them, and no time, to itself. */
	if (!S_ISFIFO(st[0].st_mode))
		same_time(path, "mtime", st[0].st_mtim, st[1].st_mtim);
	if (!S_ISDIR(st[0].st_mode))
		same_number(path, "size", st[0].st_size, st[1].st_size);
	if (S_ISREG(st[0].st_mode))
		same_content(path);
	if (S_ISLNK(st[0].st_mode)) {
		for (int i = 0; i < 2; i++)
			if (readlinkat(m.root[i], path, target[i], 4096) < 0)
				m_differ("readlink %s: %s", path, strerror(errno));
		if (strcmp(target[0], target[1]))
			m_differ("%s leads to %s, must be %s", path, target[0], target[1]);
	}
	same_xattrs(path);
	*out = st[0];
}

/* Names that are one inode here are one inode there. */
struct pair {
	ino_t a, b;
};
static struct pair *pairs;
static unsigned npairs, room;

static void same_identity(const char *path, ino_t a)
{
	struct stat st;

	if (fstatat(m.root[1], path, &st, AT_SYMLINK_NOFOLLOW))
		m_differ("%s: %s", path, strerror(errno));
	for (unsigned i = 0; i < npairs; i++) {
		if (pairs[i].a == a && pairs[i].b == st.st_ino)
			return;
		if (pairs[i].a == a || pairs[i].b == st.st_ino)
			m_differ("%s: hard links differ", path);
	}
	if (npairs == room) {
		room = room ? room * 2 : 1024;
		pairs = realloc(pairs, room * sizeof(*pairs));
		if (!pairs)
			abort();
	}
	pairs[npairs++] = (struct pair){a, st.st_ino};
}

static void compare_dir(const char *path, unsigned depth)
{
	struct entry *list[2];
	unsigned n[2];
	char child[M_PATH];

	if (depth > 64)
		m_differ("%s: too deep", path);
	for (int i = 0; i < 2; i++)
		n[i] = read_dir(m.root[i], path, &list[i]);
	for (unsigned k = 0; k < n[0] && k < n[1]; k++)
		if (strcmp(list[0][k].name, list[1][k].name))
			m_differ(
				"%s: entry %s, must be %s", path, list[0][k].name, list[1][k].name);
	same_number(path, "number of entries", n[0], n[1]);
	for (unsigned k = 0; k < n[0]; k++) {
		struct stat st;

		if (!strcmp(list[0][k].name, ".") || !strcmp(list[0][k].name, ".."))
			continue;
		m.entries++;
		if (snprintf(child, sizeof(child), "%s/%s", path, list[0][k].name) >= M_PATH)
			m_differ("path too long");
		same_inode(child, &st);
		same_number(child, "d_ino", (long long)list[0][k].ino, (long long)st.st_ino);
		same_number(child, "d_type", list[0][k].type, list[1][k].type);
		if (S_ISDIR(st.st_mode))
			compare_dir(child, depth + 1);
		else if (st.st_nlink > 1)
			same_identity(child, st.st_ino);
	}
	free(list[0]);
	free(list[1]);
}

void m_compare(void)
{
	npairs = 0;
	m.entries = 0;
	compare_dir(".", 0);
}
