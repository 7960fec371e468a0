// SPDX-License-Identifier: GPL-2.0
/*
 * System calls that return twice, or not, made at hot sites: fork, vfork, clone with
 * and without a new stack, clone3, exec; also under signals and in single steps.
 */
#include "torture.h"

#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <sys/ptrace.h>

#define TIMES 12	/* each call is made in a round, twice of which make it hot */
#define STACK_SIZE (4 * PAGE)
#define CHILD_CODE 7	/* with which the children exit */

/*
 * What a child does: it overwrites what is below its stack pointer, as it may, and
 * exits. A parent goes on behind it.
 */
static const unsigned char in_child[] = {
	0x85, 0xc0,					/* test %eax, %eax */
	0x75, 0x1d,					/* jnz, to the end */
	0x48, 0x8d, 0xbc, 0x24, 0x00, 0xfe, 0xff, 0xff,	/* lea -512(%rsp), %rdi */
	0xb9, 0x00, 0x02, 0x00, 0x00,			/* mov $512, %ecx */
	0xb0, 0x5a,					/* mov $0x5a, %al */
	0xf3, 0xaa,					/* rep stosb */
	0xbf, CHILD_CODE, 0x00, 0x00, 0x00,		/* mov $CHILD_CODE, %edi */
	0xb8, SYS_exit, 0x00, 0x00, 0x00,		/* mov $SYS_exit, %eax */
	0x0f, 0x05,					/* syscall */
};
_Static_assert(sizeof(in_child) == 4 + 0x1d, "the jump's distance");

enum kind { FORK, VFORK, CLONE, CLONE_VFORKED, CLONE_STACK, CLONE_THREE, CLONE_THREE_STACK, KINDS };
static const struct {
	const char *name;
	int nr;
} kinds[KINDS] = {
	[FORK] = { "fork", SYS_fork },
	[VFORK] = { "vfork", SYS_vfork },
	[CLONE] = { "clone", SYS_clone },
	[CLONE_VFORKED] = { "clone as vfork", SYS_clone },
	[CLONE_STACK] = { "clone with a stack", SYS_clone },
	[CLONE_THREE] = { "clone3", SYS_clone3 },
	[CLONE_THREE_STACK] = { "clone3 with a stack", SYS_clone3 },
};

static struct site site[KINDS][FORMS], exec[FORMS], getpids[FORMS];
static int n_sites[KINDS], n_exec, n_getpids;
static unsigned char *stack;

static void build(void)
{
	unsigned char *code, *p;

	if (n_exec)
		return;
	p = code = code_pages(3 * PAGE);
	for (int kind = 0; kind < KINDS; kind++)
		for (int form = 0; form < FORMS; form++)
			if (usable(form, kinds[kind].nr))
				p = put_site_with(p, &site[kind][n_sites[kind]++], form, kinds[kind].nr, in_child, sizeof(in_child));
	if (p > code + 2 * PAGE)
		abort();
	n_exec = put_sites(code + 2 * PAGE, exec, SYS_execve);
	n_getpids = put_sites(code + 2 * PAGE + FORMS * MAX_SITE, getpids, SYS_getpid);
	seal(code, 3 * PAGE);
	stack = code_pages(STACK_SIZE);
}

static long make_child(enum kind kind, const struct site *s)
{
	struct clone_args args = { .exit_signal = SIGCHLD };

	switch (kind) {
	case CLONE:
		return call2(s, SIGCHLD, 0);
	case CLONE_VFORKED:
		return call2(s, CLONE_VM | CLONE_VFORK | SIGCHLD, 0);
	case CLONE_STACK:
		return call2(s, CLONE_VM | SIGCHLD, stack + STACK_SIZE);
	case CLONE_THREE_STACK:
		args.flags = CLONE_VM;
		args.stack = (unsigned long)stack;
		args.stack_size = STACK_SIZE;
		/* fall through */
	case CLONE_THREE:
		return call2(s, &args, sizeof(args));
	default:
		return call0(s);
	}
}

/* one_child makes a child by a site and waits for it. */
static bool one_child(enum kind kind, const struct site *s)
{
	long pid = make_child(kind, s);
	int status;

	if (pid <= 0) {
		bad("%s; %s: result %ld", form_name[s->form], kinds[kind].name, pid);
		return false;
	}
	status = reap(pid);
	progress++;
	if (status == CHILD_CODE)
		return true;
	bad("%s; %s: the child ended with %d, want %d", form_name[s->form], kinds[kind].name, status, CHILD_CODE);
	return false;
}

static void children(void)
{
	build();
	for (int kind = 0; kind < KINDS; kind++)
		for (int i = 0; i < n_sites[kind]; i++) {
			for (int n = 0; n < TIMES; n++)
				if (!one_child(kind, &site[kind][i]))
					return;
			ran(TIMES);
		}
}

