// SPDX-License-Identifier: GPL-2.0
/*
 * What a tracer sees of hot sites, and does to them: single steps, stops at system
 * calls, and breakpoints.
 */
#include "torture.h"

#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>

#define MAX_STEPS 100000
#define LOOPS 3

static struct site site[FORMS], other[FORMS]; /* getpid, getppid */
static int n_sites, n_other;
static unsigned char *code, fresh[PAGE]; /* and as it was written */

static void build(void)
{
	if (code)
		return;
	code = code_pages(PAGE);
	n_sites = put_sites(code, site, SYS_getpid);
	n_other = put_sites(code + FORMS * MAX_SITE, other, SYS_getppid);
	memcpy(fresh, code, PAGE);
	seal(code, PAGE);
}

/* trace forks a child that stops, calls f(arg), and exits with its result. */
static pid_t trace(int (*f)(long), long arg)
{
	int status;
	pid_t pid;

	build();
	for (int i = 0; i < n_sites; i++)
		works_n(&site[i], HOT);
	for (int i = 0; i < n_other; i++)
		works_n(&other[i], HOT);
	pid = forked();
	if (!pid) {
		no_crash_reports();
		if (ptrace(PTRACE_TRACEME, 0, 0, 0))
			_exit(99);
		learn();
		raise(SIGSTOP);
		_exit(f(arg));
	}
	if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
		fail("a traced child does not stop");
	if (ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL))
		fail("PTRACE_SETOPTIONS");
	return pid;
}

/* go resumes a child until its next stop, whose signal it returns; 0 is its end. */
static int go(int how, pid_t pid, int sig, int *status)
{
	if (ptrace(how, pid, 0, sig))
		fail("ptrace: resume");
	if (waitpid(pid, status, 0) != pid)
		fail("waitpid");
	return WIFSTOPPED(*status) ? WSTOPSIG(*status) : 0;
}

static void registers(pid_t pid, struct user_regs_struct *r)
{
	if (ptrace(PTRACE_GETREGS, pid, 0, r))
		fail("PTRACE_GETREGS");
	if (r->cs != USER_CS || r->ss != USER_SS)
		bad("a tracer sees cs %llx, ss %llx", r->cs, r->ss);
}

static void set_registers(pid_t pid, struct user_regs_struct *r)
{
	if (ptrace(PTRACE_SETREGS, pid, 0, r))
		fail("PTRACE_SETREGS");
}

static void ended(pid_t pid, int status)
{
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		bad("the traced process ended with status %#x", status);
	if (WIFSTOPPED(status)) {
		kill(pid, SIGKILL);
		reap(pid);
	}
}

/* Single steps. */

static int call_all(long loops)
{
	int wrong = 0;

	while (loops--)
		for (int i = 0; i < n_sites; i++)
			wrong |= !site_works(&site[i]);
	return wrong;
}

static void steps(void)
{
	int at_start[FORMS] = { 0 }, at_end[FORMS] = { 0 }, in_kernel = 0, calls = 0, status, sig, n;
	struct user_regs_struct r;
	pid_t pid = trace(call_all, LOOPS);

	for (n = 0; n < MAX_STEPS && (sig = go(PTRACE_SINGLESTEP, pid, 0, &status)); n++) {
		if (sig != SIGTRAP) {
			bad("signal %d in a single step", sig);
			break;
		}
		registers(pid, &r);
		in_kernel += (long)r.rip < 0 && !calls;
		for (int i = 0; i < n_sites; i++) {
			if (r.rip == (unsigned long)site[i].start) {
				at_start[i]++;
				/* Only this program calls the kernel where it says so. */
				calls = site[i].form == FORM_CALL;
			}
			if (r.rip != (unsigned long)site[i].after)
				continue;
			at_end[i]++;
			if ((pid_t)r.rax != pid)
				bad("%s: stepped over with result %lld, want %d", form_name[site[i].form], r.rax, pid);
		}
	}
	ended(pid, status);
	for (int i = 0; i < n_sites; i++)
		if (at_start[i] != LOOPS || at_end[i] != LOOPS)
			bad("%s: %d stops before it, %d behind, want %d", form_name[site[i].form], at_start[i], at_end[i], LOOPS);
	if (in_kernel)
		bad("%d stops in the kernel's code", in_kernel);
	ran(n);
}

/* The same with a trap flag that the program sets itself. */

static volatile int traps, strange;

