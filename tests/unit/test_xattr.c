/* SPDX-License-Identifier: BSD-3-Clause */
/* Extended attributes and POSIX ACLs. */
#include <sys/xattr.h>

#include "fs_fixture.h"

#define ACCESS "system.posix_acl_access"
#define DEFAULT "system.posix_acl_default"

static int set(struct fixture *f, uint64_t ino, const char *name, const void *value, size_t len)
{
	return umbra_setxattr(f->fs, ino, name, value, len, 0, false);
}

static void values_of_every_size_are_read_back(void **state)
{
	struct fixture *f = *state;
	static const size_t sizes[] = {
		0, 1, 100, 1023, 1024, 1025, 2048, 5000, 65535, 65536, 3, 0, 30000};
	uint64_t ino = make_file(f, ROOT, "f");
	uint8_t *value = malloc(65537), *got = malloc(65537);
	size_t i, j;

	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		for (j = 0; j < sizes[i]; j++)
			value[j] = (uint8_t)(i * 31 + j * 7 + j / 256);
		assert_int_equal(set(f, ino, "user.v", value, sizes[i]), 0);
		if (i % 4 == 0)
			fixture_crash(f);
		assert_int_equal(umbra_getxattr(f->fs, ino, "user.v", NULL, 0), sizes[i]);
		assert_int_equal(umbra_getxattr(f->fs, ino, "user.v", got, 65537), sizes[i]);
		assert_memory_equal(got, value, sizes[i]);
		if (sizes[i] > 1)
			assert_int_equal(
				umbra_getxattr(f->fs, ino, "user.v", got, sizes[i] - 1), -ERANGE);
	}
	assert_int_equal(set(f, ino, "user.v", value, 65537), -E2BIG);
	assert_int_equal(umbra_removexattr(f->fs, ino, "user.v"), 0);
	assert_int_equal(umbra_getxattr(f->fs, ino, "user.v", got, 10), -ENODATA);
	assert_int_equal(umbra_removexattr(f->fs, ino, "user.v"), -ENODATA);
	free(value);
	free(got);
}

static void names_are_checked(void **state)
{
	struct fixture *f = *state;
	uint64_t ino = make_file(f, ROOT, "f");
	char name[257];

	memset(name, 'n', sizeof(name));
	memcpy(name, "user.", 5);
	name[256] = 0;
	assert_int_equal(set(f, ino, name, "v", 1), -ERANGE);
	name[255] = 0;
	assert_int_equal(set(f, ino, name, "v", 1), 0);
	assert_int_equal(umbra_listxattr(f->fs, ino, NULL, 0), 256);
	assert_int_equal(set(f, ino, "user.", "v", 1), -EINVAL);
	assert_int_equal(set(f, ino, "system.other", "v", 1), -EOPNOTSUPP);
	assert_int_equal(set(f, ino, "name", "v", 1), -EOPNOTSUPP);
	assert_int_equal(set(f, ino, "trusted.a", "v", 1), 0);
	assert_int_equal(set(f, ino, "security.selinux", "v", 1), 0);
}

static void create_and_replace_are_minded(void **state)
{
	struct fixture *f = *state;
	uint64_t ino = make_file(f, ROOT, "f");
	char got[8];

	assert_int_equal(
		umbra_setxattr(f->fs, ino, "user.a", "1", 1, XATTR_REPLACE, false), -ENODATA);
	assert_int_equal(umbra_setxattr(f->fs, ino, "user.a", "1", 1, XATTR_CREATE, false), 0);
	assert_int_equal(
		umbra_setxattr(f->fs, ino, "user.a", "2", 1, XATTR_CREATE, false), -EEXIST);
	assert_int_equal(umbra_setxattr(f->fs, ino, "user.a", "3", 1, XATTR_REPLACE, false), 0);
	assert_int_equal(umbra_getxattr(f->fs, ino, "user.a", got, 8), 1);
	assert_int_equal(got[0], '3');
}

