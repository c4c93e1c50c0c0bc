/* SPDX-License-Identifier: BSD-3-Clause */
/* Names: create, link, remove, rename, list. */
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "fs_fixture.h"

static bool later(struct timespec a, struct timespec b)
{
	return a.tv_sec > b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec > b.tv_nsec);
}

static void made_names_are_found(void **state)
{
	struct fixture *f = *state;
	uint64_t dir = make_dir(f, ROOT, "d"), ino = make_file(f, dir, "f");

	assert_int_equal(find(f, ROOT, "d"), dir);
	assert_int_equal(find(f, dir, "f"), ino);
	assert_int_equal(find(f, dir, ".."), ROOT);
	assert_int_equal(find(f, dir, "g"), 0);
	assert_int_equal(attr_of(f, ino).st.st_mode, S_IFREG | 0644);
	assert_int_equal(try_make(f, dir, "f", S_IFREG, NULL), -EEXIST);
	fixture_crash(f);
	assert_int_equal(find(f, dir, "f"), ino);
}

static void every_type_can_be_made(void **state)
{
	struct fixture *f = *state;
	struct umbra_cred cred = {.uid = 5, .gid = 6};
	struct umbra_attr attr;

	assert_int_equal(
		umbra_mknod(f->fs, ROOT, "c", S_IFCHR | 0600, makedev(300, 70000), &cred, &attr),
		0);
	assert_int_equal(attr.st.st_rdev, makedev(300, 70000));
	assert_int_equal(attr.st.st_uid, 5);
	assert_int_equal(attr.st.st_gid, 6);
	assert_int_equal(
		umbra_mknod(f->fs, ROOT, "b", S_IFBLK | 0600, makedev(8, 1), &cred, &attr), 0);
	assert_int_equal(umbra_mknod(f->fs, ROOT, "p", S_IFIFO | 0600, 99, &cred, &attr), 0);
	assert_int_equal(attr.st.st_rdev, 0);
	assert_int_equal(umbra_mknod(f->fs, ROOT, "s", S_IFSOCK | 0600, 0, &cred, &attr), 0);
	assert_int_equal(umbra_mknod(f->fs, ROOT, "l", S_IFLNK | 0600, 0, &cred, &attr), -EINVAL);
}

static void bad_names_are_refused(void **state)
{
	struct fixture *f = *state;
	char longest[257];
	uint64_t file = make_file(f, ROOT, "f");
	struct umbra_attr attr;

	memset(longest, 'x', sizeof(longest));
	longest[256] = 0;
	assert_int_equal(try_make(f, ROOT, longest, S_IFREG, NULL), -ENAMETOOLONG);
	assert_int_equal(umbra_lookup(f->fs, ROOT, longest, &attr), -ENAMETOOLONG);
	longest[255] = 0;
	assert_int_equal(try_make(f, ROOT, longest, S_IFREG, NULL), 0);
	assert_int_not_equal(find(f, ROOT, longest), 0);
	assert_int_equal(try_make(f, ROOT, "\x01\xff\n*", S_IFREG, NULL), 0);
	assert_int_not_equal(find(f, ROOT, "\x01\xff\n*"), 0);
	assert_int_equal(try_make(f, ROOT, "", S_IFREG, NULL), -ENOENT);
	assert_int_equal(try_make(f, ROOT, "a/b", S_IFREG, NULL), -EINVAL);
	assert_int_equal(try_make(f, ROOT, ".", S_IFDIR, NULL), -EEXIST);
	assert_int_equal(try_make(f, file, "x", S_IFREG, NULL), -ENOTDIR);
	assert_int_equal(umbra_rmdir(f->fs, ROOT, "."), -EINVAL);
	assert_int_equal(umbra_rmdir(f->fs, ROOT, ".."), -ENOTEMPTY);
	assert_int_equal(umbra_unlink(f->fs, ROOT, ".."), -EISDIR);
	assert_int_equal(umbra_rename(f->fs, ROOT, ".", ROOT, "x", 0), -EBUSY);
	assert_int_equal(umbra_rename(f->fs, ROOT, "f", ROOT, "..", 0), -EBUSY);
}