static void under_signals(void)
{
	build();
	start_alarms(NULL, 0);
	for (int kind = 0; kind < KINDS; kind++)
		for (int i = 0; i < n_sites[kind]; i++) {
			for (int n = 0; n < TIMES / 2; n++)
				if (!one_child(kind, &site[kind][i]))
					goto out;
			ran(TIMES / 2);
		}
out:
	stop_alarms();
}

/* This program again, which exits with CHILD_CODE. */
static char *const arguments[] = { "torture", "exit", "7", NULL };
static char *const no_environment[] = { NULL };
static const char self[] = "/proc/self/exe";

/* execute is what a child does; it has no memory of its own if it is vfork's. */
static void execute(const struct site *s)
{
	if (call3(s, "/no/such/file", arguments, no_environment) == -ENOENT)
		call3(s, self, arguments, no_environment);
	_exit(99);
}

static bool executed(const struct site *s, bool by_vfork)
{
	pid_t pid = by_vfork ? vfork() : fork();
	int status;

	if (pid < 0)
		fail("fork");
	if (!pid)
		execute(s);
	status = reap(pid);
	if (status == CHILD_CODE)
		return true;
	bad("%s; execve: a child of %s ended with %d", form_name[s->form], by_vfork ? "vfork" : "fork", status);
	return false;
}

static void programs(void)
{
	build();
	for (int i = 0; i < n_exec; i++) {
		heat(&exec[i]);
		for (int n = 0; n < 4; n++)
			if (!executed(&exec[i], n & 1))
				return;
		ran(4);
	}
}

/* The C library's own, whose sites get hot as well. */

static void *thread(void *arg)
{
	for (int i = 0; i < n_getpids; i++)
		works_n(&getpids[i], HOT);
	return arg;
}

static void library(void)
{
	build();
	for (int n = 0; n < TIMES; n++) {
		pthread_t t[4];
		pid_t pid;
		int status;

		errno = posix_spawn(&pid, self, NULL, NULL, arguments, no_environment);
		if (errno)
			fail("posix_spawn");
		status = reap(pid);
		if (status != CHILD_CODE)
			bad("posix_spawn: the child ended with %d", status);
		for (unsigned long i = 0; i < ARRAY_SIZE(t); i++)
			if (pthread_create(&t[i], NULL, thread, (void *)i))
				fail("pthread_create");
		for (unsigned long i = 0; i < ARRAY_SIZE(t); i++) {
			void *r = NULL;

			if (pthread_join(t[i], &r) || (unsigned long)r != i)
				bad("pthread_join: result %p, want %lu", r, i);
		}
	}
	ran(TIMES);
}

/* Single steps. */

static int step_children(void)
{
	for (int kind = 0; kind < KINDS; kind++)
		for (int i = 0; i < n_sites[kind]; i++)
			if (!one_child(kind, &site[kind][i]))
				return 1;
	return 0;
}

/* step single-steps a child to its end, or only for a while, and returns its status. */
static int step(int (*f)(const struct site *), const struct site *s, int limit)
{
	int status, n = 0;
	pid_t pid = forked();

	if (!pid) {
		if (ptrace(PTRACE_TRACEME, 0, 0, 0))
			_exit(98);
		learn();
		raise(SIGSTOP);
		_exit(f(s));
	}
	while (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status)) {
		int sig = WSTOPSIG(status);

		/* Its children's ends are no events of the steps. */
		if (sig != SIGTRAP && sig != SIGSTOP && sig != SIGCHLD) {
			bad("signal %d in a single step", sig);
			kill(pid, SIGKILL);
		}
		if (ptrace(n++ < limit ? PTRACE_SINGLESTEP : PTRACE_CONT, pid, 0, sig == SIGCHLD ? sig : 0) && errno != ESRCH)
			fail("PTRACE_SINGLESTEP");
	}
	ran(n < limit ? n : limit);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

static int children_stepped(const struct site *unused)
{
	(void)unused;
	return step_children();
}

static int execute_stepped(const struct site *s)
{
	execute(s);
	return 99;
}

static void single_steps(void)
{
	int status;

	build();
	status = step(children_stepped, NULL, 200000);
	if (status)
		bad("a process in single steps ended with %d", status);
	for (int i = 0; i < n_exec; i++) {
		heat(&exec[i]);
		status = step(execute_stepped, &exec[i], 2000);
		if (status != CHILD_CODE)
			bad("%s; execve in single steps: status %d", form_name[exec[i].form], status);
	}
}

const struct test tests[] = {
	{ "children", children },
	{ "children under signals", under_signals },
	{ "programs", programs },
	{ "the C library", library },
	{ "single steps", single_steps },
	{ NULL, NULL },
};
