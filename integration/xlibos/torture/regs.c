// SPDX-License-Identifier: GPL-2.0
/*
 * Registers, flags and the stack survive system calls of all forms, while signals
 * hit them anywhere.
 */
#include "torture.h"

#include <pthread.h>

#define WORDS 16	/* of the stack that are looked at */
#define ROUND 0.3	/* seconds of one test */

/* Offsets of this are in enter(). */
struct state {
	unsigned long r[16]; /* as the processor numbers them */
	unsigned long flags;
	unsigned long stack[WORDS]; /* from 8(%rsp) on, as seen by the code */
};
enum { RAX, RCX, RSP = 4, RDI = 7, R11 = 11 };
static const char *const reg_name[16] = {
	"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
	"r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
};

#define CF_TO_OF 0x8d5ul /* the arithmetic flags */
#define DF 0x400ul
#define NT 0x4000ul
#define AC 0x40000ul

/* enter calls code with the registers of in, and stores what they are then. */
void enter(const struct state *in, struct state *out, const void *code);
asm(".pushsection .text\n"
    ".globl enter\n"
    ".type enter, @function\n"
    "enter:\n"
    "	push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
    /* 128 bytes of stack, 128 of registers, flags, out, code */
    "	sub $288, %rsp\n"
    "	mov %rsi, 264(%rsp)\n"
    "	mov %rdx, 272(%rsp)\n"
    "	i = 0\n"
    "	.rept 16\n"
    "	mov 136 + 8 * i(%rdi), %rax\n"
    "	mov %rax, 8 * i(%rsp)\n"
    "	i = i + 1\n"
    "	.endr\n"
    "	pushq 128(%rdi)\n"
    "	popfq\n"
    "	i = 0\n"
    "	.irp reg, rax, rcx, rdx, rbx, none, rbp, rsi, none, r8, r9, r10, r11, r12, r13, r14, r15\n"
    "	.ifnc \\reg, none\n"
    "	mov 8 * i(%rdi), %\\reg\n"
    "	.endif\n"
    "	i = i + 1\n"
    "	.endr\n"
    "	mov 56(%rdi), %rdi\n"
    "	call *272(%rsp)\n"
    "	i = 0\n"
    "	.irp reg, rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15\n"
    "	mov %\\reg, 128 + 8 * i(%rsp)\n"
    "	i = i + 1\n"
    "	.endr\n"
    "	pushfq\n"
    "	popq 256(%rsp)\n"
    "	pushq $0x202\n"
    "	popfq\n"
    "	mov 264(%rsp), %rdi\n"
    "	i = 0\n"
    "	.rept 17\n"
    "	mov 128 + 8 * i(%rsp), %rax\n"
    "	mov %rax, 8 * i(%rdi)\n"
    "	i = i + 1\n"
    "	.endr\n"
    "	i = 0\n"
    "	.rept 16\n"
    "	mov 8 * i(%rsp), %rax\n"
    "	mov %rax, 136 + 8 * i(%rdi)\n"
    "	i = i + 1\n"
    "	.endr\n"
    "	add $288, %rsp\n"
    "	pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
    "	ret\n"
    ".size enter, .-enter\n"
    ".popsection\n");

/* A form with nothing around it. */
struct bare {
	enum form form;
	int nr, detail;
	const void *code;
};
#define MAX_BARES 400
struct set {
	struct bare bare[MAX_BARES];
	int n;
	unsigned char *pages;
};
#define SET_SIZE (4 * PAGE)

/* Numbers that are no calls have entries, too, up to 479. */
static const int numbers[] = { SYS_getpid, SYS_getuid, 479, 480, 481, 600, 0x7fffffff, -1, -2 };

static void add(struct set *s, unsigned char **p, enum form form, int nr, int detail)
{
	struct bare *b = &s->bare[s->n++];

	if (s->n > MAX_BARES)
		abort();
	*b = (struct bare){ form, nr, detail, *p };
	if (form == FORM_JE)
		*p = (unsigned char *)memcpy(*p, "\x48\x85\xe4", 3) + 3; /* test %rsp, %rsp */
	*p = put_form(*p, form, nr, detail);
	*(*p)++ = 0xc3;
	*p += s->n % 5; /* other alignments */
}

static void fill(struct set *s)
{
	unsigned char *p = s->pages = code_pages(SET_SIZE);

	s->n = 0;
	for (unsigned int i = 0; i < ARRAY_SIZE(numbers); i++)
		for (int form = 0; form < FORMS; form++)
			if (form != FORM_MOV && form != FORM_STACK && usable(form, numbers[i]))
				add(s, &p, form, numbers[i], 0);
	add(s, &p, FORM_JE, SYS_read, 0);
	for (int i = 0; i < WORDS && 8 + 8 * i < 128; i++)
		add(s, &p, FORM_STACK, SYS_getpid, 8 + 8 * i);
	for (int src = 0; src < 16; src++)
		for (int dst = 0; dst < 16; dst++)
			if (dst != RSP && (src != RSP || dst != RAX))
				add(s, &p, FORM_MOV, SYS_getpid, src | dst << 4);
	if (p > s->pages + SET_SIZE)
		abort();
	seal(s->pages, SET_SIZE);
}