static void directories_count_their_subdirectories(void **state)
{
	struct fixture *f = *state;
	uint64_t a = make_dir(f, ROOT, "a");

	assert_int_equal(nlink_of(f, ROOT), 3);
	assert_int_equal(nlink_of(f, a), 2);
	make_dir(f, a, "b");
	make_file(f, a, "c");
	assert_int_equal(nlink_of(f, a), 3);
	assert_int_equal(umbra_rmdir(f->fs, ROOT, "a"), -ENOTEMPTY);
	assert_int_equal(umbra_unlink(f->fs, a, "b"), -EISDIR);
	assert_int_equal(umbra_rmdir(f->fs, a, "c"), -ENOTDIR);
	assert_int_equal(umbra_rmdir(f->fs, a, "b"), 0);
	assert_int_equal(umbra_unlink(f->fs, a, "c"), 0);
	assert_int_equal(umbra_unlink(f->fs, a, "c"), -ENOENT);
	assert_int_equal(nlink_of(f, a), 2);
	assert_int_equal(umbra_rmdir(f->fs, ROOT, "a"), 0);
	assert_int_equal(nlink_of(f, ROOT), 2);
}

static void removed_directory_takes_no_names(void **state)
{
	struct fixture *f = *state;
	uint64_t dir = make_dir(f, ROOT, "d"), file = make_file(f, ROOT, "f");

	assert_int_equal(umbra_ref(f->fs, dir), 0);
	assert_int_equal(umbra_rmdir(f->fs, ROOT, "d"), 0);
	assert_int_equal(try_make(f, dir, "x", S_IFREG, NULL), -ENOENT);
	assert_int_equal(umbra_link(f->fs, file, dir, "x", NULL), -ENOENT);
	assert_int_equal(umbra_rename(f->fs, ROOT, "f", dir, "x", 0), -ENOENT);
	umbra_forget(f->fs, dir, 1);
	assert_int_equal(inodes(f), 2);
}

static void hard_links_share_the_inode(void **state)
{
	struct fixture *f = *state;
	uint64_t dir = make_dir(f, ROOT, "d"), ino = make_file(f, ROOT, "f");
	struct umbra_attr attr;

	assert_int_equal(umbra_link(f->fs, ino, dir, "g", &attr), 0);
	umbra_forget(f->fs, ino, 1);
	assert_int_equal(attr.st.st_nlink, 2);
	assert_int_equal(umbra_link(f->fs, ino, dir, "g", &attr), -EEXIST);
	assert_int_equal(umbra_link(f->fs, dir, ROOT, "e", &attr), -EPERM);
	assert_int_equal(umbra_unlink(f->fs, ROOT, "f"), 0);
	assert_int_equal(find(f, dir, "g"), ino);
	assert_int_equal(nlink_of(f, ino), 1);
}

static void setgid_directory_hands_its_group_down(void **state)
{
	struct fixture *f = *state;
	uint64_t dir = make_dir(f, ROOT, "d");
	struct umbra_cred cred = {.uid = 10, .gid = 20, .umask = 0};
	struct umbra_attr set = {0}, attr;

	set.st.st_mode = 02777;
	set.st.st_gid = 77;
	assert_int_equal(umbra_setattr(f->fs, dir, &set, UMBRA_SET_MODE | UMBRA_SET_GID, NULL), 0);
	assert_int_equal(umbra_mknod(f->fs, dir, "f", S_IFREG | 0664, 0, &cred, &attr), 0);
	assert_int_equal(attr.st.st_gid, 77);
	assert_int_equal(attr.st.st_mode, S_IFREG | 0664);
	assert_int_equal(umbra_mknod(f->fs, dir, "e", S_IFDIR | 0755, 0, &cred, &attr), 0);
	assert_int_equal(attr.st.st_gid, 77);
	assert_int_equal(attr.st.st_mode, S_IFDIR | 02755);
}

