// SPDX-License-Identifier: GPL-2.0
/*
 * System calls that wait and are interrupted: restarted or not, with the frame that
 * a handler sees and may change, and through stops of the process, after which a
 * sleep goes on and does not start anew.
 */
#include "torture.h"

#include <linux/futex.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/time.h>

#define NTH 4		/* restart after which the call may end */
#define ENOUGH 1000	/* signals after which it may without */
#define INTERVAL 3000	/* µs */
/* What begin_call has in r11 until there is a system call, which leaves the flags there. */
#define NOT_BEGUN (-1)

/* The call under test, for the handler. */
static struct site *site;
static int pipe_fd[2];
static unsigned int futex_word;
static volatile int signals, restarts, ends;
static volatile long set_ax, skip;

/*
 * begin_call is a site's function, given as its fifth argument, called with NOT_BEGUN
 * in r11: the first signals may come before the call, where one finds the program that
 * has the call restarted.
 */
long begin_call(long a, long b, long c, long d, const void *call);
asm(".text\n"
    "begin_call:\n"
    "	mov $-1, %r11\n"
    "	jmp *%r8\n");

#define under_test(s, a, b, c, d) begin_call((long)(a), (long)(b), (long)(c), (long)(d), (s)->call)

static void handler(int sig, siginfo_t *info, void *context)
{
	greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
	unsigned char *ip = (unsigned char *)r[REG_RIP];

	(void)sig;
	(void)info;
	signals++;
	if (ip == site->after - 2 && r[REG_R11] != NOT_BEGUN) {
		restarts++;
		/* The next signal may come before the call that the last has chosen. */
		if (r[REG_RAX] != site->nr && !(set_ax && r[REG_RAX] == set_ax))
			bad("%s; syscall %d: to be restarted with ax %lld", form_name[site->form], site->nr, r[REG_RAX]);
		if (set_ax)
			r[REG_RAX] = set_ax;
		if (skip)
			r[REG_RIP] += 2;
	} else if (ip == site->after && r[REG_RAX] == -EINTR) {
		ends++;
		if (set_ax)
			r[REG_RAX] = set_ax;
	}
	/* Not by signals: they come all the time, and the call may not have begun. */
	if ((restarts >= NTH || signals >= ENOUGH) && !futex_word) {
		futex_word = 1;
		if (raw3(SYS_write, pipe_fd[1], "x", 1) != 1)
			bad("cannot write to a pipe");
	}
}

/* begin has handler called every INTERVAL until finish. */
static void begin(int flags)
{
	struct sigaction sa = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags };
	struct itimerval t = { { 0, INTERVAL }, { 0, INTERVAL } };

	if (pipe(pipe_fd))
		fail("pipe");
	signals = restarts = ends = futex_word = 0;
	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &t, NULL);
}

static void finish(void)
{
	struct itimerval off = { 0 };

	setitimer(ITIMER_REAL, &off, NULL);
	signal(SIGALRM, SIG_IGN);
	close(pipe_fd[0]);
	close(pipe_fd[1]);
	set_ax = skip = 0;
}

static void want(const char *what, bool ok, long r)
{
	if (!ok)
		bad("%s; syscall %d %s: result %ld, %d signals, %d at the call, %d behind it", form_name[site->form],
		    site->nr, what, r, signals, restarts, ends);
	ran(1);
}

