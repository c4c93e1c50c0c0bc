/* SPDX-License-Identifier: BSD-3-Clause */
/* Times, modes, owners, extended attributes, inode flags. */
#include "t.h"

#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/xattr.h>
#include <sys/uio.h>

static void set_times(const char *name, int64_t sec, long nsec)
{
	struct timespec ts[2] = {{sec, nsec}, {sec + 1, nsec / 2}};

	ok(utimensat(AT_FDCWD, name, ts, AT_SYMLINK_NOFOLLOW));
	struct stat st = t_stat(name);
	eq(st.st_atim.tv_sec, sec);
	eq(st.st_atim.tv_nsec, nsec);
	eq(st.st_mtim.tv_sec, sec + 1);
	eq(st.st_mtim.tv_nsec, nsec / 2);
}

static void times_of_64_bits(void)
{
	static const int64_t secs[] = {0, 1, 1234567890, 2147483648 /* 2038 */,
		4294967296 /* 2106 */, 16725225600 /* year 2500 */, -1,
		-2208988800 /* year 1900 */};

	t_touch("f");
	ok(mkdir("d", 0755));
	ok(symlink("x", "l"));
	for (size_t i = 0; i < sizeof(secs) / sizeof(secs[0]); i++) {
		set_times("f", secs[i], 123456789);
		set_times("d", secs[i], 999999999);
		set_times("l", secs[i], 1);
	}
}

static void times_now_and_omitted(void)
{
	struct timespec ts[2] = {{1000, 7}, {2000, 8}}, start;

	t_touch("f");
	ok(utimensat(AT_FDCWD, "f", ts, 0));
	ts[0] = (struct timespec){0, UTIME_OMIT};
	ts[1] = (struct timespec){3000, 9};
	ok(utimensat(AT_FDCWD, "f", ts, 0));
	eq(t_stat("f").st_atim.tv_sec, 1000);
	eq(t_stat("f").st_mtim.tv_sec, 3000);
	eq(t_stat("f").st_mtim.tv_nsec, 9);
	start = t_now();
	start.tv_sec -= 1; /* the kernel's coarse clock may lag */
	ts[0] = (struct timespec){0, UTIME_NOW};
	ts[1] = (struct timespec){0, UTIME_OMIT};
	ok(utimensat(AT_FDCWD, "f", ts, 0));
	is_true(t_after(t_stat("f").st_atim, start));
	eq(t_stat("f").st_mtim.tv_sec, 3000);
	struct stat before = t_stat("f");
	ts[0] = (struct timespec){0, UTIME_OMIT};
	t_sleep_ms(20);
	ok(utimensat(AT_FDCWD, "f", ts, 0)); /* both omitted: nothing changes */
	is_true(!t_after(t_stat("f").st_ctim, before.st_ctim));
	ts[0] = (struct timespec){0, 1000000000};
	fails(EINVAL, utimensat(AT_FDCWD, "f", ts, 0));
}

/* Does what `touch_call` does move this time of `name`? */
#define CHANGES(name, field, touch_call)                                                           \
	do {                                                                                       \
		struct stat t_before = t_stat(name);                                               \
		t_sleep_ms(15);                                                                    \
		ok(touch_call);                                                                    \
		if (!t_after(t_stat(name).field, t_before.field))                                  \
			t_fail(__FILE__, __LINE__, "%s must change %s of %s", #touch_call, #field, \
				name);                                                             \
	} while (0)
