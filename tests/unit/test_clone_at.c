/* SPDX-License-Identifier: BSD-3-Clause */
/* Complete clones of inodes of every kind under a new name, and directories' metadata. */
#include "datakit.h"

#include <linux/fs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#define CAP (4u << 20)
#define ROOT UM_ROOT_INO

static const struct umbra_cred root_cred = {.umask = 022};

static uint64_t make(struct kit *k, uint64_t dir, const char *name, mode_t mode)
{
	struct umbra_attr attr;

	ok(umbra_mknod(k->fs, dir, name, mode, makedev(7, 9), &root_cred, &attr));
	return attr.st.st_ino;
}

static struct umbra_attr attr_of(struct kit *k, uint64_t ino)
{
	struct umbra_attr attr;

	ok(umbra_getattr(k->fs, ino, &attr));
	return attr;
}

/* Owner, set-id bits, old times. */
static void dress(struct kit *k, uint64_t ino)
{
	struct umbra_attr attr = {0};
	unsigned mask = UMBRA_SET_UID | UMBRA_SET_GID | UMBRA_SET_ATIME | UMBRA_SET_MTIME;

	attr.st.st_uid = 1234;
	attr.st.st_gid = 5678;
	attr.st.st_atim = (struct timespec){1000, 7};
	attr.st.st_mtim = (struct timespec){2000, 8};
	ok(umbra_setattr(k->fs, ino, &attr, mask, &attr));
	if (S_ISLNK(attr.st.st_mode))
		return;
	attr.st.st_mode = (attr.st.st_mode & S_IFMT) | 06751;
	ok(umbra_setattr(k->fs, ino, &attr, UMBRA_SET_MODE, &attr));
}

static void same_meta(struct kit *k, uint64_t src, uint64_t dst)
{
	char *a = malloc(2 * 65536), *b = a + 65536, list[4096];
	struct umbra_attr x = attr_of(k, src), y = attr_of(k, dst);
	ssize_t n = umbra_listxattr(k->fs, src, list, sizeof(list));

	assert_int_equal(x.st.st_mode, y.st.st_mode);
	assert_int_equal(x.st.st_uid, y.st.st_uid);
	assert_int_equal(x.st.st_gid, y.st.st_gid);
	assert_int_equal(x.st.st_rdev, y.st.st_rdev);
	assert_memory_equal(&x.st.st_atim, &y.st.st_atim, sizeof(x.st.st_atim));
	assert_memory_equal(&x.st.st_mtim, &y.st.st_mtim, sizeof(x.st.st_mtim));
	assert_true(n >= 0);
	assert_int_equal(umbra_listxattr(k->fs, dst, NULL, 0), n);
	for (const char *name = list; name < list + n; name += strlen(name) + 1) {
		ssize_t len = umbra_getxattr(k->fs, src, name, a, 65536);

		assert_true(len >= 0);
		assert_int_equal(umbra_getxattr(k->fs, dst, name, b, 65536), len);
		assert_memory_equal(a, b, len);
	}
	free(a);
}

/* Clones, and compares everything that is not content. */
static uint64_t clone_to(struct kit *k, uint64_t src, uint64_t dir, const char *name)
{
	struct umbra_attr old = attr_of(k, src), now, attr;

	ok(umbra_clone_at(k->fs, src, dir, name));
	ok(umbra_lookup(k->fs, dir, name, &attr));
	assert_int_not_equal(attr.st.st_ino, src);
	assert_int_equal(attr.st.st_nlink, 1);
	assert_int_equal(attr.st.st_size, old.st.st_size);
	same_meta(k, src, attr.st.st_ino);
	now = attr_of(k, src);
	assert_memory_equal(&now.st, &old.st, sizeof(old.st));
	return attr.st.st_ino;
}

static void verify_clone(struct kit *k, const struct file *f, uint64_t ino)
{
	struct file clone = *f;

	clone.ino = ino;
	file_verify(k, &clone);
	assert_int_equal(file_blocks(k, &clone), file_blocks(k, f));
}

