/* SPDX-License-Identifier: BSD-3-Clause */
/* flock, POSIX locks and open file description locks. */
#include "t.h"

#include <signal.h>
#include <sys/file.h>

static int posix_lock(int fd, int cmd, short type, off_t start, off_t len)
{
	struct flock fl = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};

	return fcntl(fd, cmd, &fl);
}

/* Runs fn in a child that stays alive until stopped; fn's return says "ready". */
static pid_t hold(void (*fn)(void))
{
	int p[2];
	char c;
	pid_t pid;

	ok(pipe(p));
	pid = ok(fork());
	if (!pid) {
		fn();
		if (write(p[1], "r", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(p[1]);
	eq(read(p[0], &c, 1), 1);
	close(p[0]);
	return pid;
}

static void stop(pid_t pid)
{
	int status;

	kill(pid, SIGKILL);
	ok(waitpid(pid, &status, 0));
}

static void hold_flock(void)
{
	ok(flock(ok(open("f", O_RDWR)), LOCK_EX));
}

static void hold_shared_flock(void)
{
	ok(flock(ok(open("f", O_RDONLY)), LOCK_SH));
}

static void flock_excludes(void)
{
	int fd = t_file("f", 1, 'x');
	pid_t pid = hold(hold_flock);

	fails(EWOULDBLOCK, flock(fd, LOCK_EX | LOCK_NB));
	fails(EWOULDBLOCK, flock(fd, LOCK_SH | LOCK_NB));
	stop(pid); /* its end frees the lock */
	ok(flock(fd, LOCK_EX | LOCK_NB));
	int other = ok(open("f", O_RDWR));
	fails(EWOULDBLOCK, flock(other, LOCK_SH | LOCK_NB));
	ok(flock(fd, LOCK_SH));
	ok(flock(other, LOCK_SH | LOCK_NB));
	fails(EWOULDBLOCK, flock(fd, LOCK_EX | LOCK_NB));
	ok(flock(other, LOCK_UN));
	ok(flock(fd, LOCK_EX | LOCK_NB));
	int dup_of_fd = dup(fd);
	close(fd);
	fails(EWOULDBLOCK, flock(other, LOCK_EX | LOCK_NB));
	close(dup_of_fd);
	ok(flock(other, LOCK_EX | LOCK_NB));
	ok(flock(other, LOCK_UN));
	pid = hold(hold_shared_flock);
	fails(EWOULDBLOCK, flock(other, LOCK_EX | LOCK_NB));
	ok(flock(other, LOCK_SH | LOCK_NB));
	stop(pid);
}

static void take_and_count(void)
{
	int fd = ok(open("f", O_RDWR));

	for (int i = 0; i < 200; i++) {
		char c;

		ok(flock(fd, LOCK_EX));
		eq(pread(fd, &c, 1, 0), 1);
		if (c != 0)
			t_fail(__FILE__, __LINE__, "two held the lock");
		eq(pwrite(fd, "\1", 1, 0), 1);
		eq(pwrite(fd, "\0", 1, 0), 1);
		ok(flock(fd, LOCK_UN));
	}
}

static void flock_waits_its_turn(void)
{
	int status;

	close(t_file("f", 1, 0));
	for (int i = 0; i < 4; i++) {
		if (!fork()) {
			take_and_count();
			_exit(0);
		}
	}
	for (int i = 0; i < 4; i++) {
		ok(wait(&status));
		eq(status, 0);
	}
}

static void hold_ranges(void)
{
	int fd = ok(open("f", O_RDWR));

	ok(posix_lock(fd, F_SETLK, F_WRLCK, 100, 100));
	ok(posix_lock(fd, F_SETLK, F_RDLCK, 300, 100));
	ok(posix_lock(fd, F_SETLK, F_UNLCK, 140, 20)); /* splits the first */
}

static void posix_locks_have_ranges(void)
{
	int fd = t_file("f", 1000, 'x');
	pid_t pid = hold(hold_ranges);
	struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 0};

	ok(fcntl(fd, F_GETLK, &fl));
	eq(fl.l_type, F_WRLCK);
	eq(fl.l_start, 100);
	eq(fl.l_len, 40);
	eq(fl.l_pid, pid);
	fails(EAGAIN, posix_lock(fd, F_SETLK, F_WRLCK, 130, 20));
	ok(posix_lock(fd, F_SETLK, F_WRLCK, 140, 20));
	fails(EAGAIN, posix_lock(fd, F_SETLK, F_RDLCK, 160, 1));
	ok(posix_lock(fd, F_SETLK, F_RDLCK, 300, 50));
	fails(EAGAIN, posix_lock(fd, F_SETLK, F_WRLCK, 399, 10));
	ok(posix_lock(fd, F_SETLK, F_WRLCK, 400, 0));
	stop(pid);
	ok(posix_lock(fd, F_SETLK, F_WRLCK, 0, 0));
	/* Closing any descriptor of the file drops the process's locks. */
	close(ok(open("f", O_RDONLY)));
	fl = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET};
	pid = fork();
	if (!pid) {
		ok(posix_lock(ok(open("f", O_RDWR)), F_SETLK, F_WRLCK, 0, 0));
		_exit(0);
	}
	int status;
	ok(waitpid(pid, &status, 0));
	eq(status, 0);
	int ro = ok(open("f", O_RDONLY));
	fails(EBADF, posix_lock(ro, F_SETLK, F_WRLCK, 0, 0));
}

static void hold_all(void)
{
	ok(posix_lock(ok(open("f", O_RDWR)), F_SETLK, F_WRLCK, 0, 0));
}

static void on_signal(int sig)
{
	(void)sig;
}

static void interrupt_soon(void)
{
	const struct sigaction sa = {.sa_handler = on_signal};

	ok(sigaction(SIGUSR1, &sa, NULL));
	if (!fork()) {
		t_sleep_ms(200);
		kill(getppid(), SIGUSR1);
		_exit(0);
	}
}

static void waiting_for_a_lock_can_be_interrupted(void)
{
	int fd = t_file("f", 1, 'x');
	pid_t pid = hold(hold_all);

	interrupt_soon();
	fails(EINTR, posix_lock(fd, F_SETLKW, F_WRLCK, 0, 0));
	stop(pid);
	ok(posix_lock(fd, F_SETLK, F_WRLCK, 0, 0)); /* nothing of the wait is left */
	pid = hold(hold_flock);
	interrupt_soon();
	fails(EINTR, flock(fd, LOCK_EX));
	stop(pid);
	ok(flock(fd, LOCK_EX | LOCK_NB));
}

static void waiting_for_a_lock_ends_when_it_is_free(void)
{
	int fd = t_file("f", 1, 'x');
	pid_t pid = hold(hold_all);

	if (!fork()) {
		t_sleep_ms(200);
		kill(pid, SIGKILL);
		_exit(0);
	}
	ok(posix_lock(fd, F_SETLKW, F_WRLCK, 0, 0));
	/* A killed waiter does not take the lock with it. */
	pid_t waiter = fork();
	if (!waiter) {
		posix_lock(ok(open("f", O_RDWR)), F_SETLKW, F_WRLCK, 0, 0);
		_exit(0);
	}
	t_sleep_ms(100);
	stop(waiter);
	ok(posix_lock(fd, F_SETLK, F_UNLCK, 0, 0));
	ok(posix_lock(fd, F_SETLK, F_WRLCK, 0, 0));
}

static void deadlocks_are_found(void)
{
	int fd = t_file("f", 100, 'x');

	ok(posix_lock(fd, F_SETLK, F_WRLCK, 0, 10));
	pid_t pid = ok(fork());
	if (!pid) {
		int mine = ok(open("f", O_RDWR));

		ok(posix_lock(mine, F_SETLK, F_WRLCK, 50, 10));
		ok(posix_lock(mine, F_SETLKW, F_WRLCK, 0, 10)); /* until the parent gives way */
		_exit(0);
	}
	t_sleep_ms(300);
	fails(EDEADLK, posix_lock(fd, F_SETLKW, F_WRLCK, 50, 10));
	ok(posix_lock(fd, F_SETLK, F_UNLCK, 0, 10));
	int status;
	ok(waitpid(pid, &status, 0));
	eq(status, 0);
}

static void locks_of_descriptions(void)
{
	int a = t_file("f", 100, 'x'), b = ok(open("f", O_RDWR));

	ok(posix_lock(a, F_OFD_SETLK, F_WRLCK, 0, 10));
	fails(EAGAIN,
		posix_lock(b, F_OFD_SETLK, F_WRLCK, 5, 1)); /* the same process: all the same */
	fails(EAGAIN, posix_lock(b, F_OFD_SETLK, F_RDLCK, 9, 10));
	ok(posix_lock(b, F_OFD_SETLK, F_WRLCK, 10, 10));
	struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 10};
	ok(fcntl(b, F_OFD_GETLK, &fl));
	eq(fl.l_type, F_WRLCK);
	eq(fl.l_start, 0);
	/* Closing another descriptor of the file does not matter, closing the last of a does. */
	close(ok(open("f", O_RDONLY)));
	fails(EAGAIN, posix_lock(b, F_OFD_SETLK, F_WRLCK, 0, 10));
	int dup_of_a = dup(a);
	close(a);
	fails(EAGAIN, posix_lock(b, F_OFD_SETLK, F_WRLCK, 0, 10));
	close(dup_of_a);
	ok(posix_lock(b, F_OFD_SETLK, F_WRLCK, 0, 10));
	/* Against the other kind. */
	int c = ok(open("f", O_RDWR));
	fails(EAGAIN, posix_lock(c, F_SETLK, F_WRLCK, 0, 1));
}

const struct t_case t_locks[] = {
	T_CASE(flock_excludes),
	T_CASE(flock_waits_its_turn),
	T_CASE(posix_locks_have_ranges),
	T_CASE(waiting_for_a_lock_can_be_interrupted),
	T_CASE(waiting_for_a_lock_ends_when_it_is_free),
	T_CASE(deadlocks_are_found),
	T_CASE(locks_of_descriptions),
	{NULL, NULL},
};