#define KEEPS(name, field, touch_call)                                                             \
	do {                                                                                       \
		struct stat t_before = t_stat(name);                                               \
		t_sleep_ms(15);                                                                    \
		ok(touch_call);                                                                    \
		if (t_after(t_stat(name).field, t_before.field))                                   \
			t_fail(__FILE__, __LINE__, "%s must not change %s of %s", #touch_call,     \
				#field, name);                                                     \
	} while (0)

static void what_changes_which_time(void)
{
	int fd = t_file("f", 100, 'x');

	ok(mkdir("d", 0755));
	CHANGES("f", st_mtim, pwrite(fd, "y", 1, 0));
	CHANGES("f", st_ctim, pwrite(fd, "y", 1, 0));
	CHANGES("f", st_mtim, ftruncate(fd, 10));
	CHANGES("f", st_ctim, ftruncate(fd, 1000));
	CHANGES("f", st_ctim, fchmod(fd, 0600));
	KEEPS("f", st_mtim, fchmod(fd, 0640));
	CHANGES("f", st_ctim, fchown(fd, 1, 1));
	CHANGES("f", st_ctim, fsetxattr(fd, "user.a", "1", 1, 0));
	KEEPS("f", st_mtim, fsetxattr(fd, "user.a", "2", 1, 0));
	CHANGES("f", st_ctim, fremovexattr(fd, "user.a"));
	CHANGES("f", st_ctim, link("f", "d/g"));
	CHANGES("f", st_ctim, unlink("d/g"));
	CHANGES("f", st_mtim, fallocate(fd, 0, 0, 20000));
	CHANGES("d", st_mtim, mkdir("d/s", 0755));
	CHANGES("d", st_ctim, symlink("x", "d/l"));
	CHANGES("d", st_mtim, rename("d/l", "d/m"));
	CHANGES("d", st_mtim, rename("d/m", "m"));
	CHANGES("d", st_mtim, rmdir("d/s"));
	KEEPS("d", st_mtim, chmod("d", 0700));
	KEEPS("f", st_ctim, access("f", F_OK));
	CHANGES("f", st_ctim, utimensat(AT_FDCWD, "f", NULL, 0));
}

static void relatime(void)
{
	char c;
	int fd = t_file("f", 100, 'x');
	struct timespec ts[2] = {{1000, 0}, {2000, 0}}; /* read before it was written */

	ok(futimens(fd, ts));
	close(fd);
	fd = ok(open("f", O_RDONLY));
	eq(read(fd, &c, 1), 1);
	close(fd);
	if (t_stat("f").st_atim.tv_sec == 1000)
		t_fail(__FILE__, __LINE__, "reading did not set atime");
	eq(t_stat("f").st_mtim.tv_sec, 2000);
	/* Read lately, and later than written: left as it is. */
	struct timespec now = t_now();
	ts[0] = (struct timespec){now.tv_sec - 100, 0};
	fd = ok(open("f", O_RDWR));
	ok(futimens(fd, ts));
	struct stat st = t_fstat(fd);
	eq(pread(fd, &c, 1, 0), 1);
	if (t_after(st.st_ctim, st.st_atim))
		return; /* ctime counts too: setting the times made it newer than atime */
	eq(t_fstat(fd).st_atim.tv_sec, ts[0].tv_sec);
}

static void reading_a_link_sets_its_atime(void)
{
	struct timespec ts[2] = {{1000, 0}, {2000, 0}};
	char buf[8];

	ok(symlink("target", "l"));
	ok(utimensat(AT_FDCWD, "l", ts, AT_SYMLINK_NOFOLLOW));
	eq(readlink("l", buf, sizeof(buf)), 6);
	is_true(t_stat("l").st_atim.tv_sec > 1000);
	eq(t_stat("l").st_mtim.tv_sec, 2000);
}

static void birth_time_stays(void)
{
	struct statx sx;
	struct timespec ts[2] = {{1000, 0}, {2000, 0}}, start = t_now();

	start.tv_sec -= 1;
	t_touch("f");
	ok(statx(AT_FDCWD, "f", 0, STATX_BASIC_STATS | STATX_BTIME, &sx));
	if (!(sx.stx_mask & STATX_BTIME))
		t_skip("no birth time");
	is_true(sx.stx_btime.tv_sec >= start.tv_sec);
	is_true(sx.stx_btime.tv_sec <= start.tv_sec + 30);
	int64_t sec = sx.stx_btime.tv_sec;
	uint32_t nsec = sx.stx_btime.tv_nsec;
	t_sleep_ms(20);
	ok(utimensat(AT_FDCWD, "f", ts, 0));
	ok(rename("f", "g"));
	ok(chmod("g", 0600));
	ok(statx(AT_FDCWD, "g", 0, STATX_BASIC_STATS | STATX_BTIME, &sx));
	eq(sx.stx_btime.tv_sec, sec);
	eq(sx.stx_btime.tv_nsec, nsec);
}

static void modes(void)
{
	t_touch("f");
	for (unsigned m = 0; m <= 07777; m += m < 0100 ? 7 : 0123) {
		ok(chmod("f", m));
		eq(t_stat("f").st_mode, S_IFREG | m);
	}
	umask(027);
	close(ok(open("g", O_CREAT | O_RDWR, 0777)));
	eq(t_stat("g").st_mode & 07777, 0750);
	ok(mkdir("d", 01777));
	eq(t_stat("d").st_mode & 07777, 01750);
	ok(chmod("d", 07777));
	eq(t_stat("d").st_mode & 07777, 07777);
	ok(symlink("f", "l"));
	ok(chmod("l", 0600)); /* follows */
	eq(t_stat("f").st_mode & 07777, 0600);
}

static void owners(void)
{
	t_touch("f");
	ok(chown("f", 1234567, 7654321));
	eq(t_stat("f").st_uid, 1234567);
	eq(t_stat("f").st_gid, 7654321);
	ok(chown("f", (uid_t)-1, 5));
	eq(t_stat("f").st_uid, 1234567);
	eq(t_stat("f").st_gid, 5);
	ok(chown("f", 6, (gid_t)-1));
	eq(t_stat("f").st_uid, 6);
	ok(chown("f", 4294967294u, 4294967294u));
	eq(t_stat("f").st_uid, 4294967294u);
	ok(symlink("f", "l"));
	ok(lchown("l", 7, 8));
	eq(t_stat("l").st_uid, 7);
	eq(t_stat("f").st_uid, 4294967294u);
}

static void xattrs_come_and_go(void)
{
	char v[100], list[4096];
	ssize_t n;

	t_touch("f");
	fails(ENODATA, getxattr("f", "user.a", v, sizeof(v)));
	fails(ENODATA, setxattr("f", "user.a", "1", 1, XATTR_REPLACE));
	ok(setxattr("f", "user.a", "one", 3, XATTR_CREATE));
	fails(EEXIST, setxattr("f", "user.a", "1", 1, XATTR_CREATE));
	eq(getxattr("f", "user.a", v, sizeof(v)), 3);
	eq(getxattr("f", "user.a", NULL, 0), 3);
	fails(ERANGE, getxattr("f", "user.a", v, 2));
	ok(setxattr("f", "user.a", "twotwo", 6, XATTR_REPLACE));
	eq(getxattr("f", "user.a", v, sizeof(v)), 6);
	ok(setxattr("f", "user.empty", "", 0, 0));
	eq(getxattr("f", "user.empty", v, sizeof(v)), 0);
	ok(setxattr("f", "trusted.t", "t", 1, 0));
	ok(setxattr("f", "security.s", "s", 1, 0));
	n = ok(listxattr("f", list, sizeof(list)));
	is_true(memmem(list, (size_t)n, "user.a", 7));
	is_true(memmem(list, (size_t)n, "user.empty", 11));
	is_true(memmem(list, (size_t)n, "trusted.t", 10));
	is_true(memmem(list, (size_t)n, "security.s", 11));
	eq(listxattr("f", NULL, 0), n);
	fails(ERANGE, listxattr("f", list, (size_t)n - 1));
	ok(removexattr("f", "user.a"));
	fails(ENODATA, removexattr("f", "user.a"));
	ok(symlink("f", "l"));
	fails(EPERM, lsetxattr("l", "user.a", "1", 1, 0));
	ok(lsetxattr("l", "trusted.a", "1", 1, 0));
	fails(EOPNOTSUPP, setxattr("f", "nonsense.a", "1", 1, 0));
	ok(mkdir("d", 0755));
	ok(setxattr("d", "user.dir", "1", 1, 0));
	ok(rename("f", "g"));
	eq(getxattr("g", "trusted.t", v, sizeof(v)), 1);
}

static void xattrs_large_and_many(void)
{
	static char v[65537], got[65537], list[65536];
	char name[300];
	const size_t sizes[] = {1, 100, 1000, 1024, 1025, 4000, 4096, 10000, 65535, 65536};

	t_touch("f");
	for (size_t i = 0; i < sizeof(v); i++)
		v[i] = (char)(i * 131 >> 4);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		if (setxattr("f", "user.big", v, sizes[i], 0)) {
			if (errno == ENOSPC || errno == E2BIG)
				t_skip("values of %zu bytes do not fit here", sizes[i]);
			ok(-1);
		}
		eq(getxattr("f", "user.big", got, sizeof(got)), sizes[i]);
		eq(memcmp(v, got, sizes[i]), 0);
		eq(getxattr("f", "user.big", NULL, 0), sizes[i]);
	}
	fails(E2BIG, setxattr("f", "user.big", v, 65537, 0));
	eq(getxattr("f", "user.big", NULL, 0), 65536);
	ok(setxattr("f", "user.big", "s", 1, 0));
	eq(getxattr("f", "user.big", got, sizeof(got)), 1);

	strcpy(name, "user.");
	memset(name + 5, 'n', 250);
	name[255] = 0;
	ok(setxattr("f", name, "x", 1, 0));
	eq(getxattr("f", name, got, 1), 1);
	ok(removexattr("f", name));
	for (int i = 0; i < 500; i++) {
		snprintf(name, sizeof(name), "user.number-%d", i);
		ok(setxattr("f", name, v, (size_t)i, 0));
	}
	is_true(listxattr("f", list, sizeof(list)) > 500 * 13);
	for (int i = 0; i < 500; i++) {
		snprintf(name, sizeof(name), "user.number-%d", i);
		eq(getxattr("f", name, got, sizeof(got)), i);
		eq(memcmp(v, got, (size_t)i), 0);
		if (i % 2)
			ok(removexattr("f", name));
	}
	for (int i = 0; i < 500; i += 2) {
		snprintf(name, sizeof(name), "user.number-%d", i);
		eq(getxattr("f", name, NULL, 0), i);
	}
}

