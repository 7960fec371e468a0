// SPDX-License-Identifier: GPL-2.0
/*
 * The syscall instruction does not need a stack. Programs make calls without one
 * when they end a thread and have just unmapped its stack, for example.
 */
#include "torture.h"

#include <sched.h>

/* A function that makes a call with its first argument as the stack pointer. */
struct at {
	long (*run)(unsigned long sp);
	enum form form;
};
static struct at at[FORMS];
static int n_at;
static unsigned char *at_code;

/* A call needs a stack. Who writes one for a syscall has to see to that. */
static bool stackless(enum form form, int nr)
{
	return form != FORM_CALL && usable(form, nr);
}

/* The form needs a word above the stack pointer. */
static bool needs_memory(enum form form)
{
	return form == FORM_STACK || form == FORM_CANCEL;
}

/* Anew each time: a site that was without a stack once is not rewritten again. */
static void build(void)
{
	unsigned char *p;

	if (n_at)
		munmap(at_code, PAGE);
	n_at = 0;
	at_code = p = code_pages(PAGE);
	for (int form = 0; form < FORMS; form++) {
		if (!stackless(form, SYS_getpid))
			continue;
		at[n_at++] = (struct at){ (void *)p, form };
		BYTES(0x49, 0x89, 0xe0);		/* mov %rsp, %r8 */
		BYTES(0xb8, SYS_getpid, 0, 0, 0);
		BYTES(0x48, 0x89, 0xfc);		/* mov %rdi, %rsp */
		BYTES(0x90, 0x90, 0x90, 0x90);
		p = put_form(p, form, SYS_getpid, form == FORM_MOV ? MOVE : 8);
		BYTES(0x4c, 0x89, 0xc4);		/* mov %r8, %rsp */
		BYTES(0xc3);
	}
	seal(at_code, PAGE);
}

/* try makes all forms' calls at sp, if they can be made there. */
static void try(const char *what, unsigned long sp, bool memory)
{
	long pid = getpid();

	build();
	for (int i = 0; i < n_at; i++) {
		if (needs_memory(at[i].form) && !memory)
			continue;
		for (int n = 0; n < 2 * HOT; n++) {
			/* What is in the stack must be left alone, but for what is below. */
			if (at[i].form == FORM_STACK)
				memcpy((char *)sp + 8, &(long){ SYS_getpid }, 8);
			long r = at[i].run(sp);
			if (r != pid) {
				bad("%s: stack %s: result %ld, want %ld", form_name[at[i].form], what, r, pid);
				return;
			}
		}
		ran(2 * HOT);
	}
}