/* interrupted has one site's call interrupted in all ways that can be told apart. */
static void interrupted(struct site *s)
{
	bool is_read = s->nr == SYS_read;
	char c = 0;
	long r;

	site = s;
	heat(s);
#define CALL() \
	(is_read ? under_test(s, pipe_fd[0], &c, 1, 0) : under_test(s, &futex_word, FUTEX_WAIT, 0, 0))

	begin(SA_RESTART);
	r = CALL();
	want("restarted", r == (is_read ? 1 : -EAGAIN) && restarts && !ends && (!is_read || c == 'x'), r);
	finish();

	begin(0);
	r = CALL();
	want("interrupted", r == -EINTR && ends && !restarts, r);
	finish();

	/* What is restarted is the call in rax, whatever the site says. */
	begin(SA_RESTART);
	set_ax = SYS_getpid;
	r = CALL();
	want("restarted as getpid", r == getpid() && restarts, r);
	finish();

	begin(SA_RESTART);
	set_ax = 77;
	skip = true;
	r = CALL();
	want("not restarted by the handler", r == 77 && restarts, r);
	finish();

	begin(0);
	set_ax = 1234;
	r = CALL();
	want("interrupted, result changed", r == 1234 && ends && !restarts, r);
	finish();
#undef CALL
}

static void handlers(void)
{
	static const int nrs[] = { SYS_read, SYS_futex };
	static struct site s[2][FORMS];
	static int n[2];

	for (int i = 0; i < 2; i++) {
		if (!n[i]) {
			unsigned char *p = code_pages(PAGE);

			n[i] = put_sites(p, s[i], nrs[i]);
			seal(p, PAGE);
		}
		for (int k = 0; k < n[i]; k++)
			interrupted(&s[i][k]);
	}
}

/*
 * A handler ends a sleep, with or without SA_RESTART, and what was left is right: at
 * least what it did not sleep, at most what it asked for and the slack of timers,
 * which the kernel counts in (hrtimer_nanosleep()). That much is left if the signal was
 * there before the sleep began.
 */
static void asleep(struct site *s, int flags)
{
	/* Longer than the machine may stand still, or the sleep is over when the signal comes. */
	struct timespec t = { 60, 0 }, rest = { -1, -1 };
	double slack = prctl(PR_GET_TIMERSLACK) / 1e9;
	double begun, left, slept;
	long r;

	site = s;
	heat(s);
	begin(flags);
	begun = now();
	r = under_test(s, &t, &rest, 0, 0);
	slept = now() - begun;
	finish();
	left = rest.tv_sec + rest.tv_nsec / 1e9;
	if (slept > 1)
		note("%s: a signal ended a sleep after %.1f s", form_name[s->form], slept);
	want("interrupted", r == -EINTR && ends && !restarts, r);
	if (left <= 0 || left > t.tv_sec + slack || left < t.tv_sec - slept)
		bad("%s; syscall %d interrupted: %.6f s left of %ld after %.6f", form_name[s->form], s->nr, left,
		    (long)t.tv_sec, slept);
}

static void sleeps(void)
{
	static struct site s[FORMS];
	static int n;

	if (!n) {
		unsigned char *p = code_pages(PAGE);

		n = put_sites(p, s, SYS_nanosleep);
		seal(p, PAGE);
	}
	for (int i = 0; i < 2 * n; i++)
		asleep(&s[i / 2], i % 2 ? SA_RESTART : 0);
}

/* Calls that wait for SLEEP, and are stopped in the meantime. */
#define SLEEP 0.8
#define LATE (SLEEP * 1.6)
#define STOPS 6
static const int waits[] = { SYS_nanosleep, SYS_poll, SYS_futex, SYS_clock_nanosleep, SYS_read };

enum { GOOD, WRONG, EARLY, TOO_LATE };

/* wait_out is the child: it makes the call and judges. */
static int wait_out(const struct site *s)
{
	struct timespec t = { 0, SLEEP * 1e9 };
	struct pollfd p = { .fd = pipe_fd[0], .events = POLLOUT };
	unsigned int word = 0;
	long r, good = 0;
	double took = now();
	char c = 0;

	switch (s->nr) {
	case SYS_nanosleep:
		r = call2(s, &t, NULL);
		break;
	case SYS_poll:
		r = call3(s, &p, 1, SLEEP * 1000);
		break;
	case SYS_futex:
		r = call4(s, &word, FUTEX_WAIT, 0, &t);
		good = -ETIMEDOUT;
		break;
	case SYS_clock_nanosleep:
		r = call4(s, CLOCK_MONOTONIC, 0, &t, NULL);
		break;
	default:
		r = call3(s, pipe_fd[0], &c, 1);
		return r == 1 && c == 'y' ? GOOD : WRONG;
	}
	took = now() - took;
	if (r != good)
		return WRONG;
	return took < SLEEP * 0.999 ? EARLY : took > LATE ? TOO_LATE : GOOD;
}