static void hidden_xattrs(void)
{
	char v[10];

	ok(setxattr("f", "user.mine", "1", 1, 0));
	fails(EPERM, setxattr("f", "trusted.t", "1", 1, 0));
	fails(ENODATA, getxattr("f", "trusted.t", v, sizeof(v)));
	fails(EACCES, setxattr("g", "user.a", "1", 1, 0));
}

static void xattrs_need_permission(void)
{
	t_touch("f");
	t_touch("g");
	ok(chown("f", T_NOBODY, T_NOBODY));
	ok(setxattr("f", "trusted.t", "1", 1, 0));
	t_as(T_NOBODY, T_NOBODY, hidden_xattrs);
}

static int get_flags(int fd)
{
	int flags = 0;

	if (ioctl(fd, FS_IOC_GETFLAGS, &flags)) {
		if (errno == ENOTTY || errno == EOPNOTSUPP)
			t_skip("no inode flags here");
		ok(-1);
	}
	return flags;
}

static int set_flags(int fd, int flags)
{
	return ioctl(fd, FS_IOC_SETFLAGS, &flags);
}

static void immutable_files_do_not_change(void)
{
	int fd = t_file("f", 100, 'x'), flags = get_flags(fd);

	ok(set_flags(fd, flags | FS_IMMUTABLE_FL));
	is_true(get_flags(fd) & FS_IMMUTABLE_FL);
	fails(EPERM, open("f", O_WRONLY));
	fails(EPERM, open("f", O_RDWR | O_TRUNC));
	fails(EPERM, truncate("f", 0));
	fails(EPERM, unlink("f"));
	fails(EPERM, rename("f", "g"));
	fails(EPERM, link("f", "g"));
	fails(EPERM, chmod("f", 0600));
	fails(EPERM, chown("f", 1, 1));
	fails(EPERM, setxattr("f", "user.a", "1", 1, 0));
	struct timespec ts[2] = {{1, 0}, {2, 0}};
	fails(EPERM, utimensat(AT_FDCWD, "f", ts, 0));
	t_touch("other");
	fails(EPERM, rename("other", "f"));
	t_range(fd, 0, 100, 'x');
	ok(set_flags(fd, flags));
	ok(chmod("f", 0600));
	ok(mkdir("d", 0755));
	t_touch("d/x");
	int dir = ok(open("d", O_RDONLY | O_DIRECTORY));
	ok(set_flags(dir, get_flags(dir) | FS_IMMUTABLE_FL));
	fails(EPERM, open("d/y", O_CREAT | O_RDWR, 0600));
	fails(EPERM, unlink("d/x"));
	fails(EPERM, rename("f", "d/f"));
	fails(EPERM, mkdir("d/z", 0700));
	close(ok(open("d/x", O_WRONLY))); /* the file itself is not immutable */
	ok(set_flags(dir, get_flags(dir) & ~FS_IMMUTABLE_FL));
	ok(unlink("d/x"));
}

