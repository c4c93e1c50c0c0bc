/* SPDX-License-Identifier: BSD-3-Clause */
/* Names: create, link, unlink, rename, symlinks, unnamed and unlinked files. */
#include "t.h"

#include <dirent.h>
#include <linux/fs.h>
#include <sys/xattr.h>

static void create_refuses_what_exists(void)
{
	int fd = ok(open("a", O_RDWR | O_CREAT | O_EXCL, 0600));

	fails(EEXIST, open("a", O_RDWR | O_CREAT | O_EXCL, 0600));
	close(ok(open("a", O_RDWR | O_CREAT, 0600)));
	close(fd);
	eq(t_stat("a").st_mode, S_IFREG | 0600);
	eq(t_stat("a").st_nlink, 1);
	fails(EEXIST, mkdir("a", 0700));
	fails(EEXIST, symlink("x", "a"));
	fails(EEXIST, mknod("a", S_IFIFO | 0600, 0));
	fails(ENOENT, open("b", O_RDWR));
	fails(ENOTDIR, open("a/b", O_RDWR | O_CREAT, 0600));
	fails(ENOENT, open("none/b", O_RDWR | O_CREAT, 0600));
	fails(ENOTDIR, open("a", O_RDONLY | O_DIRECTORY));
}

static void open_of_directories(void)
{
	ok(mkdir("d", 0755));
	fails(EISDIR, open("d", O_WRONLY));
	fails(EISDIR, open("d", O_RDWR));
	fails(EISDIR, open("d", O_RDONLY | O_CREAT, 0600));
	int fd = ok(open("d", O_RDONLY | O_DIRECTORY));
	char c;
	fails(EISDIR, read(fd, &c, 1));
	ok(fsync(fd));
	close(fd);
}

static void names_of_any_byte(void)
{
	char name[2] = "", seen[256] = {0};
	int n = 0;

	for (int c = 1; c < 256; c++) {
		if (c == '/' || c == '.')
			continue;
		name[0] = (char)c;
		t_touch(name);
	}
	DIR *d = opendir(".");
	is_true(d);
	for (struct dirent *e; (e = readdir(d));) {
		if (e->d_name[0] == '.')
			continue;
		eq(strlen(e->d_name), 1);
		eq(seen[(unsigned char)e->d_name[0]]++, 0);
		n++;
	}
	eq(n, 253);
	closedir(d);
	for (int c = 1; c < 256; c++) {
		name[0] = (char)c;
		if (c != '/' && c != '.')
			ok(unlink(name));
	}
}

static void names_of_255_bytes(void)
{
	char name[300], other[400];

	for (int i = 0; i < 256; i++)
		name[i] = (char)(i % 3 ? 0x80 + i % 127 : '\n');
	name[255] = 0;
	t_touch(name);
	ok(mkdir("d", 0755));
	snprintf(other, sizeof(other), "d/%s", name);
	ok(rename(name, other));
	ok(link(other, name));
	eq(t_stat(name).st_ino, t_stat(other).st_ino);
	ok(unlink(other));
	ok(symlink("x", other));
	ok(unlink(other));
	ok(mkdir(other, 0755));
	ok(rmdir(other));
	memset(name, 'a', 256);
	name[256] = 0;
	fails(ENAMETOOLONG, open(name, O_CREAT | O_RDWR, 0600));
	fails(ENAMETOOLONG, mkdir(name, 0700));
	fails(ENAMETOOLONG, unlink(name));
	fails(ENAMETOOLONG, rename("d", name));
	fails(ENAMETOOLONG, symlink("x", name));
}

static void unlink_and_rmdir(void)
{
	t_touch("f");
	ok(mkdir("d", 0755));
	t_touch("d/x");
	fails(EISDIR, unlink("d"));
	fails(ENOTDIR, rmdir("f"));
	fails(ENOTEMPTY, rmdir("d"));
	fails(EINVAL, rmdir("."));
	fails(ENOTEMPTY, rmdir("d/.."));
	fails(ENOENT, unlink("none"));
	fails(ENOENT, rmdir("none"));
	ok(unlink("d/x"));
	ok(rmdir("d"));
	ok(unlink("f"));
	fails(ENOENT, unlink("f"));
}

