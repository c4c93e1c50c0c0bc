/* SPDX-License-Identifier: BSD-3-Clause */
/* The kernel's lists of bad blocks: which bytes of the pool they name. */
#include "pool_fixture.h"

#include <linux/fiemap.h>
#include <sys/sysmacros.h>

#include "pool/backend.h"
#include "skip.h"

static char list_path[] = "/tmp/umbrafs-badblocks-XXXXXX";
static struct um_badlist *list;
static struct {
	uint64_t off, len;
} got[32];
static unsigned ngot;

static void listed(const char *text)
{
	int fd = open(list_path, O_WRONLY | O_TRUNC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static void open_list(uint64_t start, uint64_t len)
{
	um_badlist_close(list);
	ok(um_badlist_open(list_path, start, len, &list));
}

static int keep(void *arg, uint64_t off, uint64_t len)
{
	(void)arg;
	assert_true(ngot < 32);
	got[ngot].off = off;
	got[ngot++].len = len;
	return 0;
}

static unsigned asked(void)
{
	ngot = 0;
	ok(um_badlist_each(list, keep, NULL));
	return ngot;
}

static void is(unsigned i, uint64_t off, uint64_t len)
{
	assert_int_equal(got[i].off, off);
	assert_int_equal(got[i].len, len);
}

static void sectors_are_rounded_out_to_blocks(void **state)
{
	(void)state;
	listed("8 8\n17 1\n31 2\n");
	open_list(0, 1 << 20);
	assert_int_equal(asked(), 3);
	is(0, 4096, 4096);
	is(1, 8192, 4096);
	is(2, 12288, 8192);
}

static void only_what_is_the_pools_counts(void **state)
{
	(void)state;
	listed("0 8\n2040 16\n4088 16\n9000 1\n");
	open_list(1 << 20, 1 << 20);
	assert_int_equal(asked(), 2);
	is(0, 0, 4096);
	is(1, (1 << 20) - 4096, 4096);
}

static void a_list_that_did_not_change_is_not_told_again(void **state)
{
	(void)state;
	listed("8 8\n");
	open_list(0, 1 << 20);
	assert_int_equal(asked(), 1);
	assert_int_equal(asked(), 0);
	listed("8 8\n16 8\n");
	assert_int_equal(asked(), 2);
	listed("");
	assert_int_equal(asked(), 0);
	listed("8 8\n");
	assert_int_equal(asked(), 1);
}

static void nonsense_names_nothing(void **state)
{
	(void)state;
	listed("\nx 8\n8\n8 0\n-1 8\n18446744073709551615 18446744073709551615\n36028797018963968 "
	       "8\n");
	open_list(0, 1 << 20);
	assert_int_equal(asked(), 0);
}

/* Where the file lies on its disk is what the filesystem below says, here and in the function under test. */
static int first_extent(void *arg, const struct fiemap_extent *extent)
{
	*(struct fiemap_extent *)arg = *extent;
	return 1;
}

static void a_bad_place_of_the_disk_is_found_in_the_file(void **state)
{
	struct fiemap_extent extent;
	char text[64], data[64 << 10];
	int fd = open(fixture_path, O_RDWR | O_CREAT | O_TRUNC, 0600);

	(void)state;
	memset(data, 1, sizeof(data));
	assert_int_equal(pwrite(fd, data, sizeof(data), 1 << 20), sizeof(data));
	fsync(fd);
	if (um_file_extents(fd, 2 << 20, first_extent, &extent) != 1 || !extent.fe_physical ||
		extent.fe_length < sizeof(data)) {
		close(fd);
		skip_because("the filesystem below does not say where its files lie");
	}
	snprintf(text, sizeof(text), "%llu 8\n",
		(unsigned long long)(extent.fe_physical + 8192) / 512);
	listed(text);
	open_list(0, UINT64_MAX >> 1);
	ngot = 0;
	ok(um_badlist_file(list, fd, 2 << 20, keep, NULL));
	assert_int_equal(ngot, 1);
	is(0, extent.fe_logical + 8192, 4096);
	close(fd);
}

static void a_disk_without_a_list_has_none(void **state)
{
	struct um_badlist *none;

	(void)state;
	assert_int_equal(um_badlist_disk(makedev(0, 1), &none), -ENOENT);
	assert_int_equal(um_badlist_region(makedev(1, 3), 4096, &none), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sectors_are_rounded_out_to_blocks),
		cmocka_unit_test(only_what_is_the_pools_counts),
		cmocka_unit_test(a_list_that_did_not_change_is_not_told_again),
		cmocka_unit_test(nonsense_names_nothing),
		cmocka_unit_test(a_bad_place_of_the_disk_is_found_in_the_file),
		cmocka_unit_test(a_disk_without_a_list_has_none),
	};
	int fd = mkstemp(list_path), ret;

	close(fd);
	snprintf(fixture_path, sizeof(fixture_path), "/var/tmp/umbrafs-badblocks-file-%d",
		(int)getpid());
	ret = cmocka_run_group_tests(tests, NULL, NULL);
	um_badlist_close(list);
	unlink(list_path);
	unlink(fixture_path);
	return ret;
}