static long result(const struct bare *b)
{
	static long pid, uid;

	if (!pid) {
		uid = raw0(SYS_getuid);
		pid = raw0(SYS_getpid);
	}
	switch (b->nr) {
	case SYS_getpid:
		return pid;
	case SYS_getuid:
		return uid;
	case SYS_read:
		return -EBADF;
	default:
		return -ENOSYS;
	}
}

static void prepare(const struct bare *b, struct state *in, unsigned long flags, unsigned long *seed)
{
	for (int i = 0; i < 16; i++)
		in->r[i] = draw(seed);
	for (int i = 0; i < WORDS; i++)
		in->stack[i] = draw(seed);
	in->flags = 0x202 | (draw(seed) & CF_TO_OF) | flags;
	/* Linux takes the lower half of the number only. */
	unsigned long number = (draw(seed) & 1 ? draw(seed) << 32 : 0) | (unsigned int)b->nr;
	switch (b->form) {
	case FORM_MOV:
		in->r[b->detail >> 4 == RAX ? b->detail & 15 : RAX] = number;
		break;
	case FORM_CANCEL:
	case FORM_BARE:
		in->r[RAX] = number;
		break;
	case FORM_STACK:
		in->stack[b->detail / 8 - 1] = number;
		break;
	case FORM_JE:
		in->r[RDI] = -1;
		break;
	default:
		break;
	}
}

static bool once(const struct bare *b, unsigned long flags, unsigned long *seed)
{
	unsigned long kept = DF | NT | AC | CF_TO_OF;
	struct state in, out, want;
	bool good = true;

	prepare(b, &in, flags, seed);
	enter(&in, &out, b->code);
	want = in;
	want.r[RSP] = out.r[RSP]; /* without which enter() could not return */
	if (b->form == FORM_MOV) {
		int src = b->detail & 15;

		want.r[b->detail >> 4] = src == RSP ? out.r[RSP] - 8 : in.r[src];
	} else if (b->form == FORM_CANCEL) {
		want.stack[0] = in.r[R11];
	}
	want.r[RAX] = result(b);
	/* A call does not keep them; they are not needed behind it, see edges.c. */
	if (b->form == FORM_JE || b->form == FORM_CALL || rewriting())
		kept &= ~CF_TO_OF;
	for (int i = 0; i < 16; i++)
		if (out.r[i] != want.r[i] && i != RCX && i != R11) {
			bad("%s %#x; syscall %d: %s is %#lx, want %#lx", form_name[b->form], b->detail, b->nr,
			    reg_name[i], out.r[i], want.r[i]);
			good = false;
		}
	if ((out.flags & kept) != (in.flags & kept)) {
		bad("%s %#x; syscall %d: flags %#lx became %#lx", form_name[b->form], b->detail, b->nr, in.flags, out.flags);
		good = false;
	}
	for (int i = 0; i < WORDS; i++)
		if (out.stack[i] != want.stack[i]) {
			bad("%s %#x; syscall %d: the word at %d(%%rsp) is %#lx, want %#lx", form_name[b->form], b->detail,
			    b->nr, 8 + 8 * i, out.stack[i], want.stack[i]);
			good = false;
		}
	progress++;
	return good;
}

static struct set hot;
static unsigned long flags_now;

static void *loop(void *arg)
{
	unsigned long seed = 0x9e3779b97f4a7c15ul * (1 + (long)arg) + alarms;
	double end = now() + ROUND;
	long n = 0;

	do {
		for (int i = 0; i < 100; i++, n++)
			if (!once(&hot.bare[draw(&seed) % hot.n], flags_now, &seed))
				return NULL;
	} while (now() < end);
	ran(n);
	return NULL;
}

static void threads(int count)
{
	pthread_t t[8];
	long before = alarms;

	if (!hot.n)
		fill(&hot);
	start_alarms(NULL, 0);
	for (long i = 1; i < count; i++)
		if (pthread_create(&t[i], NULL, loop, (void *)i))
			fail("pthread_create");
	loop(0);
	for (int i = 1; i < count; i++)
		pthread_join(t[i], NULL);
	stop_alarms();
	if (alarms == before)
		bad("there were no signals");
}

static void one_thread(void) { threads(1); }
static void three_threads(void) { threads(3); }

/* Every site in turn while it is new. */
static void new_sites(void)
{
	static unsigned long seed = 1;
	struct set s;

	fill(&s);
	start_alarms(NULL, 0);
	for (int i = 0; i < s.n; i++)
		for (int n = 0; n < HOT; n++)
			if (!once(&s.bare[i], 0, &seed))
				goto out;
	ran(s.n * HOT);
out:
	stop_alarms();
	munmap(s.pages, SET_SIZE);
}

/* Flags that the kernel must not run with, and has to give back. */
static void odd_flags(void)
{
	static const unsigned long odd[] = { DF, NT, AC, DF | AC, DF | NT | AC };

	for (unsigned int i = 0; i < ARRAY_SIZE(odd); i++) {
		flags_now = odd[i];
		threads(1 + i % 2);
	}
	flags_now = 0;
}

const struct test tests[] = {
	{ "one thread", one_thread },
	{ "three threads", three_threads },
	{ "new sites", new_sites },
	{ "odd flags", odd_flags },
	{ NULL, NULL },
};