static void many_attributes_are_listed(void **state)
{
	struct fixture *f = *state;
	enum { N = 300 };
	uint64_t before = free_blocks(f), ino = make_file(f, ROOT, "f");
	char name[32], value[32], *list = malloc(1 << 16), *p;
	uint8_t seen[N] = {0};
	ssize_t len;
	unsigned i;

	for (i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "user.attr%u", i);
		snprintf(value, sizeof(value), "value %u", i);
		assert_int_equal(set(f, ino, name, value, strlen(value)), 0);
	}
	len = umbra_listxattr(f->fs, ino, NULL, 0);
	assert_int_equal(umbra_listxattr(f->fs, ino, list, (size_t)len - 1), -ERANGE);
	assert_int_equal(umbra_listxattr(f->fs, ino, list, 1 << 16), len);
	for (p = list; p < list + len; p += strlen(p) + 1) {
		assert_int_equal(sscanf(p, "user.attr%u", &i), 1);
		assert_true(i < N);
		seen[i]++;
	}
	for (i = 0; i < N; i++) {
		assert_int_equal(seen[i], 1);
		snprintf(name, sizeof(name), "user.attr%u", i);
		assert_true(umbra_getxattr(f->fs, ino, name, value, sizeof(value)) > 6);
	}
	free(list);
	assert_int_equal(umbra_unlink(f->fs, ROOT, "f"), 0);
	assert_true(free_blocks(f) + 2 >= before);
}

/* ---- ACLs ------------------------------------------------------------------------------------------------ */

struct acl {
	uint32_t version;
	struct {
		uint16_t tag, perm;
		uint32_t id;
	} e[8];
};
enum { UO = 1, U = 2, GO = 4, G = 8, M = 16, O = 32 };
#define ANY UINT32_MAX
#define ACL_LEN(n) (4 + 8 * (size_t)(n))

static const struct acl named = {
	2, {{UO, 7, ANY}, {U, 6, 1000}, {GO, 5, ANY}, {G, 7, 50}, {M, 6, ANY}, {O, 1, ANY}}};
static const struct acl minimal = {2, {{UO, 6, ANY}, {GO, 4, ANY}, {O, 0, ANY}}};

static void access_acl_sets_the_mode(void **state)
{
	struct fixture *f = *state;
	uint64_t ino = make_file(f, ROOT, "f");
	struct umbra_attr attr = {0};
	struct acl got;

	assert_int_equal(set(f, ino, ACCESS, &named, ACL_LEN(6)), 0);
	assert_int_equal(attr_of(f, ino).st.st_mode & 0777, 0761);
	attr.st.st_mode = 0640;
	assert_int_equal(umbra_setattr(f->fs, ino, &attr, UMBRA_SET_MODE, NULL), 0);
	assert_int_equal(umbra_getxattr(f->fs, ino, ACCESS, &got, sizeof(got)), ACL_LEN(6));
	assert_int_equal(got.e[0].perm, 6);
	assert_int_equal(got.e[1].perm, 6);
	assert_int_equal(got.e[2].perm, 5); /* the mask follows the mode, not the group */
	assert_int_equal(got.e[4].perm, 4);
	assert_int_equal(got.e[5].perm, 0);
	assert_int_equal(set(f, ino, ACCESS, &minimal, ACL_LEN(3)), 0);
	assert_int_equal(attr_of(f, ino).st.st_mode & 0777, 0640);
	assert_int_equal(umbra_getxattr(f->fs, ino, ACCESS, &got, sizeof(got)), -ENODATA);
}

