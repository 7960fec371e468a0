// SPDX-License-Identifier: GPL-2.0
/*
 * Programs that use %gs and %fs for themselves, while they and others make calls at
 * hot sites. What they load they find again. And one selector that the kernel has for
 * programs, which tells the number of a CPU.
 *
 * With X-LibOS (kernel_mode() bounce or shared) the kernel may need the base of %gs
 * for itself. Then it may refuse to set it: arch_prctl() fails, wrgsbase is a
 * SIGILL, a selector is 0 again. It may not say that it has done it, nor tell its
 * own base, and calls have to work in any case.
 */
#include "torture.h"

#include <asm/ldt.h>
#include <asm/prctl.h>
#include <cpuid.h>
#include <sched.h>
#include <setjmp.h>
#include <sys/auxv.h>
#include <sys/time.h>

#define NEIGHBOURS 2
#define ROUNDS 20		/* of calls and yields, in each case */
#define BUSY 3000000		/* turns that take longer than a process may run at once */
#define HWCAP2_FSGSBASE 2
#define LDT_SELECTOR 7		/* entry 0 of the LDT, for programs */
#define DATA_SELECTOR USER_SS	/* all memory, as %ss */

/* How a case ends that does what it is to do, or is refused. */
enum { RIGHT, REFUSED = 10, NOT_THERE, WRONG_RESULT = 20, WRONG_VALUE, WRONG_BASE, WRONG_SELECTOR, CHILD_WRONG, WRONG_PLACE };

static struct site site[FORMS];
static int n_sites;
static long pid;

/*
 * Values at the bases that are used: one below 4 GiB, one above it, and one in the last
 * page of all, from where the kernel's data would be at no address.
 */
static long *low, *high, *last;
#define LAST 0x7fffffffe000

static void build(void)
{
	const int rw = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS;
	unsigned char *code;

	if (n_sites)
		return;
	code = code_pages(PAGE);
	n_sites = put_sites(code, site, SYS_getpid);
	seal(code, PAGE);
	low = mmap(NULL, PAGE, rw, flags | MAP_32BIT, -1, 0);
	high = mmap(NULL, PAGE, rw, flags, -1, 0);
	if (low == MAP_FAILED || high == MAP_FAILED)
		fail("mmap");
	low[0] = 0x10ca1;
	high[0] = 0x419b;
	/* The stack may be there. */
	last = mmap((void *)LAST, PAGE, rw, flags | MAP_FIXED_NOREPLACE, -1, 0);
	if (last == MAP_FAILED)
		last = NULL;
	else
		last[0] = 0x1a57;
}

/* calls makes calls and lets others run; it uses no data of the C library's. */
static bool calls(void)
{
	for (int n = 0; n < 10; n++)
		for (int i = 0; i < n_sites; i++)
			if (call0(&site[i]) != pid)
				return false;
	raw0(SYS_sched_yield);
	return true;
}

static long gs_word(void)
{
	long word;

	asm volatile("mov %%gs:0, %0" : "=r"(word));
	return word;
}

static unsigned int gs_selector(void)
{
	unsigned int selector;

	asm volatile("mov %%gs, %0" : "=r"(selector));
	return selector;
}

static void load_gs(unsigned int selector)
{
	asm volatile("mov %0, %%gs" : : "r"(selector) : "memory");
}

/* A selector that X-LibOS takes back. */
static bool taken_back(unsigned int selector)
{
	return has_table() && !selector;
}

static int null_selector(void)
{
	for (int n = 0; n < ROUNDS; n++) {
		load_gs(n % 4); /* all of them are null */
		if (!calls())
			return WRONG_RESULT;
		if (gs_selector() > 3)
			return WRONG_SELECTOR;
	}
	return RIGHT;
}

static int data_selector(void)
{
	for (int n = 0; n < ROUNDS; n++) {
		load_gs(DATA_SELECTOR);
		if (!calls())
			return WRONG_RESULT;
		if (taken_back(gs_selector()))
			return REFUSED;
		if (gs_selector() != DATA_SELECTOR)
			return WRONG_SELECTOR;
		asm volatile("" : : : "memory");
		long word;
		asm volatile("mov %%gs:(%1), %0" : "=r"(word) : "r"(low));
		if (word != low[0])
			return WRONG_VALUE;
	}
	return RIGHT;
}

static bool stay_on(unsigned int cpu)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	return !sched_setaffinity(0, sizeof(one), &one);
}

static sigjmp_buf fault;

static void at_fault(int sig)
{
	(void)sig;
	siglongjmp(fault, 1);
}