static void symlinks_of_every_length_are_read_back(void **state)
{
	struct fixture *f = *state;
	static const size_t lengths[] = {1, 100, 480, 481, 1023, 1024, 1025, 2048, 4095};
	char target[UMBRA_SYMLINK_MAX + 2], got[UMBRA_SYMLINK_MAX + 1], name[32];
	struct umbra_attr attr;
	size_t i, j;

	for (i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		for (j = 0; j < lengths[i]; j++)
			target[j] = (char)('a' + (i + j) % 26);
		target[lengths[i]] = 0;
		snprintf(name, sizeof(name), "l%zu", lengths[i]);
		assert_int_equal(umbra_symlink(f->fs, ROOT, name, target, NULL, &attr), 0);
		assert_int_equal(attr.st.st_size, lengths[i]);
		umbra_forget(f->fs, attr.st.st_ino, 1);
		/* Xattrs live in the same tree as long targets. */
		assert_int_equal(
			umbra_setxattr(f->fs, attr.st.st_ino, "trusted.t", "v", 1, 0, false), 0);
		fixture_crash(f);
		assert_int_equal(umbra_readlink(f->fs, attr.st.st_ino, got), 0);
		assert_string_equal(got, target);
		assert_int_equal(umbra_listxattr(f->fs, attr.st.st_ino, NULL, 0), 10);
	}
	memset(target, 'x', sizeof(target));
	target[UMBRA_SYMLINK_MAX + 1] = 0;
	assert_int_equal(umbra_symlink(f->fs, ROOT, "no", target, NULL, &attr), -ENAMETOOLONG);
	assert_int_equal(umbra_symlink(f->fs, ROOT, "no", "", NULL, &attr), -ENOENT);
	assert_int_equal(umbra_readlink(f->fs, ROOT, got), -EINVAL);
	for (i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		snprintf(name, sizeof(name), "l%zu", lengths[i]);
		assert_int_equal(umbra_unlink(f->fs, ROOT, name), 0);
	}
	assert_int_equal(inodes(f), 1);
}

static void changes_touch_the_times_that_posix_says(void **state)
{
	struct fixture *f = *state;
	uint64_t a = make_dir(f, ROOT, "a"), b = make_dir(f, ROOT, "b");
	uint64_t ino = make_file(f, a, "f");
	struct umbra_attr fa = attr_of(f, ino), da = attr_of(f, a), db = attr_of(f, b);
	struct timespec pause = {0, 1000000};

	nanosleep(&pause, NULL);
	assert_int_equal(umbra_rename(f->fs, a, "f", b, "g", 0), 0);
	assert_true(later(attr_of(f, ino).st.st_ctim, fa.st.st_ctim));
	assert_false(later(attr_of(f, ino).st.st_mtim, fa.st.st_mtim));
	assert_true(later(attr_of(f, a).st.st_mtim, da.st.st_mtim));
	assert_true(later(attr_of(f, b).st.st_mtim, db.st.st_mtim));
	assert_true(later(attr_of(f, b).st.st_ctim, db.st.st_ctim));
}

/* ---- rename ------------------------------------------------------------------------------------------- */

