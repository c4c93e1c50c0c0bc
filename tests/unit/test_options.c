/* SPDX-License-Identifier: BSD-3-Clause */
/* Mount options as mount(8), systemd and people write them; the paths of mount points. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "fuse/mounts.h"
#include "fuse/options.h"

static int parse(struct um_options *opt, const char *list, bool sloppy, char msg[256])
{
	*msg = 0;
	um_options_init(opt, true);
	return um_options_parse(opt, list, sloppy, msg, 256);
}

static void generic_options_and_stray_commas_are_accepted(void **state)
{
	struct um_options opt;
	char msg[256];

	(void)state;
	assert_int_equal(parse(&opt,
				 "rw,defaults,nofail,noauto,_netdev,lazytime,nomand,mand,"
				 "noiversion,x-systemd.automount,,",
				 false, msg),
		0);
	assert_int_equal(opt.ms_flags, 0);
	assert_true(opt.allow_other);
	assert_false(opt.remount);
	assert_int_equal(parse(&opt, "comment=\"a,b\",user=joe", false, msg), 0);
	assert_int_equal(parse(&opt, "", false, msg), 0);
}

static void root_gets_dev_and_suid_unless_told_otherwise(void **state)
{
	struct um_options opt;
	char msg[256];

	(void)state;
	assert_int_equal(parse(&opt, "nosuid,nodev,noexec", false, msg), 0);
	assert_int_equal(opt.ms_flags, MS_NOSUID | MS_NODEV | MS_NOEXEC);
	assert_int_equal(parse(&opt, "user,exec,dev", false, msg), 0);
	assert_int_equal(opt.ms_flags, MS_NOSUID);
	assert_int_equal(parse(&opt, "symfollow,nosymfollow", false, msg), 0);
	assert_int_equal(opt.ms_flags, MS_NOSYMFOLLOW);
	assert_int_equal(parse(&opt, "nosymfollow,symfollow", false, msg), 0);
	assert_int_equal(opt.ms_flags, 0);
	assert_int_equal(opt.ms_named, MS_NOSYMFOLLOW);
	um_options_init(&opt, false);
	assert_int_equal(opt.ms_flags, MS_NOSUID | MS_NODEV);
	assert_false(opt.allow_other);
}

static void later_options_override_earlier_ones(void **state)
{
	struct um_options opt;
	char msg[256];

	(void)state;
	assert_int_equal(parse(&opt, "nodiscard,discard", false, msg), 0);
	assert_true(opt.fs.discard);
	assert_int_equal(parse(&opt, "ro,rw", false, msg), 0);
	assert_false(opt.fs.discard);
	assert_false(opt.fs.readonly);
	assert_int_equal(
		parse(&opt, "rw,ro,noatime,strictatime,data=inplace,cache=none", false, msg), 0);
	assert_true(opt.fs.readonly);
	assert_int_equal(opt.fs.atime, UMBRA_STRICTATIME);
	assert_int_equal(opt.ms_flags, MS_RDONLY);
	assert_int_equal(opt.fs.data, UMBRA_DATA_INPLACE);
	assert_true(opt.cache_none);
	assert_int_equal(opt.share, UM_SHARE_AUTO);
	assert_int_equal(parse(&opt, "handles,nohandles", false, msg), 0);
	assert_true(opt.no_handles);
	assert_int_equal(parse(&opt, "nohandles,handles", false, msg), 0);
	assert_false(opt.no_handles);
	assert_int_equal(parse(&opt, "nowriteback,writeback", false, msg), 0);
	assert_true(opt.writeback);
	assert_int_equal(parse(&opt, "writeback,nowriteback,cache=none", false, msg), 0);
	assert_false(opt.writeback);
	assert_int_equal(parse(&opt, "cache=none,cache=auto,writeback", false, msg), 0);
	assert_true(opt.writeback);
	assert_false(opt.uring);
	assert_int_equal(parse(&opt, "io_uring", false, msg), 0);
	assert_true(opt.uring);
	assert_int_equal(parse(&opt, "io_uring,noio_uring", false, msg), 0);
	assert_false(opt.uring);
	assert_int_equal(parse(&opt, "io_uring=maybe", false, msg), -EINVAL);
	/* There is nothing that can be kept, or something that has to be. */
	assert_int_equal(parse(&opt, "writeback,cache=none", false, msg), -EINVAL);
	assert_non_null(strstr(msg, "cache=none"));
	assert_int_equal(parse(&opt, "errors=continue,errors=shutdown", false, msg), 0);
	assert_int_equal(opt.fs.errors, UMBRA_ERRORS_SHUTDOWN);
	assert_int_equal(parse(&opt, "errors=panic", false, msg), -EINVAL);
	assert_non_null(strstr(msg, "errors=shutdown"));
	assert_int_equal(parse(&opt, "share=all,share=immutable", false, msg), 0);
	assert_int_equal(opt.share, UM_SHARE_IMMUTABLE);
}

