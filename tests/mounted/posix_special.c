/* SPDX-License-Identifier: BSD-3-Clause */
/* File handles, statfs, and operations on a filesystem as a whole. */
#include "t.h"

#include <linux/magic.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>

struct handle {
	struct file_handle fh;
	unsigned char bytes[MAX_HANDLE_SZ];
};

static int mount_fd(void)
{
	return (int)ok(open(".", O_RDONLY | O_DIRECTORY));
}

static struct handle handle_of(const char *name)
{
	struct handle h;
	int id;

	memset(&h, 0, sizeof(h));
	h.fh.handle_bytes = MAX_HANDLE_SZ;
	if (name_to_handle_at(AT_FDCWD, name, &h.fh, &id, 0)) {
		if (errno == EOPNOTSUPP)
			t_skip("no file handles here");
		ok(-1);
	}
	return h;
}

static void handles_find_their_file(void)
{
	int dir = mount_fd();
	struct handle h, d;

	close(t_file("f", 100, 'h'));
	ok(mkdir("d", 0755));
	ok(mkdir("d/e", 0755));
	t_touch("d/e/g");
	h = handle_of("f");
	d = handle_of("d/e");
	ok(rename("f", "d/renamed"));
	int fd = ok(open_by_handle_at(dir, &h.fh, O_RDWR));
	t_range(fd, 0, 100, 'h');
	eq(t_fstat(fd).st_ino, t_stat("d/renamed").st_ino);
	int dfd = ok(open_by_handle_at(dir, &d.fh, O_RDONLY | O_DIRECTORY));
	eq(t_fstat(dfd).st_ino, t_stat("d/e").st_ino);
	struct stat up;
	ok(fstatat(dfd, "..", &up, 0));
	eq(up.st_ino, t_stat("d").st_ino);
	ok(unlink("d/renamed"));
	t_range(fd, 0, 100, 'h');
	close(fd);
	/* The end of a file is asynchronous on FUSE: it may be found until its RELEASE is
	 * answered. */
	for (int i = 0; i < 100 && (fd = open_by_handle_at(dir, &h.fh, O_RDONLY)) >= 0; i++) {
		close(fd);
		t_sleep_ms(10);
	}
	fails(ESTALE, open_by_handle_at(dir, &h.fh, O_RDONLY));
	/* A new file never answers to an old handle. */
	for (int i = 0; i < 50; i++) {
		t_touch("again");
		fails(ESTALE, open_by_handle_at(dir, &h.fh, O_RDONLY));
		ok(unlink("again"));
	}
}

static void handles_of_links_and_special_files(void)
{
	int dir = mount_fd();
	struct handle a, b;

	t_touch("a");
	ok(link("a", "b"));
	a = handle_of("a");
	b = handle_of("b");
	eq(a.fh.handle_bytes, b.fh.handle_bytes);
	eq(memcmp(a.bytes, b.bytes, a.fh.handle_bytes), 0);
	ok(unlink("a"));
	close(ok(open_by_handle_at(dir, &a.fh, O_RDONLY)));
	ok(mknod("p", S_IFIFO | 0600, 0));
	a = handle_of("p");
	close(ok(open_by_handle_at(dir, &a.fh, O_PATH)));
	a = handle_of(".");
	close(ok(open_by_handle_at(dir, &a.fh, O_RDONLY | O_DIRECTORY)));
}

static void statfs_says_what_there_is(void)
{
	struct statvfs a, b;
	struct statfs sf;

	ok(statvfs(".", &a));
	eq(a.f_namemax, 255);
	eq(a.f_frsize, 4096);
	is_true(a.f_bfree <= a.f_blocks && a.f_bavail <= a.f_bfree);
	is_true(a.f_files >= a.f_ffree && a.f_ffree > 0);
	ok(statfs(".", &sf));
	eq(sf.f_frsize, 4096);
	int fd = t_file("f", 4 << 20, 'x');
	ok(fsync(fd));
	ok(statvfs(".", &b));
	is_true(a.f_bfree - b.f_bfree >= 1024);
	is_true(a.f_bfree - b.f_bfree <= 1024 + 40);
}

static void removing_gives_all_space_back(void)
{
	uint64_t before = 0;
	char name[32];

	/* Once around, so that what directories keep is there already. */
	for (int round = 0; round < 4; round++) {
		for (int i = 0; i < 50; i++) {
			snprintf(name, sizeof(name), "f%d", i);
			int fd = t_file(name, (size_t)i * 20000, 'x');
			ok(fsync(fd));
			close(fd);
		}
		for (int i = 0; i < 50; i++) {
			snprintf(name, sizeof(name), "f%d", i);
			ok(unlink(name));
		}
		if (!round)
			before = t_free_blocks();
		else
			eq(t_free_blocks(), before);
	}
}

static void whole_filesystem_is_umbrafs(void)
{
	struct statfs sf;
	struct statx sx;

	ok(statfs(".", &sf));
	if (sf.f_type != FUSE_SUPER_MAGIC)
		t_skip("not a FUSE mount");
	ok(statx(AT_FDCWD, ".", 0, STATX_BASIC_STATS, &sx));
	eq(sx.stx_blksize >= 4096, 1);
}

static void tar_and_back(void)
{
	is_true(system("mkdir a && cd a && mkdir -p x/y/z && echo hi >x/f && ln x/f x/y/g &&"
		       " ln -s ../x x/l && mkfifo x/p && truncate -s 1M x/sparse &&"
		       " setfattr -n user.k -v v x/f && touch -d 1999-12-31T23:59:59.123456789 "
		       "x/f") == 0);
	is_true(system("cp -a a b && diff -r --no-dereference -x p a b") == 0);
	is_true(system("tar --xattrs -C a -cf t.tar . && mkdir c && tar --xattrs -C c -xpf t.tar &&"
		       " diff -r --no-dereference -x p a c") == 0);
	eq(t_stat("b/x/f").st_nlink, 2);
	eq(t_stat("b/x/f").st_mtim.tv_nsec, 123456789);
	is_true(system("rm -rf a b c t.tar") == 0);
}

const struct t_case t_special[] = {
	T_CASE(handles_find_their_file),
	T_CASE(handles_of_links_and_special_files),
	T_CASE(statfs_says_what_there_is),
	T_CASE(removing_gives_all_space_back),
	T_CASE(whole_filesystem_is_umbrafs),
	T_CASE(tar_and_back),
	{NULL, NULL},
};