static void rename_replaces_a_file(void **state)
{
	struct fixture *f = *state;
	uint64_t a = make_file(f, ROOT, "a"), b = make_file(f, ROOT, "b");

	assert_int_equal(umbra_rename(f->fs, ROOT, "a", ROOT, "b", RENAME_NOREPLACE), -EEXIST);
	assert_int_equal(umbra_rename(f->fs, ROOT, "x", ROOT, "b", 0), -ENOENT);
	assert_int_equal(umbra_rename(f->fs, ROOT, "a", ROOT, "b", 0), 0);
	assert_int_equal(find(f, ROOT, "a"), 0);
	assert_int_equal(find(f, ROOT, "b"), a);
	assert_int_equal(inodes(f), 2);
	(void)b;
	assert_int_equal(umbra_rename(f->fs, ROOT, "b", ROOT, "c", RENAME_NOREPLACE), 0);
	assert_int_equal(find(f, ROOT, "c"), a);
	assert_int_equal(umbra_rename(f->fs, ROOT, "c", ROOT, "c", 0), 0);
	assert_int_equal(umbra_rename(f->fs, ROOT, "c", ROOT, "d", RENAME_WHITEOUT), -EINVAL);
}

static void a_whiteout_is_left_where_a_file_was(void **state)
{
	static const struct umbra_cred cred = {.uid = 55, .gid = 66};
	struct fixture *f = *state;
	uint64_t a = make_file(f, ROOT, "a"), b = make_file(f, ROOT, "b"), white;
	uint64_t dir = make_dir(f, ROOT, "dir"), sub = make_dir(f, ROOT, "sub");

	assert_int_equal(
		umbra_rename_whiteout(f->fs, ROOT, "a", ROOT, "b", RENAME_NOREPLACE, &cred),
		-EEXIST);
	assert_int_equal(umbra_rename_whiteout(f->fs, ROOT, "a", ROOT, "b", RENAME_EXCHANGE, &cred),
		-EINVAL);
	assert_int_equal(umbra_rename_whiteout(f->fs, ROOT, "a", ROOT, "b", 0, &cred), 0);
	assert_int_equal(find(f, ROOT, "b"), a);
	white = find(f, ROOT, "a");
	assert_true(white && white != a && white != b);
	assert_int_equal(attr_of(f, white).st.st_mode, S_IFCHR);
	assert_int_equal(attr_of(f, white).st.st_rdev, 0);
	assert_int_equal(attr_of(f, white).st.st_nlink, 1);
	assert_int_equal(attr_of(f, white).st.st_uid, 55);
	assert_int_equal(attr_of(f, white).st.st_gid, 66);
	/* A directory takes its link along. */
	assert_int_equal(
		umbra_rename_whiteout(f->fs, ROOT, "sub", dir, "sub", RENAME_NOREPLACE, &cred), 0);
	assert_int_equal(find(f, dir, "sub"), sub);
	assert_int_equal(attr_of(f, ROOT).st.st_nlink, 3);
	assert_int_equal(attr_of(f, dir).st.st_nlink, 3);
	assert_int_equal(umbra_unlink(f->fs, ROOT, "sub"), 0);
	assert_int_equal(find(f, ROOT, "sub"), 0);
}

static void rename_over_a_hard_link_does_nothing(void **state)
{
	struct fixture *f = *state;
	uint64_t ino = make_file(f, ROOT, "a");

	assert_int_equal(umbra_link(f->fs, ino, ROOT, "b", NULL), 0);
	umbra_forget(f->fs, ino, 1);
	assert_int_equal(umbra_rename(f->fs, ROOT, "a", ROOT, "b", 0), 0);
	assert_int_equal(find(f, ROOT, "a"), ino);
	assert_int_equal(find(f, ROOT, "b"), ino);
	assert_int_equal(nlink_of(f, ino), 2);
}

