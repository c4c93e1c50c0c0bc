/* SPDX-License-Identifier: BSD-3-Clause */
/* Inodes: attributes, flags, opens, orphans, the filesystem as a whole. */
#include <fcntl.h>
#include <linux/fs.h>
#include <time.h>
#include <unistd.h>

#include "fs_fixture.h"

static void new_pool_has_only_a_root(void **state)
{
	struct fixture *f = *state;
	struct umbra_attr attr = attr_of(f, ROOT);

	assert_true(S_ISDIR(attr.st.st_mode));
	assert_int_equal(attr.st.st_nlink, 2);
	assert_int_equal(inodes(f), 1);
	assert_int_equal(find(f, ROOT, "."), ROOT);
	assert_int_equal(find(f, ROOT, ".."), ROOT);
}

static void absent_inode_is_stale(void **state)
{
	struct fixture *f = *state;
	struct umbra_attr attr;

	assert_int_equal(umbra_getattr(f->fs, 12345678, &attr), -ESTALE);
	assert_int_equal(umbra_ref(f->fs, 12345678), -ESTALE);
	assert_int_equal(umbra_file_open(f->fs, 12345678, O_RDONLY, false), -ESTALE);
	assert_int_equal(umbra_getattr(f->fs, 0, &attr), -ESTALE);
}

static void attributes_survive_a_remount(void **state)
{
	struct fixture *f = *state;
	uint64_t ino = make_file(f, ROOT, "f");
	struct umbra_attr set = {0}, got;

	set.st.st_mode = 04751;
	set.st.st_uid = 1234;
	set.st.st_gid = 4000000000u;
	set.st.st_atim = (struct timespec){-5, 999999999};
	set.st.st_mtim = (struct timespec){1ll << 40, 1};
	assert_int_equal(umbra_setattr(f->fs, ino, &set,
				 UMBRA_SET_MODE | UMBRA_SET_UID | UMBRA_SET_GID | UMBRA_SET_ATIME |
					 UMBRA_SET_MTIME,
				 &got),
		0);
	fixture_remount(f);
	got = attr_of(f, ino);
	assert_int_equal(got.st.st_mode, S_IFREG | 04751);
	assert_int_equal(got.st.st_uid, 1234);
	assert_int_equal(got.st.st_gid, 4000000000u);
	assert_int_equal(got.st.st_atim.tv_sec, -5);
	assert_int_equal(got.st.st_atim.tv_nsec, 999999999);
	assert_int_equal(got.st.st_mtim.tv_sec, 1ll << 40);
	assert_true(got.btime.tv_sec > 1600000000);
}

static void setattr_refuses_bad_times_and_sizes(void **state)
{
	struct fixture *f = *state;
	uint64_t ino = make_file(f, ROOT, "f"), dir = make_dir(f, ROOT, "d");
	struct umbra_attr set = {0};

	set.st.st_mtim.tv_nsec = 1000000000;
	assert_int_equal(umbra_setattr(f->fs, ino, &set, UMBRA_SET_MTIME, NULL), -EINVAL);
	set.st.st_size = -1;
	assert_int_equal(umbra_setattr(f->fs, ino, &set, UMBRA_SET_SIZE, NULL), -EINVAL);
	set.st.st_size = 5;
	assert_int_equal(umbra_setattr(f->fs, dir, &set, UMBRA_SET_SIZE, NULL), -EISDIR);
	assert_int_equal(umbra_setattr(f->fs, ino, &set, UMBRA_SET_SIZE, NULL), 0);
	assert_int_equal(attr_of(f, ino).st.st_size, 5);
}

