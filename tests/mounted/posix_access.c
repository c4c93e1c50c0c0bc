/* SPDX-License-Identifier: BSD-3-Clause */
/* Who may do what: modes, set-id bits, sticky and set-gid directories, ACLs. */
#include "t.h"

#include <sys/xattr.h>

static void user_meets_modes(void)
{
	fails(EACCES, open("secret", O_RDONLY));
	fails(EACCES, open("readable", O_WRONLY));
	close(ok(open("readable", O_RDONLY)));
	fails(EACCES, open("closed/f", O_RDONLY));
	fails(EACCES, open("listed/f", O_RDONLY));
	close(ok(open("listed", O_RDONLY | O_DIRECTORY)));
	close(ok(open("searched/f", O_RDONLY)));
	fails(EACCES, open("searched", O_RDONLY | O_DIRECTORY));
	fails(EACCES, unlink("searched/f"));
	fails(EACCES, open("searched/new", O_CREAT | O_RDWR, 0600));
	fails(EPERM, chmod("readable", 0777));
	fails(EPERM, chown("readable", T_NOBODY, T_NOBODY));
	fails(EACCES, access("secret", R_OK));
	fails(EACCES, access("readable", X_OK));
	fails(EACCES, truncate("readable", 0));
	fails(EPERM, utimensat(AT_FDCWD, "readable", (struct timespec[2]){{1, 0}, {2, 0}}, 0));
	fails(EACCES, utimensat(AT_FDCWD, "readable", NULL, 0));
	ok(utimensat(AT_FDCWD, "writable", NULL, 0));
	fails(EPERM, mknod("dev", S_IFCHR | 0600, makedev(1, 3)));
}

static void modes_are_enforced(void)
{
	close(t_file("secret", 1, 'x'));
	ok(chmod("secret", 0600));
	close(t_file("readable", 1, 'x'));
	close(t_file("writable", 1, 'x'));
	ok(chmod("writable", 0666));
	ok(mkdir("closed", 0700));
	t_touch("closed/f");
	ok(mkdir("listed", 0744));
	t_touch("listed/f");
	ok(mkdir("searched", 0711));
	t_touch("searched/f");
	t_as(T_NOBODY, T_NOBODY, user_meets_modes);
	close(ok(open("secret", O_RDWR))); /* root may */
}

static void write_one_byte(void)
{
	int fd = ok(open("f", O_RDWR));

	eq(pwrite(fd, "y", 1, 0), 1);
	close(fd);
}

static void truncate_by_path(void)
{
	ok(truncate("f", 5));
}

static void truncate_by_opening(void)
{
	close(ok(open("f", O_WRONLY | O_TRUNC)));
}

/* The bits of f with `mode` once somebody else has acted on it. */
static mode_t bits_after(mode_t mode, void (*act)(void))
{
	ok(chmod("f", mode));
	t_as(T_NOBODY, T_NOBODY, act);
	return t_stat("f").st_mode & 07777;
}

static void setid_bits_fall_at_a_users_write(void)
{
	close(t_file("f", 10, 'x'));
	eq(bits_after(06777, write_one_byte), 0777);
	eq(bits_after(06777, truncate_by_path), 0777);
	/* Without group execution set-gid stays for members of the group only. */
	eq(bits_after(02766, write_one_byte), 0766);
	eq(bits_after(02766, truncate_by_path), 0766);
	eq(bits_after(02766, truncate_by_opening), 0766);
	ok(chown("f", 0, T_NOBODY));
	eq(bits_after(02766, write_one_byte), 02766);
	/* root keeps them. */
	ok(chmod("f", 06777));
	write_one_byte();
	eq(t_stat("f").st_mode & 07777, 06777);
}

static void allocate_space(void)
{
	int fd = ok(open("f", O_RDWR));

	ok(fallocate(fd, 0, 0, 100000));
	close(fd);
}

static void setid_bits_fall_at_chown_and_fallocate(void)
{
	close(t_file("f", 10, 'x'));
	ok(chmod("f", 06755));
	ok(chown("f", 5, 6));
	eq(t_stat("f").st_mode & 07777, 0755);
	ok(chmod("f", 02745));
	ok(chown("f", 6, 7));
	eq(t_stat("f").st_mode & 07777, 02745);
	ok(mkdir("d", 0755));
	ok(chmod("d", 07777));
	ok(chown("d", 5, 6));
	eq(t_stat("d").st_mode & 07777, 07777);
	ok(chown("f", 0, 0));
	eq(bits_after(06777, allocate_space), 0777);
	/* Without group execution set-gid stays for members of the group only. */
	eq(bits_after(02766, allocate_space), 0766);
	ok(chown("f", 0, T_NOBODY));
	eq(bits_after(02766, allocate_space), 02766);
}