static void unknown_options_are_refused_by_name(void **state)
{
	static const char *const lists[] = {"dax", "dax=always", "inlinecrypt", "iversion",
		"wibble", "ro,share=some", "fsname=x", "user_id=0", "data=", "roo"};
	struct um_options opt;
	char msg[256];

	(void)state;
	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
		const char *word = strrchr(lists[i], ',') ? strrchr(lists[i], ',') + 1 : lists[i];

		assert_int_equal(parse(&opt, lists[i], false, msg), -EINVAL);
		assert_non_null(strstr(msg, word));
		assert_int_equal(parse(&opt, lists[i], true, msg), 0);
	}
}

static void numbers_have_limits(void **state)
{
	struct um_options opt;
	char msg[256];

	(void)state;
	assert_int_equal(parse(&opt, "threads=7,commit=30", false, msg), 0);
	assert_int_equal(opt.threads, 7);
	assert_int_equal(opt.fs.commit_seconds, 30);
	assert_int_equal(parse(&opt, "threads=0", false, msg), -EINVAL);
	assert_int_equal(parse(&opt, "threads=257", false, msg), -EINVAL);
	assert_int_equal(parse(&opt, "busy_poll=0", false, msg), 0);
	assert_int_equal(opt.fs.busy_poll, 0);
	assert_int_equal(parse(&opt, "busy_poll=1001", false, msg), -EINVAL);
	assert_string_equal(msg, "option busy_poll=1001 wants a number from 0 to 1000");
	assert_int_equal(parse(&opt, "commit=", false, msg), -EINVAL);
	assert_int_equal(parse(&opt, "commit=-1", false, msg), -EINVAL);
	assert_int_equal(parse(&opt, "commit=5x", false, msg), -EINVAL);
	assert_int_equal(parse(&opt, "commit=99999999999999999999", false, msg), -EINVAL);
}

static void shadow_memory_is_a_size(void **state)
{
	static const char *const bad[] = {"shadow_mem=", "shadow_mem=-1", "shadow_mem=4K",
		"shadow_mem=1", "shadow_mem=2T", "shadow_mem=8Mx", "shadow_mem=9999G",
		"shadow_mem=99999999999999999999"};
	struct um_options opt;
	char msg[256];

	(void)state;
	assert_int_equal(parse(&opt, "", false, msg), 0);
	assert_int_equal(opt.fs.shadow_mem, 0);
	assert_int_equal(parse(&opt, "shadow_mem=2m", false, msg), 0);
	assert_int_equal(opt.fs.shadow_mem, 2 << 20);
	assert_int_equal(parse(&opt, "shadow_mem=1G", false, msg), 0);
	assert_int_equal(opt.fs.shadow_mem, 1 << 30);
	assert_int_equal(parse(&opt, "shadow_mem=0", false, msg), 0);
	assert_true(opt.fs.shadow_mem == UMBRA_SHADOW_NONE);
	assert_int_equal(parse(&opt, "shadow_mem=1G,cache=none", false, msg), 0);
	assert_true(opt.fs.shadow_mem == UMBRA_SHADOW_NONE);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(parse(&opt, bad[i], false, msg), -EINVAL);
}

static void remount_takes_what_the_mount_table_shows(void **state)
{
	struct um_options opt;
	char msg[256];

	(void)state;
	assert_int_equal(
		parse(&opt, "rw,nosuid,user_id=0,group_id=0,allow_other,remount,ro", false, msg),
		0);
	assert_true(opt.remount);
	assert_int_equal(opt.ms_flags, MS_RDONLY | MS_NOSUID);
	assert_int_equal(opt.ms_named & (MS_NODEV | MS_NOSUID), MS_NOSUID);
	assert_int_equal(parse(&opt, "remount,wibble", false, msg), -EINVAL);
}

static void long_contexts_are_refused_not_cut(void **state)
{
	struct um_options opt;
	char msg[256], list[2048] = "context=";

	(void)state;
	assert_int_equal(parse(&opt, "context=\"a:b,c\",fscontext=d", false, msg), 0);
	assert_string_equal(opt.context, "context=\"a:b,c\",fscontext=d");
	memset(list + 8, 'c', sizeof(list) - 9);
	assert_int_equal(parse(&opt, list, false, msg), -EINVAL);
}

/* What a list asks for, against a filesystem mounted with another: the word that cannot be had, or "". */
static const char *differs(const char *mounted, const char *list)
{
	static char word[256];
	struct um_options opt, have;
	char msg[256], text[2048];

	assert_int_equal(parse(&opt, mounted, false, msg), 0);
	um_options_text(&opt, text, sizeof(text));
	assert_int_equal(parse(&have, text, false, msg), 0);
	if (!um_options_differ(&have, list, word, sizeof(word)))
		assert_string_equal(word, "");
	return word;
}

