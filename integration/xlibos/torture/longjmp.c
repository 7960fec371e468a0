// SPDX-License-Identifier: GPL-2.0
/*
 * Signal handlers that do not return, or return somewhere else, from anywhere in or
 * around hot sites, on the ordinary and on an alternate stack.
 */
/* glibc's checked longjmp keeps something in the red zone across a system call. */
#define _FORTIFY_SOURCE 2
#include "torture.h"

#include <pthread.h>
#include <setjmp.h>

#define ROUND 0.4	/* seconds of one test */
#define ALTERNATE 65536

static struct site site[FORMS * 2];
static int n_sites;

static void build(void)
{
	unsigned char *code;

	if (n_sites)
		return;
	code = code_pages(PAGE);
	n_sites = put_sites(code, site, SYS_getpid);
	n_sites += put_sites(code + FORMS * MAX_SITE, site + n_sites, SYS_pread64);
	seal(code, PAGE);
}

static sigjmp_buf point;
static volatile long jumps, wrong_stack;
static volatile bool armed;
static char *alternate;

static bool on_alternate(void)
{
	char *here = __builtin_frame_address(0);

	return alternate && here >= alternate && here < alternate + ALTERNATE;
}

static void jump_out(ucontext_t *uc)
{
	(void)uc;
	wrong_stack += (alternate != NULL) != on_alternate();
	if (!armed)
		return;
	armed = false;
	siglongjmp(point, 1);
}

/* The state that the jumps must not disturb. */
static int disturbed(void)
{
	static volatile long n;
	volatile double end = now() + ROUND;

	/* The mask of signals is the one of here again after each jump. */
	if (sigsetjmp(point, 1))
		jumps++;
	while (now() < end) {
		armed = true;
		for (int i = 0; i < n_sites; i++, n++) {
			progress++;
			if (!site_works(&site[i]))
				return 1;
		}
	}
	armed = false;
	ran(n);
	n = 0;
	return 0;
}

static void jump(void)
{
	sigset_t mask;

	build();
	jumps = wrong_stack = 0;
	start_alarms(jump_out, alternate ? SA_ONSTACK : 0);
	disturbed();
	stop_alarms();
	sigprocmask(SIG_BLOCK, NULL, &mask);
	if (sigismember(&mask, SIGALRM))
		bad("the signal is blocked after jumps out of its handler");
	if (!jumps || wrong_stack)
		bad("%ld jumps, %ld handlers on the wrong stack", jumps, wrong_stack);
}

static void out_of_handlers(void)
{
	alternate = NULL;
	jump();
}

/* The thread's stack is below the alternate one, which is checked by longjmp. */
static void *off_another(void *memory)
{
	stack_t stack = { .ss_sp = memory, .ss_size = ALTERNATE }, old, seen;
	sigset_t set;

	alternate = memory;
	if (sigaltstack(&stack, &old))
		fail("sigaltstack");
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	jump();
	if (sigaltstack(&old, &seen))
		fail("sigaltstack");
	if (seen.ss_sp != alternate || seen.ss_flags || seen.ss_size != ALTERNATE)
		bad("sigaltstack: %p %#x, want %p 0", seen.ss_sp, seen.ss_flags, (void *)alternate);
	alternate = NULL;
	return NULL;
}