static void killpriv_drops_set_id_bits(void **state)
{
	struct fixture *f = *state;
	uint64_t ino = make(f, ROOT, "f", S_IFREG | 06755);
	struct umbra_attr set = {0}, got;
	char value[8];

	assert_int_equal(umbra_setxattr(f->fs, ino, "security.capability", "cap", 3, 0, false), 0);
	set.st.st_uid = 7;
	assert_int_equal(umbra_setattr(f->fs, ino, &set, UMBRA_SET_UID, &got), 0);
	assert_int_equal(got.st.st_mode & 07777, 06755);
	assert_int_equal(
		umbra_setattr(f->fs, ino, &set, UMBRA_SET_UID | UMBRA_SET_KILLPRIV, &got), 0);
	assert_int_equal(got.st.st_mode & 07777, 0755);
	assert_int_equal(
		umbra_getxattr(f->fs, ino, "security.capability", value, sizeof(value)), -ENODATA);
}

static void immutable_refuses_every_change(void **state)
{
	struct fixture *f = *state;
	uint64_t dir = make_dir(f, ROOT, "d"), ino = make_file(f, dir, "f");
	struct umbra_attr set = {0};

	assert_int_equal(umbra_set_flags(f->fs, ino, FS_IMMUTABLE_FL), 0);
	assert_int_equal(attr_of(f, ino).flags, FS_IMMUTABLE_FL);
	assert_int_equal(umbra_setattr(f->fs, ino, &set, UMBRA_SET_MODE, NULL), -EPERM);
	assert_int_equal(umbra_setattr(f->fs, ino, &set, UMBRA_SET_MTIME_NOW, NULL), -EPERM);
	assert_int_equal(umbra_setattr(f->fs, ino, &set, UMBRA_SET_SIZE, NULL), -EPERM);
	assert_int_equal(umbra_setxattr(f->fs, ino, "user.a", "b", 1, 0, false), -EPERM);
	assert_int_equal(umbra_file_open(f->fs, ino, O_WRONLY, false), -EPERM);
	assert_int_equal(umbra_file_open(f->fs, ino, O_RDONLY, false), 0);
	umbra_file_release(f->fs, ino, O_RDONLY);
	assert_int_equal(umbra_unlink(f->fs, dir, "f"), -EPERM);
	assert_int_equal(umbra_link(f->fs, ino, dir, "g", NULL), -EPERM);
	assert_int_equal(umbra_rename(f->fs, dir, "f", dir, "g", 0), -EPERM);
	assert_int_equal(umbra_set_flags(f->fs, ino, 0), 0);
	assert_int_equal(umbra_set_flags(f->fs, dir, FS_IMMUTABLE_FL), 0);
	assert_int_equal(umbra_unlink(f->fs, dir, "f"), -EPERM);
	assert_int_equal(try_make(f, dir, "g", S_IFREG, NULL), -EPERM);
	assert_int_equal(umbra_set_flags(f->fs, dir, 0), 0);
	assert_int_equal(umbra_unlink(f->fs, dir, "f"), 0);
}

static void append_only_may_grow_only(void **state)
{
	struct fixture *f = *state;
	uint64_t dir = make_dir(f, ROOT, "d"), ino = make_file(f, dir, "f");
	struct umbra_attr set = {0};

	assert_int_equal(umbra_set_flags(f->fs, ino, FS_APPEND_FL), 0);
	assert_int_equal(umbra_file_open(f->fs, ino, O_WRONLY, false), -EPERM);
	assert_int_equal(umbra_file_open(f->fs, ino, O_WRONLY | O_APPEND | O_TRUNC, false), -EPERM);
	assert_int_equal(umbra_file_open(f->fs, ino, O_WRONLY | O_APPEND, false), 0);
	umbra_file_release(f->fs, ino, O_WRONLY | O_APPEND);
	assert_int_equal(umbra_setattr(f->fs, ino, &set, UMBRA_SET_SIZE, NULL), -EPERM);
	assert_int_equal(umbra_setattr(f->fs, ino, &set, UMBRA_SET_MTIME, NULL), -EPERM);
	assert_int_equal(umbra_setattr(f->fs, ino, &set, UMBRA_SET_MTIME_NOW, NULL), -EPERM);
	assert_int_equal(umbra_setattr(f->fs, ino, &set,
				 UMBRA_SET_ATIME | UMBRA_SET_MTIME | UMBRA_SET_ATIME_NOW |
					 UMBRA_SET_MTIME_NOW,
				 NULL),
		0);
	assert_int_equal(umbra_set_flags(f->fs, ino, 0), 0);
	assert_int_equal(umbra_set_flags(f->fs, dir, FS_APPEND_FL), 0);
	assert_int_equal(umbra_unlink(f->fs, dir, "f"), -EPERM);
	assert_int_equal(try_make(f, dir, "g", S_IFREG, NULL), 0);
	assert_int_equal(umbra_set_flags(f->fs, dir, 0), 0);
}