static void a_second_mount_may_not_ask_for_another_filesystem(void **state)
{
	static const char *const all[] = {"", "noatime,nodiratime", "strictatime,data=inplace",
		"data-csum=scrub,cache=none,errors=shutdown", "share=off,commit=17", "shadow_mem=0",
		"shadow_mem=3M", "threads=9,allow_other", "busy_poll=20", "sync", "dirsync,fuseblk",
		"context=\"a:b,c\",fscontext=d", "writeback,share=off"};

	(void)state;
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		assert_string_equal(differs(all[i], ""), "");
		assert_string_equal(differs(all[i], all[i]), "");
	}
	/* Each mount's own. */
	assert_string_equal(differs("", "ro,nosuid,nodev,noexec,user,x-y=z,comment=c"), "");
	assert_string_equal(differs("commit=17", "commit=18"), "commit=18");
	assert_string_equal(differs("", "commit=5,relatime,shadow_mem=64M,share=auto"), "");
	assert_string_equal(differs("commit=17", "commit=18,commit=17"), "");
	assert_string_equal(differs("", "nohandles,handles"), "");
	assert_string_equal(differs("", "nohandles"), "nohandles");
	assert_string_equal(differs("", "noatime,rw"), "noatime");
	assert_string_equal(differs("errors=continue", "errors=shutdown"), "errors=shutdown");
	assert_string_equal(differs("noatime", "relatime"), "relatime");
	assert_string_equal(differs("", "writeback"), "writeback");
	assert_string_equal(differs("writeback", "nowriteback"), "nowriteback");
	assert_string_equal(differs("noio_uring", "io_uring"), "io_uring");
	assert_string_equal(differs("shadow_mem=3M", "shadow_mem=2M"), "shadow_mem=2M");
	assert_string_equal(differs("", "context=e"), "context=e");
	assert_string_equal(differs("context=e", "context=e"), "");
}

static void mount_points_are_found_by_path(void **state)
{
	struct um_where where, other;
	char *path;

	(void)state;
	assert_int_equal(um_mounts_resolve("/proc/", &path), 0);
	assert_string_equal(path, "/proc");
	assert_int_equal(um_mounts_at(path, &where), 0);
	assert_string_equal(where.type, "proc");
	assert_false(um_where_is_ours(&where));
	assert_int_equal(um_mounts_of_device(where.major, where.minor, &other), 0);
	um_where_clear(&other);
	um_where_clear(&where);
	free(path);
	assert_int_equal(um_mounts_resolve("/", &path), 0);
	assert_string_equal(path, "/");
	free(path);
	assert_int_equal(um_mounts_resolve("/proc/../proc/.", &path), 0);
	assert_string_equal(path, "/proc");
	free(path);
	assert_int_equal(um_mounts_resolve("/no/such/parent", &path), -ENOENT);
	assert_int_equal(um_mounts_at("/no/such/mount", &where), -ENOENT);
}

/* umount(8) as root asks about the source of anybody's mount. */
static void what_is_no_pool_is_not_opened_to_see_who_uses_it(void **state)
{
	char path[] = "/tmp/umbra-options-XXXXXX", event[512];
	bool used = true;
	int fd = mkstemp(path), watch = inotify_init1(IN_NONBLOCK);

	(void)state;
	assert_true(fd >= 0 && watch >= 0);
	close(fd);
	assert_int_equal(um_pool_in_use(path, &used), 0);
	assert_false(used);
	fd = open(path, O_RDWR);
	assert_int_equal(flock(fd, LOCK_EX), 0);
	assert_int_equal(um_pool_in_use(path, &used), 0);
	assert_true(used);
	close(fd);
	unlink(path);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_true(inotify_add_watch(watch, path, IN_OPEN) >= 0);
	assert_int_equal(um_pool_in_use(path, &used), 0);
	assert_false(used);
	assert_int_equal(read(watch, event, sizeof(event)), -1);
	assert_int_equal(errno, EAGAIN);
	close(watch);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_no_pool_is_not_opened_to_see_who_uses_it),
		cmocka_unit_test(generic_options_and_stray_commas_are_accepted),
		cmocka_unit_test(root_gets_dev_and_suid_unless_told_otherwise),
		cmocka_unit_test(later_options_override_earlier_ones),
		cmocka_unit_test(unknown_options_are_refused_by_name),
		cmocka_unit_test(numbers_have_limits),
		cmocka_unit_test(shadow_memory_is_a_size),
		cmocka_unit_test(remount_takes_what_the_mount_table_shows),
		cmocka_unit_test(long_contexts_are_refused_not_cut),
		cmocka_unit_test(a_second_mount_may_not_ask_for_another_filesystem),
		cmocka_unit_test(mount_points_are_found_by_path),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
