// SPDX-License-Identifier: GPL-2.0
/*
 * Signals of a timer, as fast as they come while the disturbed program still gets
 * on. The timer is set again by each handler: on an emulated processor a periodic
 * one may leave no time for anything else.
 */
#include "torture.h"

#include <sys/time.h>

#define SHORTEST 150	/* µs */
#define LONGEST 50000

volatile long alarms, progress;

static struct site calls[FORMS], rearm;
static int n_calls;
static void (*volatile hook)(ucontext_t *);
static volatile bool on;
static long period = SHORTEST, seen;

void alarm_entry(int sig, siginfo_t *info, void *context);
void alarm_handler(int sig, siginfo_t *info, void *context);

/* Linux leaves AC to handlers as it was; C code may access what is not aligned. */
asm(".pushsection .text\n"
    ".globl alarm_entry\n"
    ".type alarm_entry, @function\n"
    "alarm_entry:\n"
    "	pushfq\n"
    "	andq $~0x40000, (%rsp)\n"
    "	popfq\n"
    "	jmp alarm_handler\n"
    ".size alarm_entry, .-alarm_entry\n"
    ".popsection\n");

static void set_timer(long us)
{
	struct itimerval t = { .it_value = { us / 1000000, us % 1000000 } };

	call3(&rearm, ITIMER_REAL, &t, NULL);
}

__attribute__((used)) void alarm_handler(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	unsigned long segments = uc->uc_mcontext.gregs[REG_CSGSFS];
	long ip = uc->uc_mcontext.gregs[REG_RIP], n = alarms++;

	(void)sig;
	(void)info;
	if ((segments & 0xffff) != USER_CS || segments >> 48 != USER_SS)
		bad("a signal's frame has cs %lx, ss %lx", segments & 0xffff, segments >> 48);
	/* With X-LibOS a signal may hit the first instructions of its entry. */
	if (ip < 0 && !has_table())
		bad("a signal's frame has ip %lx", ip);
	site_works(&calls[n % n_calls]);
	if (on) {
		if (progress == seen)
			period = period * 2 < LONGEST ? period * 2 : LONGEST;
		else if (period > SHORTEST)
			period = period * 7 / 8 > SHORTEST ? period * 7 / 8 : SHORTEST;
		seen = progress;
		set_timer(period + n % 32);
	}
	if (hook)
		hook(uc);
}

void start_alarms(void (*h)(ucontext_t *), int flags)
{
	struct sigaction sa = { .sa_sigaction = alarm_entry, .sa_flags = SA_SIGINFO | SA_RESTART | flags };
	unsigned char *p;

	if (!n_calls) {
		p = code_pages(PAGE);
		n_calls = put_sites(p, calls, SYS_getppid);
		put_site(p + PAGE - MAX_SITE, &rearm, FORM_ABS, SYS_setitimer);
		seal(p, PAGE);
	}
	hook = h;
	if (sigaction(SIGALRM, &sa, NULL))
		fail("sigaction");
	on = true;
	set_timer(period);
}

void stop_alarms(void)
{
	sigset_t alarm, old;

	/* One more handler may be on its way to set the timer. */
	on = false;
	sigemptyset(&alarm);
	sigaddset(&alarm, SIGALRM);
	sigprocmask(SIG_BLOCK, &alarm, &old);
	set_timer(0);
	hook = NULL;
	sigprocmask(SIG_SETMASK, &old, NULL);
}