static void links_share_one_inode(void)
{
	int fd = t_file("a", 100, 'x');

	ok(mkdir("d", 0755));
	for (int i = 0; i < 300; i++) {
		char name[32];

		snprintf(name, sizeof(name), "d/%d", i);
		ok(link("a", name));
	}
	eq(t_fstat(fd).st_nlink, 301);
	eq(t_stat("d/77").st_ino, t_fstat(fd).st_ino);
	eq(pwrite(fd, "y", 1, 0), 1);
	int other = ok(open("d/5", O_RDONLY));
	t_range(other, 0, 1, 'y');
	close(other);
	ok(unlink("a"));
	eq(t_fstat(fd).st_nlink, 300);
	for (int i = 0; i < 300; i++) {
		char name[32];

		snprintf(name, sizeof(name), "d/%d", i);
		ok(unlink(name));
	}
	eq(t_fstat(fd).st_nlink, 0);
	fails(EPERM, link("d", "e"));
	t_touch("a");
	fails(EEXIST, link("a", "d"));
	fails(EEXIST, link("a", "a"));
	fails(ENOENT, link("none", "b"));
	fails(EXDEV, link("a", "/dev/shm/umbrafs-link"));
	close(fd);
}

static void directories_count_their_subdirectories(void)
{
	ok(mkdir("d", 0755));
	eq(t_stat("d").st_nlink, 2);
	ok(mkdir("d/a", 0755));
	ok(mkdir("d/b", 0755));
	eq(t_stat("d").st_nlink, 4);
	ok(mkdir("e", 0755));
	ok(rename("d/a", "e/a"));
	eq(t_stat("d").st_nlink, 3);
	eq(t_stat("e").st_nlink, 3);
	ok(rmdir("d/b"));
	eq(t_stat("d").st_nlink, 2);
	t_touch("d/f");
	eq(t_stat("d").st_nlink, 2);
}

static void rename_replaces(void)
{
	close(t_file("a", 10, 'a'));
	int b = t_file("b", 20, 'b');
	ino_t ino = t_stat("a").st_ino;

	ok(rename("a", "b"));
	fails(ENOENT, access("a", F_OK));
	eq(t_stat("b").st_ino, ino);
	eq(t_stat("b").st_size, 10);
	eq(t_fstat(b).st_nlink, 0);
	t_range(b, 0, 20, 'b');
	close(b);

	ok(mkdir("d", 0755));
	ok(mkdir("e", 0755));
	ok(rename("d", "e"));
	ok(mkdir("d", 0755));
	t_touch("e/x");
	fails(ENOTEMPTY, rename("d", "e"));
	fails(EISDIR, rename("b", "d"));
	fails(ENOTDIR, rename("d", "b"));
	fails(EINVAL, rename("e", "e/sub"));
	ok(mkdir("e/sub", 0755));
	fails(EINVAL, rename("e", "e/sub/deeper"));
	fails(ENOTEMPTY, rename("e/sub", "e"));
	fails(ENOENT, rename("none", "b"));
	fails(EBUSY, rename(".", "z"));
	fails(EXDEV, rename("b", "/dev/shm/umbrafs-rename"));
}

static void rename_of_links_to_one_inode_does_nothing(void)
{
	t_touch("a");
	ok(link("a", "b"));
	ok(rename("a", "b"));
	eq(t_stat("a").st_nlink, 2);
	ok(access("b", F_OK));
	ok(rename("a", "a"));
}

static void rename_moves_directories(void)
{
	ok(mkdir("a", 0755));
	ok(mkdir("a/b", 0755));
	ok(mkdir("c", 0755));
	t_touch("a/b/f");
	ok(rename("a/b", "c/b"));
	eq(t_stat("c/b/..").st_ino, t_stat("c").st_ino);
	ok(access("c/b/f", F_OK));
	int fd = ok(open("c/b", O_RDONLY | O_DIRECTORY));
	ok(rename("c/b", "top"));
	struct stat st;
	ok(fstatat(fd, "..", &st, 0));
	eq(st.st_ino, t_stat(".").st_ino);
	close(fd);
}

