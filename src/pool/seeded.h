/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bugs put in on purpose, to see that the crash tests find them (tests/crash/mutants.c says what each is).
 * The library proper has none: the macro is the constant 0 there, and the compiler drops what depends on it.
 */
#ifndef UM_POOL_SEEDED_H
#define UM_POOL_SEEDED_H

#ifdef UM_SEEDED_BUGS
extern unsigned um_seeded_bug_number; /* the one that is in now; 0: none */
#define um_seeded_bug(n) (um_seeded_bug_number == (n))
#else
#define um_seeded_bug(n) 0
#endif

#endif