static void truncate_in_vain(void)
{
	fails(EPERM, truncate("f", 0));
}

static void set_id_bits_stay_if_a_change_fails(void)
{
	static const mode_t modes[] = {02766, 06777};
	int fd = t_file("f", 10, 'x'), flags = get_flags(fd);

	for (unsigned i = 0; i < 2; i++) {
		ok(chmod("f", modes[i]));
		ok(set_flags(fd, flags | FS_APPEND_FL));
		t_as(T_NOBODY, T_NOBODY, truncate_in_vain);
		eq(t_stat("f").st_mode & 07777, modes[i]);
		ok(set_flags(fd, flags));
	}
}

static void append_only_files_only_grow(void)
{
	int fd = t_file("f", 10, 'x'), flags = get_flags(fd);

	ok(set_flags(fd, flags | FS_APPEND_FL));
	fails(EPERM, open("f", O_WRONLY));
	fails(EPERM, open("f", O_WRONLY | O_APPEND | O_TRUNC));
	fails(EPERM, truncate("f", 0));
	fails(EPERM, unlink("f"));
	fails(EPERM, rename("f", "g"));
	int a = ok(open("f", O_WRONLY | O_APPEND));
	eq(write(a, "yy", 2), 2);
	t_range(fd, 0, 10, 'x');
	t_range(fd, 10, 2, 'y');
	eq(t_fstat(fd).st_size, 12);

	/* Both times may become now, and nothing else. */
	const struct timespec past[2] = {{1, 0}, {1, 0}};
	struct timespec before = t_fstat(fd).st_mtim, after;

	fails(EPERM, utimensat(AT_FDCWD, "f", past, 0));
	usleep(20000);
	ok(utimensat(AT_FDCWD, "f", NULL, 0));
	after = t_fstat(fd).st_mtim;
	is_true(after.tv_sec > before.tv_sec || after.tv_nsec > before.tv_nsec);
	ok(set_flags(fd, flags));
	ok(unlink("f"));
}