static void files_of_every_size_keep_everything(void **state)
{
	static const unsigned blocks[] = {0, 1, 10, 400};
	struct kit k;
	struct file f[6];
	uint64_t dir, ino[6];
	char name[16];

	(void)state;
	kit_open(&k, 64, UMBRA_DATA_ATOMIC);
	dir = make(&k, ROOT, "dir", S_IFDIR | 0755);
	for (unsigned i = 0; i < 6; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		file_make(&k, &f[i], name, CAP);
		if (i == 4)
			file_write(&k, &f[i], 0, 100, i); /* in the record */
		else if (i == 5)
			file_write(&k, &f[i], 100 * B + 5, 3000, i); /* behind a hole */
		else
			for (unsigned n = 0; n < blocks[i]; n++)
				file_write(&k, &f[i], (uint64_t)n * 2 * B, B, i * 1000 + n);
		dress(&k, f[i].ino);
		ok(umbra_setxattr(k.fs, f[i].ino, "user.small", "abc", 3, 0, false));
		ino[i] = clone_to(&k, f[i].ino, dir, name);
		verify_clone(&k, &f[i], ino[i]);
	}
	assert_int_equal(file_map(&k, &f[3]).shared, 400);
	kit_crash(&k);
	/* Either side changes, alone. */
	for (unsigned i = 1; i < 6; i++) {
		assert_int_equal(umbra_write(k.fs, ino[i], "changed", 7, 10, 0, NULL), 7);
		file_verify(&k, &f[i]);
		snprintf(name, sizeof(name), "f%u", i);
		ok(umbra_unlink(k.fs, dir, name));
		file_verify(&k, &f[i]);
	}
	for (unsigned i = 0; i < 6; i++)
		file_free(&f[i]);
	kit_close(&k);
}

static void preallocated_blocks(void **state)
{
	struct kit k;
	struct file empty, some;

	(void)state;
	kit_open(&k, 64, UMBRA_DATA_ATOMIC);
	file_make(&k, &empty, "empty", CAP);
	file_make(&k, &some, "some", CAP);
	ok(umbra_fallocate(k.fs, empty.ino, FALLOC_FL_KEEP_SIZE, 0, 10 * B));
	file_write(&k, &some, 0, 3 * B, 1);
	ok(umbra_fallocate(k.fs, some.ino, FALLOC_FL_KEEP_SIZE, 0, 10 * B));
	assert_int_equal(attr_of(&k, clone_to(&k, empty.ino, ROOT, "empty2")).st.st_blocks, 0);
	verify_clone(&k, &some, clone_to(&k, some.ino, ROOT, "some2"));
	file_free(&empty);
	file_free(&some);
	kit_close(&k);
}

static void what_is_no_file(void **state)
{
	static const mode_t kinds[] = {S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK};
	struct umbra_attr attr;
	struct kit k;
	char target[UMBRA_SYMLINK_MAX + 1], got[UMBRA_SYMLINK_MAX + 1], name[16];

	(void)state;
	kit_open(&k, 64, UMBRA_DATA_ATOMIC);
	for (unsigned i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), "s%u", i);
		attr.st.st_ino = make(&k, ROOT, name, kinds[i] | 0600);
		dress(&k, attr.st.st_ino);
		name[0] = 'S';
		clone_to(&k, attr.st.st_ino, ROOT, name);
	}
	for (unsigned i = 0; i < 3; i++) {
		size_t len = (size_t[]){5, 900, UMBRA_SYMLINK_MAX}[i];

		memset(target, 'a' + (int)i, len);
		target[len] = '\0';
		snprintf(name, sizeof(name), "l%u", i);
		ok(umbra_symlink(k.fs, ROOT, name, target, &root_cred, &attr));
		dress(&k, attr.st.st_ino);
		ok(umbra_setxattr(k.fs, attr.st.st_ino, "trusted.t", "x", 1, 0, false));
		name[0] = 'L';
		ok(umbra_readlink(k.fs, clone_to(&k, attr.st.st_ino, ROOT, name), got));
		assert_string_equal(got, target);
	}
	kit_crash(&k);
	kit_close(&k);
}

static void attributes_in_nodes(void **state)
{
	struct kit k;
	struct file f;
	uint64_t used, ino;
	uint8_t *value = malloc(65536);

	(void)state;
	kit_open(&k, 64, UMBRA_DATA_ATOMIC);
	file_make(&k, &f, "f", CAP);
	file_write(&k, &f, 0, 3 * B, 1);
	pattern(value, 65536, 9);
	ok(umbra_setxattr(k.fs, f.ino, "user.large", value, 60000, 0, false));
	used = kit_free(&k);
	ino = clone_to(&k, f.ino, ROOT, "clone");
	/* Theirs are apart. */
	ok(umbra_setxattr(k.fs, ino, "user.large", "s", 1, 0, false));
	assert_int_equal(umbra_getxattr(k.fs, f.ino, "user.large", NULL, 0), 60000);
	ok(umbra_unlink(k.fs, ROOT, "clone"));
	umbra_forget(k.fs, ino, 1);
	assert_true(kit_free(&k) + 2 >= used);
	/* More than fits one transaction: nothing is made. */
	ok(umbra_setxattr(k.fs, f.ino, "user.more", value, 60000, 0, false));
	assert_int_equal(umbra_clone_at(k.fs, f.ino, ROOT, "clone"), -EOPNOTSUPP);
	kit_crash(&k);
	assert_int_equal(umbra_lookup(k.fs, ROOT, "clone", &(struct umbra_attr){0}), -ENOENT);
	file_free(&f);
	free(value);
	kit_close(&k);
}