static void unsound_acls_are_refused(void **state)
{
	struct fixture *f = *state;
	uint64_t ino = make_file(f, ROOT, "f");
	struct acl bad = named;

	assert_int_equal(set(f, ino, ACCESS, &named, ACL_LEN(6) - 1), -EINVAL);
	assert_int_equal(set(f, ino, ACCESS, &named, ACL_LEN(5)), -EINVAL); /* no "other" */
	bad.e[4].tag = O;                                                   /* no mask */
	assert_int_equal(set(f, ino, ACCESS, &bad, ACL_LEN(5)), -EINVAL);
	bad = named;
	bad.e[0].perm = 8;
	assert_int_equal(set(f, ino, ACCESS, &bad, ACL_LEN(6)), -EINVAL);
	bad = named;
	bad.version = 1;
	assert_int_equal(set(f, ino, ACCESS, &bad, ACL_LEN(6)), -EOPNOTSUPP);
	bad = minimal;
	bad.e[1] = bad.e[0]; /* twice */
	assert_int_equal(set(f, ino, ACCESS, &bad, ACL_LEN(3)), -EINVAL);
	assert_int_equal(set(f, ino, DEFAULT, &named, ACL_LEN(6)), -EACCES);
	assert_int_equal(umbra_listxattr(f->fs, ino, NULL, 0), 0);
}

static void default_acl_is_inherited(void **state)
{
	struct fixture *f = *state;
	uint64_t dir = make_dir(f, ROOT, "d"), ino, sub;
	struct umbra_cred cred = {.umask = 077};
	struct umbra_attr attr;
	struct acl got;

	assert_int_equal(set(f, dir, DEFAULT, &named, ACL_LEN(6)), 0);
	/* The umask does not count where there is a default ACL. */
	assert_int_equal(umbra_mknod(f->fs, dir, "f", S_IFREG | 0664, 0, &cred, &attr), 0);
	ino = attr.st.st_ino;
	assert_int_equal(attr.st.st_mode & 0777, 0660);
	assert_int_equal(umbra_getxattr(f->fs, ino, ACCESS, &got, sizeof(got)), ACL_LEN(6));
	assert_int_equal(got.e[0].perm, 6);
	assert_int_equal(got.e[2].perm, 5);
	assert_int_equal(got.e[4].perm, 6);
	assert_int_equal(got.e[5].perm, 0);
	assert_int_equal(umbra_getxattr(f->fs, ino, DEFAULT, &got, sizeof(got)), -ENODATA);
	sub = make_dir(f, dir, "s");
	assert_int_equal(umbra_getxattr(f->fs, sub, DEFAULT, &got, sizeof(got)), ACL_LEN(6));
	assert_memory_equal(&got, &named, ACL_LEN(6));
	assert_int_equal(attr_of(f, sub).st.st_mode & 0777, 0761);
	/* A minimal one leaves a mode and no access ACL. */
	assert_int_equal(set(f, dir, DEFAULT, &minimal, ACL_LEN(3)), 0);
	ino = make(f, dir, "g", S_IFREG | 0666);
	assert_int_equal(attr_of(f, ino).st.st_mode & 0777, 0640);
	assert_int_equal(umbra_getxattr(f->fs, ino, ACCESS, &got, sizeof(got)), -ENODATA);
	assert_int_equal(umbra_setxattr(f->fs, dir, DEFAULT, NULL, 0, 0, false), 0);
	assert_int_equal(umbra_getxattr(f->fs, dir, DEFAULT, &got, sizeof(got)), -ENODATA);
}

static void access_acl_may_kill_setgid(void **state)
{
	struct fixture *f = *state;
	uint64_t ino = make(f, ROOT, "f", S_IFREG | 02755);

	assert_int_equal(umbra_setxattr(f->fs, ino, ACCESS, &named, ACL_LEN(6), 0, false), 0);
	assert_int_equal(attr_of(f, ino).st.st_mode & 07777, 02761);
	assert_int_equal(umbra_setxattr(f->fs, ino, ACCESS, &named, ACL_LEN(6), 0, true), 0);
	assert_int_equal(attr_of(f, ino).st.st_mode & 07777, 0761);
}

#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(values_of_every_size_are_read_back),
		T(names_are_checked),
		T(create_and_replace_are_minded),
		T(many_attributes_are_listed),
		T(access_acl_sets_the_mode),
		T(unsound_acls_are_refused),
		T(default_acl_is_inherited),
		T(access_acl_may_kill_setgid),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
