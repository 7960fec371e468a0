/* SPDX-License-Identifier: GPL-2.0 */
/*
 * sysbench measures how long system calls take, and whole commands.
 */
#ifndef BENCH_H
#define BENCH_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

struct bench {
	const char *name;
	/* Once before run, if not NULL. */
	void (*setup)(void);
	/* run does it n times, and ends the program if a result is wrong. */
	void (*run)(long n);
	/* Once after run, if not NULL. */
	void (*teardown)(void);
	/*
	 * If not 0, it is done so many times, and the time of them all is told, in
	 * milliseconds. Else the time of one is, in nanoseconds.
	 */
	long loops;
};

/* The last one has no name. */
extern const struct bench calls[];	/* calls.c: within one process */
extern const struct bench processes[];	/* processes.c: with a second one */

/* fail ends the program: it cannot do its work. */
void fail(const char *what) __attribute__((noreturn));

#endif