static void rename_moves_directories(void **state)
{
	struct fixture *f = *state;
	uint64_t a = make_dir(f, ROOT, "a"), b = make_dir(f, ROOT, "b"), sub = make_dir(f, a, "s");
	uint64_t deep = make_dir(f, sub, "deep");

	assert_int_equal(umbra_rename(f->fs, a, "s", b, "t", 0), 0);
	assert_int_equal(find(f, sub, ".."), b);
	assert_int_equal(nlink_of(f, a), 2);
	assert_int_equal(nlink_of(f, b), 3);
	assert_int_equal(umbra_rename(f->fs, ROOT, "b", sub, "x", 0), -EINVAL);
	assert_int_equal(umbra_rename(f->fs, ROOT, "b", deep, "x", 0), -EINVAL);
	assert_int_equal(umbra_rename(f->fs, ROOT, "b", b, "x", 0), -EINVAL);
	/* An ancestor of the source is never empty. */
	make_file(f, deep, "f");
	assert_int_equal(umbra_rename(f->fs, deep, "f", b, "t", 0), -ENOTEMPTY);
	assert_int_equal(umbra_rename(f->fs, sub, "deep", ROOT, "b", 0), -ENOTEMPTY);
	assert_int_equal(umbra_rename(f->fs, sub, "deep", ROOT, "a", 0), 0);
	assert_int_equal(find(f, ROOT, "a"), deep);
	assert_int_equal(find(f, deep, ".."), ROOT);
	assert_int_equal(nlink_of(f, ROOT), 4);
	assert_int_equal(nlink_of(f, sub), 2);
	assert_int_equal(inodes(f), 5);
}

static void rename_minds_the_types(void **state)
{
	struct fixture *f = *state;
	uint64_t d = make_dir(f, ROOT, "d");

	make_file(f, ROOT, "f");
	make_dir(f, ROOT, "e");
	assert_int_equal(umbra_rename(f->fs, ROOT, "d", ROOT, "f", 0), -ENOTDIR);
	assert_int_equal(umbra_rename(f->fs, ROOT, "f", ROOT, "d", 0), -EISDIR);
	make_file(f, d, "x");
	assert_int_equal(umbra_rename(f->fs, ROOT, "e", ROOT, "d", 0), -ENOTEMPTY);
	assert_int_equal(umbra_rename(f->fs, ROOT, "d", ROOT, "e", 0), 0);
	assert_int_equal(nlink_of(f, ROOT), 3);
	assert_int_equal(find(f, ROOT, "e"), d);
}

static void exchange_swaps_across_directories(void **state)
{
	struct fixture *f = *state;
	uint64_t a = make_dir(f, ROOT, "a"), b = make_dir(f, ROOT, "b");
	uint64_t file = make_file(f, a, "x"), dir = make_dir(f, b, "y"),
		 inner = make_dir(f, dir, "z");

	assert_int_equal(umbra_rename(f->fs, a, "x", b, "none", RENAME_EXCHANGE), -ENOENT);
	assert_int_equal(umbra_rename(f->fs, a, "x", b, "y", RENAME_EXCHANGE), 0);
	assert_int_equal(find(f, a, "x"), dir);
	assert_int_equal(find(f, b, "y"), file);
	assert_int_equal(find(f, dir, ".."), a);
	assert_int_equal(nlink_of(f, a), 3);
	assert_int_equal(nlink_of(f, b), 2);
	assert_int_equal(umbra_rename(f->fs, ROOT, "a", dir, "z", RENAME_EXCHANGE), -EINVAL);
	assert_int_equal(umbra_rename(f->fs, dir, "z", ROOT, "a", RENAME_EXCHANGE), -EINVAL);
	assert_int_equal(umbra_rename(f->fs, ROOT, "a", ROOT, "b", RENAME_EXCHANGE), 0);
	assert_int_equal(find(f, ROOT, "a"), b);
	assert_int_equal(nlink_of(f, ROOT), 4);
	(void)inner;
	fixture_crash(f);
	assert_int_equal(find(f, ROOT, "b"), a);
}

/* ---- readdir ---------------------------------------------------------------------------------------------- */

struct listing {
	unsigned n, stop_after;
	uint64_t cookie, prev;
	uint8_t *seen; /* by number in the name */
	unsigned max;
};

