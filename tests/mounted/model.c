/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * model MOUNT ORACLE SEED OPERATIONS [HOOK]: random operations, each done on the mount and on a
 * directory of another filesystem (tmpfs), which is the oracle. Return values and errnos are
 * compared at once, the trees at intervals: names, types, modes, owners, link counts, sizes,
 * content, times, extended attributes, readdir. HOOK is a command that is run at intervals with
 * `pool_remount` or `pool_kill_check_mount`; since each acknowledged operation must survive the
 * daemon, nothing may differ afterwards either.
 *
 * Where tmpfs differs by its nature, the oracle gets the same effect by other means: zeroing a
 * range, copying, mtime after a store to a map.
 */
#include "model.h"

struct model m;
static const char *hook;

static void usage(void)
{
	fprintf(stderr, "usage: model MOUNT ORACLE SEED OPERATIONS [HOOK]\n");
	exit(2);
}

void m_differ(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	printf("operation %lu, seed %lu: ", m.op, m.seed);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\nthe last operations were:\n");
	for (unsigned i = 0; i < M_HISTORY; i++) {
		const char *line = m.history[(m.nhistory + i) % M_HISTORY];

		if (line[0])
			printf("  %s\n", line);
	}
	printf("FAIL: differs from the oracle at operation %lu of seed %lu\n", m.op, m.seed);
	exit(1);
}

void m_note(const char *fmt, ...)
{
	va_list ap;
	char text[4 * M_PATH], *line = m.history[m.nhistory++ % M_HISTORY];
	size_t n = 0, odd = 0;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	/* Printable, and the longest name shortened. */
	for (char *p = text; *p && n < M_LINE - 80; p++) {
		odd = (*p & 0x80) || *p == 'z' ? odd + 1 : 0;
		if (odd < 6)
			line[n++] = *p >= ' ' && *p < 127 ? *p : '?';
	}
	line[n] = 0;
}

void m_result(long a, int ea, long b, int eb)
{
	size_t n;
	char *line = m.history[(m.nhistory - 1) % M_HISTORY];

	n = strlen(line);
	snprintf(line + n, M_LINE - n, " = %ld %s", a, a < 0 ? strerrorname_np(ea) : "");
	if (a < 0 && b < 0 && ea == eb)
		return;
	/* POSIX leaves open which. */
	if (a < 0 && b < 0 && ea == EEXIST && eb == ENOTEMPTY)
		return;
	if (a >= 0 && a == b)
		return;
	m_differ("the mount gave %ld (%s), the oracle %ld (%s)", a,
		a < 0 ? strerrorname_np(ea) : "-", b, b < 0 ? strerrorname_np(eb) : "-");
}

unsigned long m_random(void)
{
	/* splitmix64 */
	uint64_t z = m.random += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return (z ^ (z >> 31)) >> 1;
}

unsigned m_pick(unsigned n)
{
	return (unsigned)(m_random() % n);
}

/* All handles must be gone before the daemon is. */
static void close_handles(void)
{
	for (unsigned i = 0; i < M_HANDLES; i++) {
		if (!m.handle[i].open)
			continue;
		close(m.handle[i].a);
		close(m.handle[i].b);
		m.handle[i].open = false;
	}
}

static void run_hook(const char *what)
{
	char cmd[4200];
	int rc;

	close_handles();
	close(m.root[0]);
	if (chdir("/"))
		abort();
	m_note("%s", what);
	snprintf(cmd, sizeof(cmd), "%s %s", hook, what);
	fflush(stdout);
	rc = system(cmd);
	if (rc)
		m_differ("%s failed", what);
	m.root[0] = open(m.path[0], O_RDONLY | O_DIRECTORY);
	if (m.root[0] < 0)
		m_differ("%s: %s", m.path[0], strerror(errno));
}

int main(int argc, char **argv)
{
	unsigned long ops, compare, remount, compared = 0, remounts = 0, kills = 0;

	if (argc < 5)
		usage();
	m.path[0] = argv[1];
	m.path[1] = argv[2];
	m.seed = strtoul(argv[3], NULL, 0);
	m.random = m.seed * 1000003;
	ops = strtoul(argv[4], NULL, 0);
	hook = argc > 5 ? argv[5] : NULL;
	setvbuf(stdout, NULL, _IOLBF, 0);
	umask(0);
	for (int i = 0; i < 2; i++) {
		m.root[i] = open(m.path[i], O_RDONLY | O_DIRECTORY);
		if (m.root[i] < 0) {
			printf("FAIL: %s: %s\n", m.path[i], strerror(errno));
			return 1;
		}
	}
	m_fill_names();
	/* To find the operation that went wrong: UMBRA_COMPARE=1. */
	compare = getenv("UMBRA_COMPARE") ? strtoul(getenv("UMBRA_COMPARE"), NULL, 0) : 0;
	if (!compare)
		compare = ops / 20 + 100;
	remount = ops / 16 + 57;
	for (m.op = 1; m.op <= ops; m.op++) {
		m_step();
		if (m.op % compare == 0) {
			m_compare();
			compared++;
		}
		if (hook && m.op % remount == 0) {
			bool kill = (m.op / remount) % 2;

			run_hook(kill ? "pool_kill_check_mount" : "pool_remount");
			m_compare();
			kills += kill;
			remounts += !kill;
		}
	}
	close_handles();
	m_compare();
	printf("%lu operations, seed %lu: %lu failed on both alike; trees equal %lu times, "
	       "%lu remounts, %lu kills; %lu entries at the end\n",
		ops, m.seed, m.failures, compared + 1 + remounts + kills, remounts, kills,
		m.entries);
	return 0;
}