static unsigned char *map(unsigned long size, int protection)
{
	void *p = mmap(NULL, size, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		fail("mmap");
	return p;
}

static void places(void)
{
	unsigned char *area, *stack;

	area = map(3 * PAGE, PROT_NONE);
	stack = area + PAGE;
	if (mprotect(stack, PAGE, PROT_READ | PROT_WRITE))
		fail("mprotect");
	try("in the middle of a page", (unsigned long)stack + 2048, true);
	for (int n = 1; n < 8; n++)
		try("not aligned", (unsigned long)stack + 2048 + n, true);
	try("with one word", (unsigned long)stack + 8, true);
	try("without a word", (unsigned long)stack, true);
	try("across its beginning", (unsigned long)stack + 4, true);
	try("at the end", (unsigned long)stack + PAGE, false);
	try("of no access", (unsigned long)stack + PAGE + 2048, false);
	try("of nothing", 0, false);
	try("in the first page", 0x800, false);
	try("at the end of programs' memory", 0x7ffffffff000, false);
	try("that is no address", 0x0000900000000000, false);
	try("that is no address, not aligned", 0x7fffffffffffffff, false);
	try("that is no address of the kernel's", 0xffff000000000800, false);
	try("at the end of all addresses", -64, false);
	if (mprotect(stack, PAGE, PROT_READ))
		fail("mprotect");
	try("that is only read", (unsigned long)stack + 2048, false);
	munmap(stack, PAGE);
	try("unmapped", (unsigned long)stack + 2048, false);
	munmap(area, PAGE);
	munmap(stack + PAGE, PAGE);
}

/* Calls after which there is no stack, and which return. */

/* take makes a call on a stack that is its first argument. */
typedef long take(unsigned long sp, unsigned long a, unsigned long b, unsigned long c, unsigned long d, unsigned long e);

static unsigned char *put_take(unsigned char *p, enum form form, int nr)
{
	BYTES(0x53);				/* push %rbx */
	BYTES(0x48, 0x89, 0xe3);		/* mov %rsp, %rbx */
	BYTES(0xb8);
	memcpy(p, &nr, 4);
	p += 4;
	BYTES(0x48, 0x89, 0xfc);		/* mov %rdi, %rsp */
	BYTES(0x48, 0x89, 0xf7);		/* mov %rsi, %rdi */
	BYTES(0x48, 0x89, 0xd6);		/* mov %rdx, %rsi */
	BYTES(0x48, 0x89, 0xca);		/* mov %rcx, %rdx */
	BYTES(0x4c, 0x89, 0xc1);		/* mov %r8, %rcx */
	BYTES(0x49, 0x89, 0xca);		/* mov %rcx, %r10 */
	BYTES(0x4d, 0x89, 0xc8);		/* mov %r9, %r8 */
	BYTES(0x45, 0x31, 0xc9);		/* xor %r9d, %r9d */
	p = put_form(p, form, nr, MOVE);
	BYTES(0x48, 0x89, 0xdc);		/* mov %rbx, %rsp */
	BYTES(0x5b, 0xc3);			/* pop %rbx; ret */
	return p;
}

static const struct {
	int nr;
	unsigned long args[5];	/* with STACK and OTHER for addresses */
	unsigned long result;
} takes[] = {
#define STACK (-1UL)
#define OTHER (-2UL)
	{ SYS_mprotect, { STACK, PAGE, PROT_NONE, 0, 0 }, 0 },
	{ SYS_mprotect, { STACK, PAGE, PROT_READ, 0, 0 }, 0 },
	{ SYS_mmap, { STACK, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, 0xffffffff }, STACK },
	{ SYS_mremap, { STACK, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, OTHER }, OTHER },
	{ SYS_munmap, { STACK, PAGE, 0, 0, 0 }, 0 },
};

static unsigned long address(unsigned long what, unsigned char *stack)
{
	return what == STACK ? (unsigned long)stack : what == OTHER ? (unsigned long)stack + PAGE : what;
}

static void taken(void)
{
	unsigned char *code = code_pages(PAGE), *p = code;
	take *f[ARRAY_SIZE(takes)][FORMS] = { 0 };

	for (unsigned int i = 0; i < ARRAY_SIZE(takes); i++)
		for (int form = 0; form < FORMS; form++)
			if (stackless(form, takes[i].nr) && !needs_memory(form)) {
				f[i][form] = (take *)p;
				p = put_take(p, form, takes[i].nr);
			}
	seal(code, PAGE);
	for (unsigned int i = 0; i < ARRAY_SIZE(takes); i++)
		for (int form = 0; form < FORMS; form++) {
			unsigned long a[5], r, want;
			unsigned char *stack;

			if (!f[i][form])
				continue;
			stack = map(2 * PAGE, PROT_READ | PROT_WRITE);
			want = address(takes[i].result, stack);
			for (int n = 0; n < 5; n++)
				a[n] = address(takes[i].args[n], stack);
			for (int n = 0; n < HOT; n++) /* addresses that are none */
				f[i][form]((unsigned long)stack + PAGE, 1, 0, 0, MAP_FIXED, 0);
			r = f[i][form]((unsigned long)stack + PAGE / 2, a[0], a[1], a[2], a[3], a[4]);
			if (r != want)
				bad("%s; syscall %d of one's own stack: result %#lx, want %#lx", form_name[form],
				    takes[i].nr, r, want);
			munmap(stack, 2 * PAGE);
			ran(1);
		}
	munmap(code, PAGE);
}

/* A task that unmaps its stack and ends, as the C library's threads do. */

#define STACK_SIZE (4 * PAGE)
#define TASKS 50

static void *ender[FORMS];

/* put_ender: rdi and rsi are the stack; the result of munmap is the exit code. */
static unsigned char *put_ender(unsigned char *p, enum form form)
{
	BYTES(0xb8, SYS_munmap, 0, 0, 0);
	p = put_form(p, form, SYS_munmap, MOVE);
	BYTES(0x89, 0xc7);		/* mov %eax, %edi */
	BYTES(0xb8, SYS_exit, 0, 0, 0);
	p = put_form(p, form, SYS_exit, MOVE);
	BYTES(0x0f, 0x0b);		/* ud2 */
	return p;
}

/* start has a task execute code on a stack of its own, in this memory. */
static pid_t start(const void *code, unsigned char *stack)
{
	register const void *r12 asm("r12") = code;
	register unsigned char *r13 asm("r13") = stack;
	long pid;

	asm volatile("nopl (%%rax)\n\t"
		     "syscall\n\t"
		     "test %%eax, %%eax\n\t"
		     "jnz 1f\n\t"
		     "mov %%r13, %%rdi\n\t"
		     "mov %[size], %%esi\n\t"
		     "jmp *%%r12\n"
		     "1:"
		     : "=a"(pid)
		     : "0"((long)SYS_clone), "D"((long)(CLONE_VM | CLONE_FS | CLONE_FILES | SIGCHLD)),
		       "S"(stack + STACK_SIZE), "d"(0L), "r"(r12), "r"(r13), [size] "i"(STACK_SIZE)
		     : "rcx", "r8", "r10", "r11", "memory", "cc");
	return pid;
}

static void endings(void)
{
	if (!ender[FORM_ABS]) {
		unsigned char *code = code_pages(PAGE), *p = code;

		for (int form = 0; form < FORMS; form++) {
			if (needs_memory(form) || !stackless(form, SYS_munmap))
				continue;
			ender[form] = p;
			p = put_ender(p, form);
		}
		seal(code, PAGE);
	}
	for (int form = 0; form < FORMS; form++) {
		if (!ender[form])
			continue;
		for (int n = 0; n < TASKS; n++) {
			pid_t pid = start(ender[form], map(STACK_SIZE, PROT_READ | PROT_WRITE));
			int status;

			if (pid < 0)
				fail("clone");
			status = reap(pid);
			if (status) {
				bad("%s: a task that unmaps its stack ended with %d", form_name[form], status);
				return;
			}
		}
		ran(TASKS);
	}
}

/*
 * Tasks that do so at the same time, at a site that other calls have made hot. Those
 * wait for the word at r8; the entry that makes the site hot returns.
 */
#define TOGETHER 3

static volatile int go;

static unsigned char *put_joint_ender(unsigned char *p, enum form form, unsigned char **task)
{
	const volatile int *word = &go;
	unsigned char *site;

	BYTES(0x45, 0x31, 0xc9);		/* xor %r9d, %r9d */
	BYTES(0xb8, SYS_munmap, 0, 0, 0);
	site = p;
	p = put_form(p, form, SYS_munmap, MOVE);
	BYTES(0x45, 0x85, 0xc9);		/* test %r9d, %r9d */
	BYTES(0x75, 1);				/* jnz over the return */
	BYTES(0xc3);
	BYTES(0x89, 0xc7);			/* mov %eax, %edi */
	BYTES(0xb8, SYS_exit, 0, 0, 0);
	if (form == FORM_MOV) {
		BYTES(0xeb, 0);			/* jmp to the site */
		p[-1] = site - p;
	} else {
		p = put_form(p, FORM_BARE, SYS_exit, 0);
	}
	*task = p;
	BYTES(0x49, 0xb8);			/* mov $word, %r8 */
	memcpy(p, &word, 8);
	p += 8;
	BYTES(0xf3, 0x90);			/* pause */
	BYTES(0x41, 0x83, 0x38, 0);		/* cmpl $0, (%r8) */
	BYTES(0x74, 0xf8);			/* jz to the pause */
	BYTES(0xb8, SYS_munmap, 0, 0, 0);
	BYTES(0x41, 0xb9, 1, 0, 0, 0);		/* mov $1, %r9d */
	BYTES(0xe9, 0, 0, 0, 0);		/* jmp to the site */
	memcpy(p - 4, &(int){ site - p }, 4);
	return p;
}

static void together(enum form form)
{
	unsigned char *code = code_pages(PAGE), *task;
	long (*heat)(long, long) = (void *)code;
	pid_t pid[TOGETHER];

	put_joint_ender(code, form, &task);
	seal(code, PAGE);
	for (int n = 0; n < HOT; n++)
		if (heat(1, 0) != -EINVAL)
			bad("munmap of nothing: no error");
	go = 0;
	for (int i = 0; i < TOGETHER; i++) {
		pid[i] = start(task, map(STACK_SIZE, PROT_READ | PROT_WRITE));
		if (pid[i] < 0)
			fail("clone");
	}
	go = 1;
	for (int i = 0; i < TOGETHER; i++) {
		int status = reap(pid[i]);

		if (status)
			bad("one of %d tasks that unmap their stacks ended with %d", TOGETHER, status);
	}
	if (heat(1, 0) != -EINVAL)
		bad("munmap of nothing: no error after that");
	munmap(code, PAGE);
	ran(TOGETHER);
}

static void all_together(void)
{
	for (int n = 0; n < TASKS; n++)
		together(n & 1 ? FORM_MOV : FORM_NOP);
}

const struct test tests[] = {
	{ "places", places },
	{ "taken away", taken },
	{ "endings", endings },
	{ "endings at once", all_together },
	{ NULL, NULL },
};
