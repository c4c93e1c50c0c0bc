/* SPDX-License-Identifier: BSD-3-Clause */
/* The threads that serve requests. */
#ifndef UM_FUSE_WORKER_H
#define UM_FUSE_WORKER_H

#include "fuse/session.h"

/* Starts threads that take requests from m->dev until the session ends; the first to notice that
 * signals m->ended. -errno if none can be started. *out is freed by um_workers_free. */
int um_workers_start(struct um_mount *m, struct um_workers **out);
/* Ends them, whatever they wait for. Nothing is served afterwards. */
void um_workers_stop(struct um_workers *w);
void um_workers_free(struct um_workers *w);
unsigned um_workers_count(const struct um_workers *w);
/* How often a parked worker went to wait by itself, as a request took long and nobody else did. */
uint64_t um_workers_takeovers(const struct um_workers *w);
/* Are there others that go on serving while a worker waits for the medium? */
bool um_worker_may_wait(const struct um_mount *m);
/* Joins threads that have been told to end but may sit in a system call: a signal wakes each, again
 * until it has seen it. */
void um_threads_end(const pthread_t *threads, unsigned n);
/* Carries out one request, of buf->size bytes at buf->mem. */
void um_carry_out(struct um_mount *m, struct fuse_buf *buf);
/* Serves requests in this thread until INIT has been answered. */
int um_answer_init(struct um_mount *m);

#endif