/* The kernel's FUSE knows nothing of append-only files: with writeback, when it sends pages only, it
 * lets them be overwritten. */
static bool pages_are_sent(void)
{
	const char *options = getenv("UMBRA_OPTIONS");

	return options && strstr(options, "writeback");
}

static void append_only_files_are_not_overwritten(void)
{
	struct iovec iov = {"zz", 2};
	int fd = t_file("f", 5000, 'x'), flags = get_flags(fd), a, b;
	char *map, *page;

	ok(set_flags(fd, flags | FS_APPEND_FL));
	a = ok(open("f", O_RDWR | O_APPEND));
	b = ok(open("f", O_WRONLY | O_APPEND | O_DIRECT));
	/* Other filesystems refuse to remove O_APPEND. */
	page = aligned_alloc(4096, 4096);
	is_true(page);
	memset(page, 'z', 4096);
	if (fcntl(b, F_SETFL, O_DIRECT))
		eq(errno, EPERM);
	else
		fails(EPERM, pwrite(b, page, 4096, 0));
	if (!pages_are_sent()) {
		is_true(pwritev2(a, &iov, 1, 0, 0x20 /* RWF_NOAPPEND */) < 0);
		map = mmap(NULL, 5000, PROT_READ | PROT_WRITE, MAP_SHARED, a, 0);
		if (map == MAP_FAILED) {
			eq(errno, EACCES);
		} else {
			map[0] = 'm';
			is_true(msync(map, 5000, MS_SYNC));
			ok(munmap(map, 5000));
		}
		if (fcntl(a, F_SETFL, 0))
			eq(errno, EPERM);
		else
			fails(EPERM, pwrite(a, "z", 1, 4999));
		ok(posix_fadvise(a, 0, 0, POSIX_FADV_DONTNEED));
	}
	t_range(fd, 0, 5000, 'x');
	/* Who had it open before may still do what he could. */
	eq(pwrite(fd, "y", 1, 0), 1);
	close(b);
	b = ok(open("f", O_WRONLY | O_APPEND));
	eq(write(b, "yy", 2), 2);
	eq(t_fstat(fd).st_size, 5002);
	ok(set_flags(fd, flags));
}

