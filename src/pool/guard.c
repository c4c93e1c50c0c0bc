/* SPDX-License-Identifier: BSD-3-Clause */
/* Guarded loads and stores. The handler runs in the thread whose access failed; it only reads the
 * registry, makes one system call and accesses atomics. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pool/backend.h"
#include "pool/log.h"

#define MAX_POOLS 64

/* Readable without a lock: a slot is in use while its pool is set, which is set last and cleared
 * first. Unregistering needs no wait, since nobody loads from a pool that is being closed. */
static struct guard_slot {
	_Atomic(uintptr_t) base;
	_Atomic(uintptr_t) len;
	_Atomic(struct um_pool *) pool;
} slots[MAX_POOLS];
static pthread_mutex_t slots_lock = PTHREAD_MUTEX_INITIALIZER; /* among those who change slots */

static struct sigaction old_action;

_Thread_local volatile um_lba_t um_guard_bad;

static struct um_pool *find_pool(uintptr_t addr)
{
	int i;

	for (i = 0; i < MAX_POOLS; i++) {
		struct um_pool *pool = atomic_load(&slots[i].pool);
		uintptr_t base = atomic_load(&slots[i].base);

		if (pool && addr >= base && addr - base < atomic_load(&slots[i].len))
			return pool;
	}
	return NULL;
}

/* Not an access to a pool: do what would have happened without this handler. */
static void chain(int sig, siginfo_t *info, void *context)
{
	if (old_action.sa_flags & SA_SIGINFO) {
		old_action.sa_sigaction(sig, info, context);
	} else if (old_action.sa_handler != SIG_DFL && old_action.sa_handler != SIG_IGN) {
		old_action.sa_handler(sig);
	} else {
		/* The instruction runs again, faults again and ends the process; so does a signal
		 * that was sent. */
		signal(sig, SIG_DFL);
		if (info->si_code <= 0)
			raise(sig);
	}
}

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	uintptr_t addr = (uintptr_t)info->si_addr, base, unit;
	struct um_pool *pool = info->si_code > 0 ? find_pool(addr) : NULL;
	int saved = errno;
	um_lba_t lba;
	long ret;

	if (!pool) {
		chain(sig, info, context);
		return;
	}
	base = (uintptr_t)pool->base;
	unit = (addr - base) & ~(uintptr_t)(pool->guard_unit - 1);
	lba = unit >> UM_BLOCK_SHIFT;
#ifdef BUS_MCEERR_AO
	if (info->si_code == BUS_MCEERR_AO) {
		/* Found bad by the hardware, not loaded by anybody: only record it. */
		um_pool_set_lost(pool, (addr - base) >> UM_BLOCK_SHIFT, 1);
		errno = saved;
		return;
	}
#endif
	um_pool_set_lost(pool, lba, pool->guard_unit >> UM_BLOCK_SHIFT);
	/* The bare system call: the library's wrapper may be an interceptor that takes locks. */
	ret = syscall(SYS_mmap, base + unit, pool->guard_unit, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0L);
	if (ret < 0 || (uintptr_t)ret != base + unit)
		signal(sig, SIG_DFL);
	um_guard_bad = (addr - base) >> UM_BLOCK_SHIFT;
	/* Block 0 is not a valid mark; any other number serves. */
	if (!um_guard_bad)
		um_guard_bad = ~(um_lba_t)0;
	errno = saved;
}

int um_guard_touch(const void *p, size_t len)
{
	const volatile uint8_t *at = p, *end = at + len;

	if (!len)
		return 0;
	/* The first byte, then the first of each page. */
	(void)*at;
	for (at += UM_BLOCK_SIZE - ((uintptr_t)at & (UM_BLOCK_SIZE - 1)); at < end;
		at += UM_BLOCK_SIZE)
		(void)*at;
	return um_guard_check();
}

int um_guard_read(const void *p, size_t len)
{
	const volatile uint64_t *at = p, *end = at + len / sizeof(*at);

	/* Memory is delivered, and fails, by cache lines. */
	for (; at < end; at += 64 / sizeof(*at))
		(void)*at;
	return um_guard_check();
}

int um_guard_install(void)
{
	struct sigaction action, now;
	int ret = 0;

	memset(&action, 0, sizeof(action));
	action.sa_sigaction = on_sigbus;
	action.sa_flags = SA_SIGINFO | SA_RESTART;
	sigemptyset(&action.sa_mask);
	pthread_mutex_lock(&slots_lock);
	/* Checked for each pool: somebody else may have replaced our handler. */
	if (sigaction(SIGBUS, NULL, &now))
		ret = -errno;
	else if (!(now.sa_flags & SA_SIGINFO) || now.sa_sigaction != on_sigbus) {
		old_action = now;
		if (sigaction(SIGBUS, &action, NULL))
			ret = -errno;
	}
	pthread_mutex_unlock(&slots_lock);
	return ret;
}

void um_guard_register(struct um_pool *pool)
{
	int i;

	pthread_mutex_lock(&slots_lock);
	for (i = 0; i < MAX_POOLS; i++)
		if (!atomic_load(&slots[i].pool))
			break;
	if (i < MAX_POOLS) {
		atomic_store(&slots[i].base, (uintptr_t)pool->base);
		atomic_store(&slots[i].len, pool->map_len);
		atomic_store(&slots[i].pool, pool);
	} else {
		um_warn("%s: too many pools in one process: loads from this one are not guarded",
			pool->path);
	}
	pthread_mutex_unlock(&slots_lock);
}

void um_guard_extend(struct um_pool *pool)
{
	int i;

	pthread_mutex_lock(&slots_lock);
	for (i = 0; i < MAX_POOLS; i++)
		if (atomic_load(&slots[i].pool) == pool)
			atomic_store(&slots[i].len, pool->map_len);
	pthread_mutex_unlock(&slots_lock);
}

void um_guard_unregister(struct um_pool *pool)
{
	int i;

	pthread_mutex_lock(&slots_lock);
	for (i = 0; i < MAX_POOLS; i++)
		if (atomic_load(&slots[i].pool) == pool)
			atomic_store(&slots[i].pool, NULL);
	pthread_mutex_unlock(&slots_lock);
}