static void chown_to_nobody_in_particular(void)
{
	ok(chown("f", -1, -1));
}

static void chown_of_anothers_file(void)
{
	fails(EPERM, chown("f", -1, -1));
	ok(chown("plain", -1, -1));
}

/* chown(2) that names neither owner nor group drops the bits too, but only for the owner. */
static void setid_bits_fall_at_an_empty_chown_of_the_owner(void)
{
	close(t_file("f", 10, 'x'));
	close(t_file("plain", 10, 'x'));
	eq(bits_after(06755, chown_of_anothers_file), 06755);
	eq(bits_after(02745, chown_of_anothers_file), 02745);
	ok(chmod("f", 06755));
	ok(chown("f", -1, -1));
	eq(t_stat("f").st_mode & 07777, 0755);
	ok(chown("f", T_NOBODY, 5));
	eq(bits_after(06755, chown_to_nobody_in_particular), 0755);
	eq(bits_after(02745, chown_to_nobody_in_particular), 0745);
}

static void capabilities_fall_at_a_write(void)
{
	/* A version 2 capability set: cap_net_raw permitted and effective. */
	static const unsigned char cap[20] = {1, 0, 0, 2, 0, 32};
	char v[64];

	close(t_file("f", 10, 'x'));
	ok(chmod("f", 0777));
	ok(setxattr("f", "security.capability", cap, sizeof(cap), 0));
	eq(getxattr("f", "security.capability", v, sizeof(v)), sizeof(cap));
	write_one_byte();
	fails(ENODATA, getxattr("f", "security.capability", v, sizeof(v)));
}

static void user_in_sticky_directory(void)
{
	t_touch("sticky/mine");
	fails(EPERM, unlink("sticky/other"));
	fails(EPERM, rename("sticky/other", "sticky/x"));
	fails(EPERM, rename("sticky/mine", "sticky/other"));
	fails(EPERM, rmdir("sticky/dir"));
	ok(rename("sticky/mine", "sticky/still-mine"));
	ok(unlink("sticky/still-mine"));
	ok(unlink("free/other"));
}

static void sticky_directories(void)
{
	ok(mkdir("sticky", 0777));
	ok(chmod("sticky", 01777));
	t_touch("sticky/other");
	ok(mkdir("sticky/dir", 0777));
	ok(mkdir("free", 0777));
	ok(chmod("free", 0777));
	t_touch("free/other");
	t_as(T_NOBODY, T_NOBODY, user_in_sticky_directory);
}

static void user_in_setgid_directory(void)
{
	close(ok(open("g/user", O_CREAT | O_RDWR, 02770)));
	ok(mkdir("g/userdir", 0755));
	ok(mkdir("plain/d", 0755));
}

static void setgid_directories_pass_their_group_on(void)
{
	ok(mkdir("g", 0777));
	ok(mkdir("plain", 0777));
	ok(chmod("plain", 0777));
	ok(chown("g", 0, 4242));
	ok(chmod("g", 02777));
	t_touch("g/f");
	ok(mkdir("g/d", 0755));
	ok(symlink("x", "g/l"));
	ok(mknod("g/p", S_IFIFO | 0644, 0));
	eq(t_stat("g/f").st_gid, 4242);
	eq(t_stat("g/d").st_gid, 4242);
	eq(t_stat("g/l").st_gid, 4242);
	eq(t_stat("g/p").st_gid, 4242);
	is_true(t_stat("g/d").st_mode & S_ISGID);
	is_true(!(t_stat("g/f").st_mode & S_ISGID));
	int tmp = ok(open("g", O_TMPFILE | O_RDWR, 0600));
	eq(t_fstat(tmp).st_gid, 4242);
	t_as(T_NOBODY, T_NOBODY, user_in_setgid_directory);
	eq(t_stat("g/user").st_gid, 4242);
	eq(t_stat("g/user").st_mode & 07777, 0750); /* not a member: no set-gid file */
	is_true(t_stat("g/userdir").st_mode & S_ISGID);
	eq(t_stat("plain/d").st_gid, T_NOBODY);
}