static void unknown_flags_are_refused(void **state)
{
	struct fixture *f = *state;
	uint64_t ino = make_file(f, ROOT, "f"), fifo = make(f, ROOT, "p", S_IFIFO | 0600);

	assert_int_equal(umbra_set_flags(f->fs, ino, FS_COMPR_FL), -EOPNOTSUPP);
	assert_int_equal(umbra_set_flags(f->fs, ino, FS_DIRSYNC_FL), -EOPNOTSUPP);
	assert_int_equal(umbra_set_flags(f->fs, fifo, FS_NODUMP_FL), -EOPNOTSUPP);
	assert_int_equal(umbra_set_flags(f->fs, ROOT, FS_DIRSYNC_FL | FS_NODUMP_FL), 0);
	assert_int_equal(attr_of(f, make_file(f, ROOT, "g")).flags, FS_NODUMP_FL);
	assert_int_equal(attr_of(f, make_dir(f, ROOT, "e")).flags, FS_DIRSYNC_FL | FS_NODUMP_FL);
}

static void relatime_moves_once(void **state)
{
	struct fixture *f = *state;
	uint64_t ino = make_file(f, ROOT, "f");
	struct timespec pause = {0, 2000000};
	struct umbra_attr before = attr_of(f, ino), once, twice;

	nanosleep(&pause, NULL);
	assert_int_equal(umbra_file_open(f->fs, ino, O_RDONLY, false), 0);
	umbra_file_release(f->fs, ino, O_RDONLY);
	once = attr_of(f, ino);
	assert_memory_not_equal(&before.st.st_atim, &once.st.st_atim, sizeof(struct timespec));
	nanosleep(&pause, NULL);
	assert_int_equal(umbra_file_open(f->fs, ino, O_RDONLY, false), 0);
	umbra_file_release(f->fs, ino, O_RDONLY);
	twice = attr_of(f, ino);
	assert_memory_equal(&once.st.st_atim, &twice.st.st_atim, sizeof(struct timespec));
}

/* ---- orphans ------------------------------------------------------------------------------------------ */

static void unlinked_inode_lives_while_open(void **state)
{
	struct fixture *f = *state;
	uint64_t ino = make_file(f, ROOT, "f");
	struct umbra_attr attr;

	assert_int_equal(umbra_file_open(f->fs, ino, O_RDWR, false), 0);
	assert_int_equal(umbra_unlink(f->fs, ROOT, "f"), 0);
	assert_int_equal(inodes(f), 2);
	assert_int_equal(attr_of(f, ino).st.st_nlink, 0);
	assert_int_equal(umbra_link(f->fs, ino, ROOT, "g", &attr), -ENOENT);
	umbra_file_release(f->fs, ino, O_RDWR);
	assert_int_equal(inodes(f), 1);
	assert_int_equal(umbra_getattr(f->fs, ino, &attr), -ESTALE);
}

static void unlinked_inode_lives_while_looked_up(void **state)
{
	struct fixture *f = *state;
	uint64_t ino = make_file(f, ROOT, "f");
	struct umbra_attr attr;

	assert_int_equal(umbra_lookup(f->fs, ROOT, "f", &attr), 0);
	assert_int_equal(umbra_ref(f->fs, ino), 0);
	assert_int_equal(umbra_unlink(f->fs, ROOT, "f"), 0);
	assert_int_equal(attr_of(f, ino).st.st_nlink, 0);
	assert_int_equal(umbra_ref(f->fs, ino), 0);
	umbra_forget(f->fs, ino, 2);
	assert_int_equal(attr_of(f, ino).st.st_nlink, 0);
	umbra_forget(f->fs, ino, 1);
	assert_int_equal(inodes(f), 1);
	assert_int_equal(umbra_ref(f->fs, ino), -ESTALE);
}

