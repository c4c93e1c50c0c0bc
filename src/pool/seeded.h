/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Seeded bugs, to verify that the crash tests find them (tests/crash/mutants.c describes each). In
 * the library proper the macro is the constant 0, and the compiler drops the code that depends on
 * it.
 */
#ifndef UM_POOL_SEEDED_H
#define UM_POOL_SEEDED_H

#ifdef UM_SEEDED_BUGS
extern unsigned um_seeded_bug_number; /* the active one; 0: none */
#define um_seeded_bug(n) (um_seeded_bug_number == (n))
#else
#define um_seeded_bug(n) 0
#endif

#endif