/*
 * Whatever a program finds by a selector of all memory, it is not what another one on the
 * same processor has its base at. A call would repair it: be preempted without one.
 */
static int others_base(void)
{
	volatile int result = RIGHT;
	pid_t other;

	if (signal(SIGSEGV, at_fault) == SIG_ERR || !stay_on(sched_getcpu()))
		return WRONG_RESULT;
	other = forked();
	if (!other) {
		if (raw2(SYS_arch_prctl, ARCH_SET_GS, low))
			_exit(REFUSED);
		while (gs_word() == low[0])
			;
		_exit(WRONG_VALUE);
	}
	for (volatile int n = 0; n < ROUNDS && result == RIGHT; n++) {
		load_gs(DATA_SELECTOR);
		for (volatile long i = 0; i < BUSY; i++)
			;
		if (!sigsetjmp(fault, 1) && gs_word() == low[0])
			result = WRONG_BASE;
		if (!calls())
			result = WRONG_RESULT;
	}
	kill(other, SIGKILL);
	switch (reap(other)) {
	case 256 + SIGKILL: return result;
	case REFUSED: return REFUSED;
	}
	return CHILD_WRONG;
}

/* keeps checks that base is the one of %gs, also in a child. */
static int keeps(const long *base)
{
	unsigned long told;
	pid_t child;

	for (int n = 0; n < ROUNDS; n++) {
		if (gs_word() != *base)
			return WRONG_VALUE;
		if (!calls())
			return WRONG_RESULT;
		if (gs_word() != *base)
			return WRONG_VALUE;
		if (raw2(SYS_arch_prctl, ARCH_GET_GS, &told) || told != (unsigned long)base)
			return WRONG_BASE;
	}
	child = forked();
	if (!child) {
		pid = raw0(SYS_getpid);
		for (int n = 0; n < ROUNDS; n++)
			if (gs_word() != *base || !calls())
				_exit(1);
		_exit(0);
	}
	return reap(child) ? CHILD_WRONG : RIGHT;
}

static int set_base(const long *base)
{
	long r = raw2(SYS_arch_prctl, ARCH_SET_GS, base);

	if (r)
		return has_table() && calls() ? REFUSED : WRONG_RESULT;
	return keeps(base);
}

static int set_low(void) { return set_base(low); }
static int set_high(void) { return set_base(high); }
static int set_last(void) { return last ? set_base(last) : NOT_THERE; }

static int get_base(void)
{
	unsigned long told = 1;
	long r = raw2(SYS_arch_prctl, ARCH_GET_GS, &told);

	if (r)
		return has_table() ? REFUSED : WRONG_RESULT;
	return told ? WRONG_BASE : RIGHT;
}

/* The instruction: 0 if it must work, 1 if it may, 2 if the processor has none. */
static int fsgsbase(void)
{
	unsigned int a, b = 0, c, d;

	if (getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE)
		return 0;
	return __get_cpuid_count(7, 0, &a, &b, &c, &d) && b & 1 ? 1 : 2;
}

static int write_base(void)
{
	unsigned long told;

	asm volatile("wrgsbase %0" : : "r"(high));
	asm volatile("rdgsbase %0" : "=r"(told));
	if (told != (unsigned long)high)
		return WRONG_BASE;
	return keeps(high);
}

/* The local descriptor table. */

static long set_ldt(unsigned int base, bool present)
{
	struct user_desc d = {
		.base_addr = base, .limit = base ? 0xfffff : 0, .seg_32bit = present, .limit_in_pages = present,
		.read_exec_only = !present, .seg_not_present = !present, .useable = present,
	};

	return raw3(SYS_modify_ldt, 0x11, &d, sizeof(d));
}

static int ldt_gs(void)
{
	long r = set_ldt((unsigned long)low, true);

	if (r == -ENOSYS)
		return NOT_THERE;
	if (r)
		return has_table() ? REFUSED : WRONG_RESULT;
	load_gs(LDT_SELECTOR);
	for (int n = 0; n < ROUNDS; n++) {
		if (gs_selector() != LDT_SELECTOR)
			return taken_back(gs_selector()) && calls() ? REFUSED : WRONG_SELECTOR;
		if (gs_word() != low[0])
			return WRONG_VALUE;
		if (!calls())
			return WRONG_RESULT;
	}
	return RIGHT;
}

/* The entry goes while its selector is loaded, and may be reloaded any time. */
static int ldt_gone(void)
{
	int r = ldt_gs();

	if (r != RIGHT)
		return r;
	if (set_ldt(0, false))
		return WRONG_RESULT;
	for (int n = 0; n < ROUNDS; n++) {
		if (!calls())
			return WRONG_RESULT;
		if (gs_selector() && gs_selector() != LDT_SELECTOR)
			return WRONG_SELECTOR;
	}
	return RIGHT;
}