static void crash_frees_what_was_unlinked(void **state)
{
	struct fixture *f = *state;
	uint64_t before = free_blocks(f), ino = make_file(f, ROOT, "f");
	char buf[65536] = "x";

	assert_int_equal(umbra_write(f->fs, ino, buf, sizeof(buf), 0, 0, NULL), sizeof(buf));
	assert_int_equal(umbra_file_open(f->fs, ino, O_RDWR, false), 0);
	assert_int_equal(umbra_unlink(f->fs, ROOT, "f"), 0);
	assert_true(free_blocks(f) < before);
	fixture_crash(f);
	assert_int_equal(inodes(f), 1);
	assert_true(free_blocks(f) >= before - 2); /* the trees' own roots may stay */
}

static void tmpfile_can_be_linked_once_it_has_no_name(void **state)
{
	struct fixture *f = *state;
	struct umbra_cred cred = {0};
	struct umbra_attr attr, linked;

	assert_int_equal(umbra_tmpfile(f->fs, ROOT, 0600, &cred, &attr), 0);
	assert_int_equal(attr.st.st_nlink, 0);
	assert_int_equal(umbra_link(f->fs, attr.st.st_ino, ROOT, "t", &linked), 0);
	assert_int_equal(linked.st.st_nlink, 1);
	umbra_forget(f->fs, attr.st.st_ino, 2);
	fixture_crash(f);
	assert_int_equal(find(f, ROOT, "t"), attr.st.st_ino);
	assert_int_equal(umbra_unlink(f->fs, ROOT, "t"), 0);
	assert_int_equal(inodes(f), 1);
}

static void tmpfile_goes_with_its_last_user(void **state)
{
	struct fixture *f = *state;
	struct umbra_attr attr;

	assert_int_equal(umbra_tmpfile(f->fs, ROOT, 0600, NULL, &attr), 0);
	assert_int_equal(inodes(f), 2);
	umbra_forget(f->fs, attr.st.st_ino, 1);
	assert_int_equal(inodes(f), 1);
	assert_int_equal(umbra_tmpfile(f->fs, ROOT, 0600, NULL, &attr), 0);
	fixture_crash(f);
	assert_int_equal(inodes(f), 1);
}

static void many_orphans_are_freed_after_a_crash(void **state)
{
	struct fixture *f = *state;
	struct umbra_attr attr;
	unsigned i;

	for (i = 0; i < 3000; i++)
		assert_int_equal(umbra_tmpfile(f->fs, ROOT, 0600, NULL, &attr), 0);
	assert_int_equal(inodes(f), 3001);
	fixture_crash(f);
	for (i = 0; i < 100 && inodes(f) > 1; i++)
		;
	assert_int_equal(inodes(f), 1);
}

/* ---- as a whole --------------------------------------------------------------------------------------- */

static void shutdown_stops_everything_until_the_next_mount(void **state)
{
	struct fixture *f = *state;
	uint64_t ino = make_file(f, ROOT, "f");
	struct umbra_attr attr;

	assert_int_equal(umbra_shutdown(f->fs, 3), -EINVAL);
	assert_int_equal(umbra_shutdown(f->fs, 2), 0);
	assert_int_equal(umbra_getattr(f->fs, ino, &attr), -EIO);
	assert_int_equal(try_make(f, ROOT, "g", S_IFREG, NULL), -EIO);
	assert_int_equal(umbra_lookup(f->fs, ROOT, "f", &attr), -EIO);
	assert_int_equal(umbra_sync(f->fs), -EIO);
	fixture_remount(f);
	assert_int_equal(find(f, ROOT, "f"), ino);
}