static void rename_noreplace_and_exchange(void)
{
	close(t_file("a", 1, 'a'));
	ok(mkdir("d", 0755));
	ok(mkdir("d/sub", 0755));
	t_touch("d/x");
	fails(EEXIST, renameat2(AT_FDCWD, "a", AT_FDCWD, "d", RENAME_NOREPLACE));
	fails(EEXIST, renameat2(AT_FDCWD, "a", AT_FDCWD, "d/x", RENAME_NOREPLACE));
	ok(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_NOREPLACE));
	fails(ENOENT, renameat2(AT_FDCWD, "b", AT_FDCWD, "none", RENAME_EXCHANGE));
	fails(ENOENT, renameat2(AT_FDCWD, "none", AT_FDCWD, "b", RENAME_EXCHANGE));

	/* A file here against a directory there: the counts of both parents change. */
	ok(renameat2(AT_FDCWD, "b", AT_FDCWD, "d/sub", RENAME_EXCHANGE));
	eq(t_stat("d/sub").st_size, 1);
	is_true(S_ISDIR(t_stat("b").st_mode));
	eq(t_stat("d").st_nlink, 2);
	eq(t_stat("b/..").st_ino, t_stat(".").st_ino);
	fails(EINVAL, renameat2(AT_FDCWD, "d", AT_FDCWD, "d/x", RENAME_EXCHANGE));
	fails(EINVAL, renameat2(AT_FDCWD, "b", AT_FDCWD, "d", RENAME_EXCHANGE | RENAME_NOREPLACE));
	fails(EINVAL, renameat2(AT_FDCWD, "b", AT_FDCWD, "z", 1u << 7));

	/* As overlayfs renames in its upper layer. */
	t_touch("w");
	ok(renameat2(AT_FDCWD, "w", AT_FDCWD, "d/w", RENAME_WHITEOUT | RENAME_NOREPLACE));
	is_true(S_ISCHR(t_stat("w").st_mode));
	eq(t_stat("w").st_rdev, 0);
	is_true(S_ISREG(t_stat("d/w").st_mode));
	fails(EINVAL,
		renameat2(AT_FDCWD, "d/w", AT_FDCWD, "d/x", RENAME_WHITEOUT | RENAME_EXCHANGE));
	ok(unlink("w"));
	ok(unlink("d/w"));

	/* Within one directory. */
	ok(mkdir("m", 0755));
	ok(renameat2(AT_FDCWD, "m", AT_FDCWD, "b", RENAME_EXCHANGE));
	ok(rmdir("m"));
	ok(rmdir("b"));
}

static void symlinks(void)
{
	char target[4097], got[5000];

	ok(symlink("target", "l"));
	eq(readlink("l", got, sizeof(got)), 6);
	eq(t_stat("l").st_size, 6);
	is_true(S_ISLNK(t_stat("l").st_mode));
	fails(ENOENT, open("l", O_RDONLY));
	close(ok(open("l", O_RDWR | O_CREAT, 0600)));
	is_true(S_ISREG(t_stat("target").st_mode));
	fails(ELOOP, open("l", O_RDONLY | O_NOFOLLOW));
	fails(EINVAL, readlink("target", got, sizeof(got)));
	ok(symlink("loop", "loop"));
	fails(ELOOP, open("loop", O_RDONLY));

	memset(target, 'a', sizeof(target));
	target[4095] = 0;
	ok(symlink(target, "long"));
	eq(readlink("long", got, sizeof(got)), 4095);
	is_true(!memcmp(got, target, 4095));
	eq(t_stat("long").st_size, 4095);
	target[4095] = 'a';
	target[4096] = 0;
	fails(ENAMETOOLONG, symlink(target, "longer"));
	fails(ENOENT, symlink("", "empty"));
	ok(symlink("target", "l2"));
	ok(rename("l", "l2"));
	ok(link("l2", "l3"));
	eq(t_stat("l3").st_nlink, 2);
	eq(t_stat("target").st_nlink, 1);
}