static struct site stopped[ARRAY_SIZE(waits)][FORMS];
static int n_stopped[ARRAY_SIZE(waits)];

static void build_stopped(void)
{
	unsigned char *p = code_pages(PAGE);

	for (unsigned int i = 0; i < ARRAY_SIZE(waits); i++)
		n_stopped[i] = put_sites(p + i * FORMS * MAX_SITE, stopped[i], waits[i]);
	seal(p, PAGE);
	for (unsigned int i = 0; i < ARRAY_SIZE(waits); i++)
		for (int k = 0; k < n_stopped[i]; k++)
			heat(&stopped[i][k]);
}

static struct child {
	pid_t pid;
	const struct site *site;
	int status;	/* of waitpid() */
	bool ended;
} child[ARRAY_SIZE(waits) * FORMS];
static int children;

/* stop stops all children, sees that they are, and has them go on. */
static void stop(void)
{
	for (int i = 0; i < children; i++)
		if (!child[i].ended)
			kill(child[i].pid, SIGSTOP);
	for (int i = 0; i < children; i++) {
		struct child *c = &child[i];

		/* On a slow machine the first may have ended. */
		if (!c->ended && waitpid(c->pid, &c->status, WUNTRACED) != c->pid)
			fail("waitpid");
		c->ended = !WIFSTOPPED(c->status);
	}
	for (int i = 0; i < children; i++)
		if (!child[i].ended)
			kill(child[i].pid, SIGCONT);
}

static void start(const struct site *s)
{
	struct child *c = &child[children++];

	*c = (struct child){ .pid = forked(), .site = s };
	if (!c->pid)
		_exit(wait_out(s));
}

/* stop_all is one round; it returns the number of calls that took too long. */
static int stop_all(void)
{
	static char bytes[ARRAY_SIZE(child)];
	int late = 0;

	if (pipe(pipe_fd))
		fail("pipe");
	children = 0;
	for (unsigned int i = 0; i < ARRAY_SIZE(waits); i++)
		for (int k = 0; k < n_stopped[i]; k++)
			start(&stopped[i][k]);
	for (int i = 0; i < STOPS; i++) {
		doze(SLEEP / (STOPS + 2));
		stop();
	}
	memset(bytes, 'y', sizeof(bytes));
	if (write(pipe_fd[1], bytes, children) != children)
		fail("write to a pipe");
	for (int i = 0; i < children; i++) {
		struct child *c = &child[i];

		if (!c->ended)
			while (waitpid(c->pid, &c->status, 0) != c->pid)
				;
		if (WIFEXITED(c->status) && WEXITSTATUS(c->status) == TOO_LATE)
			late++;
		else if (c->status)
			bad("%s; syscall %d, stopped: status %#x (%x00 is a wrong result, %x00 an early one)",
			    form_name[c->site->form], c->site->nr, c->status, WRONG, EARLY);
	}
	close(pipe_fd[0]);
	close(pipe_fd[1]);
	ran(children);
	return late;
}

static void stops(void)
{
	int late = 0;

	if (!n_stopped[0])
		build_stopped();
	/* A busy machine may be late, a sleep that starts anew always is. */
	for (int i = 0; i < 3; i++) {
		late = stop_all();
		if (!late)
			return;
	}
	bad("%d calls that were stopped took longer than %.1f instead of %.1f s", late, LATE, SLEEP);
}

const struct test tests[] = {
	{ "handlers", handlers },
	{ "sleeps", sleeps },
	{ "stops", stops },
	{ NULL, NULL },
};
