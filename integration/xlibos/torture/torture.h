/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the torture tests share. Each is a program that runs its tests in turn for
 * the seconds that its argument says, each at least once. It prints "ok N runs"
 * and exits with 0, or says what was wrong and exits with 1. Results are the same
 * on every kernel but for what a test says by kernel_mode().
 */
#ifndef TORTURE_H
#define TORTURE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define PAGE 4096

/* Calls that make any site hot, whatever kind of memory it is in. */
#define HOT 40

/* The selectors of a 64-bit program on Linux. */
#define USER_CS 0x33
#define USER_SS 0x2b

/* torture.c: the tests of a program, which it defines; the last has no name. */
struct test {
	const char *name;
	void (*run)(void);
};
extern const struct test tests[];

/* bad tells of something wrong; the program ends after the current test. */
void bad(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* note tells on stderr of something that differs and may. */
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* ran counts n runs of whatever the program repeats. */
void ran(long n);
/* fail ends the program: it cannot do its work. */
void fail(const char *what) __attribute__((noreturn));

/* on_crash, if not NULL, is called when a process crashes, which is reported. */
extern void (*on_crash)(void);
/* no_crash_reports is for processes that are to crash. */
void no_crash_reports(void);

double now(void);		/* seconds of the monotonic clock */
void doze(double seconds);	/* sleeps to the end, in spite of signals */
unsigned long draw(unsigned long *state); /* the next pseudo-random number */

/* forked is fork, which fails the program if it fails. */
pid_t forked(void);
/* reap waits for a child and returns its exit code, 256 + N after a signal N. */
int reap(pid_t pid);

/* What /proc/xlibos says. */
enum mode {
	MODE_NONE,	/* a kernel without X-LibOS */
	MODE_OFF,
	MODE_BOUNCE,
	MODE_SHARED,
};
enum mode kernel_mode(void);
/* rewriting tells whether the kernel rewrites sites. */
bool rewriting(void);
/* has_table tells whether the call table is there. */
bool has_table(void);

/* sites.c: places that make system calls, in all the forms that programs have. */
enum form {
	FORM_ABS,	/* mov $nr, %eax; syscall */
	FORM_NOP,	/* mov $nr, %rax; syscall */
	FORM_MOV,	/* mov %reg, %reg; syscall, number in rax */
	FORM_STACK,	/* mov d(%rsp), %rax; syscall */
	FORM_CANCEL,	/* mov %r11, 8(%rsp); syscall, number in rax */
	FORM_JE,	/* je; xor %eax, %eax; syscall: read(2) only */
	FORM_BARE,	/* nopl (%rax); syscall, number in rax: never rewritten */
	FORM_CALL,	/* call *table: a site that has been rewritten */
	FORMS
};
extern const char *const form_name[FORMS];

/* A function that makes one system call. */
struct site {
	long (*call)(long, long, long, long, long, long);
	enum form form;
	int nr;
	unsigned char *insn[10]; /* where its instructions begin */
	int insns;
	unsigned char *start;	/* of the form */
	unsigned char *after;	/* the end of its syscall instruction */
	unsigned char *end;	/* of the function */
};
#define MAX_SITE 48	/* bytes of such a function, at most */

/* usable tells whether a form is there for a number on this kernel. */
bool usable(enum form form, int nr);
/*
 * put_form writes a form without anything around it, and returns its end. detail
 * is the displacement of FORM_STACK, and source + 16 * destination of FORM_MOV.
 */
unsigned char *put_form(unsigned char *p, enum form form, int nr, int detail);
/* MOVE is the detail of a FORM_MOV that does no harm: rcx to r10. */
#define MOVE (1 | 10 << 4)
/* BYTES writes code at p, which goes to its end. */
#define BYTES(...) do { \
	const unsigned char b[] = { __VA_ARGS__ }; \
	memcpy(p, b, sizeof(b)); \
	p += sizeof(b); \
} while (0)
/* put_site writes a function around a form, and returns its end. */
unsigned char *put_site(unsigned char *p, struct site *s, enum form form, int nr);
/* put_site_with has n bytes of code behind the call. */
unsigned char *put_site_with(unsigned char *p, struct site *s, enum form form, int nr, const void *then, int n);
/*
 * put_sites writes one function for each usable form, and returns their number.
 * They begin MAX_SITE bytes apart.
 */
int put_sites(unsigned char *p, struct site s[FORMS], int nr);

/* code_pages returns writable zeros, which seal makes code. */
unsigned char *code_pages(size_t size);
void seal(unsigned char *p, size_t size);

/* Numbers that site_works knows. */
extern const int checked_nr[];
extern const int checked_nrs;
/* site_works makes a call whose result it knows, and tells of a wrong one. */
bool site_works(const struct site *s);
/* heat makes a site hot by calls that do nothing, with all arguments -1. */
void heat(const struct site *s);
/* learn has to be called after a fork, for site_works. */
void learn(void);
/* works_n is site_works n times. */
bool works_n(const struct site *s, int n);

/* alarm.c: a signal every 150 µs, whose handler makes system calls, too. */
extern volatile long alarms;	/* how many there were */
extern volatile long progress;	/* to be incremented by whoever is disturbed */
/*
 * start_alarms starts them; hook, if not NULL, is called last by the handler, which
 * is installed with flags.
 */
void start_alarms(void (*hook)(ucontext_t *), int flags);
void stop_alarms(void);

/* A system call that is never rewritten and leaves errno alone. */
static inline long raw(long nr, long a, long b, long c, long d, long e, long f)
{
	register long r10 asm("r10") = d, r8 asm("r8") = e, r9 asm("r9") = f;
	long r;

	asm volatile("nopl (%%rax)\n\tsyscall"
		     : "=a"(r)
		     : "0"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
		     : "rcx", "r11", "memory");
	return r;
}
#define raw0(nr) raw(nr, 0, 0, 0, 0, 0, 0)
#define raw1(nr, a) raw(nr, (long)(a), 0, 0, 0, 0, 0)
#define raw2(nr, a, b) raw(nr, (long)(a), (long)(b), 0, 0, 0, 0)
#define raw3(nr, a, b, c) raw(nr, (long)(a), (long)(b), (long)(c), 0, 0, 0)

/* The call of a site with some arguments. */
#define call0(s) (s)->call(0, 0, 0, 0, 0, 0)
#define call1(s, a) (s)->call((long)(a), 0, 0, 0, 0, 0)
#define call2(s, a, b) (s)->call((long)(a), (long)(b), 0, 0, 0, 0)
#define call3(s, a, b, c) (s)->call((long)(a), (long)(b), (long)(c), 0, 0, 0)
#define call4(s, a, b, c, d) (s)->call((long)(a), (long)(b), (long)(c), (long)(d), 0, 0)

#endif