/* On a second stack, which sigaltstack(2) has to know as free after each jump. */
static void off_another_stack(void)
{
	char memory[ALTERNATE] __attribute__((aligned(16)));
	sigset_t set, old;
	pthread_t t;

	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	if (pthread_create(&t, NULL, off_another, memory))
		fail("pthread_create");
	pthread_join(t, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* A handler that changes registers, and where it returns to. */

enum { RBX = 0xb1, R12 = 0xc2, R15 = 0xf3, CHANGED = 0x7000 };
static volatile bool move;
static volatile greg_t outer_sp; /* without what a site has on the stack */
extern const char moved_here[];

static void change(int sig, siginfo_t *info, void *context)
{
	greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;

	(void)sig;
	(void)info;
	if (r[REG_RBX] != RBX || r[REG_R12] != R12 || r[REG_R15] != R15)
		bad("a handler sees rbx %llx, r12 %llx, r15 %llx", r[REG_RBX], r[REG_R12], r[REG_R15]);
	r[REG_RBX] += CHANGED;
	r[REG_R12] += CHANGED;
	r[REG_R15] += CHANGED;
	r[REG_RAX] = 4711;
	r[REG_RCX] = 0x1111; /* unlike ip and flags: no quick way back */
	r[REG_R11] = 0x2222;
	if (move) {
		r[REG_RIP] = (greg_t)moved_here;
		r[REG_RSP] = outer_sp;
	}
}

/* signal_self sends a signal by a site; the handler's changes must all be there. */
__attribute__((noinline, noclone)) static void signal_self(const struct site *s)
{
	register long r12 asm("r12") = R12, r15 asm("r15") = R15, moved asm("r14") = 0;
	register void *call asm("r13") = (void *)s->call;
	long ax, bx = RBX, cx, r11, pid = getpid(), sig = SIGUSR1;

	asm volatile("sub $128, %%rsp\n\t"
		     "mov %%rsp, %[sp]\n\t"
		     "call *%[call]\n\t"
		     "jmp 1f\n"
		     "moved_here:\n\t"
		     "mov $1, %%r14d\n"
		     "1:\n\t"
		     "mov %%r11, %[r11]\n\t"
		     "add $128, %%rsp"
		     : "=a"(ax), "+b"(bx), "=c"(cx), "+r"(r12), "+r"(r15), "+r"(moved), "+D"(pid), "+S"(sig),
		       [r11] "=&d"(r11), [sp] "=m"(outer_sp)
		     : [call] "r"(call)
		     : "r8", "r9", "r10", "r11", "memory", "cc");
	if (ax != 4711 || bx != RBX + CHANGED || r12 != R12 + CHANGED || r15 != R15 + CHANGED || cx != 0x1111 ||
	    r11 != 0x2222 || moved != move)
		bad("%s: after a handler's changes rax %ld, rbx %lx, rcx %lx, r11 %lx, r12 %lx, r15 %lx, moved %ld",
		    form_name[s->form], ax, bx, cx, r11, r12, r15, moved);
	ran(1);
}

static void changes(void)
{
	struct sigaction sa = { .sa_sigaction = change, .sa_flags = SA_SIGINFO };
	static struct site kills[FORMS];
	static int n;

	if (!n) {
		unsigned char *code = code_pages(PAGE);

		n = put_sites(code, kills, SYS_kill);
		seal(code, PAGE);
	}
	sigaction(SIGUSR1, &sa, NULL);
	for (int i = 0; i < n; i++) {
		heat(&kills[i]);
		for (int k = 0; k < 20; k++) {
			move = k & 1;
			signal_self(&kills[i]);
		}
	}
	move = false;
}

/* Contexts that are switched by ucontext(3), which makes calls of its own. */

static ucontext_t mine, others;
static volatile long switches;

static void other_side(void)
{
	for (;;) {
		for (int i = 0; i < n_sites; i++)
			site_works(&site[i]);
		switches++;
		progress++;
		swapcontext(&others, &mine);
	}
}

static void contexts(void)
{
	static char stack[ALTERNATE];
	double end = now() + ROUND;

	build();
	getcontext(&others);
	others.uc_stack.ss_sp = stack;
	others.uc_stack.ss_size = sizeof(stack);
	makecontext(&others, other_side, 0);
	switches = 0;
	start_alarms(NULL, 0);
	do {
		long before = switches;

		swapcontext(&mine, &others);
		if (switches != before + 1)
			bad("%ld switches instead of one", switches - before);
	} while (now() < end);
	stop_alarms();
	ran(switches);
}

/* A handler inside of another's call. */
static void inner(int sig)
{
	(void)sig;
	for (int i = 0; i < n_sites; i++)
		site_works(&site[i]);
}

static void outer(int sig)
{
	(void)sig;
	for (int i = 0; i < 3; i++)
		raise(SIGUSR2);
}

static void nested(void)
{
	struct sigaction sa = { .sa_handler = outer, .sa_flags = SA_NODEFER };
	double end = now() + ROUND;
	long n = 0;

	build();
	sigaction(SIGUSR1, &sa, NULL);
	sa.sa_handler = inner;
	sigaction(SIGUSR2, &sa, NULL);
	start_alarms(NULL, 0);
	do {
		raise(SIGUSR1);
		progress++;
		n++;
	} while (now() < end);
	stop_alarms();
	ran(n);
}

const struct test tests[] = {
	{ "jumps out of handlers", out_of_handlers },
	{ "jumps off another stack", off_another_stack },
	{ "changed registers", changes },
	{ "contexts", contexts },
	{ "nested", nested },
	{ NULL, NULL },
};