/* A reader shares the pages of a clone with others, if that is possible. */
static void append_only_clones_are_not_overwritten(void)
{
	const size_t len = 1 << 16;
	int s = t_file("s", len, 'x'), f = t_file("f", 0, 0), flags = get_flags(f), reader, a;

	if (pages_are_sent())
		t_skip("pages are sent as a whole");
	eq(lseek(s, 0, SEEK_SET), 0);
	eq(copy_file_range(s, NULL, f, NULL, len, 0), len);
	ok(set_flags(f, flags | FS_APPEND_FL));
	close(s);
	close(f);
	reader = ok(open("f", O_RDONLY));
	a = ok(open("f", O_WRONLY | O_APPEND));
	if (fcntl(a, F_SETFL, 0))
		eq(errno, EPERM);
	else
		fails(EPERM, pwrite(a, "z", 1, 0));
	t_range(reader, 0, len, 'x');
	ok(set_flags(reader, flags));
}

static void set_flags_as_user(void)
{
	int fd = ok(open("f", O_RDWR));

	fails(EPERM, set_flags(fd, get_flags(fd) | FS_IMMUTABLE_FL));
	ok(set_flags(fd, get_flags(fd) | FS_NOATIME_FL));
}

static void flags_and_project_attributes(void)
{
	struct fsxattr fx;
	int fd = t_file("f", 100, 'x'), flags = get_flags(fd);
	char c;
	struct timespec ts[2] = {{1000, 0}, {2000, 0}};

	ok(set_flags(fd, flags | FS_NOATIME_FL));
	is_true(get_flags(fd) & FS_NOATIME_FL);
	memset(&fx, 0, sizeof(fx));
	ok(ioctl(fd, FS_IOC_FSGETXATTR, &fx));
	is_true(fx.fsx_xflags & FS_XFLAG_NOATIME);
	ok(futimens(fd, ts));
	close(fd);
	fd = ok(open("f", O_RDWR));
	eq(read(fd, &c, 1), 1);
	eq(t_fstat(fd).st_atim.tv_sec, 1000);
	fx.fsx_xflags = FS_XFLAG_NODUMP;
	ok(ioctl(fd, FS_IOC_FSSETXATTR, &fx));
	is_true(get_flags(fd) & FS_NODUMP_FL);
	is_true(!(get_flags(fd) & FS_NOATIME_FL));
	ok(set_flags(fd, flags));
	/* A flag nobody knows is refused, not swallowed. */
	fails(EOPNOTSUPP, set_flags(fd, flags | FS_ENCRYPT_FL));
	ok(chown("f", T_NOBODY, T_NOBODY));
	t_as(T_NOBODY, T_NOBODY, set_flags_as_user);
}

const struct t_case t_attr[] = {
	T_CASE(times_of_64_bits),
	T_CASE(times_now_and_omitted),
	T_CASE(what_changes_which_time),
	T_CASE(relatime),
	T_CASE(reading_a_link_sets_its_atime),
	T_CASE(birth_time_stays),
	T_CASE(modes),
	T_CASE(owners),
	T_CASE(xattrs_come_and_go),
	T_CASE(xattrs_large_and_many),
	T_CASE(xattrs_need_permission),
	T_CASE(immutable_files_do_not_change),
	T_CASE(append_only_files_only_grow),
	T_CASE(set_id_bits_stay_if_a_change_fails),
	T_CASE(append_only_files_are_not_overwritten),
	T_CASE(append_only_clones_are_not_overwritten),
	T_CASE(flags_and_project_attributes),
	{NULL, NULL},
};
