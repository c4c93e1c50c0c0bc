/* SPDX-License-Identifier: BSD-3-Clause */
/* Reading directories, also while they change. */
#include "t.h"

#include <dirent.h>

#define MANY_MAX 3000

/* Fewer where everything takes ten times as long. */
static int many(void)
{
	const char *smoke = getenv("UMBRA_SMOKE");

	return smoke && *smoke == '1' ? 100 : MANY_MAX;
}

static void fill(int from, int to)
{
	char name[64];

	for (int i = from; i < to; i++) {
		snprintf(name, sizeof(name), "file-%d-with-a-name-of-some-length", i);
		t_touch(name);
	}
}

static int number(const char *name)
{
	return strncmp(name, "file-", 5) ? -1 : atoi(name + 5);
}

static void entries_are_complete_and_true(void)
{
	int n = 0;

	t_touch("file");
	ok(mkdir("dir", 0755));
	ok(symlink("x", "link"));
	ok(mknod("fifo", S_IFIFO | 0600, 0));
	ok(mknod("sock", S_IFSOCK | 0600, 0));
	ok(mknod("chr", S_IFCHR | 0600, makedev(1, 3)));
	ok(mknod("blk", S_IFBLK | 0600, makedev(7, 99)));
	DIR *d = opendir(".");
	is_true(d);
	for (struct dirent *e; (errno = 0, e = readdir(d));) {
		struct stat st = t_stat(e->d_name);

		n++;
		if (strcmp(e->d_name, ".."))
			eq(e->d_ino, st.st_ino);
		eq(e->d_type, IFTODT(st.st_mode));
	}
	eq(errno, 0);
	eq(n, 9);
	closedir(d);
}

static void every_entry_once(void)
{
	static char seen[MANY_MAX];
	int n = 0;

	fill(0, many());
	DIR *d = opendir(".");
	is_true(d);
	for (struct dirent *e; (e = readdir(d));) {
		int i = number(e->d_name);

		if (i < 0)
			continue;
		eq(seen[i]++, 0);
		n++;
	}
	eq(n, many());
	/* Again after rewind, with what came in between. */
	t_touch("file-2999999");
	rewinddir(d);
	n = 0;
	while (readdir(d))
		n++;
	eq(n, many() + 3);
	closedir(d);
}

/* What is neither added nor removed meanwhile is seen exactly once. */
static void stable_entries_once_under_change(void)
{
	static char seen[4 * MANY_MAX];
	char name[64];
	int n = 0, extra = many();

	fill(0, many());
	DIR *d = opendir(".");
	is_true(d);
	for (struct dirent *e; (e = readdir(d));) {
		int i = number(e->d_name);

		if (i < 0)
			continue;
		if (seen[i]++)
			t_fail(__FILE__, __LINE__, "%s seen twice", e->d_name);
		if (++n % 3 == 0 && extra < 3 * many()) {
			fill(extra, extra + 2);
			extra += 2;
		}
		/* Remove behind and ahead of the position: odd numbers only. */
		for (int k = 0; k < 2; k++) {
			int victim = (int)((unsigned)(n * 7919 + k * 104729) % many()) | 1;

			snprintf(name, sizeof(name), "file-%d-with-a-name-of-some-length", victim);
			if (victim < many())
				unlink(name);
		}
	}
	for (int i = 0; i < many(); i += 2)
		if (seen[i] != 1)
			t_fail(__FILE__, __LINE__, "file-%d was there all the time, seen %d times",
				i, seen[i]);
	closedir(d);
}

static void positions_stay_valid(void)
{
	static long pos[MANY_MAX + 2];
	static char names[MANY_MAX + 2][64];
	int n = 0;

	fill(0, many());
	DIR *d = opendir(".");
	is_true(d);
	for (;;) {
		long p = telldir(d);
		struct dirent *e = readdir(d);

		if (!e)
			break;
		is_true(n < many() + 2);
		pos[n] = p;
		memccpy(names[n++], e->d_name, 0, 63);
	}
	eq(n, many() + 2);
	fill(many(), many() + many() / 6);
	for (int k = 0; k < many() / 8; k++) {
		int i = (int)((unsigned)(k * 7919) % (unsigned)n);

		if (k % 4 == 1 && number(names[i]) >= 0) {
			unlink(names[i]);
			names[i][0] = 0;
		}
		if (!names[i][0])
			continue;
		seekdir(d, pos[i]);
		/* New entries may stand before it now; the known one comes before its successor. */
		for (struct dirent *e;;) {
			e = readdir(d);
			if (!e)
				t_fail(__FILE__, __LINE__, "%s not found again", names[i]);
			if (!strcmp(e->d_name, names[i]))
				break;
			if (number(e->d_name) < many())
				t_fail(__FILE__, __LINE__, "%s at the position of %s", e->d_name,
					names[i]);
		}
	}
	closedir(d);
	/* Positions also hold for a directory opened anew. */
	d = opendir(".");
	is_true(d);
	for (int i = n - 1; i > n - 50; i--) {
		if (!names[i][0] || number(names[i]) < 0)
			continue;
		seekdir(d, pos[i]);
		struct dirent *e = readdir(d);
		while (e && number(e->d_name) >= many())
			e = readdir(d);
		is_true(e);
		eq(strcmp(e->d_name, names[i]), 0);
	}
	closedir(d);
}

static void small_buffers(void)
{
	char name[256], buf[1024];
	long n, total = 0;

	memset(name, 'n', 255);
	name[255] = 0;
	for (int i = 0; i < 20; i++) {
		name[0] = (char)('a' + i);
		t_touch(name);
	}
	int fd = ok(open(".", O_RDONLY | O_DIRECTORY));
	while ((n = ok(syscall(SYS_getdents64, fd, buf, 300L))) > 0)
		for (long at = 0; at < n; at += ((struct dirent64 *)(buf + at))->d_reclen)
			total++;
	eq(total, 22);
	ok(lseek(fd, 0, SEEK_SET));
	fails(EINVAL, syscall(SYS_getdents64, fd, buf, 10L));
	close(fd);
}

static void removing_while_reading_empties(void)
{
	int left = 0;

	fill(0, many());
	DIR *d = opendir(".");
	is_true(d);
	for (struct dirent *e; (e = readdir(d));)
		if (e->d_name[0] != '.')
			ok(unlink(e->d_name));
	rewinddir(d);
	for (struct dirent *e; (e = readdir(d));)
		left += e->d_name[0] != '.';
	eq(left, 0);
	closedir(d);
}

const struct t_case t_dirs[] = {
	T_CASE(entries_are_complete_and_true),
	T_CASE(every_entry_once),
	T_CASE(stable_entries_once_under_change),
	T_CASE(positions_stay_valid),
	T_CASE(small_buffers),
	T_CASE(removing_while_reading_empties),
	{NULL, NULL},
};