/* with_fs does without the C library: %fs is where it has its thread's data. */
static int with_fs(unsigned int selector)
{
	int result = RIGHT;
	long word;

	asm volatile("mov %0, %%fs" : : "r"(selector) : "memory");
	for (int n = 0; n < ROUNDS; n++) {
		unsigned int now;

		asm volatile("mov %%fs, %0" : "=r"(now));
		if (now != selector)
			result = WRONG_SELECTOR;
		asm volatile("mov %%fs:(%1), %0" : "=r"(word) : "r"(selector == LDT_SELECTOR ? NULL : low));
		if (word != low[0])
			result = WRONG_VALUE;
		if (!calls())
			result = WRONG_RESULT;
		if (result != RIGHT)
			break;
	}
	return result;
}

static int fs(void)
{
	unsigned long base;
	int result;
	long r = set_ldt((unsigned long)low, true);

	if (r && r != -ENOSYS)
		return WRONG_RESULT;
	if (raw2(SYS_arch_prctl, ARCH_GET_FS, &base))
		return WRONG_RESULT;
	result = with_fs(DATA_SELECTOR);
	if (result == RIGHT && !r)
		result = with_fs(LDT_SELECTOR);
	asm volatile("mov %0, %%fs" : : "r"(0) : "memory");
	if (raw2(SYS_arch_prctl, ARCH_SET_FS, base))
		raw1(SYS_exit_group, WRONG_BASE);
	if (result != RIGHT)
		return result;
	return r ? NOT_THERE : RIGHT;
}

/*
 * A signal that ends a call finds the program behind its site, whatever way the call
 * took into the kernel. No signal finds it in the kernel.
 */
static const struct site *volatile awaited;	/* until such a signal */
static volatile bool in_kernel;

static void interrupt(int sig, siginfo_t *info, void *context)
{
	greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;

	(void)sig;
	(void)info;
	if (r[REG_RIP] < 0)
		in_kernel = true;
	/* Signals come all the time, before and after the call, too. */
	if (awaited && r[REG_RIP] == (greg_t)awaited->after && r[REG_RAX] == -EINTR)
		awaited = NULL;
}

static int place(void)
{
	struct sigaction sa = { .sa_sigaction = interrupt, .sa_flags = SA_SIGINFO };
	struct itimerval t = { { 0, 3000 }, { 0, 3000 } };
	unsigned char *code = code_pages(PAGE);
	struct site reads[FORMS];
	int n = put_sites(code, reads, SYS_read), fd[2];
	char c;

	seal(code, PAGE);
	if (pipe(fd))
		fail("pipe");
	for (int i = 0; i < n; i++)
		heat(&reads[i]);
	if (raw2(SYS_arch_prctl, ARCH_SET_GS, high))
		return has_table() ? REFUSED : WRONG_RESULT;
	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &t, NULL);
	for (int i = 0; i < n; i++) {
		awaited = &reads[i];
		if (call3(&reads[i], fd[0], &c, 1) != -EINTR)
			return WRONG_RESULT;
		if (awaited || in_kernel)
			return WRONG_PLACE;
		if (gs_word() != *high)
			return WRONG_VALUE;
	}
	return RIGHT;
}

/* The entry of 32-bit programs, from 64-bit and from 32-bit code. */

static int int80(void)
{
	for (int n = 0; n < ROUNDS; n++) {
		long r;

		asm volatile("int $0x80" : "=a"(r) : "0"(20 /* getpid */) : "r8", "r9", "r10", "r11", "memory");
		if (r != pid || !calls())
			return WRONG_RESULT;
	}
	return RIGHT;
}

static int in_32_bits(void)
{
	/* in 32 bits: mov $20 (getpid), %eax; int $0x80; ljmp $0x33, $back */
	static const unsigned char code[] = {
		0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0xea, 0, 0, 0, 0, USER_CS, 0,
		/* back: mov %r8, %rsp; ret */
		0x4c, 0x89, 0xc4, 0xc3,
		/* enter: mov %rsp, %r8; mov %rsi, %rsp; push $0x23; push %rdi; lretq */
		0x49, 0x89, 0xe0, 0x48, 0x89, 0xf4, 0x6a, 0x23, 0x57, 0x48, 0xcb,
	};
	unsigned char *p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	unsigned int back = (unsigned long)p + 14;
	long (*enter)(void *, void *) = (void *)(p + 18);

	if (p == MAP_FAILED)
		return WRONG_RESULT;
	memcpy(p, code, sizeof(code));
	memcpy(p + 8, &back, 4);
	if (mprotect(p, PAGE, PROT_READ | PROT_EXEC))
		return WRONG_RESULT;
	for (int n = 0; n < ROUNDS; n++) {
		load_gs(n & 1 ? DATA_SELECTOR : 0);
		if (enter(p, p + 2 * PAGE) != pid || !calls())
			return WRONG_RESULT;
	}
	return RIGHT;
}