static void user_chmods_setgid(void)
{
	ok(chmod("f", 02777));
}

static void setgid_needs_membership(void)
{
	t_touch("f");
	ok(chown("f", T_NOBODY, 4242));
	t_as(T_NOBODY, T_NOBODY, user_chmods_setgid);
	eq(t_stat("f").st_mode & 07777, 0777);
	ok(chown("f", T_NOBODY, T_NOBODY));
	t_as(T_NOBODY, T_NOBODY, user_chmods_setgid);
	eq(t_stat("f").st_mode & 07777, 02777);
}

/* ---- ACLs, as the kernel takes them: version 2, then tag, permissions, id ------------------------- */

struct acl_entry {
	uint16_t tag, perm;
	uint32_t id;
};
struct acl {
	uint32_t version;
	struct acl_entry e[8];
};
enum { USER_OBJ = 1, USER = 2, GROUP_OBJ = 4, GROUP = 8, MASK = 16, OTHER = 32 };
#define NO_ID 0xffffffffu
#define ACCESS "system.posix_acl_access"
#define DEFAULT "system.posix_acl_default"

static size_t acl_size(unsigned n)
{
	return 4 + n * sizeof(struct acl_entry);
}

static void set_acl(const char *name, const char *which, const struct acl_entry *e, unsigned n)
{
	struct acl acl = {2, {{0}}};

	memcpy(acl.e, e, n * sizeof(*e));
	if (setxattr(name, which, &acl, acl_size(n), 0)) {
		if (errno == EOPNOTSUPP)
			t_skip("no ACLs here");
		ok(-1);
	}
}

static unsigned get_acl(const char *name, const char *which, struct acl *out)
{
	ssize_t n = ok(getxattr(name, which, out, sizeof(*out)));

	eq(out->version, 2);
	return (unsigned)((size_t)n - 4) / sizeof(struct acl_entry);
}

static void user_reads_f(void)
{
	close(ok(open("f", O_RDONLY)));
	fails(EACCES, open("f", O_WRONLY));
}

static void user_cannot_read_f(void)
{
	fails(EACCES, open("f", O_RDONLY));
}

static void acl_grants_and_denies(void)
{
	const struct acl_entry grant[] = {{USER_OBJ, 6, NO_ID}, {USER, 4, T_NOBODY},
		{GROUP_OBJ, 0, NO_ID}, {MASK, 6, NO_ID}, {OTHER, 0, NO_ID}};
	const struct acl_entry deny[] = {{USER_OBJ, 6, NO_ID}, {USER, 0, T_NOBODY},
		{GROUP_OBJ, 4, NO_ID}, {MASK, 4, NO_ID}, {OTHER, 4, NO_ID}};
	struct acl acl;

	close(t_file("f", 1, 'x'));
	ok(chmod("f", 0600));
	t_as(T_NOBODY, T_NOBODY, user_cannot_read_f);
	set_acl("f", ACCESS, grant, 5);
	eq(t_stat("f").st_mode & 0777, 0660); /* the group bits show the mask */
	t_as(T_NOBODY, T_NOBODY, user_reads_f);
	/* chmod changes the mask, and the mask limits the user's entry. */
	ok(chmod("f", 0600));
	eq(get_acl("f", ACCESS, &acl), 5);
	eq(acl.e[3].tag, MASK);
	eq(acl.e[3].perm, 0);
	eq(acl.e[1].perm, 4);
	t_as(T_NOBODY, T_NOBODY, user_cannot_read_f);
	set_acl("f", ACCESS, deny, 5);
	eq(t_stat("f").st_mode & 0777, 0644);
	t_as(T_NOBODY, T_NOBODY, user_cannot_read_f);
	ok(removexattr("f", ACCESS));
	fails(ENODATA, getxattr("f", ACCESS, &acl, sizeof(acl)));
	t_as(T_NOBODY, T_NOBODY, user_reads_f);
}

static void acl_that_says_no_more_than_the_mode(void)
{
	const struct acl_entry plain[] = {
		{USER_OBJ, 7, NO_ID}, {GROUP_OBJ, 5, NO_ID}, {OTHER, 1, NO_ID}};
	struct acl acl;

	t_touch("f");
	set_acl("f", ACCESS, plain, 3);
	eq(t_stat("f").st_mode & 0777, 0751);
	fails(ENODATA, getxattr("f", ACCESS, &acl, sizeof(acl)));
}