static void errors(void **state)
{
	struct kit k;
	struct file f;
	uint64_t dir;
	struct umbra_attr attr;

	(void)state;
	kit_open(&k, 64, UMBRA_DATA_ATOMIC);
	file_make(&k, &f, "f", CAP);
	dir = make(&k, ROOT, "dir", S_IFDIR | 0755);
	assert_int_equal(umbra_clone_at(k.fs, f.ino, ROOT, "f"), -EEXIST);
	assert_int_equal(umbra_clone_at(k.fs, f.ino, ROOT, ".."), -EEXIST);
	assert_int_equal(umbra_clone_at(k.fs, f.ino, ROOT, "a/b"), -EINVAL);
	assert_int_equal(umbra_clone_at(k.fs, f.ino, f.ino, "x"), -ENOTDIR);
	assert_int_equal(umbra_clone_at(k.fs, dir, ROOT, "x"), -EISDIR);
	assert_int_equal(umbra_clone_at(k.fs, 999999, ROOT, "x"), -ESTALE);
	/* Flags: the directory's are inherited, the source's are not copied. */
	ok(umbra_set_flags(k.fs, f.ino, FS_IMMUTABLE_FL));
	ok(umbra_set_flags(k.fs, dir, FS_NODUMP_FL));
	assert_int_equal(attr_of(&k, clone_to(&k, f.ino, dir, "g")).flags, FS_NODUMP_FL);
	ok(umbra_set_flags(k.fs, dir, FS_IMMUTABLE_FL));
	assert_int_equal(umbra_clone_at(k.fs, f.ino, dir, "x"), -EPERM);
	ok(umbra_set_flags(k.fs, f.ino, 0));
	/* Open for writing, or not; unlinked. */
	assert_false(umbra_file_writers(k.fs, f.ino));
	ok(umbra_file_open(k.fs, f.ino, O_RDWR, false));
	assert_true(umbra_file_writers(k.fs, f.ino));
	umbra_file_release(k.fs, f.ino, O_RDWR);
	assert_false(umbra_file_writers(k.fs, f.ino));
	ok(umbra_unlink(k.fs, ROOT, "f"));
	assert_int_equal(umbra_clone_at(k.fs, f.ino, ROOT, "x"), -ESTALE);
	assert_int_equal(umbra_lookup(k.fs, ROOT, "x", &attr), -ENOENT);
	file_free(&f);
	kit_close(&k);
}

static void directories_metadata(void **state)
{
	struct kit k;
	struct umbra_attr attr;
	uint64_t a, b;

	(void)state;
	kit_open(&k, 64, UMBRA_DATA_ATOMIC);
	a = make(&k, ROOT, "a", S_IFDIR | 0755);
	b = make(&k, ROOT, "b", S_IFDIR | 0700);
	make(&k, b, "child", S_IFDIR | 0700);
	dress(&k, a);
	ok(umbra_setxattr(k.fs, a, "user.x", "1", 1, 0, false));
	ok(umbra_clone_dir_meta(k.fs, a, b));
	same_meta(&k, a, b);
	assert_int_equal(attr_of(&k, b).st.st_nlink, 3);
	ok(umbra_lookup(k.fs, b, "child", &attr));
	assert_int_equal(umbra_clone_dir_meta(k.fs, a, b), -EEXIST);
	assert_int_equal(
		umbra_clone_dir_meta(k.fs, make(&k, ROOT, "f", S_IFREG | 0600), b), -ENOTDIR);
	kit_crash(&k);
	kit_close(&k);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(files_of_every_size_keep_everything),
		cmocka_unit_test(preallocated_blocks),
		cmocka_unit_test(what_is_no_file),
		cmocka_unit_test(attributes_in_nodes),
		cmocka_unit_test(errors),
		cmocka_unit_test(directories_metadata),
	};

	(void)argc;
	kit_without_pmem(argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
