/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Epochs: which threads may still hold pointers to freed blocks (K. Fraser, "Practical lock
 * freedom", 2004, epoch-based reclamation).
 *
 * A thread's slot holds the epoch it entered in, 0 outside. A freed run notes the current epoch,
 * after the commit that unlinked it took effect; it may be reused when no slot holds that epoch or
 * an older one. Correctness: a reader writes its slot, then takes the log's apply lock to look
 * blocks up. If its lookup came before the commit (in the order of that lock), the slot's store
 * happens before the commit, and so before the scan of the slots, which sees it. If it came after,
 * the lookup no longer finds the freed blocks, whatever the scan saw. The lock orders both cases;
 * the atomics below are sequentially consistent, so that a reader without that lock would still be
 * safe on the scan's side.
 *
 * Slots belong to the process, not to one pool: a thread is registered once, and a slot never
 * dangles.
 */
#include <stdlib.h>

#include "space/space_int.h"

#define SLOTS 64u

struct slot {
	atomic_uint_fast64_t epoch; /* 0: outside */
	atomic_bool used;
	unsigned nest; /* used by the owner thread */
} __attribute__((aligned(64)));

struct slot_block {
	struct slot slot[SLOTS];
	_Atomic(struct slot_block *) next;
};

static struct slot_block first_block;
static atomic_uint_fast64_t now = 1;
/* Threads inside an epoch that got no slot for lack of memory: nothing is reused meanwhile. */
static atomic_uint strangers;

static _Thread_local struct slot *own;
static _Thread_local unsigned stranger_nest;
static pthread_key_t exit_key;
static bool have_key;
static pthread_once_t exit_once = PTHREAD_ONCE_INIT;

static void thread_exit(void *arg)
{
	struct slot *slot = arg;

	own = NULL;
	slot->nest = 0;
	atomic_store(&slot->epoch, 0);
	atomic_store(&slot->used, false);
}

static void make_key(void)
{
	/* Without a key the slots of ended threads are not reused; nothing worse. */
	have_key = !pthread_key_create(&exit_key, thread_exit);
}

static struct slot *claim(struct slot_block *block)
{
	for (unsigned i = 0; i < SLOTS; i++) {
		bool expected = false;

		if (atomic_compare_exchange_strong(&block->slot[i].used, &expected, true))
			return &block->slot[i];
	}
	return NULL;
}

static struct slot *claim_any(void)
{
	struct slot_block *block = &first_block;
	struct slot *slot;

	while (!(slot = claim(block))) {
		struct slot_block *next = atomic_load(&block->next), *fresh;

		if (!next) {
			fresh = aligned_alloc(64, sizeof(*fresh));
			if (!fresh)
				return NULL;
			*fresh = (struct slot_block){.next = NULL};
			if (atomic_compare_exchange_strong(&block->next, &next, fresh))
				next = fresh;
			else
				free(fresh);
		}
		block = next;
	}
	return slot;
}

static struct slot *register_thread(void)
{
	struct slot *slot = claim_any();

	pthread_once(&exit_once, make_key);
	if (slot && have_key && pthread_setspecific(exit_key, slot)) {
		atomic_store(&slot->used, false);
		return NULL;
	}
	return slot;
}

void um_epoch_enter(struct um_space *space)
{
	(void)space;
	if (!own && !stranger_nest)
		own = register_thread();
	if (!own) {
		if (!stranger_nest++)
			atomic_fetch_add(&strangers, 1);
		return;
	}
	if (!own->nest++)
		atomic_store(&own->epoch, atomic_load(&now));
}

void um_epoch_leave(struct um_space *space)
{
	(void)space;
	if (stranger_nest) {
		if (!--stranger_nest)
			atomic_fetch_sub(&strangers, 1);
		return;
	}
	if (!--own->nest)
		atomic_store(&own->epoch, 0);
}

void *um_epoch_hold(struct um_space *space)
{
	struct slot *slot = claim_any();

	(void)space;
	if (!slot) {
		atomic_fetch_add(&strangers, 1);
		return &strangers;
	}
	atomic_store(&slot->epoch, atomic_load(&now));
	return slot;
}

void um_epoch_let_go(struct um_space *space, void *hold)
{
	struct slot *slot = hold;

	(void)space;
	if (hold == &strangers) {
		atomic_fetch_sub(&strangers, 1);
		return;
	}
	atomic_store(&slot->epoch, 0);
	atomic_store(&slot->used, false);
}

uint64_t um_epoch_own(void)
{
	if (stranger_nest)
		return 1;
	return own && own->nest ? atomic_load(&own->epoch) : 0;
}

uint64_t um_epoch_now(void)
{
	return atomic_load(&now);
}

uint64_t um_epoch_oldest(void)
{
	uint64_t oldest = atomic_fetch_add(&now, 1) + 1;

	if (atomic_load(&strangers))
		return 0;
	for (struct slot_block *block = &first_block; block; block = atomic_load(&block->next)) {
		for (unsigned i = 0; i < SLOTS; i++) {
			uint64_t epoch = atomic_load(&block->slot[i].epoch);

			if (epoch && epoch < oldest)
				oldest = epoch;
		}
	}
	return oldest;
}