static void default_acl_is_inherited(void)
{
	const struct acl_entry def[] = {{USER_OBJ, 7, NO_ID}, {USER, 6, T_NOBODY},
		{GROUP_OBJ, 5, NO_ID}, {MASK, 7, NO_ID}, {OTHER, 0, NO_ID}};
	struct acl acl;

	umask(077); /* has no say where a default ACL is */
	ok(mkdir("d", 0755));
	set_acl("d", DEFAULT, def, 5);
	close(ok(open("d/f", O_CREAT | O_RDWR, 0666)));
	eq(get_acl("d/f", ACCESS, &acl), 5);
	eq(acl.e[1].id, T_NOBODY);
	eq(acl.e[1].perm, 6);
	eq(acl.e[3].perm, 6); /* mask: the default's, within the mode asked for */
	eq(t_stat("d/f").st_mode & 0777, 0660);
	ok(mkdir("d/sub", 0777));
	eq(get_acl("d/sub", DEFAULT, &acl), 5);
	eq(get_acl("d/sub", ACCESS, &acl), 5);
	ok(mkdir("d/sub/deeper", 0777));
	eq(get_acl("d/sub/deeper", DEFAULT, &acl), 5);
	ok(symlink("x", "d/l"));
	int tmp = ok(open("d", O_TMPFILE | O_RDWR, 0666));
	eq(t_fstat(tmp).st_mode & 0777, 0660);
	ok(removexattr("d", DEFAULT));
	close(ok(open("d/g", O_CREAT | O_RDWR, 0666)));
	eq(t_stat("d/g").st_mode & 0777, 0600);
	fails(ENODATA, getxattr("d/g", ACCESS, &acl, sizeof(acl)));
}

/* casync and setfacl -b remove ACLs from whatever there is. */
static void removing_an_acl_that_is_not_there_succeeds(void)
{
	const struct acl none = {2, {{0}}};
	const char *const which[] = {ACCESS, DEFAULT};
	size_t i;

	ok(mkdir("d", 0755));
	t_touch("f");
	for (i = 0; i < 2; i++) {
		if (setxattr("d", which[i], &none, acl_size(0), 0) && errno == EOPNOTSUPP)
			t_skip("no ACLs here");
		ok(setxattr("d", which[i], &none, acl_size(0), 0));
		ok(setxattr("f", which[i], &none, acl_size(0), 0));
		ok(removexattr("d", which[i]));
		ok(removexattr("f", which[i]));
	}
	fails(ENODATA, removexattr("d", "user.a"));
}

static void unsound_acls_are_refused(void)
{
	struct acl acl = {1, {{USER_OBJ, 7, NO_ID}, {GROUP_OBJ, 5, NO_ID}, {OTHER, 1, NO_ID}}};

	t_touch("f");
	if (setxattr("f", ACCESS, &acl, acl_size(3), 0) == 0)
		t_fail(__FILE__, __LINE__, "an ACL of version 1 was accepted");
	if (errno != EOPNOTSUPP)
		eq(errno, EINVAL);
	acl.version = 2;
	acl.e[2].tag = USER; /* no OTHER */
	fails(EINVAL, setxattr("f", ACCESS, &acl, acl_size(3), 0));
	/* A default ACL belongs on directories. */
	acl.e[2].tag = OTHER;
	fails(EACCES, setxattr("f", DEFAULT, &acl, acl_size(3), 0));
}

const struct t_case t_access[] = {
	T_CASE(modes_are_enforced),
	T_CASE(setid_bits_fall_at_a_users_write),
	T_CASE(setid_bits_fall_at_chown_and_fallocate),
	T_CASE(setid_bits_fall_at_an_empty_chown_of_the_owner),
	T_CASE(capabilities_fall_at_a_write),
	T_CASE(sticky_directories),
	T_CASE(setgid_directories_pass_their_group_on),
	T_CASE(setgid_needs_membership),
	T_CASE(acl_grants_and_denies),
	T_CASE(acl_that_says_no_more_than_the_mode),
	T_CASE(default_acl_is_inherited),
	T_CASE(removing_an_acl_that_is_not_there_succeeds),
	T_CASE(unsound_acls_are_refused),
	{NULL, NULL},
};