static int list_one(void *arg, const char *name, uint64_t ino, unsigned char type, uint64_t cookie)
{
	struct listing *l = arg;
	unsigned number;

	assert_int_not_equal(ino, 0);
	if (l->stop_after && l->n == l->stop_after)
		return 1;
	assert_true(cookie > l->prev && cookie <= INT64_MAX);
	l->prev = l->cookie = cookie;
	l->n++;
	if (sscanf(name, "name-%u", &number) == 1 && l->seen) {
		assert_true(number < l->max);
		assert_int_equal(type, DT_REG);
		l->seen[number]++;
	}
	return 0;
}

static void readdir_lists_every_entry_once(void **state)
{
	struct fixture *f = *state;
	enum { N = 5000 };
	struct listing l = {.seen = calloc(1, N), .max = N};
	uint64_t dir = make_dir(f, ROOT, "d");
	char name[32];
	unsigned i;

	for (i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "name-%u", i);
		make_file(f, dir, name);
	}
	l.stop_after = 7;
	do { /* in pieces of 7 */
		l.n = 0;
		assert_int_equal(umbra_readdir(f->fs, dir, l.cookie, list_one, &l), 0);
	} while (l.n);
	for (i = 0; i < N; i++)
		assert_int_equal(l.seen[i], 1);
	for (i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "name-%u", i);
		assert_int_equal(umbra_unlink(f->fs, dir, name), 0);
	}
	l = (struct listing){.seen = l.seen, .max = N};
	assert_int_equal(umbra_readdir(f->fs, dir, 0, list_one, &l), 0);
	assert_int_equal(l.n, 2);
	assert_int_equal(umbra_rmdir(f->fs, ROOT, "d"), 0);
	assert_int_equal(umbra_readdir(f->fs, make_file(f, ROOT, "f"), 0, list_one, &l), -ENOTDIR);
	free(l.seen);
}

static void cookies_stay_while_the_directory_changes(void **state)
{
	struct fixture *f = *state;
	enum { N = 400 };
	struct listing l = {.seen = calloc(1, 3 * N), .max = 3 * N, .stop_after = 5};
	uint64_t dir = make_dir(f, ROOT, "d");
	unsigned i, added = 2 * N, removed = N;
	char name[32];

	for (i = 0; i < 2 * N; i++) {
		snprintf(name, sizeof(name), "name-%u", i);
		make_file(f, dir, name);
	}
	do {
		l.n = 0;
		assert_int_equal(umbra_readdir(f->fs, dir, l.cookie, list_one, &l), 0);
		for (i = 0; i < 4 && removed < 2 * N; i++) {
			snprintf(name, sizeof(name), "name-%u", removed++);
			assert_int_equal(umbra_unlink(f->fs, dir, name), 0);
			snprintf(name, sizeof(name), "name-%u", added++);
			make_file(f, dir, name);
		}
	} while (l.n);
	for (i = 0; i < N; i++) /* there all the time: seen once */
		assert_int_equal(l.seen[i], 1);
	for (; i < 3 * N; i++)
		assert_true(l.seen[i] <= 1);
	free(l.seen);
}

/* ---- many at once --------------------------------------------------------------------------------------- */

struct worker {
	struct fixture *f;
	unsigned id;
	pthread_t thread;
};

static void *churn(void *arg)
{
	struct worker *w = arg;
	char a[32], b[32];
	unsigned i;

	for (i = 0; i < 500; i++) {
		snprintf(a, sizeof(a), "w%u-%u", w->id, i % 20);
		snprintf(b, sizeof(b), "w%u-%u", w->id, (i * 7) % 20);
		try_make(w->f, ROOT, a, i % 3 ? S_IFREG | 0600 : S_IFDIR | 0700, NULL);
		umbra_rename(w->f->fs, ROOT, a, ROOT, b, i % 5 ? 0 : RENAME_EXCHANGE);
		if (i % 2 && umbra_unlink(w->f->fs, ROOT, b) == -EISDIR)
			umbra_rmdir(w->f->fs, ROOT, b);
		find(w->f, ROOT, a);
	}
	return NULL;
}