static void readonly_refuses_changes(void **state)
{
	struct fixture *f = *state;
	uint64_t ino = make_file(f, ROOT, "f");
	struct umbra_attr attr = {0};

	assert_int_equal(umbra_close(f->fs), 0);
	f->opt.readonly = true;
	fixture_mount(f);
	assert_int_equal(find(f, ROOT, "f"), ino);
	assert_int_equal(try_make(f, ROOT, "g", S_IFREG, NULL), -EROFS);
	assert_int_equal(umbra_unlink(f->fs, ROOT, "f"), -EROFS);
	assert_int_equal(umbra_setattr(f->fs, ino, &attr, UMBRA_SET_SIZE, NULL), -EROFS);
	assert_int_equal(umbra_file_open(f->fs, ino, O_RDWR, false), -EROFS);
	assert_int_equal(umbra_file_open(f->fs, ino, O_RDONLY, false), 0);
	umbra_file_release(f->fs, ino, O_RDONLY);
	assert_int_equal(umbra_sync(f->fs), 0);
	assert_true(free_blocks(f) > 0);
	assert_int_equal(umbra_close(f->fs), 0);
	f->opt.readonly = false;
	fixture_mount(f);
}

static void mounts_are_counted(void **state)
{
	struct fixture *f = *state;
	struct umbra_info info;
	uint64_t mounts;

	assert_int_equal(umbra_info(f->fs, &info), 0);
	mounts = info.mounts;
	assert_false(info.clean);
	assert_string_equal(info.kind, "memory");
	fixture_remount(f);
	assert_int_equal(umbra_info(f->fs, &info), 0);
	assert_int_equal(info.mounts, mounts + 1);
}

/* A daemon's death on a plain file: what the kernel has of the journal is all there is. */
static void plain_file_survives_the_daemon(void **state)
{
	char path[] = "/tmp/test_inode_XXXXXX", name[32];
	struct umbra_mkfs_options mkfs = {.size = FIXTURE_SIZE, .sparse = true, .force = true};
	struct umbra_check_report report;
	struct fixture f = {0};
	int fd = mkstemp(path), round, i;
	uint64_t ino, dir;

	(void)state;
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(umbra_mkfs(path, &mkfs, NULL), 0);
	for (round = 0; round < 3; round++) {
		assert_int_equal(umbra_open(path, &f.opt, &f.fs), 0);
		snprintf(name, sizeof(name), "d%d", round);
		dir = make_dir(&f, ROOT, name);
		for (i = 0; i < 3000; i++) { /* more than the journal holds */
			snprintf(name, sizeof(name), "f%d", i);
			ino = make_file(&f, dir, name);
			if (i % 2)
				assert_int_equal(umbra_unlink(f.fs, dir, name), 0);
		}
		umbra_abandon(f.fs);
		assert_int_equal(
			umbra_check(path, UMBRA_CHECK_ONLY, fixture_problem, NULL, &report), 0);
		assert_int_equal(report.problems, 0);
	}
	assert_int_equal(umbra_open(path, &f.opt, &f.fs), 0);
	assert_int_equal(find(&f, dir, "f2998"), ino - 1);
	assert_int_equal(find(&f, dir, "f2999"), 0);
	assert_int_equal(umbra_close(f.fs), 0);
	unlink(path);
}

#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(new_pool_has_only_a_root),
		T(absent_inode_is_stale),
		T(attributes_survive_a_remount),
		T(setattr_refuses_bad_times_and_sizes),
		T(killpriv_drops_set_id_bits),
		T(immutable_refuses_every_change),
		T(append_only_may_grow_only),
		T(unknown_flags_are_refused),
		T(relatime_moves_once),
		T(unlinked_inode_lives_while_open),
		T(unlinked_inode_lives_while_looked_up),
		T(crash_frees_what_was_unlinked),
		T(tmpfile_can_be_linked_once_it_has_no_name),
		T(tmpfile_goes_with_its_last_user),
		T(many_orphans_are_freed_after_a_crash),
		T(shutdown_stops_everything_until_the_next_mount),
		T(readonly_refuses_changes),
		T(mounts_are_counted),
		cmocka_unit_test(plain_file_survives_the_daemon),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