static void trapped(int sig, siginfo_t *info, void *context)
{
	greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;

	(void)sig;
	(void)info;
	traps++;
	strange += (r[REG_CSGSFS] & 0xffff) != USER_CS || (r[REG_RIP] < 0 && !has_table());
}

#define TF "0x100"

static void own_steps(void)
{
	struct sigaction sa = { .sa_sigaction = trapped, .sa_flags = SA_SIGINFO }, old;

	build();
	sigaction(SIGTRAP, &sa, &old);
	for (int i = 0; i < n_sites; i++) {
		long want = getpid(), got;

		works_n(&site[i], HOT);
		traps = strange = 0;
		asm volatile("sub $128, %%rsp\n\t"
			     "pushfq; orq $" TF ", (%%rsp); popfq\n\t"
			     "call *%1\n\t"
			     "pushfq; andq $~" TF ", (%%rsp); popfq\n\t"
			     "add $128, %%rsp"
			     : "=a"(got)
			     : "b"(site[i].call)
			     : "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory", "cc");
		if (got != want || strange || traps < site[i].insns)
			bad("%s: result %ld, want %ld; %d traps of %d instructions, %d strange", form_name[site[i].form],
			    got, want, traps, site[i].insns, strange);
		ran(1);
	}
	sigaction(SIGTRAP, &old, NULL);
}

/* Stops at system calls: what is seen, and what may be changed. */

enum change { NOTHING, RESULT, NUMBER, SKIP, CHANGES };

/* call_one makes a call LOOPS times per change, and checks what has become of it. */
static int call_one(long index)
{
	const struct site *s = &site[index];
	long pid = raw0(SYS_getpid), ppid = raw0(SYS_getppid);
	const long want[CHANGES] = { pid, 4242, ppid, -ENOSYS };

	for (int n = 0; n < CHANGES * LOOPS; n++)
		if (s->call(1, 2, 3, 4, 5, 6) != want[n / LOOPS])
			return 1 + n / LOOPS;
	return 0;
}

static void check_entry(const struct site *s, const struct user_regs_struct *r)
{
	bool args = r->rdi == 1 && r->rsi == 2 && r->rdx == 3 && r->r10 == 4 && r->r8 == 5 && r->r9 == 6;

	if ((long)r->orig_rax != s->nr || (long)r->rax != -ENOSYS || !args)
		bad("%s: at the entry orig_rax %lld, rax %lld, %s arguments", form_name[s->form], r->orig_rax, r->rax,
		    args ? "right" : "wrong");
}

static void syscall_stops(void)
{
	for (int i = 0; i < n_sites; i++) {
		const struct site *s = &site[i];
		pid_t pid = trace(call_one, i);
		struct user_regs_struct r;
		int sig, status, n = 0;
		bool entry = true;

		while ((sig = go(PTRACE_SYSCALL, pid, 0, &status))) {
			if (sig != (SIGTRAP | 0x80)) {
				bad("signal %d at a system call", sig);
				break;
			}
			registers(pid, &r);
			if (r.rip == (unsigned long)s->after) {
				enum change change = n / LOOPS;

				if (entry) {
					check_entry(s, &r);
					r.orig_rax = change == NUMBER ? SYS_getppid : -1ul;
					if (change == NUMBER || change == SKIP)
						set_registers(pid, &r);
				} else {
					r.rax = 4242;
					if (change == RESULT)
						set_registers(pid, &r);
					n++;
				}
			}
			entry = !entry;
		}
		ended(pid, status);
		if (n != CHANGES * LOOPS)
			bad("%s: %d calls seen, want %d", form_name[s->form], n, CHANGES * LOOPS);
		ran(n);
	}
}

/* Breakpoints. */

/* call_until has all sites called until somebody pokes *until. */
static volatile long until;

static int call_until(long unused)
{
	(void)unused;
	while (!until) {
		for (int i = 0; i < n_sites; i++)
			if (!works_n(&site[i], HOT))
				return 1;
		raw2(SYS_kill, raw0(SYS_getpid), SIGUSR1);
	}
	return 0;
}

/* A way to read and write a byte of another process. */
struct access {
	unsigned char (*get)(pid_t, unsigned char *);
	void (*set)(pid_t, unsigned char *, unsigned char);
	const char *name;
};

static unsigned char peek(pid_t pid, unsigned char *at)
{
	errno = 0;
	long word = ptrace(PTRACE_PEEKTEXT, pid, at, 0);
	if (errno)
		fail("PTRACE_PEEKTEXT");
	return word;
}