/* run is one case in a process of its own. */
static int run(int (*f)(void))
{
	pid_t child = forked();

	if (!child) {
		no_crash_reports();
		pid = raw0(SYS_getpid);
		_exit(f());
	}
	return reap(child);
}

/* Neighbours make calls all the time, on the same processors. */
static pid_t neighbour[NEIGHBOURS];
static volatile bool *leave;

static void start_neighbours(void)
{
	if (!leave)
		leave = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (leave == MAP_FAILED)
		fail("mmap");
	*leave = false;
	for (int i = 0; i < NEIGHBOURS; i++) {
		neighbour[i] = forked();
		if (neighbour[i])
			continue;
		pid = raw0(SYS_getpid);
		while (!*leave)
			if (!calls())
				_exit(1);
		_exit(0);
	}
}

static void end_neighbours(void)
{
	*leave = true;
	for (int i = 0; i < NEIGHBOURS; i++) {
		int status = reap(neighbour[i]);

		if (status)
			bad("a neighbour ended with %d", status);
	}
}

static const struct {
	const char *name;
	int (*run)(void);
} cases[] = {
	{ "null selector", null_selector }, { "data selector", data_selector },
	{ "base of another", others_base }, { "base below 4 GiB", set_low },
	{ "base above 4 GiB", set_high }, { "base in the last page", set_last },
	{ "base of nobody", get_base }, { "LDT, %gs", ldt_gs }, { "LDT, entry gone", ldt_gone },
	{ "place of a call", place }, { "%fs", fs }, { "null selector again", null_selector },
};

static void selectors(void)
{
	static bool told[ARRAY_SIZE(cases)];

	build();
	pid = getpid();
	calls();
	start_neighbours();
	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		int r = run(cases[i].run);

		if (r != RIGHT && r != REFUSED && r != NOT_THERE)
			bad("%s: status %d", cases[i].name, r);
		else if (r != RIGHT && !told[i])
			note("%s: %s", cases[i].name, r == REFUSED ? "refused" : "not there");
		told[i] |= r != RIGHT;
		if (!calls())
			bad("after %s: a wrong result", cases[i].name);
		ran(1);
	}
	end_neighbours();
}

static void instruction(void)
{
	int may, r;

	build();
	start_neighbours();
	may = fsgsbase();
	r = run(write_base);
	if (r != RIGHT && !(r == 256 + SIGILL && (may || has_table())))
		bad("wrgsbase: status %d, %s", r, may ? "needs not work" : "has to work");
	if (r == RIGHT && may == 2)
		bad("wrgsbase works without being there");
	ran(1);
	end_neighbours();
}

static void old_entry(void)
{
	static bool told;
	int r;

	build();
	start_neighbours();
	r = run(int80);
	if (r == 256 + SIGSEGV) {
		if (!told)
			note("no 32-bit programs");
		told = true;
	} else if (r != RIGHT) {
		bad("int $0x80: status %d", r);
	} else {
		r = run(in_32_bits);
		if (r != RIGHT)
			bad("32-bit code: status %d", r);
	}
	ran(1);
	end_neighbours();
}

/* The vDSO finds it in the limit of a selector, or asks the processor. */
static void cpu_number(void)
{
	cpu_set_t all;

	if (sched_getaffinity(0, sizeof(all), &all))
		fail("sched_getaffinity");
	for (unsigned int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		unsigned int is;

		if (!CPU_ISSET(cpu, &all))
			continue;
		if (!stay_on(cpu) || getcpu(&is, NULL))
			fail("a CPU of its own");
		if (is != cpu)
			bad("getcpu() on CPU %u: %u", cpu, is);
	}
	if (sched_setaffinity(0, sizeof(all), &all))
		fail("sched_setaffinity");
	ran(1);
}

const struct test tests[] = {
	{ "selectors and bases", selectors },
	{ "wrgsbase", instruction },
	{ "32-bit entry", old_entry },
	{ "number of the CPU", cpu_number },
	{ NULL, NULL },
};