static void parallel_changes_leave_a_sound_tree(void **state)
{
	struct worker w[4];
	unsigned i;

	for (i = 0; i < 4; i++) {
		w[i] = (struct worker){.f = *state, .id = i};
		assert_int_equal(pthread_create(&w[i].thread, NULL, churn, &w[i]), 0);
	}
	for (i = 0; i < 4; i++)
		pthread_join(w[i].thread, NULL);
	fixture_crash(*state);
}

static void emptied_pool_has_all_its_space_back(void **state)
{
	struct fixture *f = *state;
	uint64_t before, after;
	char name[32];
	unsigned i, round;

	make_file(f, ROOT, "keep");
	before = free_blocks(f);
	for (round = 0; round < 2; round++) {
		for (i = 0; i < 2000; i++) {
			snprintf(name, sizeof(name), "name-%u", i);
			make(f, ROOT, name, i % 10 ? S_IFREG | 0600 : S_IFDIR | 0700);
		}
		for (i = 0; i < 2000; i++) {
			snprintf(name, sizeof(name), "name-%u", i);
			assert_int_equal(i % 10 ? umbra_unlink(f->fs, ROOT, name)
						: umbra_rmdir(f->fs, ROOT, name),
				0);
		}
		for (i = 0; i < 100 && inodes(f) > 2; i++)
			;
		after = free_blocks(f);
		assert_int_equal(after, before);
		assert_int_equal(inodes(f), 2);
	}
}

static void full_pool_still_allows_removal(void **state)
{
	struct fixture *f = fixture_new(16ull << 20);
	uint64_t before = free_blocks(f), dir = make_dir(f, ROOT, "d"), ino;
	struct umbra_cred cred = {0};
	char target[600], name[32];
	unsigned n, i;
	int ret = 0;

	(void)state;
	memset(target, 't', sizeof(target) - 1);
	target[sizeof(target) - 1] = 0;
	for (n = 0; !ret; n++) {
		struct umbra_attr attr;

		snprintf(name, sizeof(name), "l%u", n);
		ret = umbra_symlink(f->fs, dir, name, target, &cred, &attr);
		if (!ret)
			umbra_forget(f->fs, attr.st.st_ino, 1);
	}
	assert_int_equal(ret, -ENOSPC);
	assert_true(n > 1000);
	assert_int_equal(find(f, dir, name), 0); /* the one that failed left nothing */
	fixture_crash(f);
	for (i = 0; i + 1 < n; i++) {
		snprintf(name, sizeof(name), "l%u", i);
		assert_int_equal(umbra_unlink(f->fs, dir, name), 0);
	}
	assert_int_equal(umbra_rmdir(f->fs, ROOT, "d"), 0);
	for (i = 0; i < 100 && inodes(f) > 1; i++)
		;
	assert_int_equal(free_blocks(f), before);
	ino = make_file(f, ROOT, "again");
	assert_int_equal(find(f, ROOT, "again"), ino);
	fixture_free(f);
}

#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(made_names_are_found),
		T(every_type_can_be_made),
		T(bad_names_are_refused),
		T(directories_count_their_subdirectories),
		T(removed_directory_takes_no_names),
		T(hard_links_share_the_inode),
		T(setgid_directory_hands_its_group_down),
		T(symlinks_of_every_length_are_read_back),
		T(changes_touch_the_times_that_posix_says),
		T(rename_replaces_a_file),
		T(a_whiteout_is_left_where_a_file_was),
		T(rename_over_a_hard_link_does_nothing),
		T(rename_moves_directories),
		T(rename_minds_the_types),
		T(exchange_swaps_across_directories),
		T(readdir_lists_every_entry_once),
		T(cookies_stay_while_the_directory_changes),
		T(parallel_changes_leave_a_sound_tree),
		T(emptied_pool_has_all_its_space_back),
		cmocka_unit_test(full_pool_still_allows_removal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