static void poke(pid_t pid, unsigned char *at, unsigned char byte)
{
	long word;

	errno = 0;
	word = ptrace(PTRACE_PEEKTEXT, pid, at, 0);
	if (errno || ptrace(PTRACE_POKETEXT, pid, at, (word & ~0xffl) | byte))
		fail("PTRACE_POKETEXT");
}

static int open_memory(pid_t pid)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		fail(path);
	return fd;
}

static unsigned char get_memory(pid_t pid, unsigned char *at)
{
	int fd = open_memory(pid);
	unsigned char byte;

	if (pread(fd, &byte, 1, (long)at) != 1)
		fail("read /proc/PID/mem");
	close(fd);
	return byte;
}

static void set_memory(pid_t pid, unsigned char *at, unsigned char byte)
{
	int fd = open_memory(pid);

	if (pwrite(fd, &byte, 1, (long)at) != 1)
		fail("write /proc/PID/mem");
	close(fd);
}

static unsigned char get_vector(pid_t pid, unsigned char *at)
{
	unsigned char byte;
	struct iovec here = { &byte, 1 }, there = { at, 1 };

	if (process_vm_readv(pid, &here, 1, &there, 1, 0) != 1)
		fail("process_vm_readv");
	return byte;
}

static const struct access accesses[] = {
	{ peek, poke, "PTRACE_POKETEXT" },
	{ get_memory, set_memory, "/proc/PID/mem" },
	/* process_vm_writev(2) does not write to what is read-only. */
	{ get_vector, set_memory, "process_vm_readv" },
};

/* breakpoint has a running child hit one and go on behind it. */
static bool breakpoint(pid_t pid, const struct site *s, unsigned char *at, const struct access *a, int *status)
{
	unsigned char old = a->get(pid, at);
	struct user_regs_struct r;
	int sig;

	a->set(pid, at, 0xcc);
	do
		sig = go(PTRACE_CONT, pid, 0, status);
	while (sig == SIGUSR1);
	if (sig != SIGTRAP) {
		bad("%s: breakpoint at +%td by %s: signal %d", form_name[s->form], at - s->insn[0], a->name, sig);
		return false;
	}
	registers(pid, &r);
	if (r.rip != (unsigned long)at + 1) {
		bad("%s: breakpoint at +%td by %s: ip is at +%lld", form_name[s->form], at - s->insn[0], a->name,
		    r.rip - (unsigned long)s->insn[0]);
		return false;
	}
	a->set(pid, at, old);
	r.rip = (unsigned long)at;
	set_registers(pid, &r);
	/* Until the sites have been executed often enough to be hot again. */
	for (int n = 0; n < 2; n++) {
		sig = go(PTRACE_CONT, pid, 0, status);
		if (sig != SIGUSR1) {
			bad("%s: behind a breakpoint at +%td by %s: signal %d", form_name[s->form], at - s->insn[0],
			    a->name, sig);
			return false;
		}
	}
	return true;
}

static void breakpoints(void)
{
	int status;
	pid_t pid = trace(call_until, 0);

	if (go(PTRACE_CONT, pid, 0, &status) != SIGUSR1) {
		bad("no signal");
		goto out;
	}
	for (int i = 0; i < n_sites; i++)
		for (unsigned int k = 0; k < ARRAY_SIZE(accesses); k++)
			for (int n = 0; n < site[i].insns; n++) {
				if (!breakpoint(pid, &site[i], site[i].insn[n], &accesses[k], &status))
					goto out;
				ran(1);
			}
	if (ptrace(PTRACE_POKEDATA, pid, &until, 1))
		fail("PTRACE_POKEDATA");
	go(PTRACE_CONT, pid, 0, &status);
out:
	ended(pid, status);
}

/* Whoever reads hot code should see what was written; programs rarely mind. */
static void reading(void)
{
	int status, others = 0;
	pid_t pid = trace(call_all, 1);

	for (int i = 0; i < n_sites; i++)
		others += peek(pid, site[i].start) != fresh[site[i].start - code];
	if (others)
		note("a tracer sees %d of %d sites rewritten", others, n_sites);
	while (go(PTRACE_CONT, pid, 0, &status))
		;
	ended(pid, status);
	ran(1);
}

const struct test tests[] = {
	{ "single steps", steps },
	{ "own single steps", own_steps },
	{ "stops at system calls", syscall_stops },
	{ "breakpoints", breakpoints },
	{ "reading", reading },
	{ NULL, NULL },
};