static void unnamed_file_gets_a_name(void)
{
	char path[64];
	int fd = ok(open(".", O_TMPFILE | O_RDWR, 0640));

	eq(t_fstat(fd).st_nlink, 0);
	eq(t_fstat(fd).st_mode, S_IFREG | 0640);
	eq(write(fd, "hello", 5), 5);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ok(linkat(AT_FDCWD, path, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
	eq(t_fstat(fd).st_nlink, 1);
	eq(t_stat("named").st_ino, t_fstat(fd).st_ino);
	fails(EEXIST, linkat(AT_FDCWD, path, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
	close(fd);
	eq(t_stat("named").st_size, 5);

	fd = ok(open(".", O_TMPFILE | O_RDWR | O_EXCL, 0600));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	fails(ENOENT, linkat(AT_FDCWD, path, AT_FDCWD, "never", AT_SYMLINK_FOLLOW));
	close(fd);
}

static void unnamed_files_leave_no_trace(void)
{
	uint64_t before;
	int fd = t_file("warm", 1 << 20, 'w');

	close(fd);
	ok(unlink("warm"));
	before = t_free_blocks();
	for (int i = 0; i < 20; i++) {
		char buf[8192] = "x";

		fd = ok(open(".", O_TMPFILE | O_RDWR, 0600));
		eq(write(fd, buf, sizeof(buf)), sizeof(buf));
		close(fd);
	}
	for (int i = 0; i < 50 && t_free_blocks() < before; i++)
		t_sleep_ms(20);
	is_true(t_free_blocks() + 2 >= before);
}

static void unlinked_open_file_lives(void)
{
	char v[8];
	int fd = t_file("f", 5000, 'x');
	int rd = ok(open("f", O_RDONLY));

	ok(setxattr("f", "user.a", "1", 1, 0));
	ok(unlink("f"));
	fails(ENOENT, access("f", F_OK));
	eq(t_fstat(fd).st_nlink, 0);
	t_touch("f"); /* a new one of the same name has nothing to do with it */
	eq(pwrite(fd, "y", 1, 4999), 1);
	ok(ftruncate(fd, 9000));
	t_range(rd, 0, 4999, 'x');
	t_range(rd, 4999, 1, 'y');
	t_range(rd, 5000, 4000, 0);
	eq(fgetxattr(fd, "user.a", v, sizeof(v)), 1);
	ok(fchmod(fd, 0600));
	eq(t_fstat(rd).st_mode, S_IFREG | 0600);
	eq(t_stat("f").st_size, 0);
	close(fd);
	t_range(rd, 4999, 1, 'y');
	close(rd);
}

static void removed_directory_takes_no_new_names(void)
{
	struct stat st;

	ok(mkdir("d", 0755));
	int fd = ok(open("d", O_RDONLY | O_DIRECTORY));
	ok(rmdir("d"));
	ok(fstat(fd, &st));
	eq(st.st_nlink, 0);
	fails(ENOENT, openat(fd, "x", O_CREAT | O_RDWR, 0600));
	fails(ENOENT, mkdirat(fd, "x", 0700));
	fails(ENOENT, symlinkat("x", fd, "x"));
	t_touch("f");
	fails(ENOENT, linkat(AT_FDCWD, "f", fd, "x", 0));
	fails(ENOENT, renameat(AT_FDCWD, "f", fd, "x"));
	close(fd);
}

static void deep_paths(void)
{
	/* 600 levels: beyond PATH_MAX as one path, walked step by step. */
	for (int i = 0; i < 600; i++) {
		ok(mkdir("level-of-a-deep-tree", 0755));
		ok(chdir("level-of-a-deep-tree"));
	}
	t_touch("bottom");
	ok(unlink("bottom"));
	for (int i = 0; i < 600; i++) {
		ok(chdir(".."));
		ok(rmdir("level-of-a-deep-tree"));
	}
}

static void special_files(void)
{
	struct stat st;
	char c;

	ok(mknod("p", S_IFIFO | 0640, 0));
	ok(mknod("s", S_IFSOCK | 0600, 0));
	ok(mknod("c", S_IFCHR | 0600, makedev(1, 3)));
	ok(mknod("b", S_IFBLK | 0600, makedev(259, 1048575)));
	ok(mknod("r", S_IFREG | 0604, 0));
	st = t_stat("p");
	is_true(S_ISFIFO(st.st_mode));
	eq(st.st_mode & 07777, 0640);
	is_true(S_ISSOCK(t_stat("s").st_mode));
	st = t_stat("c");
	is_true(S_ISCHR(st.st_mode));
	eq(st.st_rdev, makedev(1, 3));
	st = t_stat("b");
	is_true(S_ISBLK(st.st_mode));
	eq(st.st_rdev, makedev(259, 1048575));
	eq(t_stat("r").st_mode, S_IFREG | 0604);
	int fd = ok(open("p", O_RDWR | O_NONBLOCK));
	eq(write(fd, "z", 1), 1);
	eq(read(fd, &c, 1), 1);
	close(fd);
	ok(unlink("p"));
	ok(rename("c", "b"));
	eq(t_stat("b").st_rdev, makedev(1, 3));
}

const struct t_case t_names[] = {
	T_CASE(create_refuses_what_exists),
	T_CASE(open_of_directories),
	T_CASE(names_of_any_byte),
	T_CASE(names_of_255_bytes),
	T_CASE(unlink_and_rmdir),
	T_CASE(links_share_one_inode),
	T_CASE(directories_count_their_subdirectories),
	T_CASE(rename_replaces),
	T_CASE(rename_of_links_to_one_inode_does_nothing),
	T_CASE(rename_moves_directories),
	T_CASE(rename_noreplace_and_exchange),
	T_CASE(symlinks),
	T_CASE(unnamed_file_gets_a_name),
	T_CASE(unnamed_files_leave_no_trace),
	T_CASE(unlinked_open_file_lives),
	T_CASE(removed_directory_takes_no_new_names),
	T_CASE(deep_paths),
	T_CASE(special_files),
	{NULL, NULL},
};
