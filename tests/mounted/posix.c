/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * posix DIR [PATTERN]: runs every case in its own empty directory below DIR and prints one line for
 * each. Exit status 1 if a case failed. It requires nothing that other local filesystems do not
 * offer, so it can be tried on ext4 or XFS too (cases that need more are skipped there).
 */
#include "t.h"

#include <fnmatch.h>
#include <grp.h>
#include <signal.h>
#include <sys/statvfs.h>

#define CASE_SECONDS 60

void t_fail(const char *file, int line, const char *fmt, ...)
{
	va_list ap;
	const char *base = strrchr(file, '/');

	fprintf(stdout, "  %s:%d: ", base ? base + 1 : file, line);
	va_start(ap, fmt);
	vfprintf(stdout, fmt, ap);
	va_end(ap);
	fprintf(stdout, "\n");
	fflush(stdout);
	_exit(1);
}

void t_skip(const char *fmt, ...)
{
	va_list ap;

	fprintf(stdout, "  skipped: ");
	va_start(ap, fmt);
	vfprintf(stdout, fmt, ap);
	va_end(ap);
	fprintf(stdout, "\n");
	fflush(stdout);
	_exit(77);
}

long t_ok(const char *file, int line, const char *what, long result)
{
	if (result < 0)
		t_fail(file, line, "%s: %s", what, strerror(errno));
	return result;
}

void t_fails(const char *file, int line, const char *what, int want, long result)
{
	const char *got = strerrorname_np(errno);

	if (result >= 0)
		t_fail(file, line, "%s gave %ld, must fail with %s", what, result,
			strerrorname_np(want));
	if (errno != want)
		t_fail(file, line, "%s failed with %s, must be %s", what, got ? got : "?",
			strerrorname_np(want));
}

int t_file(const char *name, size_t len, int fill)
{
	int fd = ok(open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
	char buf[65536];

	memset(buf, fill, sizeof(buf));
	while (len) {
		size_t n = len < sizeof(buf) ? len : sizeof(buf);

		eq(write(fd, buf, n), n);
		len -= n;
	}
	ok(lseek(fd, 0, SEEK_SET));
	return fd;
}

void t_touch(const char *name)
{
	close(t_file(name, 0, 0));
}

struct stat t_stat(const char *name)
{
	struct stat st;

	ok(lstat(name, &st));
	return st;
}

struct stat t_fstat(int fd)
{
	struct stat st;

	ok(fstat(fd, &st));
	return st;
}

void t_range_at(const char *file, int line, int fd, off_t off, size_t len, int fill)
{
	static unsigned char buf[65536];

	while (len) {
		size_t n = len < sizeof(buf) ? len : sizeof(buf);
		ssize_t got = pread(fd, buf, n, off);

		if (got != (ssize_t)n)
			t_fail(file, line, "pread of %zu at %lld gave %zd (%s)", n, (long long)off,
				got, got < 0 ? strerror(errno) : "short");
		for (size_t i = 0; i < n; i++)
			if (buf[i] != (unsigned char)fill)
				t_fail(file, line, "byte %lld is 0x%02x, must be 0x%02x",
					(long long)off + (long long)i, buf[i], (unsigned char)fill);
		off += n;
		len -= n;
	}
}

void t_as_at(const char *file, int line, uid_t uid, gid_t gid, void (*fn)(void))
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		t_fail(file, line, "fork: %s", strerror(errno));
	if (!pid) {
		if (setgroups(0, NULL) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid))
			t_fail(file, line, "cannot become %u", (unsigned)uid);
		fn();
		fflush(stdout);
		_exit(0);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFSIGNALED(status))
		t_fail(file, line, "killed by signal %d", WTERMSIG(status));
	if (WEXITSTATUS(status))
		_exit(WEXITSTATUS(status));
}

void t_sleep_ms(unsigned ms)
{
	struct timespec ts = {ms / 1000, (long)(ms % 1000) * 1000000};

	nanosleep(&ts, NULL);
}

struct timespec t_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts;
}

int t_after(struct timespec a, struct timespec b)
{
	return a.tv_sec != b.tv_sec ? a.tv_sec > b.tv_sec : a.tv_nsec > b.tv_nsec;
}

uint64_t t_free_blocks(void)
{
	struct statvfs vfs;

	ok(statvfs(".", &vfs));
	return vfs.f_bfree;
}

static int run_case(const char *dir, const struct t_case *c)
{
	char path[4096];
	int status;
	pid_t pid;

	snprintf(path, sizeof(path), "%s/%s", dir, c->name);
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		return 1;
	if (!pid) {
		setpgid(0, 0);
		umask(022);
		if (mkdir(path, 0777) || chmod(path, 0777) || chdir(path))
			t_fail(__FILE__, __LINE__, "%s: %s", path, strerror(errno));
		alarm(CASE_SECONDS);
		c->fn();
		fflush(stdout);
		_exit(0);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	kill(-pid, SIGKILL);
	if (WIFSIGNALED(status)) {
		printf("  ended by signal %d%s\n", WTERMSIG(status),
			WTERMSIG(status) == SIGALRM ? " (took too long)" : "");
		return 1;
	}
	return WEXITSTATUS(status);
}

int main(int argc, char **argv)
{
	static const struct t_case *const groups[] = {
		t_names, t_dirs, t_data, t_map, t_attr, t_access, t_locks, t_special, NULL};
	char failures[2048] = "";
	int passed = 0, failed = 0, skipped = 0;

	if (argc < 2) {
		fprintf(stderr, "usage: posix DIR [PATTERN]\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int g = 0; groups[g]; g++) {
		for (const struct t_case *c = groups[g]; c->name; c++) {
			int rc;

			if (argc > 2 && fnmatch(argv[2], c->name, 0))
				continue;
			rc = run_case(argv[1], c);
			printf("%s %s\n", !rc ? "ok  " : rc == 77 ? "skip" : "FAIL", c->name);
			passed += !rc;
			skipped += rc == 77;
			if (rc && rc != 77) {
				size_t n = strlen(failures);

				failed++;
				snprintf(failures + n, sizeof(failures) - n, " %s", c->name);
			}
		}
	}
	printf("%d cases passed, %d failed, %d skipped\n", passed, failed, skipped);
	if (failed)
		printf("FAIL: %d of %d cases:%s\n", failed, passed + failed + skipped, failures);
	return failed || !passed;
}
